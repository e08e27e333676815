"""Gradient moments on balls: polynomials by power of the normalised weight, centred, their means and covariances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from flint import arb

from toyiwae.oracle.enclosure.contours import Request
from toyiwae.oracle.enclosure.laws import BallLaw, Quadratic
from toyiwae.oracle.enclosure.matrices import radius
from toyiwae.oracle.enclosure.precision import BELOW
from toyiwae.oracle.enclosure.sums import BallSums


@dataclass(frozen=True, eq=False)
class Components:
    """A gradient coordinate's polynomials by power of the normalised weight, centred where that costs nothing.

    The power 0 is centred under the proposal and the power 1 under the posterior (the law ∝ w); `limit` is what that
    takes out of the mean, `scale` the root mean square of the polynomials.
    """

    parts: dict[int, Quadratic]
    limit: arb
    scale: arb

    @classmethod
    def of(cls, law: BallLaw, raw: dict[int, Quadratic]) -> Components:
        """Centre raw polynomials."""
        parts, limit, scale = {}, arb(0), arb(0)
        for r, g in raw.items():
            scale += law.mean(float(min(r, 1)), g, g).abs_upper().sqrt()
            if r < 2:
                mean = law.mean(float(r), g)
                limit, g = limit + mean, g.plus(-mean)
            parts[r] = g
        return cls(parts, limit, scale)

    def orders(self) -> set[int]:
        """The n of the integrals of t^{n-1} e^{-tS} that the moments need."""
        return {n for n in (*self.parts, *(r + s for r in self.parts for s in self.parts)) if n}


def pairs(one: Components, two: Components) -> Iterator[tuple[int, Quadratic, int, Quadratic, int]]:
    """All pairs of the polynomials of two gradients, the lower power first, and how often each counts."""
    for r, f in one.parts.items():
        for s, g in two.parts.items():
            if one is not two:
                yield (r, f, s, g, 1) if r <= s else (s, g, r, f, 1)
            elif r <= s:
                yield r, f, s, g, 1 + (r < s)


def requests(each: Iterable[Components], both: Iterable[tuple[Components, Components]]) -> list[Request]:
    """The transforms that the means of some gradients and the covariances of some pairs of them need."""
    singles = [Request(r, (g,), centred=r < 2) for one in each for r, g in one.parts.items()]
    return singles + [Request(r + s, (f, g)) for pair in both for r, f, s, g, _ in pairs(*pair) if r + s]


def shift(sums: BallSums, one: Components, k: int) -> arb:
    """The mean of one replicate, less its limit."""
    return sum((sums.single(k, r, g) for r, g in one.parts.items() if r), arb(0))


def covariance(sums: BallSums, law: BallLaw, one: Components, two: Components, k: int) -> arb:
    """The covariance of two gradients of one replicate."""
    total = arb(0)
    for r, f, s, g, times in pairs(one, two):
        if s == 0:
            total += times * law.mean(0.0, f, g) / k
        elif r == 0:
            total += times * sums.pair(k, r, f, s, g) / k
        else:
            total += times * (sums.pair(k, r, f, s, g) - sums.single(k, r, f) * sums.single(k, s, g))
    return total


# nearly equal weights ------------------------------------------------------------------------------------------------


def equal_shift(law: BallLaw, one: Components, k: int, spread: arb) -> arb:
    """As `shift`, where every w̃ is nearly 1/K; see `equal_covariance`."""
    return _equal_mean(law, one, k) + radius(_equal_rest(law, one, k, spread))


def equal_covariance(law: BallLaw, one: Components, two: Components, k: int, spread: arb) -> arb:
    """As `covariance`, where every w̃ is nearly 1/K: of Σ_r K^{-r} Σ_k g_r (0 counts as 1), with a bound on the rest.

    With `spread` = V ≥ Var w, E[Σ(w̃ - 1/K)²] ≤ 8V/K (Chebyshev where Σw < K/2), |w̃^r - K^{-r}| ≤ r|w̃ - 1/K| and
    E[g⁴] ≤ 81 E[g²]² (hypercontractivity), the rest's root mean square is at most `Σ_r r (8V/K)^{1/4} 3 √(K E[g²])`.
    """
    std, other = (_equal_product(law, part, part, k).abs_upper().sqrt() for part in (one, two))
    rest, more = (_equal_rest(law, part, k, spread) for part in (one, two))
    return _equal_product(law, one, two, k) + radius(std * more + other * rest + rest * more)


def _equal_mean(law: BallLaw, one: Components, k: int) -> arb:
    return sum((arb(k) ** (1 - max(r, 1)) * law.mean(0.0, g) for r, g in one.parts.items()), arb(0))


def _equal_product(law: BallLaw, one: Components, two: Components, k: int) -> arb:
    found = -_equal_mean(law, one, k) * _equal_mean(law, two, k)
    for r, f, s, g, times in pairs(one, two):
        found += times * arb(k) ** (2 - max(r, 1) - max(s, 1)) * law.mean(0.0, f, g)
    return found / k


def _equal_rest(law: BallLaw, one: Components, k: int, spread: arb) -> arb:
    rest = sum((r * (k * law.mean(0.0, g, g)).abs_upper().sqrt() for r, g in one.parts.items()), arb(0))
    return (3 * rest * (8 * spread / k).abs_upper().sqrt().sqrt()).abs_upper()


def near_equal(law: BallLaw, particles: Sequence[int], digits: int) -> arb | None:
    """A bound on Var w where it is so small that every normalised weight counts as 1/K; else None."""
    sizes = [b.abs_upper() + law.remainder for b in law.beta]
    room = 1 - 2 * max(sizes)
    if not room > 0.5:
        return None  # log((1+b)²/(1+2b)) ≤ b²/(1+2b), and E[w²] - 1 ≤ 2 log E[w²] for small ones
    shifts = sum((h.abs_upper() * h.abs_upper() for h in law.h), arb(0))
    spread = (2 * (sum((b * b for b in sizes), arb(0)) / room + shifts / room**2)).abs_upper()
    return spread if spread * max([1, *particles]) < arb(10) ** (-4 * (digits + BELOW + 4)) else None
