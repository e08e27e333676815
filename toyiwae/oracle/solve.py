"""From a problem and Forms to exact numbers: laws of batches of rows, averaged over the data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae.forms import Form
from toyiwae.oracle.finite_k import Estimate, FiniteK, Grids
from toyiwae.oracle.gradients import MODEL_PARAMETERS, Gradients, Whitened
from toyiwae.oracle.grid import Grid
from toyiwae.oracle.laws import EPS, GaussianLaw
from toyiwae.oracle.moments import GradientEngine, GradientMoments, moments_of_one
from toyiwae.oracle.polynomials import Polynomial
from toyiwae.oracle.spectrum import log1pmx

_BATCH_BYTES = 48_000_000  # of one intermediate array


@dataclass(frozen=True)
class Bounds:
    """Exact bounds of w^e, per row and number of particles.

    Attributes:
        log_mean: log E[w^e] in units of the evidence [N]; zeros for e = 1.
        gap: log E[w^e] - E log of the sample mean of w^e [N, nK].
        ess: E[(Σw^e)²/Σw^2e] [N, nK].
    """

    log_mean: np.ndarray
    gap: Estimate
    ess: Estimate


@dataclass(frozen=True)
class Averaged:
    """Moments of one group's gradient of the average over rows, in the parameter's shape: `limit` and `[nK, ...]`."""

    limit: np.ndarray
    shift: Estimate
    var: Estimate
    mean: Estimate


def bounds(whitened: Whitened, particles: Sequence[int], exponent: float = 1.0) -> Bounds:
    """Exact bounds and expected sample sizes of w^exponent (not 0) for each number of particles."""
    law = whitened.law(exponent)
    gap, ess = [], []
    many = [k for k in particles if k > 1]
    grids, batches = Grids(particles), list(row_batches(law, 8))
    for rows in batches:
        part = law.take(rows)
        grid = grids(part)
        one = Estimate(np.ones((len(part), 1)), np.zeros((len(part), 1)))
        engine = FiniteK(part, many, grid) if many else None
        gap.append(insert_single(particles, engine and engine.gap(), first_gap(part)))
        ess.append(insert_single(particles, engine and engine.ess(), one))
    log_mean = whitened.law().log_moment(exponent)[:, 0] if exponent != 1.0 else np.zeros(len(law))
    back = np.argsort(np.concatenate(batches))
    return Bounds(log_mean, joined(gap, back), joined(ess, back))


def first_gap(law: GaussianLaw) -> Estimate:
    """KL(q‖p) of each row: -E[log w] = Σ [h²/(2(1+β)) - ½(log(1+β) - β)]: [N, 1]."""
    beta, size = law.beta, 1.0 + law.beta
    terms = law.h**2 / (2.0 * size) - 0.5 * log1pmx(beta)
    slack = (
        law.beta_error / (2 * size) * (np.abs(beta) + law.h**2 / size) + law.h_error * np.abs(law.h) / size
    )
    slack = slack + 0.5 * law.h_error**2 + 0.25 * law.beta_error**2
    error = 8 * EPS * np.abs(terms).sum(axis=1) + slack.sum(axis=1)
    return Estimate(terms.sum(axis=1)[:, None], error[:, None])


def gradients(
    whitened: Whitened, jobs: Mapping[Any, tuple[Form, str]], particles: Sequence[int]
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
    sums = {key: Average(whitened, parameter, len(particles)) for key, (_, parameter) in jobs.items()}
    for exponent in sorted({form.exponent for form, _ in jobs.values()}):
        chosen = {key: job for key, job in jobs.items() if job[0].exponent == exponent}
        law = whitened.law(exponent)
        grids = Grids(particles if exponent != 0.0 else ())
        width = max(int(np.prod(whitened.problem.parameters[name])) for _, name in chosen.values())
        for rows in row_batches(law, min(width, 2 * law.beta.size**2)):
            batch = whitened.gradients(law, rows, exponent)
            for key, moments in _moments(batch, chosen, particles, grids(batch.law)):
                sums[key].add(rows, moments)
    return {key: average.result() for key, average in sums.items()}


def _moments(
    rows: Gradients, jobs: Mapping[Any, tuple[Form, str]], particles: Sequence[int], grid: Grid | None
) -> Iterator[tuple[Any, GradientMoments]]:
    built = GradientComponents(rows)
    parts = {key: built.of(form, parameter) for key, (form, parameter) in jobs.items()}
    parts = {key: components for key, components in parts.items() if components}
    engine = GradientEngine(rows.law, [k for k in particles if k > 1], grid) if grid is not None else None
    if engine is not None:
        engine.prepare((components, components) for components in parts.values())
    known: dict[tuple, GradientMoments] = {}
    for key, components in parts.items():
        same = tuple(sorted((r, id(g)) for r, g in components.items()))
        if same not in known:
            known[same] = moments_for_all(rows.law, components, particles, engine)
        yield key, known[same]


def moments_for_all(
    law: Any,
    components: dict[int, Any],
    particles: Sequence[int],
    engine: GradientEngine | None,
) -> GradientMoments:
    """The moments for every K: closed form at K = 1 (and for uniform weights), integrals elsewhere."""
    many = engine.moments(components) if engine is not None else None
    found, position = [], 0
    for k in particles:
        if k == 1 or many is None:
            found.append((moments_of_one(law, components, float(k)), 0))
        else:
            found.append((many, position))
            position += 1
    stacked = (
        _stack([getattr(source, name) for source, _ in found], [at for _, at in found])
        for name in ("shift", "var", "mean")
    )
    return GradientMoments(found[0][0].limit, *stacked)


def _stack(parts: list[Estimate], columns: list[int]) -> Estimate:
    pairs = list(zip(parts, columns, strict=True))
    value, error = (
        np.stack([getattr(part, n)[:, at] for part, at in pairs], axis=1) for n in ("value", "error")
    )
    return Estimate(value, error)


class GradientComponents:
    """The polynomials G_r of forms; equal combinations are one object, so that their transforms are shared."""

    def __init__(self, rows: Gradients):
        self._rows, self._known = rows, {}

    def of(self, form: Form, parameter: str) -> dict[int, Polynomial]:
        """{power: polynomial} of one parameter; empty where the form has no coefficient for it."""
        if parameter in MODEL_PARAMETERS:
            terms = {r: [(factor, self._rows.model[parameter])] for r, factor in form.model.items()}
        else:
            name = "chol" if parameter == "proposal_chol" else "mean"
            terms: dict[int, list[tuple[float, Polynomial]]] = {}
            for factors, g in ((form.path, self._rows.path[name]), (form.score, self._rows.score[name])):
                for r, factor in factors.items():
                    terms.setdefault(r, []).append((factor, g))
        return {r: self._combined(parts) for r, parts in sorted(terms.items())}

    def _combined(self, terms: list[tuple[float, Polynomial]]) -> Polynomial:
        key = tuple((factor, id(g)) for factor, g in terms)
        if key not in self._known:
            plain = len(terms) == 1 and terms[0][0] == 1.0
            self._known[key] = terms[0][1] if plain else Polynomial.combine(terms)
        return self._known[key]


class Average:
    """Running average over rows of one parameter's moments, in the parameter's own shape; of any source of rows."""

    def __init__(self, whitened: Any, parameter: str, count: int):
        self._x, self._parameter, self._n = whitened.x, parameter, len(whitened.x)
        self._shape = whitened.problem.parameters[parameter]
        self._limit = np.zeros(self._shape)
        self._parts = [np.zeros((count, *self._shape)) for _ in range(6)]

    def add(self, rows: np.ndarray, moments: GradientMoments) -> None:
        """Add a batch of rows."""
        x = self._x[rows]
        estimates = (moments.shift, moments.mean, moments.var)
        arrays = [array for found in estimates for array in (found.value, found.error)]
        factors = (x, np.abs(x), x, np.abs(x), x**2, x**2)
        for total_so_far, array, factor in zip(self._parts, arrays, factors, strict=True):
            total_so_far += self.summed(array, factor)
        self._limit += self.summed(moments.limit[:, None, :], x)[0]

    def summed(self, array: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Sum over rows of an array [N, nK, F]."""
        if self._parameter == "proposal_weight":
            return np.einsum("nkd,nx->kdx", array, x)
        summed = array.sum(axis=0)
        if self._parameter != "proposal_chol":
            return summed.reshape(len(summed), *self._shape)
        full = np.zeros((len(summed), *self._shape))
        i, j = np.tril_indices(self._shape[0])
        full[:, i, j] = summed
        return full

    def result(self) -> Averaged:
        """The average over the rows."""
        n, (shift, shift_error, mean, mean_error, var, var_error) = self._n, self._parts
        return Averaged(
            self._limit / n,
            Estimate(shift / n, shift_error / n),
            Estimate(var / n**2, var_error / n**2),
            Estimate(mean / n, mean_error / n),
        )


def row_batches(law: GaussianLaw, width: int) -> Iterator[np.ndarray]:
    """Indices of rows that share their lines well, and whose transforms of `width` coordinates fit into memory.

    Rows are taken in the order of the spread of their log-weights: a line that serves a row near the posterior is
    useless for one far from it.
    """
    size = max(1, min(64, _BATCH_BYTES // (16 * 400 * max(width, 1))))
    spread = law.spreads
    order = np.argsort(spread, kind="stable")
    start = 0
    while start < len(order):
        limit = 1.25 * spread[order[start]] + 0.25
        stop = min(start + size, int(np.searchsorted(spread[order], limit, side="right")))
        yield order[start:stop]
        start = stop


def insert_single(particles: Sequence[int], many: Estimate | None, one: Estimate) -> Estimate:
    """Columns for all K, from those with K > 1 and that of K = 1."""
    column = np.cumsum([k > 1 for k in particles]) - 1
    pick = [(many, int(c)) if k > 1 else (one, 0) for k, c in zip(particles, column, strict=True)]
    return Estimate(
        np.stack([source.value[:, c] for source, c in pick if source], axis=1),
        np.stack([source.error[:, c] for source, c in pick if source], axis=1),
    )


def joined(parts: list[Estimate], back: np.ndarray) -> Estimate:
    """One batch of rows below the other, brought back to the rows' own order by the indices `back`."""
    value, error = (np.concatenate([getattr(part, name) for part in parts]) for name in ("value", "error"))
    return Estimate(value[back], error[back])
