"""Moments of one particle, as the expansions in 1/K want them: E[uⁿ] and E[Π φ uⁿ], with u = w - 1 and φ = w^r g.

They are numbers of the law's kind: `Bounded` arrays [N, F] for batches of observations, balls for a single one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np

from toyiwae.errors import MissingMomentError, PrecisionError
from toyiwae.oracle.enclosure.laws import BallLaw
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

    def __init__(self, law: Law | BallLaw, exponent: float = 1.0, tags: dict[Hashable, Tag] | None = None):
        """Nothing is computed yet."""
        self.tags: dict[Hashable, Tag] = tags or {}
        self.max_power, self._law, self._exponent = exponent, law, exponent
        self._known: dict[tuple, Any] = {}

    def central(self, n: int) -> Any:
        """E[uⁿ] = Σ_k C(n,k) (-1)^{n-k} (E[w^k] - 1), n ≥ 2.

        Raises:
            MissingMomentError: if E[wⁿ] does not exist.
        """
        return _alternating(n, 2, self._less_one)

    def joint(self, names: tuple[Hashable, ...], n: int) -> Any:
        """E[Π φ uⁿ] for one or two variables.

        Raises:
            MissingMomentError: if a moment does not exist.
        """
        chosen = [self.tags[name] for name in names]
        if n == 0 and len(chosen) == 1 and chosen[0].centred:
            return 0
        power, factors = sum(tag.power for tag in chosen), tuple(tag.g for tag in chosen)
        total = _alternating(n, 0, lambda k: self.raw(power + k, factors))
        for tag in chosen:
            total = total if tag.scale is None else total * tag.scale
        return total

    def raw(self, power: int, factors: tuple[Any, ...]) -> Any:
        """E[w^power Π g].

        Raises:
            MissingMomentError: if it does not exist.
            PrecisionError: if it exceeds the range of double precision.
        """
        key = (power, *factors)
        if key not in self._known:
            self._need(power)
            with np.errstate(over="ignore", invalid="ignore"):
                self._known[key] = _finite(self._law.moment(power, factors), power)
        return self._known[key]

    def _less_one(self, power: int) -> Any:
        if (power,) not in self._known:
            self._need(power)
            self._known[(power,)] = _finite(self._law.moment_less_one(power), power)
        return self._known[(power,)]

    def _need(self, power: int) -> None:
        total = power * self._exponent
        limit = self._law.max_power
        if power >= limit:
            sign, side = ("smallest", ">") if total > 0 else ("largest", "<")
            worst = -1 / (limit * self._exponent)
            raise MissingMomentError(
                f"E[w^{total:g}] is infinite: it exists only where every β {side} {-1 / total:.6g},"
                f" and the {sign} β is {worst:.6g}"
            )
        self.max_power = max(self.max_power, total, key=abs)


def _alternating(n: int, start: int, term: Callable[[int], Any]) -> Any:
    """Σ_k C(n,k) (-1)^{n-k} term(k), k from `start` to n."""
    total: Any = 0
    for k in range(start, n + 1):
        total = term(k) * (comb(n, k) * (-1) ** (n - k)) + total
    return total


def _finite(moment: Any, power: int) -> Any:
    if (
        isinstance(moment, Bounded) and not np.isfinite(moment.value).all()
    ):  # balls are made anew, more precisely
        raise PrecisionError(f"E[w^{power}] exceeds the range of double precision: ask for digits")
    return moment
