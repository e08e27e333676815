"""Arrays of double-double numbers: unevaluated sums of two float64, about 31 decimal digits at float64's range.

Only what the whitening of a problem needs, each operation a fixed number of NumPy calls (dekker1971floating). The
results of `+`, `*`, `/` are right to 2^-102 relative, those of `@` relative to the sum of the terms' absolute values.
Large matrix products are sums of float64 products of slices of the factors, each without rounding (ozaki2012error).
"""

from __future__ import annotations

from typing import Any

import numpy as np

UNIT = 2.0**-100
"""Relative error of one operation, with room."""

_SPLITTER = 2.0**27 + 1.0
_SLICED = 20_000
"""Multiplications from which a matrix product is made of slices."""

_DROPPED = 112
"""The slices that are dropped are below 2^-112 of the largest entries' products."""


class DoubleDouble:
    """`hi + lo` with |lo| at most half a unit in hi's last place."""

    __array_ufunc__ = None  # NumPy arrays leave mixed operations to this class

    def __init__(self, hi: Any, lo: Any = None):
        self.hi = np.asarray(hi, dtype=np.float64)
        self.lo = np.zeros_like(self.hi) if lo is None else lo

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape."""
        return self.hi.shape

    def __len__(self) -> int:
        """Length of the first axis."""
        return len(self.hi)

    @property
    def T(self) -> DoubleDouble:
        """Transpose."""
        return DoubleDouble(self.hi.T, self.lo.T)

    def __getitem__(self, index: Any) -> DoubleDouble:
        """Chosen entries."""
        return DoubleDouble(self.hi[index], self.lo[index])

    def __setitem__(self, index: Any, value: Any) -> None:
        """Overwrite entries."""
        other = _lift(value)
        self.hi[index], self.lo[index] = other.hi, other.lo

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Rounded to float64."""
        del copy
        rounded = self.hi + self.lo
        return rounded if dtype is None else rounded.astype(dtype)

    def __neg__(self) -> DoubleDouble:
        """Minus."""
        return DoubleDouble(-self.hi, -self.lo)

    def __abs__(self) -> DoubleDouble:
        """Absolute values."""
        sign = np.where(self.hi < 0.0, -1.0, 1.0)
        return DoubleDouble(sign * self.hi, sign * self.lo)

    def __add__(self, other: Any) -> DoubleDouble:
        """Sum."""
        b = _lift(other)
        s, e = _two_sum(self.hi, b.hi)
        t, f = _two_sum(self.lo, b.lo)
        s, e = _fast_two_sum(s, e + t)
        return DoubleDouble(*_fast_two_sum(s, e + f))

    __radd__ = __add__

    def __sub__(self, other: Any) -> DoubleDouble:
        """Difference."""
        return self + (-_lift(other))

    def __rsub__(self, other: Any) -> DoubleDouble:
        """Difference."""
        return (-self) + other

    def __mul__(self, other: Any) -> DoubleDouble:
        """Product."""
        b = _lift(other)
        p, e = _two_product(self.hi, b.hi)
        return DoubleDouble(*_fast_two_sum(p, e + (self.hi * b.lo + self.lo * b.hi)))

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> DoubleDouble:
        """Quotient."""
        b = _lift(other)
        first = self.hi / b.hi
        rest = self - b * first
        second = rest.hi / b.hi
        rest = rest - b * second
        s, e = _fast_two_sum(first, second)
        return DoubleDouble(s, e) + rest.hi / b.hi

    def __rtruediv__(self, other: Any) -> DoubleDouble:
        """Quotient."""
        return _lift(other) / self

    def __matmul__(self, other: Any) -> DoubleDouble:
        """Matrix product."""
        b = _lift(other)
        if len(b.shape) == 1:
            return (self @ b[:, None])[:, 0]
        if self.hi.size * b.shape[1] >= _SLICED:
            product = _sliced_product(self, b)
            if product is not None:
                return product
        total = DoubleDouble(np.zeros((self.shape[0], b.shape[1])))
        for k in range(b.shape[0]):
            total = total + self[:, k, None] * b[None, k]
        return total

    def __rmatmul__(self, other: Any) -> DoubleDouble:
        """Matrix product."""
        return _lift(other) @ self


def sqrt(a: DoubleDouble) -> DoubleDouble:
    """Square root of positive numbers: one Newton step from float64's."""
    first = np.sqrt(a.hi)
    return DoubleDouble(first) + (a - DoubleDouble(first) * first) / (2.0 * first)


def _lift(value: Any) -> DoubleDouble:
    return value if isinstance(value, DoubleDouble) else DoubleDouble(value)


def _two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


def _fast_two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    s = a + b
    return s, b - (s - a)


def _two_product(a: Any, b: Any) -> tuple[Any, Any]:
    p = a * b
    (a1, a2), (b1, b2) = _split(a), _split(b)
    return p, ((a1 * b1 - p) + a1 * b2 + a2 * b1) + a2 * b2


def _split(a: Any) -> tuple[Any, Any]:
    c = _SPLITTER * a
    high = c - (c - a)
    return high, a - high


def _sliced_product(a: DoubleDouble, b: DoubleDouble) -> DoubleDouble | None:
    """`a @ b` from products of slices; None where that would be less accurate than term by term.

    Every slice holds so few bits that a product of two slices has no rounding, whatever its order of summation. What is
    dropped is relative to the products of the largest entries of a's rows and b's columns, so that these must not be
    much larger than the sum of the terms' absolute values. The common axis is scaled by powers of two first.
    """
    count = b.shape[0]
    bits = (53 - int(np.ceil(np.log2(count)))) // 2
    number = int(np.ceil((_DROPPED + np.log2(count) + 3.0) / bits))
    size_a, size_b = np.abs(a.hi), np.abs(b.hi)
    with np.errstate(divide="ignore", invalid="ignore"):
        balance = _power_of_two(np.sqrt(size_a.max(axis=0)) / np.sqrt(size_b.max(axis=1)))
    rows = _power_of_two((size_a / balance).max(axis=1))
    columns = _power_of_two((size_b * balance[:, None]).max(axis=0))
    scale = rows[:, None] * columns
    terms = size_a @ size_b
    if not np.all((scale <= 2.0**10 * terms) | (terms == 0.0)):
        return None
    left = _slices(a, 1.0 / (rows[:, None] * balance), bits, number)
    right = _slices(b, balance[:, None] / columns, bits, number)
    total, rest = np.zeros(scale.shape), np.zeros(scale.shape)
    for order in range(min(number, len(left) + len(right)) - 1, -1, -1):  # the small ones first
        for i in range(max(0, order - len(right) + 1), min(order + 1, len(left))):
            total, error = _two_sum(total, left[i] @ right[order - i])
            rest += error
    total, rest = _fast_two_sum(total, rest)
    return DoubleDouble(total * scale, rest * scale)


def _power_of_two(values: np.ndarray) -> np.ndarray:
    """The next power of two above positive numbers; 1 for what is 0 or not finite."""
    plain = (values > 0.0) & (values < np.inf)
    return np.where(plain, 2.0 ** np.frexp(np.where(plain, values, 1.0))[1], 1.0)


def _slices(a: DoubleDouble, scale: np.ndarray, bits: int, number: int) -> list[np.ndarray]:
    """Multiples of 2^-bits, 2^-2bits, … that add up to `scale · a`, whose entries are below 1."""
    hi, lo = a.hi * scale, a.lo * scale
    found: list[np.ndarray] = []
    while len(found) < number and hi.any():
        unit = 2.0 ** (-bits * (len(found) + 1))
        found.append(np.rint(hi / unit) * unit)
        hi, lo = _two_sum(hi - found[-1], lo)
    return found
