"""Gradient moments on balls: polynomials by power of the normalised weight, centred, and their means and variances."""

from __future__ import annotations

from collections.abc import Sequence
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

    def requests(self) -> list[Request]:
        """The transforms that the moments need."""
        singles = [Request(r, (g,), centred=r < 2) for r, g in self.parts.items()]
        return singles + [Request(r + s, (f, g)) for r, f, s, g in self._pairs() if r + s]

    def orders(self) -> set[int]:
        """The n of the integrals of t^{n-1} e^{-tS} that the moments need."""
        return {r for r in self.parts if r} | {r + s for r, _, s, _ in self._pairs() if r + s}

    def _pairs(self) -> list[tuple[int, Quadratic, int, Quadratic]]:
        return [(r, f, s, g) for r, f in self.parts.items() for s, g in self.parts.items() if r <= s]

    def moments(self, sums: BallSums, law: BallLaw, k: int) -> tuple[arb, arb]:
        """The mean less its limit, and the variance of one replicate."""
        means = {r: sums.single(k, r, g) if r else arb(0) for r, g in self.parts.items()}
        total = arb(0)
        for r, f, s, g in self._pairs():
            if s == 0:
                total += law.mean(0.0, f, g) / k
                continue
            product = sums.pair(k, r, f, s, g)
            total += (product / k if r == 0 else product - means[r] * means[s]) * (1 + (s > r))
        return sum(means.values(), arb(0)), total

    def equal_moments(self, law: BallLaw, k: int, spread: arb) -> tuple[arb, arb]:
        """The same where every w̃ is nearly 1/K: those of Σ_r K^{-r} Σ_k g_r (0 counts as 1), with a bound on the rest.

        With `spread` = V ≥ Var w, E[Σ(w̃ - 1/K)²] ≤ 8V/K (Chebyshev where Σw < K/2), |w̃^r - K^{-r}| ≤ r|w̃ - 1/K| and
        E[g⁴] ≤ 81 E[g²]² (hypercontractivity), its root mean square is at most `Σ_r r (8V/K)^{1/4} 3 √(K E[g²])`.
        """
        parts = [(arb(k) ** (1 - max(r, 1)), g) for r, g in self.parts.items()]
        mean = sum((a * law.mean(0.0, g) for a, g in parts), arb(0))
        second = sum((a * b * law.mean(0.0, f, g) for a, f in parts for b, g in parts), arb(0))
        var, rest = (second - mean * mean) / k, self.equal_rest(law, k, spread)
        return mean + radius(rest), var + radius(2 * rest * var.abs_upper().sqrt() + rest * rest)

    def equal_rest(self, law: BallLaw, k: int, spread: arb) -> arb:
        """The bound on the root mean square of what `equal_moments` leaves out."""
        rest = sum((r * (k * law.mean(0.0, g, g)).abs_upper().sqrt() for r, g in self.parts.items()), arb(0))
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
