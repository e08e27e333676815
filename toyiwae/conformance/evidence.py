"""From replicates to p-values: means against exact truths, with skewness taken into account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae import stats

Array = Any
STEEP = 2.0
"""Largest correction for skewness, as `|γ| z³ / (6 √n)` at the threshold z, at which a p-value still means much."""


@dataclass(frozen=True, eq=False)
class Compared:
    """Coordinate by coordinate: the estimate, its distance to the truth in standard deviations, p-values."""

    estimate: Array
    shift: Array
    p_value: Array
    steepness: Array


def compare(
    samples: Array, truth: Array, truth_error: Array | float = 0.0, *, floor: float = 1e-9
) -> Compared:
    """Tests the means of replicates `[n, ...]` against the truth.

    Student's t passes through Hall's cubic transformation, which removes the effect of skewness γ to order 1/n:
    `g = t + γ t²/(3√n) + γ² t³/(27 n) + γ/(6√n)`. The error of the truth counts in the estimator's favour.
    A mean that does not vary is compared up to `floor` times its size.

    References:
        hall1992transformation
    """
    moments = stats.Moments.of(samples)
    n, mean, std = moments.count, np.asarray(moments.mean), np.asarray(moments.std)
    size = np.maximum(np.abs(truth), np.abs(mean))
    constant = std <= 1e-13 * np.maximum(size, 1e-300)
    shift = mean - truth
    shift = np.sign(shift) * np.maximum(np.abs(shift) - truth_error - floor * 1e-3 * size, 0.0)
    scale = np.where(constant, 1.0, std)
    skewness = np.where(constant, 0.0, moments.skewness)
    t, a = np.sqrt(n) * shift / scale, skewness / np.sqrt(n)
    p = stats.p_value(t + a * t**2 / 3.0 + a**2 * t**3 / 27.0 + a / 6.0)
    exact = np.where(np.abs(mean - truth) <= truth_error + floor * (1e-6 + size), 1.0, 0.0)
    return Compared(mean, shift / scale, np.where(constant, exact, p), np.abs(skewness) / (6.0 * np.sqrt(n)))


def worst(compared: Compared, keep: Any = None) -> tuple[int, ...]:
    """Index of the coordinate with the smallest p-value; the largest shift among equals."""
    p = np.where(True if keep is None else keep, compared.p_value, 2.0)
    smallest = p == p.min()
    order = np.where(smallest, np.abs(compared.shift), -1.0)
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(order)), order.shape))
