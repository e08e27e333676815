# ruff: noqa: E501
"""Fixed-point complex arithmetic on arrays of Python integers, and the fast Fourier transform with it.

A number is an integer times 2^-bits; arrays are NumPy arrays of objects, so that an elementary operation costs
50–100 ns at 30–100 digits, a hundred times less than with one multiprecision object per number.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from mpmath import MPContext
from mpmath.libmp import from_man_exp, mpf_cos_sin, mpf_exp, to_fixed
from numpy.typing import NDArray

Objects = NDArray[np.object_]


@dataclass(frozen=True)
class Complex:
    """An array of complex fixed-point numbers: real and imaginary parts, of one shape."""

    re: Objects
    im: Objects

    def __add__(self, other: Complex) -> Complex:
        """Sum."""
        return Complex(self.re + other.re, self.im + other.im)

    def __sub__(self, other: Complex) -> Complex:
        """Difference."""
        return Complex(self.re - other.re, self.im - other.im)

    def __getitem__(self, index: Any) -> Complex:
        """Choose entries."""
        return Complex(self.re[index], self.im[index])

    def shift(self, bits: int) -> Complex:
        """Multiply by 2^bits."""
        if bits >= 0:
            return Complex(self.re << bits, self.im << bits)
        return Complex(self.re >> -bits, self.im >> -bits)


@dataclass(frozen=True)
class Arithmetic:
    """The operations that need the scale 2^-bits."""

    bits: int

    @property
    def one(self) -> int:
        """The number 1."""
        return 1 << self.bits

    def number(self, x: Any) -> int:
        """A multiprecision real as a fixed-point number (rounded down)."""
        return int(to_fixed(x._mpf_, self.bits))

    def numbers(self, xs: Iterable[Any]) -> Objects:
        """A list of multiprecision reals."""
        return objects([self.number(x) for x in xs])

    def times(self, a: Complex, b: Complex) -> Complex:
        """Elementwise product of complex arrays."""
        bits = self.bits
        return Complex((a.re * b.re - a.im * b.im) >> bits, (a.re * b.im + a.im * b.re) >> bits)

    def scaled(self, a: Complex, factor: Any) -> Complex:
        """Product with a real fixed-point number or array."""
        return Complex((a.re * factor) >> self.bits, (a.im * factor) >> self.bits)

    def dot(self, a: Complex, vector: Objects) -> Complex:
        """Matrix [Y, D] times a real vector [D]."""
        return Complex(a.re.dot(vector) >> self.bits, a.im.dot(vector) >> self.bits)

    def reciprocal(self, a: Complex) -> Complex:
        """1/a."""
        norm = a.re * a.re + a.im * a.im
        wide = 2 * self.bits
        return Complex((a.re << wide) // norm, (-a.im << wide) // norm)

    def exp(self, a: Complex) -> Complex:
        """e^a, for vectors."""
        bits = self.bits
        re, im = [], []
        for x, y in zip(a.re, a.im, strict=True):
            size = mpf_exp(from_man_exp(x, -bits), bits)
            cos, sin = mpf_cos_sin(from_man_exp(y, -bits), bits)
            scale = to_fixed(size, bits)
            re.append((scale * to_fixed(cos, bits)) >> bits)
            im.append((scale * to_fixed(sin, bits)) >> bits)
        return Complex(objects(re), objects(im))

    def sqrt(self, a: Complex, near: NDArray[np.complex128]) -> Complex:
        """The square roots of `a` on the side of the floating-point values `near`."""
        size = _isqrt(a.re * a.re + a.im * a.im)
        big = _isqrt((size + abs(a.re)) << (self.bits - 1))
        small = np.where(big == 0, 0, (abs(a.im) << (self.bits - 1)) // np.where(big == 0, 1, big))
        forward = a.re >= 0
        re, im = np.where(forward, big, small), np.where(forward, small, big)
        im = np.where(a.im >= 0, im, -im)
        sign = np.where(as_float(re, self.bits) * near.real + as_float(im, self.bits) * near.imag < 0, -1, 1)
        return Complex(re * sign.astype(object), im * sign.astype(object))


def objects(values: Sequence[Any]) -> Objects:
    """A vector of Python objects."""
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result


def as_float(a: Objects, bits: int) -> NDArray[np.float64]:
    """Fixed-point numbers as float64."""
    shift = max(bits - 120, 0)
    return np.array([float(x >> shift) for x in a.ravel()]).reshape(a.shape) * 2.0 ** (shift - bits)


_isqrt = np.frompyfunc(lambda x: math.isqrt(int(x)), 1, 1)


@lru_cache(maxsize=64)
def turns(size: int, bits: int) -> Complex:
    """e^{-2πi j/size} for j < size/2."""
    ctx = MPContext()
    ctx.prec = bits + 16
    angles = [ctx.mpf(2 * j) / size for j in range(size // 2)]
    arithmetic = Arithmetic(bits)
    return Complex(
        arithmetic.numbers([ctx.cospi(x) for x in angles]),
        arithmetic.numbers([-ctx.sinpi(x) for x in angles]),
    )


def fourier(a: Complex, bits: int) -> Complex:
    """Σ_j a_j e^{-2πi jk/N} for k < N, N a power of two."""
    size = len(a.re)
    table = turns(size, bits)
    re, im = a.re.reshape(1, size), a.im.reshape(1, size)
    while re.shape[0] < size:
        half, rows = re.shape[1] // 2, re.shape[0]
        stride = size // (2 * rows)
        cos, sin = table.re[::stride, None], table.im[::stride, None]
        odd_re, odd_im = re[:, half:], im[:, half:]
        if rows == 1:
            turned_re, turned_im = odd_re, odd_im
        else:
            turned_re = (cos * odd_re - sin * odd_im) >> bits
            turned_im = (cos * odd_im + sin * odd_re) >> bits
        re, im = (
            np.vstack([re[:, :half] + turned_re, re[:, :half] - turned_re]),
            np.vstack([im[:, :half] + turned_im, im[:, :half] - turned_im]),
        )
    return Complex(re.ravel(), im.ravel())


def real_transforms(lines: Sequence[Complex], size: int, bits: int) -> list[Objects]:
    """Σ_{j∈Z} f_j e^{-2πi jk/size} for k < size, for half-lines f_0, f_1, … with f_{-j} = conj f_j: two per transform."""
    folded = [_folded(line, size) for line in lines]
    result: list[Objects] = []
    for first, second in zip(folded[::2], [*folded[1::2], None][: len(folded[::2])], strict=True):
        result.extend(_pair(first, second, bits))
    return result


def _folded(line: Complex, size: int) -> Complex:
    """Sum over the periods; the node 0 is halved because `_pair` meets it twice."""
    parts = []
    for part in (line.re, line.im):
        padded = np.zeros(-(-len(part) // size) * size, dtype=object)
        padded[: len(part)] = part
        padded[0] = padded[0] >> 1
        parts.append(padded.reshape(-1, size).sum(axis=0))
    return Complex(*parts)


def _pair(first: Complex, second: Complex | None, bits: int) -> list[Objects]:
    back = -np.arange(len(first.re))
    if second is None:
        packed = Complex(first.re + first.re[back], first.im - first.im[back])
        return [fourier(packed, bits).re]
    re = (first.re - second.im) + (first.re + second.im)[back]
    im = (first.im + second.re) + (second.re - first.im)[back]
    packed = fourier(Complex(re, im), bits)
    return [packed.re, packed.im]
