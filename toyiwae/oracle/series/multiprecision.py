"""Expansions in 1/K in any number of digits; the problem's float64 entries count as exact.

Everything is computed at two working precisions, the second about twice the first; their difference bounds the error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from mpmath import MPContext

from toyiwae.errors import InputError, PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.enclosure import precise_problem
from toyiwae.oracle.enclosure.law import Quadratic
from toyiwae.oracle.enclosure.precise_problem import Index, PreciseRow
from toyiwae.oracle.series.cumulants import Means, lowest_order
from toyiwae.oracle.series.delta_method import Factors, named, statistic
from toyiwae.oracle.series.weight_moments import MultiprecisionMoments, Tag
from toyiwae.problems.linear_gaussian import Problem

_SPARE = 30  # decimal digits beside the ones asked for, at the first of the two precisions
_ROUNDS = 4


def bound(problem: Problem, order: int, exponent: float, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of K^0 … K^-order of the bound less log Z, averaged over the rows, and bounds on their errors."""

    def evaluate(ctx: MPContext) -> list[Any]:
        totals = [ctx.zero] * (order + 1)
        for row in precise_problem.rows(problem, ctx):
            means = Means(MultiprecisionMoments(row.law(exponent), exponent, {}).central)
            first = row.law().log_moment(ctx.mpf(exponent)) if exponent != 1.0 else ctx.zero
            rest = [named("the bound", n, lambda n=n, means=means: means.log(n)) for n in range(1, order + 1)]
            totals = [total + one for total, one in zip(totals, [first, *rest], strict=True)]
        return [total / (problem.n_rows * ctx.mpf(exponent)) for total in totals]

    values, errors = _settled(evaluate, digits)
    return np.array(values, dtype=object), np.array(errors)


def gradient(
    problem: Problem, form: Form, parameter: str, kind: str, order: int, digits: int
) -> tuple[int, np.ndarray, np.ndarray]:
    """Lowest order, coefficients `[orders, *shape]` of the "mean" or "var" of the gradient, and their errors."""
    proposal = problem.parameters.record(parameter).part == "proposal"
    form, factors = statistic(form, proposal, order)
    indices = precise_problem.coordinates(problem, parameter)
    lowest = lowest_order(factors)
    first = min(lowest if kind == "mean" else 2 * lowest + 1, order)
    orders = range(first, order + 1)
    what = f"the {'mean' if kind == 'mean' else 'variance'} of the gradient of {parameter}"

    def evaluate(ctx: MPContext) -> list[Any]:
        totals = [ctx.zero] * (len(orders) * len(indices))
        for row in precise_problem.rows(problem, ctx):
            terms = [
                _coordinate(row, form, factors, parameter, index, kind, orders, what) for index in indices
            ]
            totals = [total + one for total, one in zip(totals, _transposed(terms), strict=True)]
        count = problem.n_rows ** (1 if kind == "mean" else 2)
        return [total / count for total in totals]

    values, errors = _settled(evaluate, digits)
    shape = (len(orders), *problem.parameters[parameter])
    value, error = np.zeros(shape, dtype=object), np.zeros(shape)
    for k, (one, slack) in enumerate(zip(values, errors, strict=True)):
        n, position = divmod(k, len(indices))
        value[(n, *indices[position])], error[(n, *indices[position])] = one, slack
    return first, value, error


def _coordinate(
    row: PreciseRow,
    form: Form,
    factors: Factors,
    parameter: str,
    index: Index,
    kind: str,
    orders: Iterable[int],
    what: str,
) -> list[Any]:
    """One coordinate's coefficients on one row, times what the parameter's entry is multiplied by."""
    law, ctx = row.law(form.exponent), row.ctx
    tags: dict[Any, Tag] = {}
    limit = ctx.zero
    for r, g in precise_problem.components(row, form, parameter, index).items():
        mean = law.mean(ctx.mpf(r), g) if r < 2 else ctx.zero
        limit += mean  # Σ w̃ = 1: a constant in g moves the mean alone
        tags[r] = Tag(r, g.plus(-mean), centred=r < 2)
    if "score" in factors or "scaled" in factors:
        score: Quadratic = row.proposal(parameter, index, 0.0, 1.0)
        scale = log_evidence(row) if "scaled" in factors else None
        tags["score"] = Tag(0, score, centred=True)
        tags["scaled"] = Tag(0, score, scale, centred=True)
    moments = MultiprecisionMoments(law, form.exponent, tags)
    means = Means(moments.central, moments.joint)
    compute = means.mean if kind == "mean" else means.variance
    factor = row.factor(parameter, index) ** (1 if kind == "mean" else 2)
    terms = []
    for n in orders:
        term = named(what, n, lambda n=n: compute(factors, n))
        terms.append((term + (limit if kind == "mean" and n == 0 else 0)) * factor)
    return terms


def log_evidence(row: PreciseRow) -> Any:
    """`log p(x) = log p(x, z) - log p(z|x)` of one row, at the posterior mean z."""
    ctx, factor = row.ctx, precise_problem.cholesky(row.precision, row.ctx)
    half = precise_problem.lower_inverse(factor, ctx)
    z = row.mean - half.T.dot(half.dot(row.pull))
    away, misfit = z - precise_problem.exact(row.problem.model.prior_mean, ctx), row.residual(z)
    distance = away.dot(row.prior.dot(away)) + misfit.dot(row.noise.dot(misfit))
    log_det = row.prior.log_det + row.noise.log_det + 2 * sum(map(ctx.log, np.diag(factor)), ctx.zero)
    return -(distance + log_det + len(misfit) * ctx.log(2 * ctx.pi)) / 2


def _transposed(terms: list[list[Any]]) -> list[Any]:
    """Orders outermost, coordinates innermost."""
    return [one for order in zip(*terms, strict=True) for one in order]


def _settled(evaluate: Callable[[MPContext], list[Any]], digits: int) -> tuple[list[Any], list[float]]:
    """Values at two precisions that agree to `digits`, and bounds on their errors.

    Raises:
        InputError: for a number of digits out of range.
        PrecisionError: if they do not agree.
    """
    if not 1 <= digits <= 1000:
        raise InputError(f"digits is {digits}: it must be a whole number from 1 to 1000")
    working, worst = digits + _SPARE, 0.0
    previous = evaluate(_context(working))
    for _ in range(_ROUNDS):
        working = 2 * working
        found = evaluate(_context(working))
        differences = [abs(a - b) for a, b in zip(found, previous, strict=True)]
        floor = 10.0 ** -(digits + _SPARE // 2)  # below it a coefficient counts as one that vanishes
        worst = max(
            (float(d / abs(a)) for d, a in zip(differences, found, strict=True) if d > floor), default=0.0
        )
        if worst <= 10.0**-digits:
            pairs = list(zip(found, differences, strict=True))
            values = [a if d < abs(a) else 0 * a for a, d in pairs]  # what has no digit right is zero
            return values, [float(2 * d if d < abs(a) else abs(a) + d) for a, d in pairs]
        previous = found
    raise PrecisionError(
        f"the expansion in 1/K settles only to {worst:.1e} where {digits} digits were asked for"
    )


def _context(digits: int) -> MPContext:
    ctx = MPContext()
    ctx.dps = digits
    return ctx
