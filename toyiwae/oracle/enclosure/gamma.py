# ruff: noqa: E501
"""Γ on a vertical line in any number of digits: one Fourier transform gives all nodes at once.

With `t = e^x`, Γ(s) = ∫ e^{cx - e^x} e^{iyx} dx for s = c + iy, and the trapezoidal rule in x has no other errors than
aliases, Γ at y ± 2π/step, which fall like e^{-π|y|/2}. Nodes `y = jη` make the sum a discrete Fourier transform;
samples further apart than its period 2π/η may be added up. Abscissae are brought above 6 by `Γ(s) = Γ(s+n) / (s…(s+n-1))`.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from mpmath import MPContext

from toyiwae.oracle.enclosure.fixed_point import Arithmetic, Complex, fourier, turns

_LEAST = 6  # abscissa from which the integrand's lower tail is short
_GUARD = 40  # bits beside those asked for: sums over samples, the division by small s
_LOG2 = math.log(2.0)


def gamma_on_line(abscissa: float, spacing: float, size: int, count: int, arithmetic: Arithmetic) -> Complex:
    """Γ(c + ijη) for j < count, `η = 2π/(spacing·size)`; remembered, since all problems share it."""
    known = _remembered(abscissa, spacing, size, arithmetic.bits)
    if not known or len(known[0].re) < count:
        known[:] = [_line(abscissa, spacing, size, -(-count // 512) * 512, arithmetic.bits)]
    return known[0][:count]


@lru_cache(maxsize=256)
def _remembered(abscissa: float, spacing: float, size: int, bits: int) -> list[Complex]:
    del abscissa, spacing, size, bits
    return []


def _line(abscissa: float, spacing: float, size: int, count: int, bits: int) -> Complex:
    lift = max(0, math.ceil(_LEAST - abscissa))
    a, ctx = Arithmetic(bits + _GUARD), MPContext()
    ctx.prec = a.bits + 24
    turn = 2 * ctx.pi / (ctx.mpf(spacing) * size)
    finer = _finer(float(turn) * count, spacing, abscissa + lift, a.bits)
    while finer * size < 2 * count:
        finer *= 2
    found = _sampled(ctx.mpf(abscissa) + lift, ctx.mpf(spacing) / finer, finer * size, count, a)
    if lift:
        nodes = np.arange(count).astype(object)
        at = Complex(np.full(count, a.number(ctx.mpf(abscissa)), dtype=object), nodes * a.number(turn))
        product = at
        for _ in range(lift - 1):
            at = Complex(at.re + a.one, at.im)
            product = a.times(product, at)
        found = a.times(found, a.reciprocal(product))
    return found.shift(-_GUARD)


def _finer(height: float, spacing: float, abscissa: float, bits: int) -> int:
    """Samples per spacing at which the nearest alias of the highest node is below 2^-bits: a power of 2."""
    finer = 2
    while True:
        alias = 2 * math.pi * finer / spacing - height
        if alias > 0 and 0.5 * math.pi * alias - (abscissa - 0.5) * math.log(alias + abscissa) > bits * _LOG2:
            return finer
        finer *= 2


def _sampled(c, step, length: int, count: int, a: Arithmetic) -> Complex:
    """Step times Σ_k g(k step) e^{2πi jk/length} for j < count, g(x) = e^{cx - e^x}; length at least 2 count."""
    ctx = c.context
    low = -math.ceil(a.bits * _LOG2 / float(c) / float(step))
    high = math.ceil(math.log(a.bits * _LOG2 + 40.0 * float(c)) / float(step))
    folded = np.zeros(length, dtype=object)
    ratio, x = ctx.exp(step), ctx.exp(low * step)
    growth = c * step
    for k in range(low, high + 1):
        folded[k % length] += a.number(ctx.exp(k * growth - x) * step)
        x *= ratio
    half = length // 2
    packed = fourier(Complex(folded[::2].copy(), folded[1::2].copy()), a.bits)
    j = np.arange(count)
    here, back = packed[j % half], packed[-j % half]
    even = Complex((here.re + back.re) >> 1, (here.im - back.im) >> 1)
    odd = Complex((here.im + back.im) >> 1, (back.re - here.re) >> 1)
    whole = even + a.times(turns(length, a.bits)[:count], odd)
    return Complex(whole.re, -whole.im)
