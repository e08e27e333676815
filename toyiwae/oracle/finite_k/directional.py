"""Signal-to-noise ratio of a whole gradient, along the direction of its mean."""

from __future__ import annotations

import numpy as np

from toyiwae.oracle.laws.bounded import EPS, Bounded


def directional_snr(mean: Bounded, cov: Bounded) -> Bounded:
    """√(E‖Δ∥‖² / E‖Δ⊥‖²), Δ split along the direction of its mean: exact, from two moments.

    With u = E[Δ]/‖E[Δ]‖ this is √((‖E[Δ]‖² + uᵀΣu) / (tr Σ - uᵀΣu)); infinite where nothing varies across the mean, NaN
    where it has no direction, or where what varies across it is not told from zero. (rainforth2018tighter has the mean
    of the ratio in place of the ratio of means; for many coordinates the two agree.)

    Args:
        mean: `[F]`.
        cov: `[F, F]`.
    """
    length = np.linalg.norm(mean.value)
    if length == 0.0:
        return Bounded(np.asarray(np.nan), np.asarray(np.nan))
    if len(mean.value) == 1 or not cov.value.any():
        return Bounded(np.asarray(np.inf), np.asarray(0.0))
    u, turn = mean.value / length, float(np.linalg.norm(mean.error) / length)  # by how much u may be turned
    along, trace = float(u @ cov.value @ u), float(np.trace(cov.value))
    slack = float(np.abs(u) @ cov.error @ np.abs(u))
    slack += 2 * turn * float(np.linalg.norm(cov.value @ u)) + turn**2 * trace
    signal, noise = length**2 + along, trace - along
    signal_error = 2 * length * float(np.linalg.norm(mean.error)) + slack + 4 * EPS * signal
    noise_error = float(np.trace(cov.error)) + slack + 4 * EPS * trace
    if noise <= noise_error:
        return Bounded(np.asarray(np.nan), np.asarray(np.nan))
    value = float(np.sqrt(signal / noise))
    return Bounded(
        np.asarray(value),
        np.asarray(value * (signal_error / signal + noise_error / (noise - noise_error)) / 2),
    )
