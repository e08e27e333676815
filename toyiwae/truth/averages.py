"""From a problem and Forms to exact numbers: laws of batches of rows, averaged over the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae.forms import Form
from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.finite_k.every_k import first_gap, insert_single, joined, moments_for_all
from toyiwae.oracle.finite_k.gradients import GradientEngine, GradientMoments
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.laws.ranges import Grids
from toyiwae.oracle.whitened.components import GradientComponents
from toyiwae.oracle.whitened.gradient_polynomials import Gradients
from toyiwae.oracle.whitened.own_covariances import OwnWhitened
from toyiwae.oracle.whitened.rows import row_batches
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.parameter import Parameter

_MOST_ROWS = 256  # of a batch of bounds, whose transforms have one coordinate


@dataclass(frozen=True)
class Bounds:
    """Exact bounds of w^e, per row and number of particles.

    Attributes:
        log_mean: log E[w^e] in units of the evidence [N]; exactly zero for e = 1.
        gap: log E[w^e] - E log of the sample mean of w^e [N, nK].
        ess: E[(Σw^e)²/Σw^2e] [N, nK].
    """

    log_mean: Bounded
    gap: Bounded
    ess: Bounded


@dataclass(frozen=True)
class Averaged:
    """Moments of one group's gradient of the average over rows, in the parameter's shape: `limit` and `[nK, ...]`."""

    limit: np.ndarray
    shift: Bounded
    var: Bounded
    mean: Bounded


def bounds(whitened: Whitened | OwnWhitened, particles: Sequence[int], exponent: float = 1.0) -> Bounds:
    """Exact bounds and expected sample sizes of w^exponent (not 0) for each number of particles."""
    law = whitened.law(exponent)
    gap, ess = [], []
    many = [k for k in particles if k > 1]
    grids, batches = Grids(particles), list(row_batches(law, 8, _MOST_ROWS))
    for rows in batches:
        part = law.take(rows)
        grid = grids(part)
        one = Bounded(np.ones((len(part), 1)), np.zeros((len(part), 1)))
        engine = FiniteK(part, many, grid) if many else None
        gap.append(insert_single(particles, engine and engine.gap(), first_gap(part)))
        ess.append(insert_single(particles, engine and engine.ess(), one))
    back = np.argsort(np.concatenate(batches))
    return Bounds(_log_mean(whitened.law(), exponent), joined(gap, back), joined(ess, back))


def _log_mean(law: GaussianLaw, exponent: float) -> Bounded:
    """Log E[w^e] of each row, in units of the evidence: [N]."""
    if exponent == 1.0:
        return Bounded.zeros(len(law))
    return Bounded(law.log_moment(exponent)[:, 0], law.log_moment_error(exponent)[:, 0])


def gradients(
    whitened: Whitened | OwnWhitened, jobs: Mapping[Any, tuple[Form, str]], particles: Sequence[int]
) -> dict[Any, Averaged]:
    """Mean and variance of one group's gradient of the average over rows, for each job and number of particles.

    Rows are sampled independently, so the variance is the mean of the rows' variances over N.

    Args:
        whitened: the problem.
        jobs: key -> (form, parameter); a form's log terms are not part of it.
        particles: the numbers of particles.

    Returns:
        key -> moments, arrays `[nK, *shape of the parameter]`; zeros where the form has no such coefficient.
    """
    record = whitened.problem.parameters.record
    wanted = {key: (form, record(name)) for key, (form, name) in jobs.items()}
    sums = {key: Average(whitened.x, parameter, len(particles)) for key, (_, parameter) in wanted.items()}
    for exponent in sorted({form.exponent for form, _ in wanted.values()}):
        chosen = {key: job for key, job in wanted.items() if job[0].exponent == exponent}
        grids = Grids(particles if exponent != 0.0 else ())
        width = max(parameter.size for _, parameter in chosen.values())
        for rows, batch in whitened.batches(exponent, min(width, 2 * whitened.problem.dim_z**2)):
            for key, moments in _moments(batch, chosen, particles, grids(batch.law)):
                sums[key].add(rows, moments)
    return {key: average.result() for key, average in sums.items()}


def _moments(
    rows: Gradients, jobs: Mapping[Any, tuple[Form, Parameter]], particles: Sequence[int], grid: Grid | None
) -> Iterator[tuple[Any, GradientMoments]]:
    built = GradientComponents(rows)
    parts = {key: built.of(form, parameter) for key, (form, parameter) in jobs.items()}
    parts = {key: components for key, components in parts.items() if components}
    engine = GradientEngine(rows.law, [k for k in particles if k > 1], grid) if grid is not None else None
    if engine is not None:
        engine.prepare((components, components) for components in parts.values())
    known: dict[tuple, GradientMoments] = {}  # polynomials are equal if they are one object
    for key, components in parts.items():
        same = tuple(components.items())
        if same not in known:
            known[same] = moments_for_all(rows.law, components, particles, engine)
        yield key, known[same]


class Average:
    """Running average over rows of one parameter's moments, in the parameter's own shape; of any source of rows."""

    def __init__(self, x: np.ndarray, parameter: Parameter, count: int):
        self._x, self._parameter = x, parameter
        self._limit = np.zeros(parameter.shape)
        self._parts = [np.zeros((count, *parameter.shape)) for _ in range(6)]

    def add(self, rows: np.ndarray, moments: GradientMoments) -> None:
        """Add a batch of rows."""
        x = self._x[rows]
        estimates = (moments.shift, moments.mean, moments.var)
        arrays = [array for found in estimates for array in (found.value, found.error)]
        factors = (x, np.abs(x), x, np.abs(x), x**2, x**2)
        for total_so_far, array, factor in zip(self._parts, arrays, factors, strict=True):
            total_so_far += self._parameter.summed(array, factor, rows)
        self._limit += self._parameter.summed(moments.limit, x, rows)

    def result(self) -> Averaged:
        """The average over the rows."""
        n, (shift, shift_error, mean, mean_error, var, var_error) = len(self._x), self._parts
        return Averaged(
            self._limit / n,
            Bounded(shift / n, shift_error / n),
            Bounded(var / n**2, var_error / n**2),
            Bounded(mean / n, mean_error / n),
        )
