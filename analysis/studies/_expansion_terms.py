"""What is left of a number after the terms of its expansion in 1/K, on balls, and checks of its terms."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

import numpy as np
import pandas as pd
from flint import arb, ctx

import toyiwae
from analysis.closed_limits import ROUNDING, ClosedLimits
from analysis.studies._targets import problem_with
from toyiwae import Problem, series
from toyiwae.errors import InputError, MissingMomentError
from toyiwae.oracle.enclosure import enclose


def remainders(
    what: str, grid: list[int], values: Sequence[arb], orders: Sequence[arb], digits: int
) -> pd.DataFrame:
    """What is left of a number after its terms up to order n, from 0 to three less than there are.

    `next` and `after`: the two terms that follow the one of order n + 1, in units of it. `beyond`: the remainder in
    units of the term of order n + 1, less 1 and `next`; it tends to `after`.
    """
    rows = []
    with ctx.workprec(bits(digits)):
        for k, value in zip(grid, values, strict=True):
            left = value
            for n in range(len(orders) - 3):
                left = left - orders[n] / arb(k) ** n
                first, second, third = orders[n + 1 : n + 4]
                beyond = left / (first / arb(k) ** (n + 1)) - 1 - second / first / k
                then, after = float(second / first / k), float(third / first / k**2)
                rows.append((what, n, k, float(value), float(left), then, after, float(beyond)))
    return pd.DataFrame(rows, columns=["what", "n", "K", "value", "remainder", "next", "after", "beyond"])


def bits(digits: int) -> int:
    """Of the differences: more than the digits of the balls."""
    return 4 * digits + 64


def coefficients(what: str, orders: Sequence[arb]) -> pd.DataFrame:
    """The coefficients of K^-n, n from 0."""
    rows = [(what, n, float(value)) for n, value in enumerate(orders)]
    return pd.DataFrame(rows, columns=["what", "n", "coefficient"])


def slope_of_second_term(problem: Problem, name: str, place: tuple[int, ...]) -> float:
    """The slope of the bound's second term in one coordinate, by central differences extrapolated twice."""

    def second(step: float) -> float:
        mean, chol = np.array(problem.proposal.mean), np.linalg.cholesky(problem.proposal.cov)
        (mean if name == "proposal_mean" else chol)[place] += step
        moved = ClosedLimits(Problem(problem.model, toyiwae.Proposal(chol @ chol.T, mean=mean), problem.data))
        return float((moved.weight_skew() / 3 - 0.75 * moved.weight_variance() ** 2)[0])

    slopes = np.array([(second(h) - second(-h)) / (2 * h) for h in (0.02, 0.01, 0.005)])
    slopes = (4 * slopes[1:] - slopes[:-1]) / 3
    return float((16 * slopes[1] - slopes[0]) / 15)


def ending(beta: float, grid: list[int], digits: int) -> pd.DataFrame:
    """What is left of log Z − L_K after the last term that exists, beside the law of the weight's tail.

    The proposal is narrow in one direction, where β is given, and wide and off the posterior in the other.
    """
    cov = np.diag([0.7, 0.5])
    problem = problem_with([0.3, -0.2], cov, [0.3, 0.0], cov @ np.diag([1 + beta, 1.5]))
    order = last_order(problem)
    expansion = series.bound(problem, order, digits=digits)
    gaps = enclose.bounds(problem, grid, digits=digits, with_ess=False).gap[0]
    limits, rows = ClosedLimits(problem), []
    for k, gap in zip(grid, gaps, strict=True):
        with ctx.workprec(bits(digits)):
            left = float(gap + expansion.at(k))
        rows.append((beta, order, k, left, float(limits.tail_remainder(float(k))[0])))
    return pd.DataFrame(rows, columns=["beta", "order", "K", "remainder", "law"])


def last_order(problem: Problem) -> int:
    """The order of the last term of the bound's expansion that is not refused.

    Raises:
        InputError: if none is refused, since all moments are finite.
    """
    beta = ClosedLimits(problem).least_beta()
    if beta >= 0:
        raise InputError(f"the least β is {beta:g}: expected one between −1 and 0, where the expansion ends")
    for order in count(1):
        if abs(-1 / beta - (order + 1)) < ROUNDING:  # whether E[w^(order+1)] is finite, rounding would decide
            return order - 1
        try:
            series.bound(problem, order)
        except MissingMomentError:
            return order - 1
    raise AssertionError
