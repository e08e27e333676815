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


def log1p_difference(s: np.ndarray, beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """S log(1+β) - log(1+sβ), real or complex s, and the sum of the sizes that it was rounded at: [S, D].

    Where both arguments are small their linear terms, which cancel, are left out; where one is large they would be
    larger than the logarithms.
    """
    sb = np.multiply.outer(s, beta)
    left, right = np.multiply.outer(s, np.log1p(beta)), np.log1p(sb)
    near = (np.abs(sb) < 0.2) & (np.abs(beta) < 0.2)
    if near.any():
        left[near], right[near] = np.multiply.outer(s, log1pmx(beta))[near], log1pmx(sb[near])
    return left - right, np.abs(left) + np.abs(right)


def log_abs_expm1(x: np.ndarray) -> np.ndarray:
    """Log |e^x - 1|, for real or complex x whose exponential may overflow."""
    with np.errstate(divide="ignore"):
        large = np.real(x) > 30.0
        return np.where(large, np.real(x), np.log(np.abs(np.expm1(np.where(large, 30.0, x)))))
