"""From a problem and Forms to exact numbers: laws of batches of rows, averaged over the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae.errors import PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.finite_k.bounds import FiniteK, Grids
from toyiwae.oracle.finite_k.every_k import insert_single, joined, moments_for_all
from toyiwae.oracle.finite_k.gradients import GradientEngine, GradientMoments
from toyiwae.oracle.finite_k.one_particle import first_gap
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.whitened.gradient_polynomials import GradientComponents, Gradients, row_batches
from toyiwae.oracle.whitened.own_covariances import OwnWhitened
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.parameter import Parameter

_MOST_ROWS = 128
"""Of a batch of bounds, whose transforms have one coordinate: more would leave the processor's cache."""


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

    limit: Bounded
    shift: Bounded
    var: Bounded
    mean: Bounded


def moments(
    whitened: Whitened | OwnWhitened,
    exponent: float,
    particles: Sequence[int],
    jobs: Mapping[Any, tuple[Form, str]],
    counts: Sequence[int],
) -> tuple[Bounds | None, dict[Any, Averaged]]:
    """Bounds of w^exponent, and means and variances of gradients of forms with that exponent, on the same transforms.

    Observations are sampled independently, so the variance of the average is the mean of their variances over N.

    Args:
        whitened: the problem.
        exponent: e.
        particles: the numbers of particles of bounds; none if no bound is wanted.
        jobs: key -> (form, name of the parameter); a form's log terms are not part of it.
        counts: the numbers of particles of gradients.

    Returns:
        the bounds; and key -> moments, zeros where the form has no such coefficient.
    """
    if not jobs:
        return (bounds(whitened, particles, exponent) if particles else None), {}
    every, record = sorted({*particles, *counts}), whitened.problem.parameters.record
    at, columns = ([every.index(k) for k in some] for some in (particles, counts))
    wanted = {key: (form, record(name)) for key, (form, name) in jobs.items()}
    sums = {key: Average(whitened.x, parameter, len(counts)) for key, (_, parameter) in wanted.items()}
    grids, gap, order = Grids(every if exponent != 0.0 else ()), [], []
    width = max(parameter.size for _, parameter in wanted.values())
    for rows, batch in whitened.batches(exponent, min(width, 2 * whitened.problem.dim_z**2)):
        law, grid = batch.law, grid_of(grids, batch.law, rows)
        engine = GradientEngine(law, [k for k in every if k > 1], grid) if grid is not None else None
        for key, found in _gradients(batch, wanted, every, engine):
            sums[key].add(rows, found, columns)
        if particles:
            order.append(rows)
            gap.append(insert_single(every, engine and engine.gap(), first_gap(law))[:, at])
    averages = {key: average.result() for key, average in sums.items()}
    if not particles:
        return None, averages
    return bounds(whitened, particles, exponent, joined(gap, np.argsort(np.concatenate(order)))), averages


def bounds(
    whitened: Whitened | OwnWhitened,
    particles: Sequence[int],
    exponent: float = 1.0,
    gap: Bounded | None = None,
) -> Bounds:
    """Exact bounds and expected sample sizes of w^exponent (not 0) for each number of particles; gaps may be known."""
    law, gaps, ess = whitened.law(exponent), [], []
    many = [k for k in particles if k > 1]
    grids, batches = Grids(particles), list(row_batches(law, 8, _MOST_ROWS))
    for rows in batches:
        part = law.take(rows)
        engine = FiniteK(part, many, grid_of(grids, part, rows)) if many else None
        one = Bounded.exact(np.ones((len(part), 1)))
        ess.append(insert_single(particles, engine and engine.ess(), one))
        if gap is None:
            gaps.append(insert_single(particles, engine and engine.gap(), first_gap(part)))
    back = np.argsort(np.concatenate(batches))
    gap = joined(gaps, back) if gap is None else gap
    return Bounds(log_mean(whitened.law(), exponent), gap, joined(ess, back))


def grid_of(grids: Grids, law: GaussianLaw, rows: np.ndarray) -> Grid | None:
    """The grid of some rows of many.

    Raises:
        PrecisionError: naming the first of them for which there is none.
    """
    try:
        return grids(law)
    except PrecisionError:
        for n in range(len(law)):
            try:
                grids(law.take(slice(n, n + 1)))
            except PrecisionError as error:
                raise PrecisionError(f"observation {rows[n]}: {error}") from None
        raise


def gradients(
    whitened: Whitened | OwnWhitened, jobs: Mapping[Any, tuple[Form, str]], particles: Sequence[int]
) -> dict[Any, Averaged]:
    """The gradients of `moments`, of forms with any exponents."""
    found: dict[Any, Averaged] = {}
    for exponent in sorted({form.exponent for form, _ in jobs.values()}):
        chosen = {key: job for key, job in jobs.items() if job[0].exponent == exponent}
        found |= moments(whitened, exponent, (), chosen, particles)[1]
    return {key: found[key] for key in jobs}


def log_mean(law: GaussianLaw, exponent: float) -> Bounded:
    """Log E[w^e] of each row, in units of the evidence: [N]."""
    if exponent == 1.0:
        return Bounded.zeros(len(law))
    return Bounded(law.log_moment(exponent)[:, 0], law.log_moment_error(exponent)[:, 0])


def _gradients(
    rows: Gradients,
    jobs: Mapping[Any, tuple[Form, Parameter]],
    particles: Sequence[int],
    engine: GradientEngine | None,
) -> Iterator[tuple[Any, GradientMoments]]:
    """The moments of every job of some observations, each combination of polynomials once."""
    built = GradientComponents(rows)
    parts = {key: built.of(form, parameter) for key, (form, parameter) in jobs.items()}
    parts = {key: components for key, components in parts.items() if components}
    if engine is not None:
        engine.prepare((components, components) for components in parts.values())
    known: dict[tuple, GradientMoments] = {}  # polynomials are equal if they are one object
    for key, components in parts.items():
        same = tuple(components.items())
        if same not in known:
            known[same] = moments_for_all(rows.law, components, particles, engine)
        yield key, known[same]


class Average:
    """Running average over rows of one parameter's moments, in the parameter's own shape; of any source of rows.

    Formula: averages.
    """

    def __init__(self, x: np.ndarray, parameter: Parameter, count: int):
        """Starts at zero, for `count` numbers of particles."""
        self._x, self._parameter, shape = x, parameter, (count, *parameter.shape)
        self._limit = Bounded.zeros(parameter.shape)
        self._shift, self._mean, self._var = (Bounded.zeros(shape) for _ in range(3))

    def add(self, rows: np.ndarray, moments: GradientMoments, columns: Sequence[int] | None = None) -> None:
        """Add a batch of rows, those columns of it."""
        x, at = self._x[rows], slice(None) if columns is None else columns
        self._limit = self._limit + self._summed(moments.limit, x, rows)
        self._shift = self._shift + self._summed(moments.shift[:, at], x, rows)
        self._mean = self._mean + self._summed(moments.mean[:, at], x, rows)
        self._var = self._var + self._summed(moments.var[:, at], x**2, rows)

    def _summed(self, found: Bounded, factor: np.ndarray, rows: np.ndarray) -> Bounded:
        """The sum over a batch, with what the additions round."""
        value = self._parameter.summed(found.value, factor, rows)
        error = found.error + 0.5 * EPS * len(rows) * np.abs(found.value)
        return Bounded(value, self._parameter.summed(error, np.abs(factor), rows))

    def result(self) -> Averaged:
        """The average over the rows."""
        n = float(len(self._x))
        return Averaged(self._limit / n, self._shift / n, self._var / n**2, self._mean / n)
