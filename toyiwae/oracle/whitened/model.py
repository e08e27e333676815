"""A linear-Gaussian model in one precision: Cholesky roots, R⁻¹W, the posterior's precision, and slopes of log w.

P⁻¹ = S₀⁻¹ + WᵀR⁻¹W                                            the same for all observations
P⁻¹(μ_q - m) = S₀⁻¹(μ_q - m₀) + WᵀR⁻¹(Wμ_q + o - x)            for each of them
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toyiwae.oracle.laws.bounded import EPS
from toyiwae.oracle.whitened.algebra import is_diagonal, solve
from toyiwae.problems.linear_gaussian import Problem

Float = NDArray[np.float64]

CHUNK = 1024
"""Observations whose vectors are held at once in more than double precision."""


def chunks(count: int) -> Iterator[slice]:
    """Slices of at most `CHUNK` observations."""
    for first in range(0, count, CHUNK):
        yield slice(first, min(first + CHUNK, count))


@dataclass(frozen=True)
class Slopes:
    """`P⁻¹(μ_q - m)` of some observations, and what bounds its rounding; all [N, D_z].

    Attributes:
        value: the slopes, in the precision that they were computed in.
        prior: absolute values of the prior's part.
        data: sums of absolute terms of the data's part, given the residual Wμ_q + o - x.
        given: the same, given x, o and W μ_q, which are rounded before they are subtracted.
    """

    value: Any
    prior: Float
    data: Float
    given: Float


class WhitenedModel:
    """What a problem's model alone determines, computed when first asked for.

    Attributes:
        algebra: the precision, `Double` or `Extended`; in it, prior_root and noise_root: Cholesky roots of S₀ and R.
        prior, noise: S₀ and R in units of their standard deviations, in float64.
    """

    def __init__(self, problem: Problem, algebra: Any):
        self.problem, self.algebra, model = problem, algebra, problem.model
        self.prior_root, self.noise_root = (
            algebra.cholesky(algebra.array(cov)) for cov in (model.prior_cov, model.noise_cov)
        )

    @cached_property
    def prior(self) -> ScaledCovariance:
        """The prior's covariance."""
        return ScaledCovariance(self.problem.model.prior_cov)

    @cached_property
    def noise(self) -> ScaledCovariance:
        """The noise's covariance."""
        return ScaledCovariance(self.problem.model.noise_cov)

    @cached_property
    def noise_loading(self) -> Any:
        """R⁻¹W: [D_x, D_z]."""
        return solve(self.algebra, self.noise_root, self.algebra.array(self.problem.model.loading))

    @cached_property
    def prior_precision(self) -> Any:
        """S₀⁻¹: [D_z, D_z]."""
        return solve(self.algebra, self.prior_root, self.algebra.array(np.eye(self.problem.dim_z)))

    @cached_property
    def precision(self) -> Any:
        """P⁻¹: [D_z, D_z]."""
        loading = self.algebra.array(self.problem.model.loading)
        precision = self.prior_precision + loading.T @ self.noise_loading
        return (precision + precision.T) / 2

    def means(self, x: Float, mean: Float) -> Any:
        """The proposal's means of some observations, from its own numbers where it is amortised."""
        lift, proposal = self.algebra.array, self.problem.proposal
        if proposal.weight is None or proposal.offset is None:
            return lift(mean)
        found, weight, offset = lift(np.zeros(mean.shape)), lift(proposal.weight), lift(proposal.offset)
        for rows in chunks(len(x)):
            found[rows] = lift(x[rows]) @ weight.T + offset
        return found

    def at_means(self, x: Float, mean: Float) -> tuple[Float, Float]:
        """S₀⁻¹(μ_q - m₀) [N, D_z] and R⁻¹(x - o - Wμ_q) [N, D_x] of some observations, rounded once."""
        lift, model, algebra = self.algebra.array, self.problem.model, self.algebra
        found = np.zeros(mean.shape), np.zeros(x.shape)
        for rows in chunks(len(x)):
            at = self.means(x[rows], mean[rows])
            prior = solve(algebra, self.prior_root, (at - lift(model.prior_mean)).T)
            residual = lift(x[rows]) - lift(model.offset) - at @ lift(model.loading).T
            noise = solve(algebra, self.noise_root, residual.T)
            found[0][rows], found[1][rows] = rounded(prior.T), rounded(noise.T)
        return found

    def slopes(self, x: Float, mean: Float) -> Slopes:
        """P⁻¹(μ_q - m) of observations x [N, D_x] with means [N, D_z], the proposal's as float64 has them."""
        lift, model = self.algebra.array, self.problem.model
        found = lift(np.zeros(mean.shape))
        sizes = np.zeros((3, *mean.shape))
        weight = np.abs(rounded(self.noise_loading))
        loading, offset, prior_mean = (lift(a) for a in (model.loading, model.offset, model.prior_mean))
        for rows in chunks(len(x)):
            at = self.means(x[rows], mean[rows])
            residual = at @ loading.T + offset - lift(x[rows])
            from_prior = solve(self.algebra, self.prior_root, (at - prior_mean).T).T
            found[rows] = from_prior + residual @ self.noise_loading
            own = np.abs(x[rows]) + np.abs(model.offset) + np.abs(mean[rows]) @ np.abs(model.loading.T)
            sizes[0, rows] = np.abs(rounded(from_prior))
            sizes[1, rows], sizes[2, rows] = np.abs(rounded(residual)) @ weight, own @ weight
        return Slopes(found, sizes[0], sizes[1], sizes[2])


class ScaledCovariance:
    """A covariance in units of its own standard deviations: what triangular solves with it can lose.

    Attributes:
        condition: the condition number of the correlations.
    """

    def __init__(self, cov: Float):
        self._deviations = np.sqrt(np.diag(cov))
        if is_diagonal(cov):
            values, vectors = np.ones(len(cov)), np.eye(len(cov))
        else:
            values, vectors = np.linalg.eigh(cov / np.multiply.outer(self._deviations, self._deviations))
        self._values = np.maximum(values, EPS * values[-1] / 64)
        self._vectors = vectors
        self.condition = float(values[-1] / self._values[0])

    def norm(self, columns: Float) -> float:
        """Norm of columnsᵀ cov⁻¹ columns."""
        rotated = self._vectors.T @ (columns / self._deviations[:, None])
        return float(np.sum(rotated**2 / self._values[:, None]))


def rounded(values: Any) -> Float:
    """To float64."""
    return np.asarray(values, dtype=np.float64)
