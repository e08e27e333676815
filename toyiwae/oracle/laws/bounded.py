"""A value and a bound on its absolute error, elementwise: the one number type of every float64 formula.

A formula written on `Bounded` is written once: the value comes out as it would on plain arrays, and beside it a bound
that has been carried through every operation. With `|x - x̂| ≤ δx`, `|y - ŷ| ≤ δy` and ε the machine precision,

    x + y:  δx + δy + ε|x̂ + ŷ|                 x y:  |x̂| δy + δx (|ŷ| + δy) + ε|x̂ ŷ|
    x / y:  (δx + |x̂/ŷ| δy) / (|ŷ| - δy) + ε|x̂/ŷ|    (infinite where y may be 0)
    f(x):   δx sup |f'| over [x̂ - δx, x̂ + δx] + 2ε|f(x̂)|      for exp, expm1, log, log1p, sqrt
    Σ x:    Σ δx + ε(1 + √n) Σ|x̂|              A @ x likewise, with |A| @ ...

Plain numbers and arrays that meet a `Bounded` are exact. The term √n of sums is the size of n independent roundings;
worst cases of n ε do not occur with the blocked sums of NumPy and BLAS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Bounded:
    """Numbers with bounds on their absolute errors; both arrays have one shape, or shapes that broadcast."""

    value: np.ndarray
    error: np.ndarray

    __array_ufunc__ = None  # arrays on the left leave + - * / @ to the methods below

    @classmethod
    def exact(cls, value: Any) -> Bounded:
        """Numbers that are what they are; what is bounded already stays as it is."""
        if isinstance(value, Bounded):
            return value
        value = np.asarray(value, dtype=float)
        return cls(value, np.zeros(value.shape))

    @classmethod
    def rounded(cls, value: Any, roundings: float = 1.0) -> Bounded:
        """Numbers that have been rounded so many times."""
        value = np.asarray(value, dtype=float)
        return cls(value, np.asarray(roundings * EPS * np.abs(value)))

    @classmethod
    def zeros(cls, shape: int | Sequence[int]) -> Bounded:
        """Exact zeros."""
        return cls(np.zeros(shape), np.zeros(shape))

    # arithmetic ------------------------------------------------------------------------------------------------------

    def __neg__(self) -> Bounded:
        """-x."""
        return Bounded(-self.value, self.error)

    def __abs__(self) -> Bounded:
        """|x|."""
        return Bounded(np.abs(self.value), self.error)

    def __add__(self, other: Any) -> Bounded:
        """X + y; the int 0 stands for what is absent."""
        if isinstance(other, int) and other == 0:
            return self
        value = self.value + _value(other)
        return Bounded(value, self.error + _error(other) + EPS * np.abs(value))

    def __sub__(self, other: Any) -> Bounded:
        """X - y."""
        if isinstance(other, int) and other == 0:
            return self
        value = self.value - _value(other)
        return Bounded(value, self.error + _error(other) + EPS * np.abs(value))

    def __rsub__(self, other: Any) -> Bounded:
        """Y - x."""
        return -self + other

    def __mul__(self, other: Any) -> Bounded:
        """X y."""
        right, slack = _value(other), _error(other)
        value = self.value * right
        error = self.error * (np.abs(right) + slack) + np.abs(self.value) * slack
        return Bounded(value, error + EPS * np.abs(value))

    def __truediv__(self, other: Any) -> Bounded:
        """X / y; the bound is infinite where y is not told from 0."""
        right, slack = _value(other), _error(other)
        with np.errstate(divide="ignore", invalid="ignore"):
            value = self.value / right
            least = np.abs(right) - slack
            error = (self.error + np.abs(value) * slack) / np.where(least > 0.0, least, 0.0)
            error = np.where(least > 0.0, error + EPS * np.abs(value), np.inf)
        return Bounded(np.asarray(value), error)

    def __rtruediv__(self, other: Any) -> Bounded:
        """Y / x."""
        return Bounded.exact(other) / self

    def __matmul__(self, other: Any) -> Bounded:
        """X @ y."""
        return _matmul(self, other)

    def __rmatmul__(self, other: Any) -> Bounded:
        """Y @ x."""
        return _matmul(other, self)

    __radd__, __rmul__ = __add__, __mul__

    def __pow__(self, power: int) -> Bounded:
        """x^n for a whole number n ≥ 1, by multiplication."""
        result = self
        for _ in range(int(power) - 1):
            result = result * self
        return result

    def sum(self, axis: int | None = None) -> Bounded:
        """Σ x along an axis, or of everything."""
        count = np.size(self.value) if axis is None else np.shape(self.value)[axis]
        rounding = EPS * (1.0 + count**0.5) * np.abs(self.value).sum(axis=axis)
        error = np.broadcast_to(self.error, np.shape(self.value)).sum(axis=axis)
        return Bounded(np.asarray(self.value.sum(axis=axis)), np.asarray(error + rounding))

    def mean(self, axis: int | None = None) -> Bounded:
        """The mean along an axis, or of everything."""
        count = np.size(self.value) if axis is None else np.shape(self.value)[axis]
        return self.sum(axis) / float(count)

    # functions -------------------------------------------------------------------------------------------------------

    def exp(self) -> Bounded:
        """e^x."""
        with np.errstate(over="ignore", invalid="ignore"):
            value = np.exp(self.value)
            return Bounded(value, value * (np.expm1(self.error) + 2.0 * EPS))

    def expm1(self) -> Bounded:
        """e^x - 1."""
        with np.errstate(over="ignore", invalid="ignore"):
            value = np.expm1(self.value)
            return Bounded(value, np.exp(self.value) * np.expm1(self.error) + 2.0 * EPS * np.abs(value))

    def log(self) -> Bounded:
        """Log x; the bound is infinite where x may be 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.log(self.value)
            return Bounded(value, _relative(self.error, self.value) + 2.0 * EPS * np.abs(value))

    def log1p(self) -> Bounded:
        """Log (1 + x); the bound is infinite where 1 + x may be 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.log1p(self.value)
            return Bounded(value, _relative(self.error, 1.0 + self.value) + 2.0 * EPS * np.abs(value))

    def sqrt(self) -> Bounded:
        """√x of x ≥ 0; what may be 0 is known to √(x + δx)."""
        value = np.sqrt(np.maximum(self.value, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = self.error / (value + np.sqrt(np.maximum(self.value - self.error, 0.0)))
        error = np.where(self.value > self.error, slope, np.sqrt(np.maximum(self.value + self.error, 0.0)))
        return Bounded(value, np.where(self.error > 0.0, error, 0.0) + EPS * value)

    def clip(self, low: Any = -np.inf, high: Any = np.inf) -> Bounded:
        """The same number, known to lie in [low, high]."""
        return Bounded(np.clip(self.value, low, high), self.error)

    # shapes ----------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return np.shape(self.value)

    def __getitem__(self, index: Any) -> Bounded:
        """Chosen entries."""
        return Bounded(self.value[index], np.broadcast_to(self.error, np.shape(self.value))[index])

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Bounded:
        """A rearrangement (reshape, transpose, broadcast) of value and error alike."""
        return Bounded(function(self.value), function(np.broadcast_to(self.error, np.shape(self.value))))

    def reshape(self, *shape: int) -> Bounded:
        """The same numbers in another shape."""
        return self.map(lambda array: array.reshape(*shape))

    def widened(self, error: Any) -> Bounded:
        """The same values with more added to the bound."""
        return Bounded(self.value, self.error + error)

    def copy(self) -> Bounded:
        """The same numbers in arrays of their own."""
        return self.map(np.copy)


def where(condition: Any, left: Any, right: Any) -> Bounded:
    """Entries of `left` where the condition holds, of `right` elsewhere."""
    return Bounded(
        np.where(condition, _value(left), _value(right)), np.where(condition, _error(left), _error(right))
    )


def better(left: Bounded, right: Bounded) -> Bounded:
    """At every entry the number of the smaller bound; two ways to one truth."""
    return where(right.error < left.error, right, left)


def stack(parts: Sequence[Bounded], axis: int = 0) -> Bounded:
    """Along a new axis."""
    pairs = [np.broadcast_arrays(part.value, part.error) for part in parts]
    return Bounded(*(np.stack([pair[i] for pair in pairs], axis=axis) for i in range(2)))


def concatenate(parts: Sequence[Bounded], axis: int = 0) -> Bounded:
    """One behind the other."""
    pairs = [np.broadcast_arrays(part.value, part.error) for part in parts]
    return Bounded(*(np.concatenate([pair[i] for pair in pairs], axis=axis) for i in range(2)))


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Bounded) else x


def _error(x: Any) -> Any:
    return x.error if isinstance(x, Bounded) else 0.0


def _matmul(left: Any, right: Any) -> Bounded:
    a, b = _value(left), _value(right)
    size_a, size_b = np.abs(a), np.abs(b)
    rounding = EPS * (1.0 + np.shape(a)[-1] ** 0.5)
    # one product for what is relative to |A|, another where A itself is uncertain
    slack = rounding * size_b + (right.error if isinstance(right, Bounded) else 0.0)
    error = size_a @ slack
    if isinstance(left, Bounded):
        moved = size_b + right.error if isinstance(right, Bounded) else size_b
        error = error + np.broadcast_to(left.error, np.shape(a)) @ moved
    return Bounded(a @ b, error)


def _relative(error: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The most by which the logarithm of x may be off: -log(1 - δ/x)."""
    ratio = error / value
    return np.where((ratio >= 0.0) & (ratio < 1.0), -np.log1p(-np.clip(ratio, 0.0, 1.0 - EPS)), np.inf)
