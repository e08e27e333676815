"""Gradients of one row's estimators from sums of powers of the weights: linear, so all of them are a few products."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from toyiwae.montecarlo.formed import Called, Terms
from toyiwae.montecarlo.kernels.simd import helper, kernel
from toyiwae.montecarlo.whitened import SECOND_ORDER, Whitened


@helper()
def _add_product(a, b, out):
    """`out += a @ b`; four rows of b at once, so that out is read and written a quarter as often."""
    size, k = len(b), 0
    while k + 4 <= size:
        b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
        for i in range(len(a)):
            o, a0, a1, a2, a3 = out[i], a[i, k], a[i, k + 1], a[i, k + 2], a[i, k + 3]
            for j in range(len(o)):
                o[j] += (a0 * b0[j] + a1 * b1[j]) + (a2 * b2[j] + a3 * b3[j])
        k += 4
    while k < size:
        for i in range(len(a)):
            o, row, c = out[i], b[k], a[i, k]
            for j in range(len(o)):
                o[j] += c * row[j]
        k += 1


@kernel
def add_products(second, scale, shift, left, right, lines, lower, diagonal, out):
    """Of every replicate `left (Σ_p diag(scale_p) S_p − shift I) right + at ⊗ v + w ⊗ by`.

    Args:
        second: S, symmetric `[R, P, D, D]`.
        scale: `[P, D]`.
        shift: `[R]`.
        left: `[A, D]`.
        right: `[D, D]`.
        lines: at `[A]`, v `[R, D]`, w `[R, A]`, by `[D]`.
        lower: whether only the lower triangle is wanted, with zeros above.
        diagonal: whether left and right are square and diagonal.
        out: takes them `[R, A, D]`.
    """
    at, v, w, by = lines
    inner, half = np.empty(second.shape[2:]), np.empty(out.shape[1:])
    dim = second.shape[2]
    for r in range(len(out)):
        o, moving = out[r], v[r]
        for i in range(len(o)):
            row, a, b = o[i], at[i], w[r, i]
            for j in range(dim):
                row[j] = a * moving[j] + b * by[j]
        if diagonal:
            for p in range(len(scale)):
                for i in range(dim):
                    row, s, c = o[i], second[r, p, i], left[i, i] * scale[p, i]
                    for j in range(dim):
                        row[j] += c * s[j] * right[j, j]
            for i in range(dim):
                o[i, i] -= left[i, i] * right[i, i] * shift[r]
        else:
            inner[:] = 0.0
            half[:] = 0.0
            for p in range(len(scale)):
                for i in range(dim):
                    row, s, c = inner[i], second[r, p, i], scale[p, i]
                    for j in range(dim):
                        row[j] += c * s[j]
            for i in range(dim):
                inner[i, i] -= shift[r]
            _add_product(left, inner, half)
            _add_product(half, right, o)
        if lower:
            for i in range(dim):
                for j in range(i + 1, dim):
                    o[i, j] = 0.0


class OneRow:
    """The gradients of estimators with a Form, or of one that is called, for a problem of one row.

    Args:
        whitened: the problem.
        terms: the estimators' powers, or coefficients.
        estimators: their names.
        parameters: whose gradients.
        each: replicates in a block, which BLAS multiplies at once: its round-off depends on how many there are.
    """

    def __init__(
        self,
        whitened: Whitened,
        terms: Terms | Called,
        estimators: Sequence[str],
        parameters: Sequence[str],
        each: int,
    ):
        """Puts all that is linear in sums of first order into one matrix `[P·(1 + D), columns]`."""
        self._parts, self._each = whitened.of_one_row(), each
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
        self._matrix = np.concatenate(self._columns, axis=1)

    def gradients(self, first: np.ndarray, second: np.ndarray | None) -> dict[str, dict[str, np.ndarray]]:
        """Of every estimator by every parameter.

        Args:
            first: Σ c and Σ c η of the powers `[R, 1, P, 1 + D]`.
            second: Σ c ηηᵀ of the powers `[R, P, D, D]`, if any is needed.
        """
        flat = first.reshape(len(first), -1)
        moved = np.empty((len(flat), self._matrix.shape[1]))
        for begun in range(0, len(flat), self._each):
            block = slice(begun, begun + self._each)
            np.matmul(flat[block], self._matrix, out=moved[block])
        found = {
            estimator: {name: moved[:, where].reshape(-1, *shape) for name, (where, shape) in own.items()}
            for estimator, own in self._first.items()
        }
        for estimator, products in self._second.items():
            for name, product in products.items():
                assert second is not None
                found[estimator][name] = product(second, moved)
        return found

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

    def __call__(self, second: np.ndarray, moved: np.ndarray) -> np.ndarray:
        """The gradients `[R, A, D]`."""
        out = np.empty((len(second), len(self._at), second.shape[-1]))
        shift = moved[:, self._shift][:, 0]
        lines = self._at, moved[:, self._v], moved[:, self._w], self._by
        add_products(second, self._scale, shift, *self._fixed, lines, *self._kind, out)
        return out


_PRODUCTS = {"loading": OneRow._loading, "proposal_chol": OneRow._proposal_chol}
