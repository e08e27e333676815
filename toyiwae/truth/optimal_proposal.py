"""The optimal proposal of each bound: the exact maximiser of L_K over a Gaussian family, for every K.

Where the posterior lies outside the family (mean-field q, correlated posterior), the optimum moves with K: from that
of KL(q‖p) at K = 1, `S_ii = 1/(P⁻¹)_ii`, to that of least variance of w (χ²) as K → ∞. Values and gradients are the
oracle's, so that there is no noise to average away and an optimum is known to many digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isinf

import numpy as np
from scipy.optimize import minimize

from toyiwae.errors import InputError, PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.finite_k.one_particle import first_gap
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.polynomials import Polynomial
from toyiwae.oracle.whitened.algebra import Double
from toyiwae.oracle.whitened.gradient_polynomials import GradientComponents, row_batches
from toyiwae.oracle.whitened.model import WhitenedModel, rounded
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Problem, Proposal
from toyiwae.problems.parameter import Parameter

CONVERGED = 1e-6
"""Slope of log(gap), in coordinates in units of standard deviations, below which an optimum counts as one."""

_STOP = {"gtol": 0.1 * CONVERGED, "maxiter": 500}  # at less, round-off of the gap hides what a step gains
_TOTAL = Form({}, {1: 1.0}, {1: -1.0})  # w̃ times the whole derivative of log w through the noise
_ATTEMPTS = 5  # round-off can spoil the curvature that BFGS collects, and a search that begins anew goes on


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best proposal of a family for one K.

    Attributes:
        particles: K; infinity stands for the least variance of w.
        problem: the problem with that proposal.
        gap: log Z - L_K there, averaged over the rows; at K = ∞, `K · gap`, which is `Var[w] / (2Z²)`.
        slope: the largest slope of log(gap) left, in coordinates in units of the proposal's standard deviations.
    """

    particles: float
    problem: Problem
    gap: float
    slope: float


def optimal_proposals(
    problem: Problem, particles: Sequence[float], family: str = "mean_field"
) -> tuple[Optimum, ...]:
    """The maximisers of L_K over the proposal's mean (or weight and offset) and covariance, one for each K.

    Formula: optimal-proposal.

    K = 1 is closed-form; from there the optimum is followed upwards through K, each starting from the one before.
    The proposal that the problem comes with plays no part, except in whether its mean is affine in x.

    Args:
        problem: model and data.
        particles: whole numbers of at least 1, or `math.inf` for the limit.
        family: covariances allowed: all ("full"), or diagonal ones ("mean_field").

    Returns:
        One optimum for each of `particles`, in their order.

    Raises:
        InputError: for a K that is no whole number of at least 1, or another family.
        PrecisionError: if the slope does not vanish, naming K.
    """
    if family not in ("full", "mean_field"):
        raise InputError(f"family {family!r}: expected 'full' or 'mean_field'")
    for k in particles:
        if not isinf(k) and (k < 1 or k != int(k)):
            raise InputError(f"K = {k!r}: expected a whole number of at least 1, or infinity")
    at = _Coordinates(problem, family)
    first = at.problem(np.zeros(at.size))
    gap = float(first_gap(Whitened(first).law()).value.mean())
    found = {1.0: Optimum(1.0, first, gap, 0.0)}
    point = np.zeros(at.size)
    for k in sorted({float(k) for k in particles} - {1.0}):
        if gap <= 1e-13:  # the family holds the posterior
            found[k] = Optimum(k, first, gap, 0.0)
            continue
        objective = _LimitGap(at) if isinf(k) else _Gap(at, int(k))
        point, found[k] = _maximised(objective, objective.start(point), k, at)
    return tuple(found[float(k)] for k in particles)


class _Coordinates:
    """Coordinates of a family of proposals about the optimum of KL(q‖p), in units of its standard deviations."""

    def __init__(self, problem: Problem, family: str):
        problem.require_shared_proposal("optimal_proposals")
        self._problem = problem
        model, x = problem.model, problem.rows().x
        factors = WhitenedModel(problem, Double())
        precision = rounded(factors.precision)
        cov = np.linalg.inv(precision)
        weight = cov @ rounded(factors.noise_loading).T
        offset = model.prior_mean - weight @ (model.loading @ model.prior_mean + model.offset)
        self._best = (weight, offset) if problem.amortised else ((x @ weight.T + offset).mean(axis=0),)
        full = family == "full"
        self._chol = np.linalg.cholesky(0.5 * (cov + cov.T)) if full else np.diag(np.diag(precision) ** -0.5)
        self._std = np.sqrt(np.diag(self._chol @ self._chol.T))
        spread = x.std(axis=0) if problem.amortised else np.ones(0)
        # of x, so that a unit of weight moves the mean by one standard deviation
        self._input_std = np.where(spread > 0.0, spread, 1.0)
        self._lower = np.tril_indices(problem.dim_z, -1) if full else (np.zeros(0, int), np.zeros(0, int))
        self.size = sum(a.size for a in self._best) + problem.dim_z + len(self._lower[0])

    def _units(self) -> list[np.ndarray]:
        """What a coordinate of 1 means for each mean parameter."""
        column = self._std[:, None] / self._input_std if len(self._best) == 2 else None
        return [self._std] if column is None else [column, self._std]

    def _split(self, point: np.ndarray) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
        sizes = np.cumsum([a.size for a in self._best] + [len(self._std)])
        *means, log_diagonal, below = np.split(point, sizes)
        return [m.reshape(a.shape) for m, a in zip(means, self._best, strict=True)], log_diagonal, below

    def chol(self, point: np.ndarray) -> np.ndarray:
        """The proposal's L = L₀ T, T lower triangular with diagonal exp(coordinates)."""
        _, log_diagonal, below = self._split(point)
        inner = np.diag(np.exp(log_diagonal))
        inner[self._lower] = below
        return self._chol @ inner

    def problem(self, point: np.ndarray) -> Problem:
        """The problem with the proposal at a point."""
        means, _, _ = self._split(point)
        moved = [best + unit * m for best, unit, m in zip(self._best, self._units(), means, strict=True)]
        names = ("weight", "offset") if len(moved) == 2 else ("mean",)
        chol = self.chol(point)
        return replace(
            self._problem, proposal=Proposal(chol @ chol.T, **dict(zip(names, moved, strict=True)))
        )

    def pull_back(self, point: np.ndarray, slopes: dict[Parameter, np.ndarray]) -> np.ndarray:
        """Slopes in the proposal's parameters as slopes in the coordinates."""
        _, log_diagonal, _ = self._split(point)
        *by_mean, by_chol = slopes.values()  # in the order of the problem's parameters
        means = [(slope * unit).ravel() for slope, unit in zip(by_mean, self._units(), strict=True)]
        inner = self._chol.T @ np.tril(by_chol)
        return np.concatenate([*means, np.diag(inner) * np.exp(log_diagonal), inner[self._lower]])

    def widened(self, point: np.ndarray) -> np.ndarray:
        """A point with a proposal wide enough that w has a finite variance (every β ≥ -1/4)."""
        least = 1.0 + float(Whitened(self.problem(point)).beta.min())
        moved = point.copy()
        width = len(self._std)
        start = sum(a.size for a in self._best)
        factor = np.sqrt(0.75 / least) if least < 0.75 else 1.0
        moved[start : start + width] += np.log(factor)
        moved[start + width :] *= factor
        return moved


class _Gap:
    """log K·(log Z - L_K) and its slope, at finite K."""

    def __init__(self, at: _Coordinates, particles: int):
        self._at, self._k = at, particles

    def start(self, point: np.ndarray) -> np.ndarray:
        """Where to begin, given the previous optimum."""
        return point

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and slope: `∂ L_K = K ∫ t E[w ∂log w e^{-tw}] Λ^{K-1} dt/t`.

        Raises:
            PrecisionError: if the gap is not known to 1e-6.
        """
        whitened = Whitened(self._at.problem(point))
        law, count = whitened.law(), len(whitened.x)
        gap, error = 0.0, 0.0
        slopes: dict[Parameter, np.ndarray] = {}
        for rows in row_batches(law, whitened.beta.size**2):
            part = law.take(rows)
            engine = FiniteK(part, [self._k])
            found = engine.gap()
            gap, error = gap + float(found.value.sum()), error + float(found.error.sum())
            totals = self.totals(whitened, law, rows)
            transforms = part.transform(1.0, [(g,) for g in totals.values()], engine.grid)
            for parameter, transform in zip(totals, transforms, strict=True):
                by_row = (engine.weights[0].value @ transform.value.value)[:, 0]
                slopes[parameter] = parameter.summed(by_row, whitened.x[rows], rows) + slopes.get(
                    parameter, 0.0
                )
        if not error <= 1e-6 * gap:
            raise PrecisionError(f"the gap at K = {self._k} is known only to {error / gap:.1e}")
        slope = self._at.pull_back(point, {parameter: -value / gap for parameter, value in slopes.items()})
        return np.log(gap / count * self._k), slope

    def totals(
        self, whitened: Whitened, law: GaussianLaw, rows: slice | np.ndarray
    ) -> dict[Parameter, Polynomial]:
        """Parameter of the proposal -> ∂ log w of some rows, through the reparameterised noise."""
        components = GradientComponents(whitened.gradients(law, rows))
        parameters = whitened.problem.parameters
        chosen = (parameters.record(name) for name in parameters.where(part="proposal"))
        return {parameter: components.of(_TOTAL, parameter)[1] for parameter in chosen}

    def value(self, objective: float) -> float:
        """The gap itself."""
        return float(np.exp(objective)) / self._k


class _LimitGap(_Gap):
    """log Var[w/Z]/2 and its slope: K times the gap as K → ∞."""

    def __init__(self, at: _Coordinates):
        super().__init__(at, 1)

    def start(self, point: np.ndarray) -> np.ndarray:
        """Into the region of finite variance."""
        return self._at.widened(point)

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and slope, by `∂ E[w²] = 2 E[w² ∂ log w]`; infinite where w has no variance."""
        whitened = Whitened(self._at.problem(point))
        law = whitened.law()
        if law.max_power <= 2.0:
            return inf, np.zeros_like(point)
        variance = float(np.expm1(law.log_moment(2.0)).sum())
        slopes = {
            parameter: parameter.summed(2.0 * law.moment(2.0, (g,)).value / variance, whitened.x)
            for parameter, g in self.totals(whitened, law, slice(None)).items()
        }
        return np.log(0.5 * variance / len(whitened.x)), self._at.pull_back(point, slopes)


def _maximised(objective: _Gap, start: np.ndarray, k: float, at: _Coordinates) -> tuple[np.ndarray, Optimum]:
    point, slope = start, inf
    for _ in range(_ATTEMPTS):
        result = minimize(objective, point, jac=True, method="BFGS", options=_STOP)
        point, slope = result.x, float(np.abs(result.jac).max())
        if slope <= CONVERGED:
            break
    if not slope <= CONVERGED:
        raise PrecisionError(f"the optimal proposal at K = {k:g}: a slope of {slope:.1e} is left in log(gap)")
    return point, Optimum(k, at.problem(point), objective.value(float(result.fun)), slope)
