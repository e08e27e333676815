"""Enclosures: bounds, sample sizes, and gradients' means and variances, as balls of which n digits are proven.

    values = bounds(problem, [7, 10**9], digits=50)
    moments = gradients(problem, {"dreg": (form, "proposal_mean", None)}, [7, 10**9], digits=50)

The float64 entries of the problem count as exact. Every ball contains the true value (theory §3: the discretisation
errors are theorems, bounded in `contours`); the precision is raised until it is small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, ctx

from toyiwae.errors import InputError, PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.enclosure.contours import Request
from toyiwae.oracle.enclosure.laws import BallLaw
from toyiwae.oracle.enclosure.matrices import Balls, balls, radius
from toyiwae.oracle.enclosure.moments import Components
from toyiwae.oracle.enclosure.rows import SCORE, Index, Row, rows
from toyiwae.oracle.enclosure.sums import BallSums
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.problems.linear_gaussian import Problem

_GUARD = 4  # decimal digits beside the ones asked for
_ZERO = (
    20  # a ball so many digits below the last one asked for, beside its scale, is small enough; twice as many
)
# for a variance, which is of the order of a square: that of DReG near the posterior falls like K⁻³
_ROUNDS = 7
_TRIAL = 14  # digits of a first round, of numbers that are asked for with at least twice as many
_TOGETHER = 96  # coordinates whose transforms are held at once
Job = tuple[Form, str, Sequence[Index] | None]
Found = dict[tuple, tuple[arb, arb]]  # values, and the scales beside which they may count as 0


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
        found: dict[tuple, arb] = {}
        for row in rows(problem):
            law = _power(row, exponent)
            found["log_mean", row.n] = row.law.log_moment(exponent)
            for (name, k), value in _bounds_of(law, particles, nats, digits, with_ess=with_ess).items():
                found[name, row.n, k] = value
        return {key: (value, arb(1)) for key, value in found.items()}

    found = _converged(evaluate, digits, particles)
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
    found = _converged(lambda _: {(row.n,): (row.log_evidence, arb(1)) for row in rows(problem)}, digits, [1])
    return balls(found[(n,)] for n in range(problem.n_rows))


def _bounds_of(
    law: BallLaw, particles: Sequence[int], nats: float, digits: int, *, with_ess: bool
) -> dict[tuple[str, int], arb]:
    found = {("gap", 1): law.first_gap(), ("ess", 1): arb(1)}
    many = sorted({k for k in particles if k > 1})
    spread = _near_equal(law, many, digits)
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
    chosen = {key: _coordinates(problem, parameter, index) for key, (_, parameter, index) in jobs.items()}
    todo = [
        (key, index, jobs[key][0], problem.parameters.record(jobs[key][1]))
        for key, indices in chosen.items()
        for index in indices
    ]

    def evaluate(nats: float) -> Found:
        found: Found = {}
        for row in rows(problem):
            for name, value, scale in _row_moments(row, todo, particles, nats, digits, problem.n_rows):
                old = found.get(name, (arb(0), arb(0)))
                found[name] = (old[0] + value, old[1] + scale)
        return found

    found = _converged(evaluate, digits, particles)
    result = {}
    for key, indices in chosen.items():
        arrays = [
            balls(found[key, name, index, k] for k in particles for index in indices).reshape(
                len(particles), -1
            )
            for name in ("shift", "mean", "var")
        ]
        limit = balls(found[key, "limit", index, 0] for index in indices)
        result[key] = EnclosedMoments(tuple(indices), limit, *arrays)
    return result


def _row_moments(
    row: Row, todo: list, particles: Sequence[int], nats: float, digits: int, n_rows: int
) -> Iterator[tuple[tuple, arb, arb]]:
    """One observation's part of all moments: names, values, scales."""
    many = sorted({k for k in particles if k > 1})
    todo = [one for one in todo if not one[3].own or one[1][0] == row.n]
    for exponent in sorted({form.exponent for _, _, form, _ in todo}):
        law = _power(row, exponent)
        spread, same = _near_equal(law, many, digits), [one for one in todo if one[2].exponent == exponent]
        for start in range(0, len(same), _TOGETHER):
            batch = same[start : start + _TOGETHER]
            parts = [
                Components.of(law, row.components(form, parameter, index))
                for _, index, form, parameter in batch
            ]
            sums = None
            if many and spread is None:
                requests = [request for one in parts for request in one.requests()]
                orders = sorted(set().union(*(one.orders() for one in parts)))
                sums = BallSums(law, many, requests, nats, p=1, orders=orders)
            for (key, index, _, parameter), one in zip(batch, parts, strict=True):
                factor = row.factor(parameter, index) / n_rows
                score = Components.of(law, row.components(SCORE, parameter, index)).scale
                scale = (one.scale + score) * factor.abs_upper()  # paths vanish where q is the posterior
                yield (key, "limit", index, 0), one.limit * factor, scale
                for k in particles:
                    if k == 1 or sums is None:
                        mean, var = one.equal_moments(law, k, arb(0) if spread is None or k == 1 else spread)
                    else:
                        mean, var = one.moments(sums, law, k)
                    yield (key, "shift", index, k), mean * factor, scale
                    yield (key, "mean", index, k), (one.limit + mean) * factor, scale
                    yield (key, "var", index, k), var * factor * factor, scale * scale


def _near_equal(law: BallLaw, particles: Sequence[int], digits: int) -> arb | None:
    """A bound on Var w where it is so small that every normalised weight counts as 1/K; else None."""
    sizes = [b.abs_upper() + law.remainder for b in law.beta]
    room = 1 - 2 * max(sizes)
    if not room > 0.5:
        return None  # log((1+b)²/(1+2b)) ≤ b²/(1+2b), and E[w²] - 1 ≤ 2 log E[w²] for small ones
    log = (
        sum((b * b for b in sizes), arb(0)) / room
        + sum((h.abs_upper() * h.abs_upper() for h in law.h), arb(0)) / room**2
    )
    spread = (2 * log).abs_upper()
    return spread if spread * max([1, *particles]) < arb(10) ** (-4 * (digits + _ZERO + 4)) else None


# digits --------------------------------------------------------------------------------------------------------


def _converged(evaluate: Callable[[float], Found], digits: int, particles: Sequence[int]) -> dict[tuple, arb]:
    """Balls of which `digits` digits are proven, by raising the precision.

    Raises:
        InputError: for a number of digits out of range.
        PrecisionError: if they do not become small enough.
    """
    if not 1 <= digits <= 1000:
        raise InputError(f"digits is {digits}: it must be a whole number from 1 to 1000")
    asked, worst = float(digits + _GUARD), -np.inf
    trial = asked > 2 * _TRIAL  # with few digits it is cheap to find out how many are lost
    asked = float(_TRIAL) if trial else asked
    extra = 0.0  # digits of the problem's numbers beside the usual ones
    for _ in range(_ROUNDS + trial):
        shown = min(digits, int(asked))
        problem = 2.0 * (shown + _ZERO + 10) + np.log10(float(max(particles))) + 30 + extra
        with ctx.workprec(int(3.33 * problem) + 16):
            try:
                found = evaluate(asked * np.log(10.0))
                floors = {name: (digits + _ZERO) * (2 if "var" in name else 1) for name in found}
                worst = min((_digits(*one, floors[name]) for name, one in found.items()), default=np.inf)
            except ZeroDivisionError:  # a matrix whose balls hold a singular one: more precision tells
                found, worst = {}, -np.inf
        if worst >= digits + 1:
            return {key: value for key, (value, _) in found.items()}
        if trial:
            trial, asked = False, digits + (2 + _TRIAL - worst if worst >= 1 else _GUARD)
            continue
        missing = digits + 2 - worst if np.isfinite(worst) else 1.0 * digits + 20
        missing = min(missing, asked + problem)  # a ball far too wide does not say how many digits it lacks
        asked, extra = asked + missing, extra + missing
    raise PrecisionError(f"{max(worst, 0.0):.0f} digits were proven where {digits} were asked for")


def _digits(value: arb, scale: arb, floor: float) -> float:
    """Proven significant digits of a value, or those from 10^-floor of its scale to its radius, if they are more."""
    size = value.rad()
    if not value.is_finite() or not scale.is_finite():
        return -np.inf
    least = max(value.abs_lower(), scale.abs_upper() * arb(10) ** arb(-floor))
    if size == 0 or least == 0:
        return np.inf if size == 0 else -np.inf
    return float(((least / size).log() / arb(10).log()).lower())


def rounded(values: Balls) -> Bounded:
    """Balls as float64 numbers with bounds on their absolute errors."""
    middle = [float(x.mid()) for x in values.ravel()]
    error = [float((x - m).abs_upper()) for x, m in zip(values.ravel(), middle, strict=True)]
    shape = values.shape
    return Bounded(np.array(middle).reshape(shape), np.array(error).reshape(shape) * (1 + 4 * EPS))


def _power(row: Row, exponent: float) -> BallLaw:
    law = row.law.power(exponent)
    if any(1 + b <= 0 for b in law.beta):
        raise InputError(f"the mean of w^{exponent:g} does not exist for this problem")
    return law


def _coordinates(problem: Problem, parameter: str, asked: Sequence[Index] | None) -> list[Index]:
    if parameter not in problem.parameters:
        raise InputError(f"unknown parameter {parameter!r}: this problem has {', '.join(problem.parameters)}")
    return (
        problem.parameters.record(parameter).indices() if asked is None else [tuple(index) for index in asked]
    )
