"""The derivative of a function that is known by its values only, by central differences whose error is bounded.

With `c_n = (-1)^(n+1) (m!)² / (n (m-n)! (m+n)!)` and a step δ,

    f'(z) = Σ_{n=1..m} c_n (f(z + nδ) - f(z - nδ)) / δ + O(δ^{2m}),

so that halving the step divides the truncation by 2^{2m}. Steps are halved at every node by itself until the change is
below the round-off of the values, which grows as 1/δ. Of all steps the one of the smallest bound is kept: the change
from the step before, and the round-off.
"""

from __future__ import annotations

from collections.abc import Callable
from math import factorial

import numpy as np

from toyiwae.oracle.laws.bounded import EPS, Bounded

_HALF = 6  # m: values on either side
_WEIGHTS = [
    (-1) ** (n + 1) * factorial(_HALF) ** 2 / (n * factorial(_HALF - n) * factorial(_HALF + n))
    for n in range(1, _HALF + 1)
]
_FIRST_STEP = 0.16  # of the widths given
_HALVINGS = 14
_CONTRACTION = 2.0**-8  # of a change by the next halving, at most; 2^-12 once the expansion holds
_ROUNDINGS = 4.0  # of 1 + |f|: what a value of f is off by


def gradient(function: Callable[[np.ndarray], np.ndarray], z: np.ndarray, widths: np.ndarray) -> Bounded:
    """∂f/∂z at nodes [n, D], as [n, D].

    Args:
        function: z [n, D] -> f(z) [n], analytic, and accurate to a few roundings of 1 + |f(z)|.
        z: the nodes.
        widths: one length per coordinate on which f may vary; smaller features cost more steps [D].
    """
    columns = [_slope(function, z, width * np.eye(len(widths))[i]) for i, width in enumerate(widths)]
    return Bounded(*(np.stack([getattr(c, name) for c in columns], axis=1) for name in ("value", "error")))


def _slope(function: Callable[[np.ndarray], np.ndarray], z: np.ndarray, move: np.ndarray) -> Bounded:
    """The derivative along a coordinate: [n]."""
    width = float(move.max())
    best, error = np.zeros(len(z)), np.full(len(z), np.inf)
    active = np.arange(len(z))
    last, change = np.full(len(z), np.nan), np.full(len(z), np.nan)
    for step in _FIRST_STEP / 2.0 ** np.arange(_HALVINGS):
        here = z[active]
        with np.errstate(invalid="ignore", over="ignore"):
            sides = [
                [function(here + sign * n * step * move) for sign in (1, -1)] for n in range(1, _HALF + 1)
            ]
            slope = sum(c * (up - down) for c, (up, down) in zip(_WEIGHTS, sides, strict=True)) / (
                step * width
            )
            size = sum(
                abs(c) * (2.0 + abs(up) + abs(down)) for c, (up, down) in zip(_WEIGHTS, sides, strict=True)
            )
            # z ± nδ is rounded too
            size = size + 2.0 * np.abs(slope) * np.abs(here @ np.sign(move))
            rounding = _ROUNDINGS * EPS * size / (step * width)
            changed = np.abs(slope - last)
            bound = np.maximum(changed, _CONTRACTION * np.nan_to_num(change)) + rounding
        better = bound < error[active]
        best[active] = np.where(better, slope, best[active])
        error[active] = np.where(better, bound, error[active])
        finished = (bound <= 2.0 * rounding) | (rounding > error[active])
        active, last, change = active[~finished], slope[~finished], changed[~finished]
        if not len(active):
            break
    return Bounded(best, error)
