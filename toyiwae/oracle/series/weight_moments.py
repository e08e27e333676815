"""Moments of one particle, as the expansions in 1/K want them: E[uⁿ] and E[Π φ uⁿ], with u = w - 1 and φ = w^r g.

Once in float64 with bounds, batches of observations at a time, for any law; and once in multiprecision, one
observation and one coordinate at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from toyiwae.errors import MissingMomentError, PrecisionError
from toyiwae.oracle.enclosure.law import PreciseLaw
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.laws.protocol import Law


@dataclass(frozen=True, eq=False)
class Tag:
    """The variable `φ = scale · w^power g` of one particle; a scale of None is 1, and `centred` says that E[φ] = 0."""

    power: int
    g: Any
    scale: Any = None
    centred: bool = False


class WeightMoments:
    """The moments of w^e under a law, which is that of w^e in units of its mean.

    Attributes:
        tags: the variables φ by name.
        max_power: the highest power of w used so far.
    """

    def __init__(self, max_power: float, exponent: float, tags: dict[Hashable, Tag] | None = None):
        """Moments of order s of w^e exist for s < `max_power`."""
        self.tags: dict[Hashable, Tag] = tags or {}
        self.max_power, self._limit, self._exponent = exponent, max_power, exponent
        self._known: dict[tuple, Any] = {}

    def central(self, n: int) -> Any:
        """E[uⁿ] = Σ_k C(n,k) (-1)^{n-k} (E[w^k] - 1), n ≥ 2.

        Raises:
            MissingMomentError: if E[wⁿ] does not exist.
        """
        return _alternating(n, 2, self._remembered_less_one)

    def joint(self, names: tuple[Hashable, ...], n: int) -> Any:
        """E[Π φ uⁿ] for one or two variables.

        Raises:
            MissingMomentError: if a moment does not exist.
        """
        chosen = [self.tags[name] for name in names]
        if n == 0 and len(chosen) == 1 and chosen[0].centred:
            return 0
        power, factors = sum(tag.power for tag in chosen), tuple(tag.g for tag in chosen)
        total = _alternating(n, 0, lambda k: self._remembered(power + k, factors))
        for tag in chosen:
            total = total if tag.scale is None else total * tag.scale
        return total

    def moment_less_one(self, power: int) -> Any:
        """E[w^power] - 1, to full relative accuracy."""
        raise NotImplementedError

    def raw(self, power: int, factors: tuple[Any, ...]) -> Any:
        """E[w^power Π g]."""
        raise NotImplementedError

    def _remembered_less_one(self, power: int) -> Any:
        if (power,) not in self._known:
            self._need(power)
            self._known[(power,)] = self.moment_less_one(power)
        return self._known[(power,)]

    def _remembered(self, power: int, factors: tuple[Any, ...]) -> Any:
        key = (power, *map(id, factors))
        if key not in self._known:
            self._need(power)
            self._known[key] = self.raw(power, factors)
        return self._known[key]

    def _need(self, power: int) -> None:
        total = power * self._exponent
        if power >= self._limit:
            sign, side = ("smallest", ">") if total > 0 else ("largest", "<")
            worst = -1 / (self._limit * self._exponent)
            raise MissingMomentError(
                f"E[w^{total:g}] is infinite: it exists only where every β {side} {-1 / total:.6g},"
                f" and the {sign} β is {worst:.6g}"
            )
        self.max_power = max(self.max_power, total, key=abs)


class FloatMoments(WeightMoments):
    """In float64, for N observations and F coordinates: numbers are `Bounded` arrays [N, F], or [N, 1] without a φ."""

    def __init__(self, law: Law, exponent: float = 1.0):
        """Nothing is computed yet."""
        super().__init__(law.max_power, exponent)
        self.law = law

    def moment_less_one(self, power: int) -> Bounded:
        """E[w^power] - 1: [N, 1]."""
        return _finite(self.law.moment_less_one(power), power)

    def raw(self, power: int, factors: tuple[Any, ...]) -> Bounded:
        """E[w^power Π g]: [N, F]."""
        with np.errstate(over="ignore", invalid="ignore"):
            return _finite(self.law.moment(power, factors), power)


class MultiprecisionMoments(WeightMoments):
    """In multiprecision, for one observation and one coordinate: numbers are those of the law's context."""

    def __init__(self, law: PreciseLaw, exponent: float, tags: dict[Hashable, Tag]):
        """Nothing is computed yet."""
        super().__init__(law.max_power, exponent, tags)
        self._law = law

    def moment_less_one(self, power: int) -> Any:
        """E[w^power] - 1."""
        return self._law.ctx.expm1(self._law.log_moment(self._law.ctx.mpf(power)))

    def raw(self, power: int, factors: tuple[Any, ...]) -> Any:
        """E[w^power Π g]."""
        s = self._law.ctx.mpf(power)
        return self._law.ctx.exp(self._law.log_moment(s)) * self._law.mean(s, *factors)


def _alternating(n: int, start: int, term: Callable[[int], Any]) -> Any:
    """Σ_k C(n,k) (-1)^{n-k} term(k), k from `start` to n."""
    total: Any = 0
    for k in range(start, n + 1):
        total = term(k) * (comb(n, k) * (-1) ** (n - k)) + total
    return total


def _finite(moment: Bounded, power: int) -> Bounded:
    if not np.isfinite(moment.value).all():
        raise PrecisionError(f"E[w^{power}] exceeds the range of double precision: ask for digits")
    return moment
