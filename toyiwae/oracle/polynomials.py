"""Polynomials in the whitened noise whose expectations under the tilted Gaussians are closed-form.

Every gradient of a linear-Gaussian problem is, coordinate by coordinate, a constant plus a product of two affine
functions of the noise. They are written about the mean of the law's own unit tilt (the posterior), so that what
vanishes there vanishes exactly in floating point: the 1/K bias of a gradient keeps its relative accuracy at any K.
N rows of data share the linear parts; constants are per row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Affine:
    """`constant + linear·δ` for F coordinates: shapes [N, F] and [F, D]; δ is the noise less its unit-tilt mean."""

    constant: np.ndarray
    linear: np.ndarray

    def __getitem__(self, index: np.ndarray) -> Affine:
        """Chosen coordinates."""
        return Affine(self.constant[:, index], self.linear[index])


@dataclass(frozen=True, eq=False)
class Polynomial:
    """`g = base + (left·right - E_1[left·right])`, N rows, F coordinates; `right` None stands for 1; E_1[g] = base."""

    base: np.ndarray
    left: Affine
    right: Affine | None = None

    @property
    def centred(self) -> Polynomial:
        """The same polynomial less its unit-tilt mean."""
        return replace(self, base=np.zeros_like(self.base))

    def less(self, constant: np.ndarray) -> Polynomial:
        """The polynomial minus a constant per row and coordinate."""
        return replace(self, base=self.base - constant)

    def __getitem__(self, index: np.ndarray) -> Polynomial:
        """Chosen coordinates."""
        right = None if self.right is None else self.right[index]
        return Polynomial(self.base[:, index], self.left[index], right)

    @staticmethod
    def combine(terms: list[tuple[float, Polynomial]]) -> Polynomial:
        """Σ factor · polynomial, for polynomials that share their right-hand factor."""
        first = terms[0][1]
        if any(polynomial.right is not first.right for _, polynomial in terms):
            raise ValueError("only polynomials with the same right-hand factor can be added")
        base, constant, linear = 0.0, 0.0, 0.0
        for factor, g in terms:
            base = base + factor * g.base
            constant = constant + factor * g.left.constant
            linear = linear + factor * g.left.linear
        return Polynomial(np.asarray(base), Affine(np.asarray(constant), np.asarray(linear)), first.right)


class Tilt:
    """The noise under the density ∝ w^s, for complex s [S] and shifts h [N, D]."""

    def __init__(self, beta: np.ndarray, h: np.ndarray, s: np.ndarray):
        inverse = 1.0 / (1.0 + np.multiply.outer(s, beta))  # [S, D]
        change = (s - 1.0)[:, None] * inverse / (1.0 + beta)
        self.variance = inverse
        self.variance_change = -beta * change  # V(s) - V(1), without cancellation
        self._beta, self._per_shift, self._h = beta, -change, h  # E_s[δ] = -h (s-1) / ((1+sβ)(1+β))

    def expectation(self, factors: tuple[Polynomial, ...]) -> np.ndarray:
        """E_s of the product of one or more polynomials: [N, S, F]; of one or two without cancellation near s = 1."""
        f, *others = factors
        if not others:
            return self._mean(f)
        if len(others) > 1:
            return self._product(factors)
        g = others[0]
        mean = self._mean(f)
        return mean * (mean if f is g else self._mean(g)) + self._covariance(f, g)

    def _linear(self, linear: np.ndarray) -> np.ndarray:
        """E_s[linear·δ]: [N, S, F]."""
        n, d = self._h.shape
        weighted = (self._h[:, :, None] * linear.T).transpose(1, 0, 2).reshape(d, -1)  # [D, N F]
        mean = self._per_shift.real @ weighted + 1j * (self._per_shift.imag @ weighted)
        return mean.reshape(len(self._per_shift), n, -1).transpose(1, 0, 2)

    def _affine(self, a: Affine) -> np.ndarray:
        return a.constant[:, None, :] + self._linear(a.linear)

    def _mean(self, g: Polynomial) -> np.ndarray:
        left = self._linear(g.left.linear)
        if g.right is None:
            return g.base[:, None, :] + left
        right = self._linear(g.right.linear)
        spread = self.variance_change @ (g.left.linear * g.right.linear).T
        cross = g.left.constant[:, None, :] * right + g.right.constant[:, None, :] * left
        return g.base[:, None, :] + cross + left * right + spread

    def _spread(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.variance @ (a * b).T

    def _covariance(self, f: Polynomial, g: Polynomial) -> np.ndarray:
        """Cov_s(f, g), coordinate by coordinate (Isserlis): [N or 1, S, F]."""
        if f.right is None and g.right is None:
            return self._spread(f.left.linear, g.left.linear)[None]
        if f.right is None:
            f, g = g, f
        assert f.right is not None
        fl, fr, gl = self._affine(f.left), self._affine(f.right), self._affine(g.left)
        ll = self._spread(f.left.linear, g.left.linear)
        rl = self._spread(f.right.linear, g.left.linear)
        if g.right is None:
            return ll * fr + rl * fl
        gr = self._affine(g.right)
        lr = self._spread(f.left.linear, g.right.linear)
        rr = self._spread(f.right.linear, g.right.linear)
        return ll * fr * gr + lr * fr * gl + rl * fl * gr + rr * fl * gl + ll * rr + lr * rl

    def _product(self, factors: tuple[Polynomial, ...]) -> np.ndarray:
        """E_s of a product of many: every polynomial is a constant plus a product of affine functions."""
        found = _AffineMoments(self)
        parts = [(self._level(g), found.add(g.left, g.right)) for g in factors]
        total: Any = 0.0
        for chosen in product((False, True), repeat=len(parts)):
            pairs = list(zip(chosen, parts, strict=True))
            constants = prod((level for affine, (level, _) in pairs if not affine), start=1.0)
            names = [name for affine, (_, part) in pairs if affine for name in part]
            total = total + constants * found.moment(names)
        return total

    def _level(self, g: Polynomial) -> np.ndarray:
        """`g - left·right`, a constant: [N, 1, F]."""
        level = g.base - g.left.constant
        if g.right is not None:
            unit = 1.0 / (1.0 + self._beta)
            spread = (g.left.linear * g.right.linear) @ unit
            level = g.base - g.left.constant * g.right.constant - spread
        return level[:, None, :]


class _AffineMoments:
    """E_s of products of affine functions of the tilted noise, by Isserlis' recursion over how often each occurs."""

    def __init__(self, tilt: Tilt):
        self._tilt = tilt
        self._affine: list[Affine] = []
        self._known: dict[tuple[int, ...], Any] = {}

    def add(self, *functions: Affine | None) -> list[int]:
        """The numbers of some functions; equal ones (the same arrays) share a number. None stands for 1."""
        numbers = []
        for function in functions:
            if function is None:
                continue
            same = [i for i, known in enumerate(self._affine) if _same(known, function)]
            if not same:
                self._affine.append(function)
            numbers.append(same[0] if same else len(self._affine) - 1)
        return numbers

    def moment(self, numbers: list[int]) -> Any:
        """E_s[Π of the functions with these numbers]: [N, S, F], or 1.0 of none."""
        return self._of(tuple(sorted(numbers)))

    def _of(self, numbers: tuple[int, ...]) -> Any:
        if not numbers:
            return 1.0
        if numbers not in self._known:
            first, rest = numbers[0], numbers[1:]
            total = self._mean(first) * self._of(rest)
            for position, other in enumerate(rest):
                left = rest[:position] + rest[position + 1 :]
                total = total + self._spread(first, other) * self._of(left)
            self._known[numbers] = total
        return self._known[numbers]

    def _mean(self, i: int) -> np.ndarray:
        key = (-1, i)
        if key not in self._known:
            self._known[key] = self._tilt._affine(self._affine[i])
        return self._known[key]

    def _spread(self, i: int, j: int) -> np.ndarray:
        key = (-2, i, j)
        if key not in self._known:
            self._known[key] = self._tilt._spread(self._affine[i].linear, self._affine[j].linear)
        return self._known[key]


def _same(one: Affine, other: Affine) -> bool:
    return one is other or (one.constant is other.constant and one.linear is other.linear)
