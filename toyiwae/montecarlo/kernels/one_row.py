"""Gradients of one row's estimators from sums of powers of the weights: linear, so all of them are a few products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from toyiwae.montecarlo.formed import Called, Terms
from toyiwae.montecarlo.kernels.lanes.matrices import add_product, put_sum, put_zeros
from toyiwae.montecarlo.kernels.lanes.simd import helper, kernel
from toyiwae.montecarlo.whitened import SECOND_ORDER, Whitened

_TOGETHER = 16  # columns whose sums are formed together


class Product(NamedTuple):
    """Gradients `left (Σ_p diag(scale_p) S_p − shift I) right + at ⊗ v + w ⊗ by` of E estimators by one parameter."""

    # scale: of every estimator `[E, P, D]`; times the diagonal of left where both sides are diagonal.
    # columns: where shift, v and w begin among what is linear in sums of first order `[E, 3]`.
    # left: `[A, D]`.
    # right: `[D, D]`.
    # others: the diagonal of right where both sides are diagonal, else ones `[D]`.
    # at: `[A]`.
    # by: `[D]`.
    # lower: whether only the lower triangle is wanted, with zeros above.
    # diagonal: whether left and right are square and diagonal.
    scale: Any
    columns: Any
    left: Any
    right: Any
    others: Any
    at: Any
    by: Any
    lower: bool
    diagonal: bool


@helper()
def map_sums(first, second, maps, begun, start, count):
    """Forms the gradients of replicates from `start` on: the same numbers of each, whatever R.

    Args:
        first: Σ c and Σ c η of the powers `[R, 1, P, 1 + D]`.
        second: Σ c ηηᵀ of the powers `[R, 1, P, at least D, at least D]`; None where it is not wanted.
        maps: of a `OneRow`.
        begun: where to.
        start: the first replicate's place there.
        count: how many replicates of `first` and `second`.
    """
    matrix, products = maps
    moved, outs, room = begun
    moved = moved[start : start + count]
    put_zeros(moved)
    add_product(first, matrix, moved)
    if second is not None:  # known when this is compiled
        for q in range(len(products)):
            own, out = products[q], outs[q]
            for e in range(len(out)):
                for r in range(count):
                    if own.diagonal:
                        _put_diagonal(second[r, 0], moved[r], own, e, out[e, start + r])
                    else:
                        _put_general(second[r, 0], moved[r], own, e, room, out[e, start + r])


@kernel
def take_in(first, second, maps, begun):
    """`map_sums`, of all replicates."""
    map_sums(first, second, maps, begun, 0, len(first))


@helper()
def _lines(moved, own, e):
    """at, v, w and by."""
    dim, v, w = len(own.by), own.columns[e, 1], own.columns[e, 2]
    return own.at, moved[v : v + dim], moved[w : w + len(own.at)], own.by


@helper()
def _put_diagonal(second, moved, own, e, out):
    """Of one replicate and estimator, where both sides are diagonal."""
    put_sum(_lines(moved, own, e), own.scale[e], second, own.others, own.lower, out)
    shift = moved[own.columns[e, 0]]
    for i in range(len(out)):
        out[i, i] -= own.left[i, i] * own.others[i] * shift


@helper()
def _put_general(second, moved, own, e, room, out):
    """Of one replicate and estimator, whatever the sides."""
    inner, half, none, ones = room
    half = half[: len(out)]
    put_sum((none, none, none, none), own.scale[e], second, ones[0], False, inner)
    shift = moved[own.columns[e, 0]]
    for i in range(len(inner)):
        inner[i, i] -= shift
    put_zeros(half)
    put_zeros(out)
    add_product(own.left, inner, half)
    add_product(half, own.right, out)
    put_sum(_lines(moved, own, e), ones, out.reshape((1, *out.shape)), ones[0], own.lower, out)


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
        self._estimators = tuple(estimators)
        dim, powers = self._parts.root.shape[0], len(terms.powers)
        units = np.eye(powers * (1 + dim)).reshape(-1, 1, powers, 1 + dim)
        self._first: dict[str, dict[str, tuple[slice, tuple[int, ...]]]] = {}
        for estimator, sums in zip(estimators, terms.sums(units, None), strict=True):
            found = {
                name: whitened.gradient(name, sums, slice(0, 1))
                for name in parameters
                if name not in SECOND_ORDER
            }
            self._first[estimator] = {name: (self._add(unit), unit.shape[1:]) for name, unit in found.items()}
        parts = [
            {name: terms.factors(index, name) for name in ("model", "path", "score")}
            for index in range(len(self._estimators))
        ]
        asked = [name for name in SECOND_ORDER if name in parameters]
        products = {name: _PRODUCTS[name](self, parts) for name in asked}
        matrix = np.concatenate(self._columns, axis=1)
        matrix = np.pad(matrix, ((0, 0), (0, -matrix.shape[1] % _TOGETHER)))
        self._second = asked
        self.maps = matrix, tuple(products.values()) if asked else None

    def begin(self, count: int) -> Begun:
        """Room for the gradients of some replicates, none of which is there yet."""
        matrix, products = self.maps
        moved = np.empty((count, matrix.shape[1]))
        if products is None:
            return Begun(moved, None, None)
        most, dim = max(len(own.at) for own in products), len(products[0].by)
        return Begun(
            moved,
            tuple(np.empty((len(self._estimators), count, len(own.at), dim)) for own in products),
            (
                np.empty((dim, dim)),
                np.empty((most, dim)),
                np.zeros(max(dim, most)),
                np.ones((1, max(dim, most))),
            ),
        )

    def gradients(self, begun: Begun) -> dict[str, dict[str, np.ndarray]]:
        """Of every estimator by every parameter, once all replicates are there."""
        return {
            estimator: {
                name: begun.moved[:, where].reshape(-1, *shape)
                for name, (where, shape) in self._first[estimator].items()
            }
            | {name: own[index] for name, own in zip(self._second, begun.products or (), strict=True)}
            for index, estimator in enumerate(self._estimators)
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

    def _loading(self, parts: Sequence[dict[str, np.ndarray]]) -> Product:
        """`z N ⊗ μ + N ⊗ Tf − (R⁻¹W)(Tf ⊗ μ + T S Tᵀ)` with z, f and S those of the model's coefficient."""
        own, columns = self._parts, []
        left = -own.noise_loading @ own.root
        for factors in parts:
            zeroth, first = self._sums(factors["model"])
            moved = zeroth * own.mean + first @ own.root.T
            columns.append([self._add(part).start for part in (0.0 * zeroth, moved, first @ left.T)])
        scale = np.stack([np.repeat(factors["model"][:, None], len(own.root), axis=1) for factors in parts])
        return _product(scale, columns, (left, own.root.T), (own.noise, own.mean), lower=False)

    def _proposal_chol(self, parts: Sequence[dict[str, np.ndarray]]) -> Product:
        """`tril J (slope ⊗ f − β ∘ S + S' − z' I) Uᵀ` with f and S of the path, z' and S' of the score."""
        own, columns = self._parts, []
        for factors in parts:
            (zeroth, _), (_, first) = self._sums(factors["score"]), self._sums(factors["path"])
            columns.append([self._add(part).start for part in (zeroth, first @ own.rotation.T, 0.0 * first)])
        scale = np.stack(
            [factors["score"][:, None] - factors["path"][:, None] * own.beta for factors in parts]
        )
        lines = own.jacobian @ own.slope, np.zeros(len(own.slope))
        return _product(scale, columns, (own.jacobian, own.rotation.T), lines, lower=True)


class Begun(NamedTuple):
    """Where gradients of R replicates go."""

    # moved: what is linear in sums of first order `[R, columns]`.
    # products: gradients by each parameter of second order `[E, R, A, D]`.
    # room: scratch.
    moved: np.ndarray
    products: tuple[np.ndarray, ...] | None
    room: tuple[np.ndarray, ...] | None


def _product(
    scale: np.ndarray,
    columns: Sequence[Sequence[int]],
    sides: tuple[np.ndarray, np.ndarray],
    lines: tuple[np.ndarray, np.ndarray],
    *,
    lower: bool,
) -> Product:
    """Of what it says there, with `lines` at and by."""
    left, right = (np.ascontiguousarray(side) for side in sides)
    diagonal = left.shape == right.shape and all(
        np.array_equal(side, np.diag(np.diag(side))) for side in (left, right)
    )
    if diagonal:
        scale = scale * np.diag(left)
    others = np.diag(right).copy() if diagonal else np.ones(len(right))
    at, by = (np.array(line) for line in lines)  # writable, as Numba tells types of read-only arrays apart
    return Product(scale, np.array(columns), left, right, others, at, by, lower, diagonal)


_PRODUCTS = {"loading": OneRow._loading, "proposal_chol": OneRow._proposal_chol}
