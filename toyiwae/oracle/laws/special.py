"""Functions that plain evaluation would cost digits."""

from __future__ import annotations

import numpy as np


def log1pmx(y: np.ndarray) -> np.ndarray:
    """log(1+y) - y without cancellation, for real or complex y with Re(1+y) > 0."""
    small = np.abs(y) < 0.2
    plain = np.log1p(y) - y
    if not small.any():
        return plain
    z = y[small]
    series = np.zeros_like(z)
    for n in range(26, 1, -1):
        series = z * series + (-1.0 if n % 2 == 0 else 1.0) / n
    plain[small] = z * z * series
    return plain


def log_abs_expm1(x: np.ndarray) -> np.ndarray:
    """Log |e^x - 1|, for real or complex x whose exponential may overflow."""
    with np.errstate(divide="ignore"):
        large = np.real(x) > 30.0
        return np.where(large, np.real(x), np.log(np.abs(np.expm1(np.where(large, 30.0, x)))))
