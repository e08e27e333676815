"""Moments of gradients whose score coefficient carries the logarithm of a sum of weights, for one score and one K.

The coefficient is `λ log Ẑ + κ + θ w̃` or `η D_k + κ + θ w̃` (`toyiwae.oracle.finite_k.score_function.LogForm`); with the
score g, and h the same less its mean under the posterior, T = Σ g_k, W = Σ w̃_k h_k and y = S/K. The terms with D_k are
in `weight_logs`; those with log Ẑ are single integrals, by

    log y = ∫ (e^{-t} - e^{-ty}) dt/t,    log² y = 2 ∫ (e^{-ty} - e^{-t})(log t + γ) dt/t.

Aliases: at iω = 2πim/h their integrands' transforms are Γ(iω) (S^{-iω} - K^{-iω}) and its derivative, so that those of
E[T² log² y] are at most `2 Σ |Γ(iω)| (2(|ψ(iω)| + γ) E[T²] + E[T² |log y|])`, and |log y| ≤ (1 + log² y)/2.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from flint import arb

from toyiwae.oracle.enclosure.contours import Request
from toyiwae.oracle.enclosure.laws import BallLaw, Quadratic
from toyiwae.oracle.enclosure.log_grid import LogGrid, geometric
from toyiwae.oracle.enclosure.matrices import balls, radius
from toyiwae.oracle.enclosure.weight_logs import WeightContour
from toyiwae.oracle.finite_k.score_function import LogForm


@dataclass(frozen=True, eq=False)
class Score:
    """One score g, of mean 0 under the proposal, and the transforms that its moments need.

    Attributes:
        h: g less its mean under the posterior. plain: whether E[T² log Ẑ] is wanted.
        var: E[g²]. posterior: a bound on E[w g²].
    """

    law: BallLaw
    g: Quadratic
    h: Quadratic
    plain: bool
    var: arb
    posterior: arb

    @classmethod
    def of(cls, law: BallLaw, g: Quadratic, *, plain: bool) -> Score:
        """From the polynomial."""
        h, var = g.plus(-law.mean(1.0, g)), law.mean(0.0, g, g)
        return cls(law, g, h, plain, var, law.mean(1.0, g, g).abs_upper())

    @property
    def sigma(self) -> arb:
        """A bound on √E[g²]."""
        return self.var.abs_upper().sqrt()

    @cached_property
    def zero(self) -> Request:
        """E[g e^{-tw}]."""
        return Request(0, (self.g,), centred=True)

    @cached_property
    def square(self) -> Request:
        """E[g² e^{-tw}] less its value at t = 0 times e^{-t}."""
        return Request(0, (self.g, self.g), centred=True)

    @cached_property
    def one(self) -> Request:
        """E[w h e^{-tw}]."""
        return Request(1, (self.h,), centred=True)

    @cached_property
    def cross(self) -> Request:
        """E[w g h e^{-tw}]."""
        return Request(1, (self.g, self.h))

    @property
    def requests(self) -> list[Request]:
        """All of them, and E[w² h² e^{-tw}]."""
        more = [self.square] if self.plain else []
        return [self.zero, self.one, self.cross, Request(2, (self.h, self.h)), *more]


@dataclass(frozen=True, eq=False)
class AtK:
    """The integrals over the grid for one score and one K ≥ 2."""

    grid: LogGrid
    score: Score
    k: int

    @property
    def log_k(self) -> arb:
        """Log K."""
        return arb(self.k).log()

    @cached_property
    def alias(self) -> arb:
        """A bound on Σ_{m≠0} |Γ(2πim/h)|."""
        return self._aliases(0.0)

    @cached_property
    def alias_psi(self) -> arb:
        """The same with |ψ| inside."""
        return self._aliases(0.0, logs=True)

    def _aliases(self, x: float, *, logs: bool = False) -> arb:
        return arb(float(self.grid.aliases(x, np.zeros(1), logs=logs)[0])).exp().abs_upper()

    @cached_property
    def mean(self) -> arb:
        """E[T log S] = E[Σ D g]."""
        found = -self.k * self.grid.integral((self.score.zero,), self.k - 1)
        return found + radius(self.alias * arb(self.k).sqrt() * self.score.sigma)

    @cached_property
    def weighted(self) -> tuple[arb, arb, arb]:
        """E[W], E[W T] and E[W²]."""
        sums, g, h = self.grid.sums, self.score.g, self.score.h
        return sums.single(self.k, 1, h), sums.pair(self.k, 0, g, 1, h), sums.pair(self.k, 1, h, 1, h)

    def pair_mean(self) -> arb:
        """E[g_1 g_2 log S]."""
        zero = self.score.zero
        return -self.grid.integral((zero, zero), self.k - 2) + radius(self.alias * self.score.var.abs_upper())

    def pair_square(self, on: WeightContour) -> arb:
        """E[g_1 g_2 log² S], log S from log K, for K ≥ 3."""
        s, zero, k = self.score, self.score.zero, self.k
        found = 2 * self.grid.integral((zero, zero), k - 2, self.log_k + arb.const_euler())
        power = min(on.sides[1], 0.5)  # |log y| ≤ (y^p + y^-p)/p, y^p ≤ 1 + y
        var = s.var.abs_upper()
        size = 2 * var + 2 * s.sigma * s.posterior.sqrt() / k
        size += var * arb(k) ** arb(power) * on.inverse(2, power)
        return found + radius(2 * (self.alias_psi * var + self.alias * size / arb(power)))

    # log Ẑ -----------------------------------------------------------------------------------------------------------

    def evidence_var(self, form: LogForm, log_evidence: arb) -> arb:
        """Var[λ T log Ẑ + κ T + θ W]. Formula: enclosed-log-evidence."""
        lam, theta, kappa = arb(form.evidence), arb(form.weight), shift(form, self.k)
        base = lam * log_evidence + kappa
        single, cross, double = self.weighted
        one, two = self._squares()
        found = (
            base * base * self.k * self.score.var + 2 * base * lam * one + lam * lam * (two - self.mean**2)
        )
        if theta != 0:
            logs = self._cross_log(two) - self.mean * single
            found += 2 * theta * (base * cross + lam * logs) + theta * theta * (double - single * single)
        return found

    def _squares(self) -> tuple[arb, arb]:
        """E[T² log y] and E[T² log² y]."""
        s, k, grid = self.score, self.k, self.grid
        shift = self.log_k + arb.const_euler()
        values = k * grid.values((s.square,), k - 1) + k * (k - 1) * grid.values((s.zero, s.zero), k - 2)
        decay = balls((-t).exp() for t in grid.t)  # E[g² e^{-tw}] is σ² e^{-t} more than the transform
        values = values + k * s.var * decay * (
            grid.sums.power(k - 1) - balls((-(k - 1) * t).exp() for t in grid.t)
        )
        end, size = (
            float(grid.log_t[0]),
            k * s.posterior + (2 * k - 1) * k * s.var.abs_upper(),
        )  # E[T² (S + K)]
        away = abs(end) + float(abs(shift).upper())
        found = []
        for one in (None, shift):
            rest = size * geometric(end, 1.0, grid.step, None if one is None else away)
            rest += k * grid.high((s.square,), k - 1, shift=one)
            rest += k * (k - 1) * grid.high((s.zero, s.zero), k - 2, shift=one)
            rest += k * s.var.abs_upper() * (grid.exponential(k, shift=one) + grid.high((), k - 1, shift=one))
            weighted = values if one is None else grid.with_logs(values, one)
            found.append(weighted.sum() * arb(grid.step) + radius(rest))
        total = k * s.var.abs_upper()
        one = -found[0] + radius(2 * self.alias * total)
        two, fixed = 2 * found[1], 2 * total * (2 * self.alias_psi + self.alias / 2)
        error = fixed + self.alias * (two.abs_upper() + fixed) / (1 - self.alias)
        return one, two + radius(error)

    def _cross_log(self, square: arb) -> arb:
        """E[W T log y] = -∫ (u + log K + γ) t E[S W T e^{-tS}] du, from E[T² log² y] for the aliases' bound."""
        s, k, grid = self.score, self.k, self.grid
        shift = self.log_k + arb.const_euler()
        found = k * grid.integral((s.cross,), k - 1, shift)
        found += k * (k - 1) * grid.integral((s.one, s.zero), k - 2, shift)
        plain, psi = (self._aliases(1.0, logs=logs) for logs in (False, True))
        size = grid.sums.size(k, s.h)
        error = psi * size * (k * s.var.abs_upper()).sqrt() + plain * size * square.abs_upper().sqrt()
        return -found + radius(error.abs_upper())

    # leave one out ---------------------------------------------------------------------------------------------------

    def others_var(self, form: LogForm, on: WeightContour) -> arb:
        """Var[η Σ D_k g_k + κ T + θ W]. Formula: enclosed-log-weights."""
        eta, theta, kappa, k = arb(form.others), arb(form.weight), shift(form, self.k), self.k
        pairs, s = k * (k - 1), self.score
        single, cross, double = self.weighted
        found = eta * eta * (k * self._alone(on, "square") + pairs * self._pair(on) - self.mean**2)
        if theta != 0:
            both = k * self._alone(on, "weight") + pairs * self._pair_weight(on) - self.mean * single
            found += (
                2 * eta * theta * both
                + theta * theta * (double - single * single)
                + 2 * theta * kappa * cross
            )
        if kappa != 0:
            both = k * self._alone(on, "score") + pairs * self.pair_mean()
            found += 2 * eta * kappa * both + kappa * kappa * k * s.var
        return found

    def _alone(self, on: WeightContour, what: str) -> arb:
        """E[D² g²] ("square"), E[D w̃ g h] ("weight") or E[D g²] ("score")."""
        g, other = self.score.g, self.score.h if what == "weight" else self.score.g
        ratio = {"square": 2 * on.shifted_psi, "weight": -on.s * on.shifted_psi, "score": -1}[what]
        values = on.kernel * ratio * on.moment * on.tilted.mean(g, other) * on.others
        return on.integral(values, lambda b: on.moment_bound(b, g, other) * on.inverse(1, b))

    def _pair(self, on: WeightContour) -> arb:
        """E[D_1 g_1 D_2 g_2]. Formula: enclosed-log-pair."""
        s, alone = self.score, on.moment * on.tilted.mean(self.score.g)
        if self.k == 2:
            slope = balls(-1 / x - arb.pi() * (arb.pi() * x).cot() for x in on.s)
            other = on.law.tilted(on.s)
            moment = balls(x.exp() for x in other.log_moment()) * other.mean(s.g)
            values = on.kernel * (2 * on.shifted_psi + slope) * alone * moment
            return on.integral(values, lambda b: on.moment_bound(b, s.g) * on.moment_bound(-b, s.g))
        second = on.integral(
            -on.kernel * alone * on.with_score(s.zero, s.g),
            lambda b: on.moment_bound(b, s.g) * s.sigma * on.inverse_log(b),
        )
        last = on.double(-on.kernel * alone, lambda b: on.moment_bound(b, s.g), lambda b: on.inverse(2, b))
        return self.pair_square(on) - 2 * second + last

    def _pair_weight(self, on: WeightContour) -> arb:
        """E[D_1 g_1 w̃_2 h_2]."""
        s = self.score
        values = on.kernel * (on.s * on.shifted_psi - 1) * on.moment * on.tilted.mean(s.g)

        def bound(b: float) -> arb:
            if self.k == 2:
                return on.moment_bound(b, s.g) * on.moment_bound(-b, s.h)
            return on.moment_bound(b, s.g) * on.moment_bound(0.0, s.h) * on.inverse(2, b)

        return on.integral(values * on.with_weight(s.one, s.h), bound)


def shift(form: LogForm, k: int) -> arb:
    """κ."""
    found = arb(form.uniform) / k
    return found + arb(form.constant) * (1 - arb(1) / k).log() if form.constant else found
