"""Expansions in 1/K on balls, in any number of proven digits; the problem's float64 entries count as exact.

The recursions of `cumulants` and the statistics of `delta_method` are those of double precision; only the numbers that
pass through them are balls, whose radii hold all that rounding and the spectrum's remainder do.
"""

from __future__ import annotations

import numpy as np
from flint import arb, ctx

from toyiwae.forms import Form
from toyiwae.oracle.enclosure.coordinates import Polynomials, by_law, coordinates
from toyiwae.oracle.enclosure.matrices import Balls, balls
from toyiwae.oracle.enclosure.precision import Found, add, centred, converged
from toyiwae.oracle.enclosure.rows import SCORE, Row, rows
from toyiwae.oracle.series.cumulants import Means, lowest_order
from toyiwae.oracle.series.delta_method import Factors, GradientSeries, named, statistic
from toyiwae.oracle.series.weight_moments import WeightMoments
from toyiwae.problems.linear_gaussian import Problem


def bound(problem: Problem, order: int, exponent: float, digits: int) -> tuple[Balls, np.ndarray]:
    """Coefficients of K^0 … K^-order of the bound less log Z, averaged over the observations, and their radii.

    Raises:
        InputError, MissingMomentError, PrecisionError: as `expansions.bound`.
    """

    def evaluate(_: float) -> Found:
        found: Found = {}
        for row in rows(problem):
            factor = 1 / (problem.n_rows * arb(exponent))
            means = Means(WeightMoments(row.law.power(exponent), exponent).central)
            add(found, (0,), row.law.log_moment(exponent) * factor, arb(1))
            for n in range(1, order + 1):
                term = named("the bound", n, lambda n=n, means=means: means.log(n))
                add(found, (n,), term * factor, arb(1))
        return found

    found = converged(evaluate, digits)
    return centred(balls(found[(n,)] for n in range(order + 1)))


def gradient(
    problem: Problem, form: Form, parameter: str, kind: str, order: int, digits: int
) -> tuple[int, Balls, np.ndarray]:
    """Lowest order, coefficients `[orders, *shape]` of the "mean" or "var" of the gradient, and their radii.

    Raises:
        InputError, MissingMomentError, PrecisionError: as `expansions.gradient_mean`.
    """
    record = problem.parameters.record(parameter)
    form, factors = statistic(form, record.part == "proposal", order)
    lowest = lowest_order(factors)
    first = min(lowest if kind == "mean" else 2 * lowest + 1, order)
    orders = range(first, order + 1)
    asked = coordinates(problem, {0: (form, parameter, None)})
    power = 1 if kind == "mean" else 2

    def evaluate(_: float) -> Found:
        found: Found = {}
        for row, base in by_law(problem, asked):
            terms = [_terms(row, base, i, factors, kind, orders) for i in range(len(base.parts))]
            for one, which, factor in base:
                scale = base.scales[which] * factor.abs_upper()
                for n, term in zip(orders, terms[which], strict=True):
                    add(found, (kind, n, one.index), term * factor**power, scale**power)
        return found

    found = converged(evaluate, digits)
    value = np.full((len(orders), *record.shape), arb(0), dtype=object)
    for (_, n, index), ball in found.items():
        value[(n - first, *index)] = ball
    return first, *centred(value)


def _terms(row: Row, base: Polynomials, which: int, factors: Factors, kind: str, orders: range) -> list[arb]:
    """The coefficients that one polynomial of an observation has."""
    part, one = base.parts[which], base.first[which]
    score = None
    if "score" in factors or "scaled" in factors:
        score = row.components(SCORE, one.parameter, one.index)[0]
    moments = WeightMoments(base.law, one.form.exponent)
    series = GradientSeries.of(moments, factors, part.parts, part.limit, score, row.log_evidence)
    return [arb(0) + series.coefficient(one.parameter.name, kind, n) for n in orders]


def ratio(mean: Balls, var: Balls, known: np.ndarray, digits: int) -> tuple[np.ndarray, np.ndarray]:
    """|mean| / √var, NaN where that is not known to exist, and its radii."""
    with ctx.workprec(int(3.33 * digits) + 64):
        pairs = zip(mean.ravel(), var.ravel(), known.ravel(), strict=True)
        found = balls(abs(m) / v.sqrt() if ok else arb("nan") for m, v, ok in pairs)
    return centred(found.reshape(mean.shape))
