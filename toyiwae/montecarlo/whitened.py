"""A linear-Gaussian problem in whitened noise: log-weights, and gradients from sums of weighted noise.

With `cov = LLᵀ`, posterior N(m, P), `LᵀP⁻¹L − I = U diag(β) Uᵀ`, `T = LU` and `h = TᵀP⁻¹(μ_q − m)`, all of them the
oracle's own numbers (`toyiwae.oracle.whitened`), particles are `z = μ_q + Tη`, `η ~ N(0, I)`: the standard
reparameterisation `z = μ_q + Lε` with `ε = Uη`. Then

    log w = log p(x) + c₀ − hᵀη − ½ Σ_i β_i η_i²,    c₀ = ½ Σ_i [log(1+β_i) − h_i²/(1+β_i)]
    ∂ log w/∂z = −J(h + β∘η),    ∇_μ log q = Jη,    ∇_L log q = tril J(ηηᵀ − I)Uᵀ,      J = L⁻ᵀU

and the gradients of log p(x, z) are affine or bilinear in z. So a gradient estimator needs of its particles
only Σ c, Σ c η and, for `loading` and `proposal_chol`, Σ c ηηᵀ, for each of its three coefficients c. Where every row
has a covariance of its own, T, U, J and β are one for each row. Written for NumPy and torch arrays alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from array_api_compat import array_namespace

from toyiwae.oracle.whitened.evidence import log_evidence
from toyiwae.oracle.whitened.model import rounded
from toyiwae.oracle.whitened.own_covariances import whiten
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.weights import Array

OF_MODEL = ("prior_mean", "loading", "offset")
"""The parameters of the model; all others are the proposal's."""

SECOND_ORDER = ("loading", "proposal_chol")
"""Parameters whose gradients need Σ c ηηᵀ."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over all groups and particles for one coefficient.

    Attributes:
        zeroth: Σ c `[R, n]`.
        first: Σ c η `[R, n, D]`.
        second: Σ c ηηᵀ over the rows too `[R, D, D]`, or of each row `[R, n, D, D]`; None where none needs it.
    """

    zeroth: Array
    first: Array
    second: Array | None

    @classmethod
    def of(
        cls, coefficients: Sequence[Array], noise: Array, second: bool, *, own: bool = False
    ) -> list[Sums]:
        """The sums of some coefficients `[R, n, M, K]` each over noise `[R, n, M, K, D]`; `own`: of every row apart."""
        xp, shape = array_namespace(noise), noise.shape
        rolled = xp.reshape(noise, (*shape[:2], -1, shape[-1]))
        flat = xp.stack([xp.reshape(part, rolled.shape[:3]) for part in coefficients], axis=2)
        zeroth, first, pairs = xp.sum(flat, axis=-1), flat @ rolled, None
        if second:
            rows = rolled if own else xp.reshape(rolled, (shape[0], -1, shape[-1]))
            parts = [
                xp.reshape(flat[:, :, index], (*rows.shape[:-1], 1)) for index in range(len(coefficients))
            ]
            pairs = [(rows * part).mT @ rows for part in parts]
        return [
            cls(zeroth[:, :, index], first[:, :, index], None if pairs is None else pairs[index])
            for index in range(len(coefficients))
        ]

    def __add__(self, other: Sums) -> Sums:
        """The sums over both sets of particles."""
        second = None if self.second is None or other.second is None else self.second + other.second
        return Sums(self.zeroth + other.zeroth, self.first + other.first, second)

    def __mul__(self, factor: float) -> Sums:
        """The sums for a multiple of the coefficient."""
        if factor == 1.0:
            return self
        second = None if self.second is None else self.second * factor
        return Sums(self.zeroth * factor, self.first * factor, second)


class Weighted(NamedTuple):
    """The sums for an estimator's three coefficients; those that no parameter asked for may be left out."""

    model: Sums | None
    path: Sums | None
    score: Sums | None


class OneRowParts(NamedTuple):
    """The constants of a problem of one row: T `[D, D]`, J, U, β `[D]`, slope, R⁻¹(x − o − Wμ_q), R⁻¹W, μ_q."""

    root: Array
    jacobian: Array
    rotation: Array
    beta: Array
    slope: Array
    noise: Array
    noise_loading: Array
    mean: Array


class Whitened:
    """One problem's constants of the formulas above.

    Args:
        problem: model, proposal and data.
        place: makes an array of the library and on the device that compute; by default NumPy's.

    Attributes:
        n_rows: N.
        own: whether every row has a covariance of its own.
        base: `[N]`, slope: `[N, D]`, curvature: `[1 or N, D]` of `log w = base + Σ_i η_i (slope_i + curvature_i η_i)`.
        rotation: U `[1, D, D]`, or `[N, D, D]` of every row.
    """

    def __init__(self, problem: Problem, place: Callable[[np.ndarray], Array] = np.ascontiguousarray):
        """Takes the constants from the oracle."""
        whitened = whiten(problem)
        model = whitened.model
        beta, h = whitened.beta, whitened.h
        self.own = beta.ndim == 2
        axes = np.stack(whitened.axes) if self.own else np.stack(whitened.axes)[:, None]  # [3, 1 or N, D, D]
        largest = np.abs(axes[0]).argmax(axis=1)[:, None]
        signs = np.sign(
            np.take_along_axis(axes[0], largest, axis=1)
        )  # [1 or N, 1, D]: not up to a library's whim
        rotation, root, jacobian = axes * signs
        centre = 0.5 * (np.log1p(beta) - h * h / (1.0 + beta)).sum(axis=1)
        prior, noise = model.at_means(whitened.x, whitened.mean)
        self.n_rows, self.records = problem.n_rows, problem.parameters
        self.rotation, self._root, self._jacobian = place(rotation), place(root), place(jacobian)
        self.base, self.slope = place(log_evidence(whitened).value + centre), place(-h * signs[:, 0])
        self._beta = place(np.atleast_2d(beta))  # [1 or N, D]
        self.curvature = -0.5 * self._beta
        self._prior, self._noise = place(prior), place(noise)
        self._prior_precision, self._noise_loading = (
            place(rounded(a)) for a in (model.prior_precision, model.noise_loading)
        )
        self._x, self._mean = place(whitened.x), place(whitened.mean)
        self._identity = place(np.eye(problem.dim_z))

    def log_weights(self, noise: Array, rows: slice) -> Array:
        """`log w` `[R, n, M, K]` of noise η `[R, n, M, K, D]`, for n rows of data."""
        slope, base = self.slope[rows, None, None, :], self.base[rows, None, None]
        curvature = self._of(self.curvature, rows)[:, None, None, :]
        return array_namespace(noise).sum(noise * (slope + curvature * noise), axis=-1) + base

    def gradient(self, name: str, sums: Weighted, rows: slice) -> Array:
        """The rows' part of one parameter's gradient of the average over all rows: `[R, *shape]`.

        Of a parameter of which every row has its own, that of these rows `[R, n, ...]`.

        Args:
            name: the parameter.
            sums: one estimator's sums over the particles of these rows.
            rows: which rows.
        """
        found = _GRADIENTS[name](self, sums, rows)
        record = self.records.record(name)
        if record.moves == "mean" and not record.amortised and not record.own:
            found = found.sum(1)
        return found if self.n_rows == 1 else found / self.n_rows

    def of_one_row(self) -> OneRowParts:
        """The constants by which the gradients of the first row are linear in its sums."""
        return OneRowParts(
            self._root[0],
            self._jacobian[0],
            self.rotation[0],
            self._beta[0],
            self.slope[0],
            self._noise[0],
            self._noise_loading,
            self._mean[0],
        )

    def _of(self, array: Array, rows: slice) -> Array:
        """What some rows have of an array that all rows share, or of which each has its own."""
        return array[rows] if self.own else array

    def _mapped(self, matrix: Array, vectors: Array, rows: slice) -> Array:
        """The rows' matrix times vectors `[R, n, D]`."""
        return (matrix[rows] @ vectors[..., None])[..., 0] if self.own else _times(vectors, matrix[0].mT)

    def _displacement(self, model: Sums, rows: slice) -> Array:
        """`Σ c (z − μ_q)` of each row: `[R, n, D]`."""
        return self._mapped(self._root, model.first, rows)

    def _prior_mean(self, sums: Weighted, rows: slice) -> Array:
        model = _given(sums.model)
        moved = self._displacement(model, rows).sum(1)
        return model.zeroth @ self._prior[rows] + moved @ self._prior_precision

    def _offset(self, sums: Weighted, rows: slice) -> Array:
        model = _given(sums.model)
        moved = self._displacement(model, rows).sum(1)
        return model.zeroth @ self._noise[rows] - moved @ self._noise_loading.mT

    def _loading(self, sums: Weighted, rows: slice) -> Array:
        """`Σ c R⁻¹(x − o − Wz)zᵀ` with `z = μ_q + Tη` multiplied out."""
        model = _given(sums.model)
        assert model.second is not None
        moved, noise, mean = self._displacement(model, rows), self._noise[rows], self._mean[rows]
        root = self._of(self._root, rows)
        if self.own:
            squares = (root @ model.second @ root.mT).sum(1)
        else:
            squares = _times(_times(model.second, root[0].mT).mT, root[0].mT)
        constant = (model.zeroth[..., None] * noise).mT @ mean + noise.mT @ moved
        right = moved.mT @ mean + squares
        return constant - _times(right.mT, self._noise_loading.mT).mT

    def _proposal_mean(self, sums: Weighted, rows: slice) -> Array:
        """Gradient by each row's proposal mean `[R, n, D]`."""
        terms = []
        if sums.path is not None:
            terms = [
                sums.path.zeroth[..., None] * self.slope[rows],
                -self._of(self._beta, rows) * sums.path.first,
            ]
        if sums.score is not None:
            terms.append(sums.score.first)
        return self._mapped(self._jacobian, _total(terms), rows)

    def _proposal_weight(self, sums: Weighted, rows: slice) -> Array:
        return self._proposal_mean(sums, rows).mT @ self._x[rows]

    def _proposal_offset(self, sums: Weighted, rows: slice) -> Array:
        return self._proposal_mean(sums, rows).sum(1)

    def _proposal_chol(self, sums: Weighted, rows: slice) -> Array:
        """Gradient by the Cholesky factor: of all rows `[R, D, D]`, or of each its own `[R, n, D, D]`."""
        beta, jacobian, rotation = (self._of(a, rows) for a in (self._beta, self._jacobian, self.rotation))
        if not self.own:
            beta, jacobian, rotation = beta[0], jacobian[0], rotation[0]
        slope, terms = self.slope[rows], []
        if sums.path is not None:
            first, second = sums.path.first, sums.path.second
            assert second is not None
            terms.append(slope[..., None] * first[..., None, :] if self.own else slope.mT @ first)
            terms.append(-beta[..., None] * second)
        if sums.score is not None:
            assert sums.score.second is not None
            zeroth = sums.score.zeroth if self.own else sums.score.zeroth.sum(1)
            terms += [sums.score.second, -zeroth[..., None, None] * self._identity]
        inner = _total(terms)
        found = (
            jacobian @ inner @ rotation.mT
            if self.own
            else _times(_times(inner.mT, jacobian.mT).mT, rotation.mT)
        )
        return array_namespace(slope).tril(found)


def _given(sums: Sums | None) -> Sums:
    """The sums of a coefficient that a parameter needs."""
    assert sums is not None
    return sums


def _times(stack: Array, matrix: Array) -> Array:
    """`stack @ matrix` as one product: of many small ones each has its own overhead."""
    flat = array_namespace(stack).reshape(stack, (-1, stack.shape[-1])) @ matrix
    return array_namespace(flat).reshape(flat, (*stack.shape[:-1], matrix.shape[-1]))


def _total(terms: Sequence[Array]) -> Array:
    return sum(terms[1:], terms[0])


_GRADIENTS = {
    "prior_mean": Whitened._prior_mean,
    "loading": Whitened._loading,
    "offset": Whitened._offset,
    "proposal_mean": Whitened._proposal_mean,
    "proposal_weight": Whitened._proposal_weight,
    "proposal_offset": Whitened._proposal_offset,
    "proposal_chol": Whitened._proposal_chol,
}
