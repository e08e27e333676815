"""The accuracy that exact numbers are held to, and what multiprecision may cost where float64 misses it.

A number is above tolerance where the bound on its error exceeds 1e-8 of the larger of its size and its natural scale:
for a mean, the standard deviation of a group's gradient, since a mean that vanishes by symmetry has no relative
accuracy; for a bound, one nat; nothing for a gap, a sample size or a variance, unless it is exactly zero.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flint import arb, ctx

from toyiwae.errors import PrecisionError
from toyiwae.oracle.enclosure.contours import Request, Table
from toyiwae.oracle.enclosure.laws import BallLaw
from toyiwae.oracle.enclosure.matrices import exact
from toyiwae.oracle.enclosure.planner import Planner, spacing_for
from toyiwae.oracle.laws.bounded import Bounded, where
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.whitened.algebra import is_diagonal
from toyiwae.problems.linear_gaussian import Problem

TOLERANCE = 1e-8
"""Relative error that a number may have."""

DIGITS = 12
"""Digits that numbers are recomputed with where float64 misses the tolerance."""

FLOAT_DIGITS = 17
"""Digits that are computed where fewer are asked for, so that float64 gets all that it holds."""

MOST_EFFORT = 40.0
"""Estimated seconds of one core that one call spends on that."""


def above_tolerance(found: Bounded, scale: Any = 0.0) -> np.ndarray:
    """Where the error is above the tolerance; a scale counts where it is larger than the value.

    Formula: tolerance.
    """
    return np.asarray(found.error > TOLERANCE * np.maximum(np.abs(found.value), scale))


def unresolved(found: Bounded) -> np.ndarray:
    """Where a number is told from zero, but not to the tolerance."""
    size = np.abs(found.value)
    return np.asarray((found.error > TOLERANCE * size) & (found.error < size))


def zero_scale(value: np.ndarray, scale: Any) -> np.ndarray:
    """The scale where the value is exactly zero, else nothing."""
    return np.where(value == 0.0, scale, 0.0)


def masked(what: str, found: Bounded, scale: Any, why: str) -> tuple[Bounded, str | None]:
    """A number with NaN where its error is above the tolerance, and the reason; the number itself where all is well.

    Args:
        what: how the reason calls it.
        found: the number.
        scale: its natural scale, see the module's text.
        why: why it was not computed more accurately.
    """
    bad = above_tolerance(found, scale)
    if not bad.any():
        return found, None
    size = np.maximum(np.abs(found.value), scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        worst = float(np.nanmax(np.where(bad, found.error / size, 0.0)))
    reason = f"{what} is known to {worst:.2g} of its size, not to {TOLERANCE:g}: {why}"
    return where(bad, Bounded(np.array(np.nan), np.array(np.nan)), found), reason


def seconds(
    law: GaussianLaw, particles: Sequence[int], coordinates: int, digits: float, problem: Problem, left: float
) -> tuple[str | None, float]:
    """The cost model: how many of the seconds left a computation in multiprecision takes, or why it is not made.

    The observations share a spectrum; each costs the nodes of its contours times what is computed at each of them. That
    of the largest shift is planned, in float64; the others count as much, and the precision may have to be raised once.

    Args:
        law: that of the observations.
        particles: K.
        coordinates: of gradients; 0 for a bound.
        digits: significant decimal digits.
        problem: whose dimensions are counted too.
        left: what the call may still spend.

    Returns:
        None and what is left afterwards; or the reason, and `left` as it was.
    """
    count, dim = law.h.shape
    what = f"{digits:.0f} digits of {max(coordinates, 1)} numbers for {count} rows in {dim} dimensions"
    why = f"multiprecision would take too long for {what}, observed in {problem.dim_x}: ask for them with digits"
    taken = 0.05 * count + 0.5 * (dim / 50) ** 3 * (1.0 + digits / 50) + _for_solves(problem, digits)
    if taken > left:
        return why, left
    try:
        taken += count * _for_integrals(law, particles, coordinates, digits)
    except PrecisionError as error:
        return str(error), left
    return (why, left) if taken > left else (None, left - taken)


def _for_solves(problem: Problem, digits: float) -> float:
    """About how many seconds `R⁻¹W` and `WᵀR⁻¹W` take, at three precisions."""
    count, slower = problem.dim_x, 1.0 + digits / 200
    solved = 0.0 if is_diagonal(problem.model.noise_cov) else 1e-7 * count**3
    return 3.0 * slower * (solved + 1.5e-6 * count * problem.dim_z**2)


def _for_integrals(law: GaussianLaw, particles: Sequence[int], coordinates: int, digits: float) -> float:
    """About how many seconds the integrals of the observation of the largest shift take."""
    if not (law.beta.any() or law.h.any()):
        return 0.0  # equal weights: nothing to integrate
    farthest = int(np.argmax((law.h**2).sum(axis=1)))
    beta = law.beta if law.beta.ndim == 1 else law.beta[farthest]
    with ctx.workprec(53):
        lifted = BallLaw(exact(beta), exact(law.h[farthest]), arb(0))
        nats = (digits + 8.0) * np.log(10.0)
        made = Planner(Table(lifted, 1, [Request(0)]), particles, nats, spacing_for(nats, [0])).plan()
    nodes = sum(segment.count * (1 + segment.bits / 256) for segment in made.segments)
    points = (made.high - made.low) * len(particles)
    return 2.0 * (1e-5 * nodes * (law.h.shape[1] + 10) + 3e-5 * coordinates * (nodes + points))
