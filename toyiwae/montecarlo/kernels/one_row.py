"""Gradients of one row's estimators from sums of powers of the weights: linear, so all of them are a few products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from toyiwae.montecarlo.formed import Called, Terms
from toyiwae.montecarlo.kernels.lanes.matrices import (
    add_between,
    add_product,
    keep_lower,
    put_outer,
    put_zeros,
)
from toyiwae.montecarlo.kernels.lanes.simd import helper, kernel
from toyiwae.montecarlo.whitened import SECOND_ORDER, Whitened

_TOGETHER = 16  # columns whose sums are formed together


@kernel
def map_first(first, matrix, out):
    """`out = first @ matrix` of `[R, F]` and `[F, columns]`: the same numbers of a replicate, whatever R."""
    out[:] = 0.0
    add_product(first, matrix, out)


@kernel
def add_products(second, scale, shift, sides, lines, lower, diagonal, out):
    """Of every replicate `left (Σ_p diag(scale_p) S_p − shift I) right + at ⊗ v + w ⊗ by`.

    Args:
        second: S, symmetric `[R, P, at least D, at least D]`.
        scale: `[P, D]`.
        shift: `[R]`.
        sides: left `[A, D]` and right `[D, D]`.
        lines: at `[A]`, v `[R, D]`, w `[R, A]`, by `[D]`.
        lower: whether only the lower triangle is wanted, with zeros above.
        diagonal: whether left and right are square and diagonal.
        out: takes them `[R, A, D]`.
    """
    left, right = sides
    scratch = np.empty(right.shape), np.empty(out.shape[1:]), np.ones(len(right))
    if diagonal:
        outer, others = np.diag(left).copy(), np.diag(right).copy()
        _add_diagonal(second, scale * outer, shift, outer, others, lines, out)
    else:
        _add_general(second, scale, shift, sides, lines, scratch, out)
    if lower:
        _keep_lower(out)


@helper()
def _keep_lower(out):
    """Of every replicate."""
    for r in range(len(out)):
        keep_lower(out[r])


@helper()
def _add_diagonal(second, scaled, shift, outer, others, lines, out):
    """Where both sides are diagonal."""
    at, v, w, by = lines
    for r in range(len(out)):
        own = out[r]
        put_outer(at, v[r], w[r], by, own)
        for p in range(len(scaled)):
            add_between(scaled[p], second[r, p], others, own)
        for i in range(len(outer)):
            own[i, i] -= outer[i] * others[i] * shift[r]


@helper()
def _add_general(second, scale, shift, sides, lines, scratch, out):
    """Of any sides."""
    left, right = sides
    at, v, w, by = lines
    inner, half, ones = scratch
    for r in range(len(out)):
        put_outer(at, v[r], w[r], by, out[r])
        put_zeros(inner)
        put_zeros(half)
        for p in range(len(scale)):
            add_between(scale[p], second[r, p], ones, inner)
        for i in range(len(inner)):
            inner[i, i] -= shift[r]
        add_product(left, inner, half)
        add_product(half, right, out[r])


class OneRow:
    """The gradients of estimators with a Form, or of one that is called, for a problem of one row.

    Args:
        whitened: the problem.
        terms: the estimators' powers, or coefficients.
        estimators: their names.
        parameters: whose gradients.
    """

    def __init__(
        self,
        whitened: Whitened,
        terms: Terms | Called,
        estimators: Sequence[str],
        parameters: Sequence[str],
    ):
        """Puts all that is linear in sums of first order into one matrix `[P·(1 + D), columns]`."""
        self._parts = whitened.of_one_row()
        self._columns: list[np.ndarray] = []
        dim, powers = self._parts.root.shape[0], len(terms.powers)
        units = np.eye(powers * (1 + dim)).reshape(-1, 1, powers, 1 + dim)
        self._first: dict[str, dict[str, tuple[slice, tuple[int, ...]]]] = {}
        self._second: dict[str, dict[str, _Product]] = {}
        for index, (estimator, sums) in enumerate(zip(estimators, terms.sums(units, None), strict=True)):
            found = {
                name: whitened.gradient(name, sums, slice(0, 1))
                for name in parameters
                if name not in SECOND_ORDER
            }
            self._first[estimator] = {name: (self._add(unit), unit.shape[1:]) for name, unit in found.items()}
            factors = {name: terms.factors(index, name) for name in ("model", "path", "score")}
            self._second[estimator] = {
                name: _PRODUCTS[name](self, factors) for name in parameters if name in SECOND_ORDER
            }
        matrix = np.concatenate(self._columns, axis=1)
        self._matrix = np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % _TOGETHER)))

    def begin(self, count: int) -> Begun:
        """Room for the gradients of some replicates, none of which is there yet."""
        products = {
            estimator: {name: np.empty((count, *product.shape)) for name, product in own.items()}
            for estimator, own in self._second.items()
        }
        return Begun(np.empty((count, self._matrix.shape[1])), products)

    def take_in(self, begun: Begun, start: int, first: np.ndarray, second: np.ndarray | None) -> None:
        """Forms the gradients of replicates from `start` on.

        Args:
            begun: where to.
            start: the first replicate's place there.
            first: Σ c and Σ c η of the powers `[R, 1, P, 1 + D]`.
            second: Σ c ηηᵀ of the powers `[R, 1, P, D4, D4]`, if any is needed.
        """
        here = slice(start, start + len(first))
        moved = begun.moved[here]
        map_first(first.reshape(len(first), -1), self._matrix, moved)
        for estimator, products in self._second.items():
            for name, product in products.items():
                assert second is not None
                product(second[:, 0], moved, begun.products[estimator][name][here])

    def gradients(self, begun: Begun) -> dict[str, dict[str, np.ndarray]]:
        """Of every estimator by every parameter, once all replicates are there."""
        return {
            estimator: {
                name: begun.moved[:, where].reshape(-1, *shape) for name, (where, shape) in own.items()
            }
            | begun.products[estimator]
            for estimator, own in self._first.items()
        }

    def _add(self, columns: np.ndarray) -> slice:
        """Adds columns to the matrix; where they stand."""
        first = sum(part.shape[1] for part in self._columns)
        self._columns.append(columns.reshape(len(columns), -1))
        return slice(first, first + self._columns[-1].shape[1])

    def _sums(self, factors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Columns of Σ c `[U, 1]` and Σ c η `[U, D]` of a coefficient with factors `[P]` of the powers."""
        unit = np.kron(factors[:, None], np.eye(1 + self._parts.root.shape[0]))
        return unit[:, :1], unit[:, 1:]

    def _loading(self, factors: dict[str, np.ndarray]) -> _Product:
        """`z N ⊗ μ + N ⊗ Tf − (R⁻¹W)(Tf ⊗ μ + T S Tᵀ)` with z, f and S those of the model's coefficient."""
        own, (zeroth, first) = self._parts, self._sums(factors["model"])
        left = -own.noise_loading @ own.root
        v, w = self._add(zeroth * own.mean + first @ own.root.T), self._add(first @ left.T)
        scale = np.repeat(factors["model"][:, None], len(own.root), axis=1)
        return _Product(
            left, own.root, scale, self._add(0.0 * zeroth), own.noise, v, w, own.mean, lower=False
        )

    def _proposal_chol(self, factors: dict[str, np.ndarray]) -> _Product:
        """`tril J (slope ⊗ f − β ∘ S + S' − z' I) Uᵀ` with f and S of the path, z' and S' of the score."""
        own, (_, first), (zeroth, _) = self._parts, self._sums(factors["path"]), self._sums(factors["score"])
        scale = factors["score"][:, None] - factors["path"][:, None] * own.beta
        v, w = self._add(first @ own.rotation.T), self._add(0.0 * first)
        at, by = own.jacobian @ own.slope, np.zeros(len(own.slope))
        return _Product(own.jacobian, own.rotation, scale, self._add(zeroth), at, v, w, by, lower=True)


class Begun(NamedTuple):
    """What is linear in sums of first order `[R, columns]`; estimator -> parameter of second order -> gradients."""

    moved: np.ndarray
    products: dict[str, dict[str, np.ndarray]]


class _Product:
    """Arguments of `add_products`, of which some are columns."""

    def __init__(
        self,
        left: np.ndarray,
        right: np.ndarray,
        scale: np.ndarray,
        shift: slice,
        at: np.ndarray,
        v: slice,
        w: slice,
        by: np.ndarray,
        *,
        lower: bool,
    ):
        diagonal = left.shape == right.shape and all(
            np.array_equal(a, np.diag(np.diag(a))) for a in (left, right)
        )
        self._fixed = np.ascontiguousarray(left), np.ascontiguousarray(right.T)
        self._scale, self._shift, self._at, self._v, self._w, self._by = scale, shift, at, v, w, by
        self._kind = lower, diagonal

    @property
    def shape(self) -> tuple[int, int]:
        """Of one replicate's gradient."""
        return len(self._at), len(self._by)

    def __call__(self, second: np.ndarray, moved: np.ndarray, out: np.ndarray) -> None:
        """Writes the gradients `[R, A, D]`."""
        shift = moved[:, self._shift][:, 0]
        lines = self._at, moved[:, self._v], moved[:, self._w], self._by
        add_products(second, self._scale, shift, self._fixed, lines, *self._kind, out)


_PRODUCTS = {"loading": OneRow._loading, "proposal_chol": OneRow._proposal_chol}
