"""The log-evidence of linear-Gaussian problems, with a bound on its error.

With `S₀ = CCᵀ`, `B = R^-½ W C` and `r = R^-½ (x - W m₀ - o)` for the Cholesky roots C and R^½,

    log p(x) = -½ min_u (|r - Bu|² + |u|²) - ½ log|I + BᵀB| - ½ log|R| - ½ D_x log 2π

costs one factorisation of R, which is cheap where R is diagonal, and one in the dimension of the latent.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import fsum
from typing import Any

import numpy as np

from toyiwae.errors import PrecisionError
from toyiwae.oracle.laws.bounded import EPS, Bounded, concatenate
from toyiwae.oracle.whitened.algebra import Double, Extended, solve
from toyiwae.oracle.whitened.model import Float, WhitenedModel, chunks, rounded

_ENOUGH = 1e-11
"""Error, relative to the larger of log p(x) and one nat, above which 50 digits are taken instead of 31."""


def log_evidence(whitened: Any) -> Bounded:
    """`log p(x) = log N(x; W m₀ + o, W S₀ Wᵀ + R)` of each row: [N].

    Formula: evidence.

    In the digits that the problem was whitened in, in 50 if those are too few; the result alone is rounded.

    Args:
        whitened: the problem: its `model` in some precision, and the observations `x`.

    Raises:
        PrecisionError: if a number is beyond float64's range.
    """
    model = whitened.model
    with np.errstate(all="ignore"):  # what overflows in 31 digits does not in 50
        found = _evaluate(model, whitened.x)
        if isinstance(model.algebra, Double) and not _good(found, _ENOUGH).all():
            found = _finer(model, whitened.x, found)
    if not _good(found, np.inf).all():
        raise PrecisionError("the log-evidence is beyond what 50 digits can tell: choose other units")
    return found


def _good(found: Bounded, tolerance: float) -> np.ndarray:
    return found.error < tolerance * np.maximum(np.abs(found.value), 1.0)


def _finer(model: WhitenedModel, x: Float, found: Bounded) -> Bounded:
    """The same in 50 digits where too few were kept; what was found where that takes too long, if it is a number."""
    rows = np.flatnonzero(~_good(found, _ENOUGH))
    try:
        finer = _evaluate(WhitenedModel(model.problem, Extended()), x[rows])
    except PrecisionError:
        if not _good(found, np.inf).all():
            raise
        return found
    found = found.copy()
    found.value[rows], found.error[rows] = finer.value, finer.error
    return found


@dataclass(frozen=True)
class _Sizes:
    """What bounds the round-off; all in units of the noise's standard deviations.

    Attributes:
        given: norms of the sums of absolute values that r is computed from [N], without those that u multiplies.
        column: the same of the columns of B [D_z], at least the columns' own norms.
        fit: |u| [D_z, N].
        right: |r| [N].
    """

    given: Float
    column: Float
    fit: Float
    right: Float


class _Evidence:
    """What all observations share: B, the root of I + BᵀB, and the logarithms."""

    def __init__(self, factors: WhitenedModel):
        self._factors, self._algebra, model = factors, factors.algebra, factors.problem.model
        algebra, lift = self._algebra, self._algebra.array
        self._model, self._dims = model, model.loading.shape
        self._response = algebra.forward(factors.noise_root, lift(model.loading) @ factors.prior_root)  # B
        one = lift(np.eye(self._dims[1]))
        inner = one + self._response.T @ self._response
        self._inner_root = algebra.cholesky(inner)
        self._inner = rounded(inner).diagonal()
        self._inverse = rounded(solve(algebra, self._inner_root, one)).diagonal()
        roots = factors.noise_root, self._inner_root
        self._logs = np.log(np.concatenate([rounded(root[np.diag_indices(len(root))]) for root in roots]))
        self._deviations = np.sqrt(np.diag(model.noise_cov))
        loaded = np.abs(model.loading) @ np.abs(rounded(factors.prior_root))
        self._column = _norm(loaded / self._deviations[:, None]) + _norm(rounded(self._response))

    def __call__(self, x: Float) -> Bounded:
        """Log p(x) of some observations."""
        algebra, model, logs, lift = self._algebra, self._model, self._logs, self._algebra.array
        centre = lift(model.prior_mean[None]) @ lift(model.loading).T + lift(model.offset)
        right = algebra.forward(self._factors.noise_root, (lift(x) - centre).T)
        fit = solve(algebra, self._inner_root, self._response.T @ right)
        rest = right - self._response @ fit
        distance = rounded(_squares(algebra, rest) + _squares(algebra, fit))
        constant = self._dims[0] * np.log(2 * np.pi)
        value = -0.5 * (distance + constant) - fsum(logs) if np.isfinite(logs).all() else np.nan * distance
        own = np.abs(x) + np.abs(model.offset) + np.abs(model.loading) @ np.abs(model.prior_mean)
        given = _norm((own / self._deviations).T)
        sizes = _Sizes(given, self._column, np.abs(rounded(fit)), _norm(rounded(right)))
        amount = distance + constant + np.abs(logs).sum() + len(logs)
        unit = algebra.unit * 16.0 * sum(self._dims)
        return Bounded(value, 4.0 * EPS * amount + unit * self._rounding(sizes, distance, unit))

    def _rounding(self, sizes: _Sizes, distance: Float, unit: float) -> Float:
        """Round-off [N] in `unit`s, of 16 D roundings, from the diagonals of I + BᵀB and of its inverse.

        A Cholesky root is that of a matrix whose entries are off by D roundings of their standard deviations, so that a
        quadratic form in the inverse loses as many times the condition of the correlations; solves lose no more. The
        condition of I + BᵀB is bounded by the trace of its inverse in units of its diagonal. u enters to second order.
        """
        prior, noise = self._factors.prior.condition, self._factors.noise.condition
        (dim_x, dim_z), inner = self._dims, self._inner
        condition = inner @ self._inverse  # at least 1 / λ_min of the correlations
        column = np.max(sizes.column / np.sqrt(inner))
        residual = noise * (sizes.given + sizes.right + sizes.column @ sizes.fit)
        of_distance = np.sqrt(distance) * residual + (noise + prior) * distance
        of_logs = dim_x * noise + dim_z * (prior + condition * (1.0 + noise * column))
        slope = (1.0 + column) * (residual + noise * np.sqrt(inner) @ sizes.fit)
        return of_distance + of_logs + unit * dim_z * condition * slope**2


def _evaluate(model: WhitenedModel, x: Float) -> Bounded:
    evaluate = _Evidence(model)
    return concatenate([evaluate(x[rows]) for rows in chunks(len(x))])


def _squares(algebra: Any, columns: Any) -> Any:
    """Sums of squares of the columns."""
    return (algebra.array(np.ones((1, len(columns)))) @ (columns * columns))[0]


def _norm(columns: Float) -> Float:
    return np.linalg.norm(columns, axis=0)
