"""Expectations of polynomials in the noise under exponentially tilted laws, and bounds on their round-off."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np

from toyiwae.oracle.laws.polynomials import Affine, Polynomial

_FRACTION = 1e-4  # of the relative errors, in a difference that bounds a slope


class TiltedNoise:
    """The noise under the density ∝ w^s N(ε), for complex s [S] and shifts h [N, D]; polynomials about the law ∝ w^a.

    It is Gaussian with mean -sh/(1+sβ) and variance 1/(1+sβ). The polynomials are about the posterior's noise, a = 1,
    unless they are scores in the noise of the proposal itself, a = 0.
    """

    def __init__(self, beta: np.ndarray, h: np.ndarray, s: np.ndarray, about: float = 1.0):
        inverse = 1.0 / (1.0 + np.multiply.outer(s, beta))  # [S, D]
        change = (s - about)[:, None] * inverse / (1.0 + about * beta)
        self.variance = inverse
        self.variance_change = -beta * change  # V(s) - V(a), without cancellation
        self._unit = 1.0 / (1.0 + about * beta)  # V(a)
        self._per_shift, self._h = -change, h  # E_s[δ] = -h (s-a) / ((1+sβ)(1+aβ))

    def second_moment(self) -> np.ndarray:
        """E_s[δ²] of every coordinate: [N, S, D]."""
        return self.variance + (self._per_shift * self._h[:, None, :]) ** 2

    def expectation(self, factors: tuple[Polynomial, ...]) -> np.ndarray:
        """E_s of the product of one or more polynomials: [N, S, F]; of one or two without cancellation near s = 1.

        Formula: tilted.
        """
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
        if not np.iscomplexobj(self._per_shift):
            return (self._per_shift @ weighted).reshape(-1, n, len(linear)).transpose(1, 0, 2)
        mean = self._per_shift.real @ weighted + 1j * (self._per_shift.imag @ weighted)
        return mean.reshape(len(self._per_shift), n, -1).transpose(1, 0, 2)

    def _affine(self, a: Affine) -> np.ndarray:
        return a.constant[:, None, :] + self._linear(a.linear)

    def _mean(self, g: Polynomial) -> np.ndarray:
        left = self._linear(g.left.linear)
        if g.right is None:
            return g.base[:, None, :] + left
        right = self._linear(g.right.linear)
        both = self.variance_change @ (g.left.linear * g.right.linear).T
        cross = g.left.constant[:, None, :] * right + g.right.constant[:, None, :] * left
        return g.base[:, None, :] + cross + left * right + both

    def _linear_covariance(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return self.variance @ (a * b).T

    def _covariance(self, f: Polynomial, g: Polynomial) -> np.ndarray:
        """Cov_s(f, g), coordinate by coordinate (Isserlis): [N or 1, S, F]."""
        if f.right is None and g.right is None:
            return self._linear_covariance(f.left.linear, g.left.linear)[None]
        if f.right is None:
            f, g = g, f
        assert f.right is not None
        fl, fr, gl = self._affine(f.left), self._affine(f.right), self._affine(g.left)
        ll = self._linear_covariance(f.left.linear, g.left.linear)
        rl = self._linear_covariance(f.right.linear, g.left.linear)
        if g.right is None:
            return ll * fr + rl * fl
        gr = self._affine(g.right)
        lr = self._linear_covariance(f.left.linear, g.right.linear)
        rr = self._linear_covariance(f.right.linear, g.right.linear)
        return ll * fr * gr + lr * fr * gl + rl * fl * gr + rr * fl * gl + ll * rr + lr * rl

    def _product(self, factors: tuple[Polynomial, ...]) -> np.ndarray:
        """E_s of a product of many: every polynomial is a constant plus a product of affine functions."""
        found = _AffineMoments(self)
        parts = [(self._constant(g), found.add(g.left, g.right)) for g in factors]
        total: Any = 0.0
        for chosen in product((False, True), repeat=len(parts)):
            pairs = list(zip(chosen, parts, strict=True))
            constants = prod((constant for affine, (constant, _) in pairs if not affine), start=1.0)
            names = [name for affine, (_, part) in pairs if affine for name in part]
            total = total + constants * found.moment(names)
        return total

    def _constant(self, g: Polynomial) -> np.ndarray:
        """`g - left·right`, a constant: [N, 1, F]."""
        constant = g.base - g.left.constant
        if g.right is not None:
            both = (g.left.linear * g.right.linear) @ self._unit
            constant = g.base - g.left.constant * g.right.constant - both
        return constant[:, None, :]


class AbsoluteSums(TiltedNoise):
    """Sums of absolute terms in place of expectations, with the relative errors of the law's own numbers.

    `expectation(sizes)` of the sizes of some polynomials bounds the round-off of the expectation of their product, in
    units of the machine precision: from their coefficients, from β and h, and from the operations.

    Args:
        beta, h, s: as above.
        beta_error, h_error: absolute errors of β and h in units of the machine precision, shaped like them.
        about: the power a of the law that the polynomials are about.
    """

    def __init__(
        self,
        beta: np.ndarray,
        h: np.ndarray,
        s: np.ndarray,
        beta_error: np.ndarray,
        h_error: np.ndarray,
        about: float = 1.0,
    ):
        size, inverse = np.abs(s)[:, None], 1.0 / np.abs(1.0 + np.multiply.outer(s, beta))
        change = np.abs(s - about)[:, None] * inverse / (1.0 + about * beta)
        relative = 4.0 + beta_error * (size * inverse + about / (1.0 + about * beta))
        self._unit = 1.0 / (1.0 + about * beta)
        self._sizes = inverse, change * np.abs(beta), change, np.abs(h)
        self._errors = (
            inverse * relative,
            change * (np.abs(beta) * relative + beta_error),
            change * relative,
            h_error,
        )

    def expectation(self, factors: tuple[Polynomial, ...]) -> np.ndarray:
        """The relative errors of what is multiplied add up: the slope of the sums along the errors.

        It is a polynomial in the errors with coefficients that are not negative, so that a difference bounds its slope
        from above. What is added is for the coefficients and the sums.
        """
        found = []
        for fraction in (0.0, _FRACTION):
            pairs = zip(self._sizes, self._errors, strict=True)
            self.variance, self.variance_change, self._per_shift, self._h = (
                s + fraction * d for s, d in pairs
            )
            found.append(super().expectation(factors))
        return (found[1] - found[0]) / _FRACTION + 16.0 * len(factors) * found[0]

    def _constant(self, g: Polynomial) -> np.ndarray:
        constant = g.base + g.left.constant
        if g.right is not None:
            both = (g.left.linear * g.right.linear) @ self._unit
            constant = g.base + g.left.constant * g.right.constant + both
        return constant[:, None, :]


class _AffineMoments:
    """E_s of products of affine functions of the noise, by Isserlis' recursion over how often each occurs."""

    def __init__(self, noise: TiltedNoise):
        self._noise = noise
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
                total = total + self._linear_covariance(first, other) * self._of(left)
            self._known[numbers] = total
        return self._known[numbers]

    def _mean(self, i: int) -> np.ndarray:
        key = (-1, i)
        if key not in self._known:
            self._known[key] = self._noise._affine(self._affine[i])
        return self._known[key]

    def _linear_covariance(self, i: int, j: int) -> np.ndarray:
        key = (-2, i, j)
        if key not in self._known:
            self._known[key] = self._noise._linear_covariance(self._affine[i].linear, self._affine[j].linear)
        return self._known[key]


def _same(one: Affine, other: Affine) -> bool:
    return one is other or (one.constant is other.constant and one.linear is other.linear)
