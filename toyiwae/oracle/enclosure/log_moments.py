"""Enclosures of variances of gradients whose score coefficient carries the logarithm of a sum of weights.

    found = log_variances(problem, {"vimco": (form, "proposal_mean", None)}, [2, 1000, 10**6], digits=30)

The coefficient is `λ log Ẑ + κ + θ w̃` or `η D_k + κ + θ w̃` (`toyiwae.oracle.finite_k.score_function.LogForm`); with the
score g, and h the same less its mean under the posterior, T = Σ g_k, W = Σ w̃_k h_k and y = S/K. The terms with D_k are
in `weight_logs`; those with log Ẑ are single integrals, by

    log y = ∫ (e^{-t} - e^{-ty}) dt/t,    log² y = 2 ∫ (e^{-ty} - e^{-t})(log t + γ) dt/t.

Aliases: at iω = 2πim/h their integrands' transforms are Γ(iω) (S^{-iω} - K^{-iω}) and its derivative, so that those of
E[T² log² y] are at most `2 Σ |Γ(iω)| (2(|ψ(iω)| + γ) E[T²] + E[T² |log y|])`, and |log y| ≤ (1 + log² y)/2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from flint import arb, ctx

from toyiwae.errors import PrecisionError
from toyiwae.oracle.enclosure.coordinates import Job, Polynomials, by_job, by_law, coordinates
from toyiwae.oracle.enclosure.log_grid import LogGrid, geometric
from toyiwae.oracle.enclosure.matrices import Balls, balls, radius
from toyiwae.oracle.enclosure.moments import near_equal
from toyiwae.oracle.enclosure.precision import Found, add, converged
from toyiwae.oracle.enclosure.rows import SCORE
from toyiwae.oracle.enclosure.scores import Score
from toyiwae.oracle.enclosure.sums import BallSums
from toyiwae.oracle.enclosure.weight_logs import WeightContour, contour
from toyiwae.oracle.finite_k.score_function import LogForm
from toyiwae.problems.linear_gaussian import Problem

_UPPER = 4.5  # of the grid's upper end: moments of fewer weights fall more slowly
_CANCELLED = 4.5  # powers of K that may cancel between the terms of a variance
_TOGETHER = 24  # scores whose transforms are held at once


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


def log_variances(
    problem: Problem, jobs: Mapping[Any, Job], particles: Sequence[int], *, digits: int = 30
) -> dict[Any, Balls]:
    """Variances of one replicate's gradient, log terms included, averaged over the observations: [nK, F].

    Args:
        problem: the problem; observations are sampled independently.
        jobs: key -> (form, parameter of the proposal, coordinates or None for all of them).
        particles: numbers of particles, at least 2.
        digits: significant decimal digits.

    Raises:
        InputError: for an exponent at which E[w^e] does not exist.
        PrecisionError: if the balls do not become small enough, or for the exponent 0.
    """
    if any(form.exponent == 0.0 for form, _, _ in jobs.values()):
        raise PrecisionError("logarithms of weights to the power 0 are not enclosed")
    asked = coordinates(problem, jobs)

    def evaluate(nats: float) -> Found:
        found: Found = {}
        for row, scores in by_law(problem, asked, SCORE):
            if not scores.asked:
                continue
            exponent = scores.asked[0].form.exponent
            log_mean = exponent * row.log_evidence + row.law.log_moment(exponent)
            values = _variances(scores, log_mean, particles, nats)
            for one, which, factor in scores:
                scale = scores.scales[which] * factor.abs_upper()
                for k in particles:
                    var = values[LogForm.of(one.form), which, k]
                    add(found, ("var", k, one.key, one.index), var * factor**2, scale**2)
        return found

    return by_job(converged(evaluate, digits, particles), jobs, asked, "var", particles)


def _variances(
    scores: Polynomials, log_evidence: arb, particles: Sequence[int], nats: float
) -> dict[tuple[LogForm, int, int], arb]:
    """(Form, score, K) -> variance, of one observation."""
    law, wanted = scores.law, {(LogForm.of(one.form), which): None for one, which, _ in scores}
    plain, others = any(form.evidence for form, _ in wanted), any(form.others for form, _ in wanted)
    if plain and near_equal(law, particles, int(nats / 2.3)) is not None:
        raise PrecisionError(
            "the weights are too nearly equal for enclosures with the logarithm of the evidence"
        )
    log_k, found = float(np.log(max(particles))), {}
    nats, bits = nats + (_CANCELLED if others else 1.0) * log_k, int(1.45 * _CANCELLED * log_k) + 64
    every = [Score.of(law, part.parts[0], plain=plain) for part in scores.parts]
    for start in range(0, len(every), _TOGETHER):
        batch = every[start : start + _TOGETHER]
        requests = [request for score in batch for request in score.requests]
        sums = BallSums(law, particles, requests, nats, p=1, orders=[1, 2], upper=_UPPER)
        grid = LogGrid(sums, sums.bits + bits)
        with ctx.workprec(grid.bits):
            for k in particles:
                on = contour(law, grid, k, nats) if others else None
                at = {start + i: AtK(grid, score, k) for i, score in enumerate(batch)}
                for form, which in wanted:
                    if which in at and form.others:
                        assert on is not None
                        found[form, which, k] = at[which].others_var(form, on)
                    elif which in at:
                        found[form, which, k] = at[which].evidence_var(form, log_evidence)
    return found
