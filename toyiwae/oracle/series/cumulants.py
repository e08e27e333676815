"""Power series in 1/K of smooth functions of means over K independent particles, to any order, in exact rationals.

Let `x = (1/K) Σ_k u_k` be the mean of a centred variable u, and `φ̄ = (1/K) Σ_k φ_k` that of any other. Joint
cumulants of n means are K^{1-n} times those of one particle, so with ε = 1/K and κ(φ…; uⁱ) the joint cumulant of the
φ's and i copies of u,

    E[x^p]        = Σ_i C(p-1, i-1) κ(uⁱ) ε^{i-1} E[x^{p-i}]
    E[φ̄ x^p]      = Σ_i C(p, i) κ(φ; uⁱ) εⁱ E[x^{p-i}]
    E[φ̄ ψ̄ x^p]    = Σ_i C(p, i) κ(φ,ψ; uⁱ) ε^{1+i} E[x^{p-i}]
                    + Σ_ij p!/(i! j! (p-i-j)!) κ(φ; uⁱ) κ(ψ; u^j) ε^{i+j} E[x^{p-i-j}]

and the same identities at K = 1 give the cumulants of one particle from its moments. `E[x^p]` starts at order ⌈p/2⌉,
so that an expansion in powers of x (the delta method) becomes one in ε. Nothing here knows what its numbers are:
floats with error bounds, balls and SymPy expressions all pass through the same recursions.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import comb, factorial
from typing import Any

Number = Any  # anything with + - * among itself and * / with ints; the int 0 stands for what is absent
LOG = "log"


@dataclass(frozen=True)
class Factor:
    """One summand of a statistic: `coefficient · ε^order · f(x)`, f(x) = (1+x)^{-power}, or log(1+x) for LOG."""

    coefficient: Fraction
    order: int
    power: int | str


Statistic = Mapping[Hashable, Sequence[Factor]]
"""Σ_tag φ̄_tag Σ_factors: what an estimator's gradient is, as a function of means. A tag names a variable φ."""


class Means:
    """Expectations of products of means, order by order in ε = 1/K.

    Formula: cumulants.

    Args:
        central: n -> E[uⁿ] of one particle, n ≥ 2.
        joint: (tags, n) -> E[Π φ_tag uⁿ] of one particle, for one or two tags. It is called only for the moments
            that the orders asked for need, so that it may raise where one does not exist. The int 0 says that a
            moment vanishes exactly.
    """

    def __init__(
        self,
        central: Callable[[int], Number],
        joint: Callable[[tuple[Hashable, ...], int], Number] | None = None,
    ):
        self._central, self._joint = central, joint
        self._known: dict[tuple, Number] = {}

    def power(self, p: int, order: int) -> Number:
        """Coefficient of ε^order in E[x^p]."""
        if not _possible(p, order):
            return 0
        if p == 0:
            return 1
        key = ("power", p, order)
        if key not in self._known:
            self._known[key] = _sum(
                _scaled(self._block((), i, p - i, order - i + 1), comb(p - 1, i - 1)) for i in range(2, p + 1)
            )
        return self._known[key]

    def product(self, tags: tuple[Hashable, ...], p: int, order: int) -> Number:
        """Coefficient of ε^order in E[Π φ̄_tag x^p], for one or two tags."""
        key = ("product", tags, p, order)
        if key not in self._known:
            lag = len(tags) - 1
            together = [
                _scaled(self._block(tags, i, p - i, order - i - lag), comb(p, i)) for i in range(p + 1)
            ]
            self._known[key] = _sum(together + (self._apart(tags, p, order) if lag else []))
        return self._known[key]

    def _block(self, tags: tuple[Hashable, ...], n: int, p: int, order: int) -> Number:
        """κ(φ…; uⁿ) times the coefficient of ε^order in E[x^p], neither evaluated where the other is absent."""
        if not _possible(p, order):
            return 0
        cumulant = self.cumulant(tags, n)
        return 0 if _absent(cumulant) else _product(self.power(p, order), cumulant)

    def _apart(self, tags: tuple[Hashable, ...], p: int, order: int) -> list[Number]:
        """The terms of E[φ̄ ψ̄ x^p] in which φ and ψ are in different blocks."""
        terms = []
        for i in range(p + 1):
            for j in range(p - i + 1):
                if not _possible(p - i - j, order - i - j):
                    continue
                left = self.cumulant(tags[:1], i)
                rest = 0 if _absent(left) else self._block(tags[1:], j, p - i - j, order - i - j)
                terms.append(_scaled(_product(left, rest), _ways(p, i, j)))
        return terms

    def cumulant(self, tags: tuple[Hashable, ...], n: int) -> Number:
        """κ(φ…; uⁿ) of one particle, for no tag (n ≥ 2), one or two."""
        key = ("cumulant", tags, n)
        if key not in self._known:
            self._known[key] = self._cumulant(tags, n)
        return self._known[key]

    def _cumulant(self, tags: tuple[Hashable, ...], n: int) -> Number:
        if not tags:
            known = (
                _scaled(_product(self.cumulant((), i), self._moment(n - i)), -comb(n - 1, i - 1))
                for i in range(2, n - 1)
            )
            return _sum([self._central(n), *known])
        assert self._joint is not None
        terms = [self._joint(tags, n)]
        terms += [
            _scaled(_product(self.cumulant(tags, i), self._moment(n - i)), -comb(n, i))
            for i in range(n)
            if n - i != 1
        ]
        if len(tags) == 2:
            for i in range(n + 1):
                for j in range(n - i + 1):
                    if n - i - j != 1:
                        block = _product(self.cumulant(tags[:1], i), self.cumulant(tags[1:], j))
                        terms.append(_scaled(_product(block, self._moment(n - i - j)), -_ways(n, i, j)))
        return _sum(terms)

    def _moment(self, n: int) -> Number:
        """E[uⁿ], absent for n = 1."""
        if n < 2:
            return 1 - n
        key = ("moment", n)
        if key not in self._known:
            self._known[key] = self._central(n)
        return self._known[key]

    # statistics ------------------------------------------------------------------------------------------------------

    def log(self, order: int) -> Number:
        """Coefficient of ε^order in E[log(1+x)]: the term of the bound L_K, order ≥ 1."""
        terms = (
            _scaled(self.power(p, order), Fraction((-1) ** (p + 1), p))
            for p in range(order + 1, 2 * order + 1)
        )
        return _sum(terms)

    def mean(self, statistic: Statistic, order: int) -> Number:
        """Coefficient of ε^order in the mean of a statistic."""
        terms = []
        for tag, factors in statistic.items():
            weights: dict[tuple[int, int], Fraction] = {}
            for factor in factors:
                left = order - factor.order
                for p, weight in enumerate(taylor(factor.power, 2 * left)):
                    _add(weights, (p, left), factor.coefficient * weight)
            terms += [_scaled(self.product((tag,), p, left), w) for (p, left), w in weights.items() if w]
        return _sum(terms)

    def second_moment(self, statistic: Statistic, order: int) -> Number:
        """Coefficient of ε^order in the mean of a statistic's square."""
        terms, tags = [], list(statistic)
        for a, first in enumerate(tags):
            for second in tags[a:]:
                weights: dict[tuple[int, int], Fraction] = {}
                for f in statistic[first]:
                    for g in statistic[second]:
                        left = order - f.order - g.order
                        for p, weight in enumerate(_taylor_product(f.power, g.power, 2 * left)):
                            _add(
                                weights,
                                (p, left),
                                f.coefficient * g.coefficient * weight * (1 + (first != second)),
                            )
                products = ((p, left, w) for (p, left), w in weights.items() if w)
                terms += [_scaled(self.product((first, second), p, left), w) for p, left, w in products]
        return _sum(terms)

    def variance(self, statistic: Statistic, order: int) -> Number:
        """Coefficient of ε^order in the variance of a statistic."""
        lowest = lowest_order(statistic)
        terms = [self.second_moment(statistic, order)]
        for i in range(lowest, order - lowest + 1):
            left, right = self.mean(statistic, i), self.mean(statistic, order - i)
            terms.append(_scaled(_product(left, right), -1))
        return _sum(terms)


def lowest_order(statistic: Statistic) -> int:
    """The order in ε at which the mean of a statistic can start."""
    return min((factor.order for factors in statistic.values() for factor in factors), default=0)


@cache
def taylor(power: int | str, degree: int) -> tuple[Fraction, ...]:
    """Coefficients up to x^degree of (1+x)^{-power}, or of log(1+x) for LOG; none for a negative degree."""
    if power == LOG:
        return tuple(Fraction((-1) ** (p + 1), p) if p else Fraction(0) for p in range(degree + 1))
    if power == 0:
        return tuple(Fraction(int(p == 0)) for p in range(degree + 1))
    return tuple(Fraction((-1) ** p * comb(int(power) + p - 1, p)) for p in range(degree + 1))


@cache
def _taylor_product(first: int | str, second: int | str, degree: int) -> tuple[Fraction, ...]:
    if isinstance(first, int) and isinstance(second, int):
        return taylor(first + second, degree)
    a, b = taylor(first, degree), taylor(second, degree)
    return tuple(sum((a[i] * b[p - i] for i in range(p + 1)), Fraction(0)) for p in range(degree + 1))


def _add(weights: dict[tuple[int, int], Fraction], key: tuple[int, int], value: Fraction) -> None:
    if value:
        weights[key] = weights.get(key, Fraction(0)) + value


def _possible(p: int, order: int) -> bool:
    """Whether E[x^p] has a term of this order in ε: from ⌈p/2⌉ to p - 1, and 0 for p = 0."""
    return -(-p // 2) <= order < max(p, 1)


def _ways(n: int, i: int, j: int) -> int:
    """N! / (i! j! (n-i-j)!)."""
    return factorial(n) // (factorial(i) * factorial(j) * factorial(n - i - j))


def _absent(x: Number) -> bool:
    return isinstance(x, int) and x == 0


def _sum(terms: Iterable[Number]) -> Number:
    """Σ of what is present; the int 0 if nothing is."""
    total: Number = 0
    for term in terms:
        if not _absent(term):
            total = term if _absent(total) else total + term
    return total


def _product(a: Number, b: Number) -> Number:
    """A · b, where an int 1 or 0 costs nothing."""
    for one, other in ((a, b), (b, a)):
        if isinstance(one, int) and one in (0, 1):
            return other if one else 0
    return a * b


def _scaled(x: Number, factor: Fraction | int) -> Number:
    """Factor · x for an exact rational factor."""
    if _absent(x):
        return 0
    top, bottom = factor.numerator, factor.denominator
    if bottom == 1:
        return x if top == 1 else x * top
    return x * top / bottom
