"""Small numerical measures that several studies share."""

from __future__ import annotations

from typing import Any

import numpy as np

from toyiwae import stats

FAMILY_RATE = 1e-6
"""Probability that a study's agreement test fails although everything is right."""

RATE_TEXT = "$10^{-6}$"
"""`FAMILY_RATE` for a sentence."""

POWER = 0.999
"""Probability of finding the smallest detectable shift."""


def counts(largest: int, per_decade: int) -> list[int]:
    """Whole numbers from 1 to `largest`, evenly spaced in logarithm, each once."""
    steps = max(1, round(np.log10(largest) * per_decade))
    return sorted({round(float(k)) for k in np.geomspace(1, largest, steps + 1)})


def slopes(x: Any, y: Any) -> np.ndarray:
    """Local slopes of log y against log x along the first axis, between neighbours: `[n - 1, ...]`."""
    x, y = np.asarray(x, dtype=float), np.abs(np.asarray(y, dtype=float))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.diff(np.log(y), axis=0) / np.diff(np.log(x)).reshape(-1, *[1] * (y.ndim - 1))


def worst(values: Any) -> float:
    """The largest absolute value; NaN if there is none or one is NaN."""
    values = np.abs(np.asarray(values, dtype=float))
    return float(values.max()) if values.size else float("nan")


def farthest(values: Any, expected: float) -> float:
    """The value farthest from what is expected; NaN if there is none or one is NaN."""
    values = np.asarray(values, dtype=float).ravel()
    if not values.size or np.isnan(values).any():
        return float("nan")
    return float(values[np.argmax(np.abs(values - expected))])


def agreement(z: Any, replicates: int) -> tuple[float, float, int]:
    """The largest |z| of a family of tests, the |z| it may reach at `FAMILY_RATE`, and the number of tests.

    A test without a number makes the largest |z| NaN, which no claim survives.
    """
    z = np.asarray(z, dtype=float).ravel()
    threshold = stats.family_threshold(max(z.size, 1), FAMILY_RATE, dof=replicates - 1)
    return worst(z), threshold, z.size


def detectable(se: Any, tests: int) -> Any:
    """The shift of an estimate with standard error `se` that the family finds with probability `POWER`."""
    return se * stats.smallest_detectable_shift(1, tests=tests, rate=FAMILY_RATE, power=POWER)
