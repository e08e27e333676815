"""Balls of which so many digits are proven: the working precision is raised until they are small enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from flint import arb, ctx

from toyiwae.errors import InputError, PrecisionError
from toyiwae.oracle.enclosure.matrices import Balls, balls
from toyiwae.oracle.laws.bounded import EPS, Bounded

_GUARD = 4  # decimal digits beside the ones asked for
BELOW = (
    20  # a ball so many digits below the last one asked for, beside its scale, is small enough; twice as many
)
# for a variance, which is of the order of a square: that of DReG near the posterior falls like K⁻³
_ROUNDS = 7
_TRIAL = 14  # digits of a first round, of numbers that are asked for with at least twice as many
Found = dict[tuple[Any, ...], tuple[arb, arb]]
"""Values, and the scales beside which they may count as 0; the names of variances have a part "var"."""


def add(found: Found, name: tuple[Any, ...], value: arb, scale: arb) -> None:
    """Add an observation's part to a number and to its scale."""
    old = found.get(name, (arb(0), arb(0)))
    found[name] = old[0] + value, old[1] + scale


def converged(
    evaluate: Callable[[float], Found], digits: int, particles: Sequence[int] = (1,)
) -> dict[tuple[Any, ...], arb]:
    """Balls of which `digits` digits are proven, by raising the precision.

    Args:
        evaluate: the numbers at the working precision, given how far below the largest term of each sum its errors
            should be, as a natural logarithm.
        digits: significant decimal digits.
        particles: the numbers of particles.

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
        problem = 2.0 * (shown + BELOW + 10) + np.log10(float(max(particles))) + 30 + extra
        with ctx.workprec(int(3.33 * problem) + 16):
            try:
                found = evaluate(asked * np.log(10.0))
                floors = {name: (digits + BELOW) * (2 if "var" in name else 1) for name in found}
                worst = min((_digits(*one, floors[name]) for name, one in found.items()), default=np.inf)
            except ZeroDivisionError:  # a matrix whose balls hold a singular one: more precision tells
                found, worst = {}, -np.inf
        if worst >= digits + 1:
            return {name: value for name, (value, _) in found.items()}
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


def centred(values: Balls) -> tuple[Balls, np.ndarray]:
    """Balls, those that hold 0 around it, and float64 bounds on their radii."""
    found = [arb(0, x.abs_upper()) if x.is_finite() and x.contains(0) else x for x in values.ravel()]
    error = [float(x.rad()) * (1 + 2 * EPS) for x in found]
    return balls(found).reshape(values.shape), np.array(error).reshape(values.shape)


def nearest(values: Balls) -> Bounded:
    """The same as float64 numbers: 0 where the sign is not known."""
    found, error = centred(values)
    value = found.astype(float)
    return Bounded(value, error + EPS * np.abs(value))


def rounded(values: Balls) -> Bounded:
    """Balls as float64 numbers with bounds on their absolute errors."""
    middle = [float(x.mid()) for x in values.ravel()]
    error = [float((x - m).abs_upper()) for x, m in zip(values.ravel(), middle, strict=True)]
    shape = values.shape
    return Bounded(np.array(middle).reshape(shape), np.array(error).reshape(shape) * (1 + 4 * EPS))
