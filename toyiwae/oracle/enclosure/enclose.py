"""Enclosures: bounds, sample sizes, and gradients' means and variances, as balls of which n digits are proven.

    values = bounds(problem, [7, 10**9], digits=50)
    moments = gradients(problem, {"dreg": (form, "proposal_mean", None)}, [7, 10**9], digits=50)

The float64 entries of the problem count as exact. Every ball contains the true value (theory §3: the discretisation
errors are theorems, bounded in `contours`); the precision is raised until it is small.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flint import arb

from toyiwae.oracle.enclosure.contours import Request
from toyiwae.oracle.enclosure.coordinates import Job, by_job, by_law, coordinates
from toyiwae.oracle.enclosure.laws import BallLaw
from toyiwae.oracle.enclosure.matrices import Balls, balls, radius
from toyiwae.oracle.enclosure.moments import (
    Components,
    covariance,
    equal_covariance,
    equal_shift,
    near_equal,
    requests,
    shift,
)
from toyiwae.oracle.enclosure.precision import Found, add, converged
from toyiwae.oracle.enclosure.rows import Index, rows
from toyiwae.oracle.enclosure.sums import BallSums
from toyiwae.problems.linear_gaussian import Problem

_TOGETHER = 96  # polynomials whose transforms are held at once


@dataclass(frozen=True, eq=False)
class EnclosedBounds:
    """Balls of log E[w^e] [N], `log E[w^e] - E log mean(w^e)` and `E[(Σw^e)²/Σw^2e]` [N, nK], None if not asked for."""

    log_mean: Balls
    gap: Balls
    ess: Balls


@dataclass(frozen=True, eq=False)
class EnclosedMoments:
    """Mean and variance of one replicate (M = 1) of a gradient, averaged over the observations, as balls.

    Attributes:
        coordinates: the indices into the parameter's array, F of them.
        limit: the part of the mean that no K changes [F]; for IWAE-type forms the gradient of log Z.
        shift, mean, var: the mean less its limit, limit + shift, and the variance [nK, F].
    """

    coordinates: tuple[Index, ...]
    limit: Balls
    shift: Balls
    mean: Balls
    var: Balls


def bounds(
    problem: Problem,
    particles: Sequence[int],
    *,
    digits: int = 30,
    exponent: float = 1.0,
    with_ess: bool = True,
) -> EnclosedBounds:
    """Bounds and sample sizes of w^exponent for each observation and number of particles, to so many proven digits.

    Raises:
        InputError: for an exponent at which E[w^e] does not exist.
        PrecisionError: if the balls do not become small enough.
    """

    def evaluate(nats: float) -> Found:
        found: Found = {}
        for row in rows(problem):
            add(found, ("log_mean", row.n), row.law.log_moment(exponent), arb(1))
            numbers = _bounds_of(row.law.power(exponent), particles, nats, digits, with_ess=with_ess)
            for (name, k), value in numbers.items():
                add(found, (name, row.n, k), value, arb(1))
        return found

    found = converged(evaluate, digits, particles)
    log_mean = balls(found["log_mean", n] for n in range(problem.n_rows))
    double = [
        balls(found.get((name, n, k)) for n in range(problem.n_rows) for k in particles)
        for name in ("gap", "ess")
    ]
    return EnclosedBounds(log_mean, *(x.reshape(problem.n_rows, -1) for x in double))


def log_evidence(problem: Problem, digits: int) -> Balls:
    """Log p(x) of each observation [N], to so many proven digits (of 1 nat where it is smaller).

    Raises:
        PrecisionError: if the balls do not become small enough.
    """
    found = converged(lambda _: {(row.n,): (row.log_evidence, arb(1)) for row in rows(problem)}, digits)
    return balls(found[(n,)] for n in range(problem.n_rows))


def _bounds_of(
    law: BallLaw, particles: Sequence[int], nats: float, digits: int, *, with_ess: bool
) -> dict[tuple[str, int], arb]:
    found = {("gap", 1): law.first_gap(), ("ess", 1): arb(1)}
    many = sorted({k for k in particles if k > 1})
    spread = near_equal(law, many, digits)
    if spread is not None:
        half = law.first_gap().abs_upper() / 2  # the gap falls with K; E[S²/Q] ≥ E[S]²/E[Q]
        found |= {("gap", k): half + radius(half) for k in many}
        return found | {("ess", k): k * (1 - spread / 2) + radius(k * spread / 2) for k in many}
    if many:
        sums = BallSums(law, many, [], nats, p=1, orders=[0])
        found |= {("gap", k): sums.gap(k) for k in many}
    if many and with_ess:
        sums = BallSums(law, many, [Request(1), Request(2)], nats, p=2, orders=[1])
        found |= {("ess", k): sums.sample_size(k) for k in many}
    return found


def gradients(
    problem: Problem, jobs: Mapping[Any, Job], particles: Sequence[int], *, digits: int = 30
) -> dict[Any, EnclosedMoments]:
    """Means and variances of gradient coordinates, to so many proven digits.

    Args:
        problem: the problem; observations are sampled independently.
        jobs: key -> (form, parameter, coordinates or None for all of them). Log terms of a form are not part of it.
        particles: numbers of particles.
        digits: significant decimal digits.

    Raises:
        InputError: for an exponent at which E[w^e] does not exist, or an unknown parameter.
        PrecisionError: if the balls do not become small enough.
    """
    asked = coordinates(problem, jobs)

    def evaluate(nats: float) -> Found:
        found: Found = {}
        for _, base in by_law(problem, asked):
            moments = _moments(base.law, base.parts, particles, nats, digits)
            for one, which, factor in base:
                limit, name = base.parts[which].limit, (one.key, one.index)
                scale = base.scales[which] * factor.abs_upper()
                add(found, ("limit", 0, *name), limit * factor, scale)
                for k in particles:
                    mean, var = moments[which, k]
                    add(found, ("shift", k, *name), mean * factor, scale)
                    add(found, ("mean", k, *name), (limit + mean) * factor, scale)
                    add(found, ("var", k, *name), var * factor * factor, scale * scale)
        return found

    found = converged(evaluate, digits, particles)
    limit = by_job(found, jobs, asked, "limit", [0])
    shift, mean, var = (by_job(found, jobs, asked, what, particles) for what in ("shift", "mean", "var"))
    return {
        key: EnclosedMoments(
            tuple(one.index for one in asked if one.key == key),
            limit[key][0],
            shift[key],
            mean[key],
            var[key],
        )
        for key in jobs
    }


def _moments(
    law: BallLaw, parts: Sequence[Components], particles: Sequence[int], nats: float, digits: int
) -> dict[tuple[int, int], tuple[arb, arb]]:
    """(Polynomial, K) -> its mean less the limit, and its variance."""
    many, found = sorted({k for k in particles if k > 1}), {}
    spread = near_equal(law, many, digits)
    for start in range(0, len(parts), _TOGETHER):
        batch, sums = parts[start : start + _TOGETHER], None
        if many and spread is None:
            wanted = requests(batch, zip(batch, batch, strict=True))
            orders = sorted(set().union(*(one.orders() for one in batch)))
            sums = BallSums(law, many, wanted, nats, p=1, orders=orders)
        for which, one in enumerate(batch, start):
            for k in particles:
                if k > 1 and sums is not None:
                    found[which, k] = shift(sums, one, k), covariance(sums, law, one, one, k)
                else:
                    rest = arb(0) if spread is None or k == 1 else spread
                    equal = equal_covariance(law, one, one, k, rest)
                    found[which, k] = equal_shift(law, one, k, rest), equal
    return found
