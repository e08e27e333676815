"""A value and a bound on its absolute error, elementwise: the one number type of every float64 formula.

A formula written on `Bounded` is written once: the value comes out as it would on plain arrays, and beside it a bound
that has been carried through every operation. With `|x - x̂| ≤ δx`, `|y - ŷ| ≤ δy` and ε the machine precision,

    x + y:  δx + δy + ε|x̂ + ŷ|                 x y:  |x̂| δy + δx (|ŷ| + δy) + ε|x̂ ŷ|
    x / y:  (δx + |x̂/ŷ| δy) / (|ŷ| - δy) + ε|x̂/ŷ|    (infinite where y may be 0)
    f(x):   sup |f(x) - f(x̂)| over [x̂ - δx, x̂ + δx] + 2ε|f(x̂)|      for exp, expm1, log, log1p, sqrt
    Σ x:    Σ δx + ε(8 + log₂ n) Σ|x̂|          A @ x:  ε(1 + √n) |A| @ |x̂| beside the errors of the factors

Plain numbers and arrays that meet a `Bounded` are exact. Sums run along a contiguous axis, where NumPy
adds pairs of blocks of at most 128 terms in eight lanes; products are summed in √n blocks of √n terms, so that none
of them sees more than 2√n roundings of ½ε in whatever order BLAS adds. A bound that cannot be told (0 · ∞) is
infinite. Rounding below the smallest normal number, 2e-308, is not counted.
"""

from __future__ import annotations

import math
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
        return _rounded(-self.value, self.error, 0.0)

    def __abs__(self) -> Bounded:
        """|x|."""
        return _rounded(np.abs(self.value), self.error, 0.0)

    def __add__(self, other: Any) -> Bounded:
        """X + y; the int 0 stands for what is absent."""
        if isinstance(other, int) and other == 0:
            return self
        return _rounded(self.value + _value(other), self.error + _error(other))

    def __sub__(self, other: Any) -> Bounded:
        """X - y."""
        if isinstance(other, int) and other == 0:
            return self
        return _rounded(self.value - _value(other), self.error + _error(other))

    def __rsub__(self, other: Any) -> Bounded:
        """Y - x."""
        return -self + other

    def __mul__(self, other: Any) -> Bounded:
        """X y."""
        with np.errstate(over="ignore", invalid="ignore"):
            if not isinstance(other, Bounded):
                return _rounded(self.value * other, self.error * np.abs(other))
            error = self.error * (np.abs(other.value) + other.error) + np.abs(self.value) * other.error
            return _rounded(self.value * other.value, error)

    def __truediv__(self, other: Any) -> Bounded:
        """X / y; the bound is infinite where y is not told from 0."""
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            if not isinstance(other, Bounded):
                return _rounded(self.value / other, self.error / np.abs(other))
            value, least = self.value / other.value, np.abs(other.value) - other.error
            error = (self.error + np.abs(value) * other.error) / least
            return _rounded(value, np.where(least > 0.0, error, np.inf))

    def __rtruediv__(self, other: Any) -> Bounded:
        """Y / x."""
        return Bounded.exact(other) / self

    def __matmul__(self, other: Any) -> Bounded:
        """X @ y."""
        return matmul(self, other)

    def __rmatmul__(self, other: Any) -> Bounded:
        """Y @ x."""
        return matmul(other, self)

    __radd__, __rmul__ = __add__, __mul__

    def __pow__(self, power: int) -> Bounded:
        """x^n for a whole number n ≥ 1, by multiplication.

        Raises:
            ValueError: for any other n.
        """
        if power < 1 or power != int(power):
            raise ValueError(f"a Bounded is raised to whole powers of at least 1, not {power}")
        result = self
        for _ in range(int(power) - 1):
            result = result * self
        return result

    def sum(self, axis: int | None = None) -> Bounded:
        """Σ x along an axis, or of everything."""
        count = np.size(self.value) if axis is None else np.shape(self.value)[axis]
        terms = self.error + EPS * min(count - 1.0, 8.0 + np.log2(max(count, 1))) * np.abs(self.value)
        along = self.value.ravel() if axis is None else np.moveaxis(self.value, axis, -1)
        return Bounded(np.asarray(np.ascontiguousarray(along).sum(axis=-1)), np.asarray(terms.sum(axis=axis)))

    def mean(self, axis: int | None = None) -> Bounded:
        """The mean along an axis, or of everything."""
        count = np.size(self.value) if axis is None else np.shape(self.value)[axis]
        return self.sum(axis) / float(count)

    # functions -------------------------------------------------------------------------------------------------------

    def exp(self) -> Bounded:
        """e^x."""
        with np.errstate(over="ignore", invalid="ignore"):
            value = np.exp(self.value)
            return _rounded(value, self._rise(value), 2.0)

    def expm1(self) -> Bounded:
        """e^x - 1."""
        with np.errstate(over="ignore", invalid="ignore"):
            value = np.expm1(self.value)
            return _rounded(value, self._rise(value + 1.0), 2.0)

    def _rise(self, exp: Any) -> np.ndarray:
        """At least e^{x+δ} - e^x, and by no more than 2 % of it; without overflow where e^{x+δ} has none.

        For δ ≤ 1 it is e^x (δ + δ²/2 + δ³/4): an exponential is dear, and this takes none.

        Args:
            exp: e^x. What (e^x - 1) + 1 has lost, ε/2 at most, is a part of the 2ε that `_rounded` adds for e^x - 1.
        """
        error = self.error
        if np.all(error <= 1.0):
            return np.asarray(exp * (error * (1.0 + error * (0.5 + 0.25 * error))))
        return np.asarray(np.exp(self.value + error) * -np.expm1(-error))

    def log(self) -> Bounded:
        """Log x; the bound is infinite where x may be 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return _rounded(np.log(np.maximum(self.value, 0.0)), _relative(self.error, self.value), 2.0)

    def log1p(self) -> Bounded:
        """Log (1 + x); the bound is infinite where 1 + x may be 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            error = _relative(self.error, 1.0 + self.value)
            return _rounded(np.log1p(np.maximum(self.value, -1.0)), error, 2.0)

    def sqrt(self) -> Bounded:
        """√x of x ≥ 0; what may be 0 is known to √(x + δx)."""
        value = np.sqrt(np.maximum(self.value, 0.0))
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = self.error / (value + np.sqrt(np.maximum(self.value - self.error, 0.0)))
        error = np.where(self.value > self.error, slope, np.sqrt(np.maximum(self.value + self.error, 0.0)))
        return _rounded(value, np.where(self.error > 0.0, error, 0.0))

    def clip(self, low: Any = -np.inf, high: Any = np.inf) -> Bounded:
        """The same number, known to lie in [low, high]; ends of which some are infinite tell nothing of its error."""
        value, error = np.clip(self.value, low, high), self.error
        if np.all(np.isfinite(low)) and np.all(np.isfinite(high)):
            error = np.minimum(error, np.maximum(value - low, high - value))
        return _rounded(value, error, 0.0)

    # shapes ----------------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the values."""
        return np.shape(self.value)

    def __getitem__(self, index: Any) -> Bounded:
        """Chosen entries."""
        return self.map(lambda array: array[index])

    def map(self, function: Callable[[np.ndarray], np.ndarray]) -> Bounded:
        """A rearrangement (reshape, transpose, broadcast) of value and error alike."""
        shape = self.value.shape
        error = self.error if self.error.shape == shape else np.broadcast_to(self.error, shape)
        return Bounded(np.asarray(function(self.value)), np.asarray(function(error)))

    def reshape(self, *shape: int) -> Bounded:
        """The same numbers in another shape."""
        return self.map(lambda array: array.reshape(*shape))

    def widened(self, error: Any) -> Bounded:
        """The same values with more added to the bound."""
        return _rounded(self.value, self.error + error, 0.0)

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


def matmul(left: Any, right: Any, relative: float = 0.0) -> Bounded:
    """A @ x, with one more relative error of every term (of a rule of integration, for one)."""
    a, b = _value(left), _value(right)
    size_a, size_b = np.abs(a), np.abs(b)
    rounding = relative + dot_rounding(np.shape(a)[-1])
    with np.errstate(over="ignore", invalid="ignore"):
        if not isinstance(right, Bounded):  # one product of sizes, where only one factor is uncertain
            return _rounded(dot(a, b), (rounding * size_a + left.error) @ size_b, 0.0)
        error = size_a @ (rounding * size_b + right.error)
        if isinstance(left, Bounded):
            error = error + np.broadcast_to(left.error, np.shape(a)) @ (size_b + right.error)
        return _rounded(dot(a, b), error, 0.0)


def dot_width(count: int) -> int:
    """Terms of a block of `dot`: √n, rounded up."""
    return math.isqrt(count - 1) + 1 if count else 1


def dot_rounding(count: int) -> float:
    """Of `dot`, relative to the sum of sizes."""
    return EPS * (1.0 + count**0.5)


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """A @ x in √n blocks of √n terms."""
    count = np.shape(a)[-1]
    width = dot_width(count)
    parts = [slice(i, i + width) for i in range(0, count, width)] if width > 2 else [slice(None)]
    return np.asarray(sum(a[..., p] @ (b[p] if np.ndim(b) == 1 else b[..., p, :]) for p in parts))


def _rounded(value: Any, error: Any, roundings: float = 1.0) -> Bounded:
    """A computed value: its rounding is added to the error, and what is not a number becomes an infinite bound."""
    if roundings:
        error = error + (roundings * EPS) * np.abs(value)
    if math.isnan(np.add.reduce(error, axis=None)):  # half the time of np.sum, and most arrays are small
        error = np.where(np.isnan(error), np.inf, error)
    return Bounded(np.asarray(value), np.asarray(error))


def _relative(error: Any, value: Any) -> np.ndarray:
    """The most by which the logarithm of x may be off: -log(1 - δ/x), infinite where it could be anything."""
    ratio = error / value
    known = (value > 0.0) & (ratio < 1.0 - 1e-6)
    return np.where(known, -np.log1p(-np.where(known, ratio, 0.0)), np.inf)
