"""Enclosures: bounds, sample sizes, and gradients' means and variances, as balls of which n digits are proven.

    values = bounds(problem, [7, 10**9], digits=50)
    moments = gradients(problem, {"dreg": (form, "proposal_mean", None)}, [7, 10**9], digits=50)

The float64 entries of the problem count as exact. Every ball contains the true value (theory §3, "The discretisation errors
are theorems"); the precision is raised until it is small.
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
from toyiwae.oracle.enclosure.laws import BallLaw, Quadratic
from toyiwae.oracle.enclosure.matrices import Balls, balls, radius
from toyiwae.oracle.enclosure.rows import Index, Row, coordinates, rows
from toyiwae.oracle.enclosure.sums import BallSums
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.problems.linear_gaussian import Problem

_GUARD = 4  # decimal digits beside the ones asked for
_ZERO = 20  # what lies so many digits below the last one asked for, beside its scale, is accepted as 0
_ROUNDS = 7
_TOGETHER = 96  # coordinates whose transforms are held at once
Job = tuple[Form, str, Sequence[Index] | None]


@dataclass(frozen=True)
class Scaled:
    """A ball and the size beside which it may count as 0."""

    value: arb
    scale: arb

    def __add__(self, other: Scaled) -> Scaled:
        """Sum."""
        return Scaled(self.value + other.value, self.scale + other.scale)

    def digits(self, floor: float) -> float:
        """Proven significant digits, or those below the scale less `floor`, whichever are more."""
        size = self.value.rad()
        if not self.value.is_finite():
            return -np.inf
        if size == 0:
            return np.inf
        least = max(self.value.abs_lower(), self.scale.abs_upper() * arb(10) ** arb(-floor))
        return float(((least / size).log() / arb(10).log()).lower()) if least > 0 else -np.inf


Found = dict[tuple, Scaled]


@dataclass(frozen=True, eq=False)
class EnclosedBounds:
    """Balls: log E[w^e] (0 for e = 1) [N]; gap `log E[w^e] - E log mean(w^e)` and `E[(Σw^e)²/Σw^2e]` [N, nK]."""

    log_mean: Balls
    gap: Balls
    ess: Balls


@dataclass(frozen=True, eq=False)
class EnclosedMoments:
    """Mean and variance of one replicate (M = 1) of a gradient, averaged over the observations, as balls.

    Attributes:
        coordinates: the indices into the parameter's array, F of them.
        limit: the part of the mean that no K changes [F]; for IWAE-type forms the gradient of log Z.
        shift: the mean less its limit [nK, F]. mean: limit + shift [nK, F]. var: the variance [nK, F].
    """

    coordinates: tuple[Index, ...]
    limit: Balls
    shift: Balls
    mean: Balls
    var: Balls


def bounds(
    problem: Problem, particles: Sequence[int], *, digits: int = 30, exponent: float = 1.0, with_ess: bool = True
) -> EnclosedBounds:
    """Bounds and sample sizes of w^exponent for each observation and number of particles, to so many proven digits.

    Raises:
        InputError: for an exponent at which E[w^e] does not exist.
        PrecisionError: if the balls do not become small enough.
    """
    names = ("gap", "ess") if with_ess else ("gap",)

    def evaluate(nats: float) -> Found:
        found: Found = {}
        for row in rows(problem):
            law = _law(row, exponent)
            found[row.n, "log_mean"] = Scaled(row.law().log_mean(exponent), arb(1))
            for (k, name), value in _bounds_of(law, particles, nats, digits, with_ess=with_ess).items():
                found[row.n, k, name] = Scaled(value, arb(1))
        return found

    found = _converged(evaluate, digits, particles)
    shape = (problem.n_rows, len(particles))
    log_mean = balls(found[n, "log_mean"] for n in range(problem.n_rows))
    values = [
        balls(found[n, k, name] for n in range(problem.n_rows) for k in particles).reshape(shape) for name in names
    ]
    return EnclosedBounds(log_mean, values[0], values[1] if with_ess else np.zeros(shape, dtype=object))


def _bounds_of(
    law: BallLaw, particles: Sequence[int], nats: float, digits: int, *, with_ess: bool
) -> dict[tuple[int, str], arb]:
    found = {(1, "gap"): law.first_gap(), (1, "ess"): arb(1)}
    many = sorted({k for k in particles if k > 1})
    if not many:
        return found
    spread = _near_equal(law, many, digits)
    if spread is not None:
        top = law.first_gap().abs_upper()
        for k in many:
            least = k / (1 + spread)
            found[k, "gap"] = top / 2 + radius(top / 2)  # the gap falls with K
            found[k, "ess"] = (k + least) / 2 + radius((k - least) / 2)  # E[S²/Q] ≥ E[S]²/E[Q]
        return found
    sums = BallSums(law, many, [], nats, p=1, orders=[0])
    found |= {(k, "gap"): sums.gap(k) for k in many}
    if with_ess:
        sums = BallSums(law, many, [Request(1), Request(2)], nats, p=2, orders=[1])
        found |= {(k, "ess"): sums.sample_size(k) for k in many}
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

    def evaluate(nats: float) -> Found:
        found: Found = {}
        for row in rows(problem):
            for name, one in _row_moments(row, jobs, chosen, particles, nats, digits):
                found[name] = found[name] + one if name in found else one
        return found

    found = _converged(evaluate, digits, particles)
    result = {}
    for key, indices in chosen.items():
        shape = (len(particles), len(indices))
        arrays = [
            balls(found[key, name, index, k] for k in particles for index in indices).reshape(shape)
            for name in ("shift", "mean", "var")
        ]
        limit = balls(found[key, "limit", index, 0] for index in indices)
        result[key] = EnclosedMoments(tuple(indices), limit, *arrays)
    return result


def _row_moments(
    row: Row, jobs: Mapping[Any, Job], chosen: dict, particles: Sequence[int], nats: float, digits: int
) -> Iterator[tuple[tuple, Scaled]]:
    """One observation's part of all moments."""
    count = row.shared.problem.n_rows
    many = sorted({k for k in particles if k > 1})
    for exponent in sorted({form.exponent for form, _, _ in jobs.values()}):
        law, plain = _law(row, exponent), row.law()
        spread = _near_equal(law, many, digits) if many else None
        todo = [
            (key, index, form, parameter)
            for key, (form, parameter, _) in jobs.items()
            if form.exponent == exponent
            for index in chosen[key]
        ]
        for start in range(0, len(todo), _TOGETHER):
            batch = todo[start : start + _TOGETHER]
            parts = [Components.of(law, row.components(form, parameter, index)) for _, index, form, parameter in batch]
            sums = None
            if many and spread is None:
                requests = [request for one in parts for request in one.requests()]
                orders = sorted({r + s for one in parts for r in one.parts for s in one.parts if r + s} | {r for one in parts for r in one.parts if r})
                sums = BallSums(law, many, requests, nats, p=1, orders=orders)
            for (key, index, _, parameter), one in zip(batch, parts, strict=True):
                factor = row.factor(parameter, index) / count
                scale = one.scale * factor.abs_upper()
                yield (key, "limit", index, 0), Scaled(one.limit * factor, scale)
                for k in particles:
                    if k == 1:
                        mean, var = _first_moments(plain, one)
                    elif sums is None:
                        mean, var = _equal_moments(law, one, k, spread)
                    else:
                        mean, var = one.moments(sums, law, k)
                    yield (key, "shift", index, k), Scaled(mean * factor, scale)
                    yield (key, "mean", index, k), Scaled((one.limit + mean) * factor, scale)
                    yield (key, "var", index, k), Scaled(var * factor * factor, scale * scale)


@dataclass(frozen=True, eq=False)
class Components:
    """A gradient coordinate's polynomials by power of the normalised weight, centred where that costs nothing.

    The power 0 is centred under the proposal and the power 1 under the posterior (the law ∝ w); `limit` is what that takes out
    of the mean, `scale` the root mean square of the polynomials.
    """

    parts: dict[int, Quadratic]
    limit: arb
    scale: arb

    @classmethod
    def of(cls, law: BallLaw, raw: dict[int, Quadratic]) -> Components:
        """Centre raw polynomials."""
        parts, limit, scale = {}, arb(0), arb(0)
        for r, g in raw.items():
            scale += law.mean(float(min(r, 1)), g, g).abs_upper().sqrt()
            if r < 2:
                mean = law.mean(float(r), g)
                limit, g = limit + mean, g.plus(-mean)
            parts[r] = g
        return cls(parts, limit, scale)

    def requests(self) -> list[Request]:
        """The transforms that the moments need."""
        parts = self.parts
        singles = [Request(r, (g,), centred=r < 2) for r, g in parts.items()]
        return singles + [
            Request(r + s, (parts[r], parts[s])) for r in parts for s in parts if r <= s and r + s
        ]

    def moments(self, sums: BallSums, law: BallLaw, k: int) -> tuple[arb, arb]:
        """The mean less its limit, and the variance of one replicate."""
        means = {r: sums.single(k, r, g) if r else arb(0) for r, g in self.parts.items()}
        total = arb(0)
        for r, f in self.parts.items():
            for s, g in self.parts.items():
                if r == s == 0:
                    total += law.mean(0.0, f, g) / k
                elif r <= s:
                    product = sums.pair(k, r, f, s, g)
                    one = product / k if r == 0 else product - means[r] * means[s]
                    total += one * (1 + (s > r))
        return sum(means.values(), arb(0)), total


def _first_moments(law: BallLaw, one: Components) -> tuple[arb, arb]:
    """Shift and variance at K = 1, where the normalised weight is 1."""
    every = list(one.parts.values())
    mean = sum((law.mean(0.0, g) for g in every), arb(0))
    return mean, sum((law.mean(0.0, f, g) for f in every for g in every), arb(0)) - mean * mean


def _near_equal(law: BallLaw, particles: Sequence[int], digits: int) -> arb | None:
    """A bound on Var w where it is so small that every normalised weight counts as 1/K; else None."""
    if law.ends()[1] < 3.0:
        return None
    spread = (law.moment(2.0) - 1).abs_upper()
    return spread if spread * max(particles) < arb(10) ** (-4 * (digits + _ZERO + 4)) else None


def _equal_moments(law: BallLaw, one: Components, k: int, spread: arb | None) -> tuple[arb, arb]:
    """Shift and variance where every w̃ is nearly 1/K: those of Σ_r K^{-r} Σ_k g_r (0 counts as 1), with a bound on the rest.

    With V = Var w, E[Σ(w̃ - 1/K)²] ≤ 8V/K (Chebyshev where Σw < K/2), |w̃^r - K^{-r}| ≤ r|w̃ - 1/K| and E[g⁴] ≤ 81 E[g²]²
    (hypercontractivity), the rest has root mean square at most `Σ_r r (8V/K)^{1/4} 3 √(K E[g²])`.
    """
    assert spread is not None
    parts = [(arb(k) ** (1 - max(r, 1)), g) for r, g in one.parts.items()]
    mean = sum((a * law.mean(0.0, g) for a, g in parts), arb(0))
    second = sum((a * b * law.mean(0.0, f, g) for a, f in parts for b, g in parts), arb(0))
    var = (second - mean * mean) / k
    rest = sum((r * (k * law.mean(0.0, g, g)).abs_upper().sqrt() for r, g in one.parts.items()), arb(0))
    rest = 3 * rest * (8 * spread / k).abs_upper().sqrt().sqrt()
    return mean + radius(rest), var + radius(2 * rest * var.abs_upper().sqrt() + rest * rest)


# digits ----------------------------------------------------------------------------------------------------------------


def _converged(evaluate: Callable[[float], Found], digits: int, particles: Sequence[int]) -> dict[tuple, arb]:
    """Balls of which `digits` digits are proven, by raising the precision.

    Raises:
        InputError: for a number of digits out of range.
        PrecisionError: if they do not become small enough.
    """
    if not 1 <= digits <= 1000:
        raise InputError(f"digits is {digits}: it must be a whole number from 1 to 1000")
    asked, worst = float(digits + _GUARD), -np.inf
    problem = 2.0 * (digits + _ZERO + 10) + np.log10(float(max(particles))) + 30
    for _ in range(_ROUNDS):
        with ctx.workprec(int(3.33 * problem) + 16):
            found = evaluate(asked * np.log(10.0))
            worst = min((one.digits(digits + _ZERO) for one in found.values()), default=np.inf)
        if worst >= digits + 1:
            return {key: one.value for key, one in found.items()}
        missing = digits + 2 - worst if np.isfinite(worst) else 1.0 * digits + 20
        asked, problem = asked + missing, problem + missing
    raise PrecisionError(f"{max(worst, 0.0):.0f} digits were proven where {digits} were asked for")


def rounded(values: Balls) -> Bounded:
    """Balls as float64 numbers with bounds on their absolute errors."""
    middle = np.array([float(x.mid()) for x in values.ravel()]).reshape(values.shape)
    error = np.array([float(abs(x - arb(m)).upper()) for x, m in zip(values.ravel(), middle.ravel(), strict=True)])
    return Bounded(middle, error.reshape(values.shape) * (1 + 4 * EPS))


def text(value: arb, digits: int) -> str:
    """The ball's value with up to so many digits, all of them proven (the last within one unit)."""
    with ctx.workprec(int(3.33 * digits) + 64):
        return str(value.str(digits, radius=False))


def _law(row: Row, exponent: float) -> BallLaw:
    law = row.law(exponent)
    if any(1 + b <= 0 for b in law.beta):
        raise InputError(f"the mean of w^{exponent:g} does not exist for this problem")
    return law


def _coordinates(problem: Problem, parameter: str, asked: Sequence[Index] | None) -> list[Index]:
    if parameter not in problem.parameters:
        raise InputError(f"unknown parameter {parameter!r}: this problem has {', '.join(problem.parameters)}")
    return coordinates(problem, parameter) if asked is None else [tuple(index) for index in asked]
