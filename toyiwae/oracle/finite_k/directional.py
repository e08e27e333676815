"""Signal-to-noise ratio of a whole gradient, along the direction of its mean."""

from __future__ import annotations

import numpy as np

from toyiwae.oracle.laws.bounded import Bounded


def directional_snr(mean: Bounded, cov: Bounded) -> Bounded:
    """√(E‖Δ∥‖² / E‖Δ⊥‖²), Δ split along the direction of its mean: exact, from two moments.

    Formula: directional-snr.

    With u = E[Δ]/‖E[Δ]‖ this is √((‖E[Δ]‖² + uᵀΣu) / (tr Σ - uᵀΣu)); infinite where nothing varies across the mean, NaN
    where it has no direction, or where what varies across it is not told from zero. (rainforth2018tighter has the mean
    of the ratio in place of the ratio of means; for many coordinates the two agree.)

    Args:
        mean: `[F]`.
        cov: `[F, F]`.
    """
    unknown = Bounded(np.asarray(np.nan), np.asarray(np.nan))
    if not mean.value.any():
        return unknown
    if len(mean.value) == 1 or not cov.value.any():
        return Bounded(np.asarray(np.inf), np.asarray(0.0))
    scale = Bounded.exact(np.abs(mean.value).max())  # keeps squares within the range of floats
    direction = mean / scale
    square = (direction * direction).sum()
    along, trace = direction @ (cov @ direction) / square, cov.map(np.diagonal).sum()
    signal, noise = square * (scale * scale) + along, trace - along
    if noise.value <= noise.error:
        return unknown
    return (signal / noise).sqrt()
