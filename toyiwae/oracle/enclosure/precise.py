# ruff: noqa: E501
"""The truth in any number of digits: bounds, sample sizes, and gradients' means and variances.

    values = bounds(problem, [7, 10**9], digits=50)
    moments = gradients(problem, {"dreg": (form, "proposal_mean", None)}, [7, 10**9], digits=50)

The float64 entries of the problem count as exact. Every value is computed on two plans that share neither step, range
nor number of bits (`precise_plan`), with as many digits more as cancellation was seen to take; their difference is the
stated error. Independent of the float64 engine but for the theory (theory §3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mpmath import MPContext

from toyiwae.errors import InputError, PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.enclosure import precise_problem
from toyiwae.oracle.enclosure.finite_k import Components, PreciseFiniteK, Sum, shift, variance
from toyiwae.oracle.enclosure.fixed_point import Objects, objects
from toyiwae.oracle.enclosure.law import PreciseLaw, Request
from toyiwae.oracle.enclosure.precise_problem import Index, PreciseRow
from toyiwae.problems.linear_gaussian import Problem

_SPARE = 4  # decimal digits beside the ones asked for
_ROUNDS = 5
Job = tuple[Form, str, Sequence[Index] | None]
Found = dict[tuple, Sum]


@dataclass(frozen=True, eq=False)
class PreciseBounds:
    """Gap `log E[w^e] - E log mean(w^e)`, sample size `E[(Σw^e)²/Σw^2e]` and log E[w^e] (0 for e = 1), multiprecision.

    Attributes:
        log_mean: per row [N].
        gap, ess: per row and number of particles [N, nK].
        gap_error, ess_error: float64, the same shapes; bounds on absolute errors.
    """

    log_mean: Objects
    gap: Objects
    gap_error: np.ndarray
    ess: Objects
    ess_error: np.ndarray


@dataclass(frozen=True, eq=False)
class PreciseMoments:
    """Mean and variance of one replicate (M = 1) of a gradient, averaged over the rows, multiprecision.

    Attributes:
        coordinates: the indices into the parameter's array, F of them.
        limit: the part of the mean that no K changes [F]; for IWAE-type forms the gradient of log Z.
        shift: the mean less its limit, for each number of particles [nK, F].
        mean: limit + shift, right to as many digits where the two cancel [nK, F].
        var: the variance [nK, F].
        shift_error, mean_error, var_error: float64 [nK, F]; bounds on absolute errors.
    """

    coordinates: tuple[Index, ...]
    limit: Objects
    shift: Objects
    shift_error: np.ndarray
    mean: Objects
    mean_error: np.ndarray
    var: Objects
    var_error: np.ndarray


def bounds(
    problem: Problem,
    particles: Sequence[int],
    *,
    digits: int = 30,
    exponent: float = 1.0,
    with_ess: bool = True,
) -> PreciseBounds:
    """Bounds and sample sizes of w^exponent for each row and number of particles, right to so many digits.

    Raises:
        InputError: for an exponent at which E[w^e] does not exist.
        PrecisionError: if two plans do not agree to that many digits.
    """
    keys = [(n, k, name) for n in range(problem.n_rows) for k in particles for name in ("gap", "ess")]

    def evaluate(asked: float, variant: int) -> Found:
        found: Found = {}
        for row in _rows(problem, asked, particles):
            law = _law(row, exponent)
            found |= {(row.n, 1, "gap"): _first_gap(law), (row.n, 1, "ess"): Sum(law.ctx.one, law.ctx.one)}
            many = sorted({k for k in particles if k > 1})
            if _equal_weights(law):
                zero = law.ctx.zero
                found |= {(row.n, k, "gap"): Sum(zero, zero) for k in many}
                found |= {(row.n, k, "ess"): Sum(law.ctx.mpf(k), law.ctx.mpf(k)) for k in many}
                continue
            if many:
                engine = PreciseFiniteK(law, many, [], asked, variant=variant)
                found |= {(row.n, k, "gap"): engine.gap(k) for k in many}
            if many and with_ess:
                engine = PreciseFiniteK(law, many, [Request(1), Request(2)], asked, p=2, variant=variant)
                found |= {(row.n, k, "ess"): engine.sample_size(k) for k in many}
        return found

    values, errors = _settled(evaluate, digits, 0.0)
    shape = (problem.n_rows, len(particles), 2)
    value, error = _arranged(values, keys, shape), _arranged(errors, keys, shape).astype(float)
    log_mean = objects([_law_log_mean(row, exponent) for row in _rows(problem, digits, particles)])
    return PreciseBounds(log_mean, value[..., 0], error[..., 0], value[..., 1], error[..., 1])


def gradients(
    problem: Problem, jobs: Mapping[Any, Job], particles: Sequence[int], *, digits: int = 30
) -> dict[Any, PreciseMoments]:
    """Means and variances of gradient coordinates, right to so many digits.

    Args:
        problem: the problem; rows are sampled independently.
        jobs: key -> (form, parameter, coordinates or None for all of them). Log terms of a form are not part of it.
        particles: numbers of particles.
        digits: significant decimal digits.

    Raises:
        InputError: for an exponent at which E[w^e] does not exist, or an unknown parameter.
        PrecisionError: if two plans do not agree to that many digits.
    """
    chosen = {key: _coordinates(problem, parameter, index) for key, (_, parameter, index) in jobs.items()}
    extra = np.log10(float(max(particles))) if any(_squares(form) for form, _, _ in jobs.values()) else 0.0

    def evaluate(asked: float, variant: int) -> Found:
        found: Found = {}
        for row in _rows(problem, asked, particles):
            for name, one in _row_moments(row, jobs, chosen, particles, asked, variant).items():
                found[name] = found[name] + one if name in found else one
        return found

    values, errors = _settled(evaluate, digits, extra)
    result = {}
    for key, indices in chosen.items():
        shape = (len(particles), len(indices))
        arrays = []
        for name in ("shift", "mean", "var"):
            names = [(key, name, index, k) for k in particles for index in indices]
            arrays += [_arranged(values, names, shape), _arranged(errors, names, shape).astype(float)]
        limit = _arranged(values, [(key, "limit", index, 0) for index in indices], (len(indices),))
        result[key] = PreciseMoments(tuple(indices), limit, *arrays)
    return result


def _row_moments(
    row: PreciseRow,
    jobs: Mapping[Any, Job],
    chosen: dict,
    particles: Sequence[int],
    asked: float,
    variant: int,
) -> Found:
    """One row's share of all moments."""
    found: Found = {}
    count = row.problem.n_rows
    for exponent in sorted({form.exponent for form, _, _ in jobs.values()}):
        law = _law(row, exponent)
        todo = {}
        for key, (form, parameter, _) in jobs.items():
            if form.exponent == exponent:
                for index in chosen[key]:
                    raw = precise_problem.components(row, form, parameter, index)
                    parts, scale = precise_problem.balanced(raw, row.ctx)
                    todo[key, index] = (
                        Components.of(law, parts),
                        scale * row.factor(parameter, index) / count,
                    )
        many = sorted({k for k in particles if k > 1})
        requests = [request for components, _ in todo.values() for request in components.requests()]
        engine = None
        if many and not _equal_weights(law):
            engine = PreciseFiniteK(law, many, requests, asked, variant=variant)
        for (key, index), (components, factor) in todo.items():
            found[key, "limit", index, 0] = components.limit.times(factor)
            for k in particles:
                if k == 1 or engine is None:
                    mean, var = _equal_moments(row.law(), components, k)
                else:
                    mean, var = shift(engine, k, components), variance(engine, law, k, components)
                found[key, "shift", index, k] = mean.times(factor)
                found[key, "mean", index, k] = (components.limit + mean).times(factor)
                found[key, "var", index, k] = var.times(factor**2)
    return found


def _first_gap(law: PreciseLaw) -> Sum:
    """-E log w: the gap at K = 1."""
    total = law.ctx.zero
    for b, h in zip(law.beta, law.h, strict=True):
        total += h**2 / (2 * (1 + b)) - (law.ctx.log1p(b) - b) / 2
    return Sum(total, total)


def _equal_weights(law: PreciseLaw) -> bool:
    """Whether β and h are zeros, up to the round-off of the precision that they were computed in."""
    least = law.ctx.mpf(10) ** (-0.8 * law.ctx.dps)
    return all(abs(x) < least for x in (*law.beta, *law.h))


def _equal_moments(law: PreciseLaw, components: Components, k: int) -> tuple[Sum, Sum]:
    """Shift and variance where every normalised weight is 1/K: Σ_r K^{1-r} g_r, averaged over K draws (0 counts as 1)."""
    zero = law.ctx.zero
    parts = [(law.ctx.mpf(k) ** (1 - max(r, 1)), g) for r, g in components.parts.items()]
    mean = sum((a * law.mean(zero, g) for a, g in parts), zero)
    second = sum((a * b * law.mean(zero, f, g) for a, f in parts for b, g in parts), zero)
    size = abs(mean) + law.ctx.sqrt(abs(second) / k)
    return Sum(mean, size), Sum((second - mean**2) / k, (second + mean**2) / k)


# digits ----------------------------------------------------------------------------------------------------------------


def _settled(evaluate: Callable[[float, int], Found], digits: int, extra: float) -> tuple[dict, dict]:
    """Values on which two plans agree to `digits`, and twice their differences.

    Raises:
        PrecisionError: if they do not.
    """
    if not 1 <= digits <= 1000:
        raise InputError(f"digits is {digits}: it must be a whole number from 1 to 1000")
    asked = _stepped(digits + _SPARE + extra)
    previous, worst = evaluate(asked, 0), 0.0
    for turn in range(1, _ROUNDS):
        asked = _stepped(max(asked, digits + _SPARE + _lost(previous, digits)))
        found = evaluate(asked, turn % 2)
        differences = {key: abs(one.value - previous[key].value) for key, one in found.items()}
        worst = max((_relative(differences[key], one, digits) for key, one in found.items()), default=0.0)
        if worst <= 10.0 ** -(digits + 1):
            ctx = MPContext()
            ctx.dps = digits + _SPARE
            values = {key: ctx.mpf(one.value) for key, one in found.items()}
            floor = 10.0 ** -(digits + 1)
            return values, {key: float(2 * d + floor * abs(values[key])) for key, d in differences.items()}
        previous, asked = found, asked + np.log10(worst) + digits + _SPARE
    raise PrecisionError(f"two plans agree only to {worst:.1e} where {digits} digits were asked for")


def _stepped(digits: float) -> float:
    """Rounded up, so that few different plans are made and their values of Γ serve many problems."""
    return 4.0 * np.ceil(digits / 4.0)


def _lost(found: Found, digits: int) -> float:
    """Digits lost to cancellation in the value that lost most, those that vanish aside."""
    lost = 0.0
    for key, one in found.items():
        if key[1] != "limit" and abs(one.value) > one.size * 10.0 ** -(digits + 40.0):
            lost = max(lost, float(np.log10(float(one.size / abs(one.value)))))
    return lost


def _relative(difference: Any, one: Sum, digits: int) -> float:
    if difference == 0 or one.value == 0 or abs(one.value) < one.size * 10.0 ** -(digits + 20.0):
        return 0.0
    return float(difference / abs(one.value))


# problems and arrays -----------------------------------------------------------------------------------------------------


def _rows(problem: Problem, digits: float, particles: Sequence[int]) -> list[PreciseRow]:
    """The rows at a precision that leaves room for ill-conditioned covariances and large K."""
    ctx = MPContext()
    ctx.dps = int(2.5 * digits + 2 * np.log10(float(max(particles))) + 60)
    return precise_problem.rows(problem, ctx)


def _law(row: PreciseRow, exponent: float) -> PreciseLaw:
    law = row.law(exponent)
    if any(1 + b <= 0 for b in law.beta):
        raise InputError(f"the mean of w^{exponent:g} does not exist for this problem")
    return law


def _law_log_mean(row: PreciseRow, exponent: float) -> Any:
    return row.law().log_moment(row.ctx.mpf(exponent)) if exponent != 1.0 else row.ctx.zero


def _coordinates(problem: Problem, parameter: str, asked: Sequence[Index] | None) -> list[Index]:
    if parameter not in problem.parameters:
        raise InputError(f"unknown parameter {parameter!r}: this problem has {', '.join(problem.parameters)}")
    return (
        precise_problem.coordinates(problem, parameter)
        if asked is None
        else [tuple(index) for index in asked]
    )


def _squares(form: Form) -> bool:
    return any(power > 1 for part in (form.model, form.path, form.score) for power in part)


def _arranged(values: dict, keys: list, shape: tuple[int, ...]) -> Objects:
    flat = np.empty(len(keys), dtype=object)
    flat[:] = [values.get(key, 0.0) for key in keys]
    return flat.reshape(shape)
