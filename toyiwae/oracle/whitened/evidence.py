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
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.whitened.algebra import Double, Extended, solve
from toyiwae.oracle.whitened.whitening import Float, Whitened

_ENOUGH = 1e-11
"""Error, relative to the larger of log p(x) and one nat, above which 50 digits are taken instead of 31."""


def log_evidence(whitened: Whitened) -> Bounded:
    """`log p(x) = log N(x; W m₀ + o, W S₀ Wᵀ + R)` of each row: [N].

    In the digits that the problem was whitened in, in 50 if those are too few; the result alone is rounded.

    Raises:
        PrecisionError: if a number is beyond float64's range.
    """
    with np.errstate(all="ignore"):  # what overflows in 31 digits does not in 50
        found = _evaluate(whitened, whitened.algebra, whitened.prior_root, whitened.noise_root)
        if isinstance(whitened.algebra, Double) and not _good(found, _ENOUGH):
            found = _finer(whitened, found)
    if not _good(found, np.inf):
        raise PrecisionError("the log-evidence is beyond what 50 digits can tell: choose other units")
    return found


def _good(found: Bounded, tolerance: float) -> bool:
    return bool(np.all(found.error < tolerance * np.maximum(np.abs(found.value), 1.0)))


def _finer(whitened: Whitened, found: Bounded) -> Bounded:
    """The same in 50 digits; what was found where that takes too long, if it is a number."""
    model, algebra = whitened.problem.model, Extended()
    try:
        roots = (algebra.cholesky(algebra.array(cov)) for cov in (model.prior_cov, model.noise_cov))
        return _evaluate(whitened, algebra, *roots)
    except PrecisionError:
        if not _good(found, np.inf):
            raise
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


def _evaluate(whitened: Whitened, algebra: Any, prior_root: Any, noise_root: Any) -> Bounded:
    model, lift = whitened.problem.model, algebra.array
    x, loading = lift(whitened.x), lift(model.loading)
    dim_x, dim_z = model.loading.shape
    response = algebra.forward(noise_root, loading @ prior_root)  # B
    right = algebra.forward(noise_root, (x - lift(model.prior_mean[None]) @ loading.T - lift(model.offset)).T)
    one = lift(np.eye(dim_z))
    inner = one + response.T @ response
    inner_root = algebra.cholesky(inner)
    fit = solve(algebra, inner_root, response.T @ right)
    rest = right - response @ fit
    distance = _rounded(_squares(algebra, rest) + _squares(algebra, fit))
    diagonals = [_rounded(root[np.diag_indices(len(root))]) for root in (noise_root, inner_root)]
    logs = np.log(np.concatenate(diagonals))
    constant = dim_x * np.log(2 * np.pi)
    value = -0.5 * (distance + constant) - fsum(logs) if np.isfinite(logs).all() else np.nan * distance
    spread = np.sqrt(np.diag(model.noise_cov))
    loaded = np.abs(model.loading) @ np.abs(_rounded(prior_root))
    own = np.abs(whitened.x) + np.abs(model.offset) + np.abs(model.loading) @ np.abs(model.prior_mean)
    sizes = _Sizes(
        _norm((own / spread).T),
        _norm(loaded / spread[:, None]) + _norm(_rounded(response)),
        np.abs(_rounded(fit)),
        _norm(_rounded(right)),
    )
    amount = distance + constant + np.abs(logs).sum() + len(logs)
    inverse = _rounded(solve(algebra, inner_root, one)).diagonal()
    unit = algebra.unit * 16.0 * (dim_x + dim_z)
    conditions = whitened.prior_condition, whitened.noise_condition
    lost = _lost(sizes, distance, _rounded(inner).diagonal(), inverse, conditions, (dim_x, dim_z), unit)
    return Bounded(value, 4.0 * EPS * amount + unit * lost)


def _lost(
    sizes: _Sizes,
    distance: Float,
    inner: Float,
    inverse: Float,
    conditions: tuple[float, float],
    dims: tuple[int, int],
    unit: float,
) -> Float:
    """Round-off [N] in `unit`s, of 16 D roundings, from the diagonals of I + BᵀB and of its inverse.

    A Cholesky root is that of a matrix whose entries are off by D roundings of their standard deviations, so that a
    quadratic form in the inverse loses as many times the condition of the correlations; solves lose no more. The
    condition of I + BᵀB is bounded by the trace of its inverse in units of its diagonal. u enters to second order.
    """
    (prior, noise), (dim_x, dim_z) = conditions, dims
    condition = inner @ inverse  # at least 1 / λ_min of the correlations
    column = np.max(sizes.column / np.sqrt(inner))
    residual = noise * (sizes.given + sizes.right + sizes.column @ sizes.fit)
    of_distance = np.sqrt(distance) * residual + (noise + prior) * distance
    of_logs = dim_x * noise + dim_z * (prior + condition * (1.0 + noise * column))
    slope = (1.0 + column) * (residual + noise * np.sqrt(inner) @ sizes.fit)
    return of_distance + of_logs + unit * dim_z * condition * slope**2


def _squares(algebra: Any, columns: Any) -> Any:
    """Sums of squares of the columns."""
    return (algebra.array(np.ones((1, len(columns)))) @ (columns * columns))[0]


def _norm(columns: Float) -> Float:
    return np.linalg.norm(columns, axis=0)


def _rounded(values: Any) -> Float:
    return np.asarray(values, dtype=np.float64)
