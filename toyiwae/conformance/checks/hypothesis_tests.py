"""From replicates to p-values: means against exact truths, with skewness taken into account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae import stats

Array = Any
LARGEST_CORRECTION = 2.0
"""Largest correction for skewness, as `|γ| z³ / (6 √n)` at the threshold z, at which a p-value still means much."""


@dataclass(frozen=True, eq=False)
class Compared:
    """Coordinate by coordinate: the estimate, its distance to the truth in standard deviations, p-values.

    Attributes:
        estimate, p_value: of each coordinate.
        shift: infinite where replicates do not vary and are not the truth.
        skewness: `|γ| / (6 √n)`, by which the correction for skewness grows.
    """

    estimate: Array
    shift: Array
    p_value: Array
    skewness: Array

    def too_skewed(self, threshold: float) -> Array:
        """Where the tails are too heavy for a p-value at this |z|."""
        return self.skewness * threshold**3 > 4.0 * LARGEST_CORRECTION


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
    skewness = np.where(constant, 0.0, moments.skewness)
    shift = shift / np.where(constant, 1.0, std)
    t, a = np.sqrt(n) * shift, skewness / np.sqrt(n)
    p = stats.p_value(t + a * t**2 / 3.0 + a**2 * t**3 / 27.0 + a / 6.0)
    right = np.abs(mean - truth) <= truth_error + floor * (1e-6 + size)
    shift = np.where(constant, np.where(right, 0.0, np.copysign(np.inf, mean - truth)), shift)
    return Compared(mean, shift, np.where(constant, right * 1.0, p), np.abs(skewness) / (6.0 * np.sqrt(n)))


def influence(y: Array) -> Array:
    """Catoni's `ψ(y) = log(1 + y + y²/2)` for `y ≥ 0`, `ψ(−y) = −ψ(y)`."""
    return np.sign(y) * np.log1p(np.abs(y) + 0.5 * y * y)


def compare_known(
    samples: Array, mean: Array, var: Array, level: float, error: Array | float = 0.0
) -> Compared:
    """Tests the means of replicates `[n, ...]` whose variance is known (or bounded), whatever else their law.

    With Catoni's influence function `ψ(y) = log(1 + y + y²/2)` for `y ≥ 0`, `ψ(−y) = −ψ(y)`, the sum
    `T± = Σ_i ψ(±λ(x_i − mean)) − n λ² var/2` has `E exp(T±) ≤ 1`, so that `2 exp(−max T±)` is a p-value: no normal
    approximation, however heavy the tails. The λ that serves the level best is `√(2 log(2/level) / (n var))`.

    Args:
        samples: replicates.
        mean: of one replicate, under the hypothesis.
        var: likewise.
        level: the p-value from which the test fails.
        error: bound on the error of the mean; it counts in the estimator's favour.

    References:
        catoni2012challenging
    """
    n = len(samples)
    estimate, bet = samples.mean(axis=0), np.sqrt(2.0 * np.log(2.0 / level) / (n * var))
    log_e = np.full(np.shape(estimate), -np.inf)
    for sign in (1.0, -1.0):
        y = influence(bet * (sign * (samples - mean) - error))
        log_e = np.maximum(log_e, y.sum(axis=0) - 0.5 * n * bet**2 * var)
    p = np.minimum(1.0, 2.0 * np.exp(-np.maximum(log_e, 0.0)))
    shift = np.sign(estimate - mean) * np.maximum(np.abs(estimate - mean) - error, 0.0) / np.sqrt(var)
    return Compared(estimate, shift, p, np.zeros(np.shape(estimate)))


def worst(compared: Compared, keep: Any) -> tuple[int, ...]:
    """Index of the coordinate with the smallest p-value of those to keep; the largest shift among equals.

    Truths are finite where they are kept, so a p-value that is NaN comes from replicates too large for their squares;
    it counts as the smallest.
    """
    p = np.where(keep, np.nan_to_num(compared.p_value, nan=-1.0), 2.0)
    smallest = p == p.min()
    order = np.where(smallest, np.nan_to_num(np.abs(compared.shift), nan=np.inf), -1.0)
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(order)), order.shape))
