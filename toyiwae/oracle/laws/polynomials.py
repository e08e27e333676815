"""Polynomials in the whitened noise whose expectations under the exponentially tilted laws are closed-form.

Every gradient of a linear-Gaussian problem is, coordinate by coordinate, a constant plus a product of two affine
functions of the noise. They are written about the mean of the noise under the posterior, so that what
vanishes there vanishes exactly in floating point: the 1/K bias of a gradient keeps its relative accuracy at any K.
N rows of data share the linear parts; constants are per row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np


@dataclass(frozen=True, eq=False)
class Affine:
    """`constant + linear·δ` for F coordinates: shapes [N, F] and [F, D]; δ is the noise less its posterior mean."""

    constant: np.ndarray
    linear: np.ndarray

    def __getitem__(self, index: np.ndarray) -> Affine:
        """Chosen coordinates."""
        return Affine(self.constant[:, index], self.linear[index])


@dataclass(frozen=True, eq=False)
class Polynomial:
    """`g = base + (left·right - E_1[left·right])`, N rows, F coordinates; `right` None stands for 1; E_1[g] = base.

    Attributes:
        base, left, right: as in the formula.
        plain: E_0[g], the mean under the proposal, where it is known apart [N, F].
        terms: a polynomial of the sizes of what the coefficients were summed from, where they may have cancelled.
        parts: factors and polynomials that it is the sum of, if it is one.
    """

    base: np.ndarray
    left: Affine
    right: Affine | None = None
    plain: np.ndarray | None = None
    terms: Polynomial | None = None
    parts: tuple[tuple[float, Polynomial], ...] | None = None

    @property
    def degree(self) -> int:
        """In the noise."""
        return 1 if self.right is None else 2

    @property
    def in_own_noise(self) -> Polynomial:
        """A score about the proposal: `left·ε` or `(left·ε)(right·ε)` less its mean, without constants to cancel."""
        zero = np.zeros_like(self.base)
        right = None if self.right is None else Affine(zero, self.right.linear)
        return Polynomial(zero, Affine(zero, self.left.linear), right)

    @property
    def centred(self) -> Polynomial:
        """The same polynomial less its mean under the posterior."""
        base = np.zeros_like(self.base)
        return Polynomial(base, self.left, self.right, terms=self.terms and replace(self.terms, base=base))

    def less(self, constant: np.ndarray) -> Polynomial:
        """The polynomial minus a constant per row and coordinate."""
        plain = None if self.plain is None else self.plain - constant
        terms = replace(self.sizes, base=self.sizes.base + np.abs(constant))
        return replace(self, base=self.base - constant, plain=plain, terms=terms, parts=None)

    def __getitem__(self, index: np.ndarray) -> Polynomial:
        """Chosen coordinates."""
        right = None if self.right is None else self.right[index]
        plain = None if self.plain is None else self.plain[:, index]
        terms = None if self.terms is None else self.terms[index]
        return Polynomial(self.base[:, index], self.left[index], right, plain, terms)

    @cached_property
    def sizes(self) -> Polynomial:
        """What the coefficients' round-off is relative to: their own absolute values, or those of their terms."""
        known = self.terms or self
        left = Affine(np.abs(known.left.constant), np.abs(known.left.linear))
        other = self.right
        right = None if other is None else Affine(np.abs(other.constant), np.abs(other.linear))
        plain = self.plain if known.plain is None else known.plain
        plain = None if plain is None else np.abs(plain)
        return Polynomial(np.abs(known.base), left, right, plain)

    @staticmethod
    def combine(terms: list[tuple[float, Polynomial]]) -> Polynomial:
        """Σ factor · polynomial, for polynomials that share their right-hand factor; what cancels leaves nothing."""
        right = terms[0][1].right
        if any(polynomial.right is not right for _, polynomial in terms):
            raise ValueError("only polynomials with the same right-hand factor can be added")
        factors: dict[int, float] = {}
        known: dict[int, Polynomial] = {}
        for factor, polynomial in terms:
            for inner, part in polynomial.parts or ((1.0, polynomial),):
                known[id(part)] = part
                factors[id(part)] = factors.get(id(part), 0.0) + factor * inner
        parts = [(factor, known[key]) for key, factor in factors.items()]
        sizes = known[id(parts[0][1])].sizes
        base = _shared([(factor, g.base, g.sizes.base) for factor, g in parts])
        constant = _shared([(factor, g.left.constant, g.sizes.left.constant) for factor, g in parts])
        linear = _shared([(factor, g.left.linear, g.sizes.left.linear) for factor, g in parts])
        plain = (None, None)
        if all(g.plain is not None for _, g in parts):
            plain = _shared([(factor, g.plain, g.sizes.plain) for factor, g in parts])
        bounds = Polynomial(base[1], Affine(constant[1], linear[1]), sizes.right, plain[1])
        left = Affine(constant[0], linear[0])
        return Polynomial(base[0], left, right, plain[0], bounds, tuple(parts))


def _shared(terms: list[tuple[float, Any, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Σ factor · array and Σ |factor| · size, where arrays that are one object add their factors first."""
    factors: dict[int, float] = {}
    for factor, array, _ in terms:
        factors[id(array)] = factors.get(id(array), 0.0) + factor
    arrays = {id(array): (array, size) for _, array, size in terms}
    value = sum(factors[key] * array for key, (array, _) in arrays.items())
    return np.asarray(value), np.asarray(sum(abs(factors[key]) * size for key, (_, size) in arrays.items()))
