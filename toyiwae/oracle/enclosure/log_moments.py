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
from functools import cached_property
from typing import Any

import numpy as np
from flint import arb, ctx

from toyiwae.errors import PrecisionError
from toyiwae.oracle.enclosure import enclose
from toyiwae.oracle.enclosure.contours import Request
from toyiwae.oracle.enclosure.coordinates import Base, of_row
from toyiwae.oracle.enclosure.laws import BallLaw, Quadratic
from toyiwae.oracle.enclosure.log_grid import LogGrid, geometric
from toyiwae.oracle.enclosure.matrices import Balls, balls, radius
from toyiwae.oracle.enclosure.rows import SCORE, rows
from toyiwae.oracle.enclosure.sums import BallSums
from toyiwae.oracle.enclosure.weight_logs import Line
from toyiwae.oracle.finite_k.score_function import LogForm
from toyiwae.problems.linear_gaussian import Problem

_REACH = 4.5  # of the grid's upper end: moments of fewer weights fall more slowly
_CANCELLED = 4.5  # powers of K that may cancel between the terms of a variance
_TOGETHER = 24  # coordinates whose transforms are held at once


class Score:
    """One score: g of mean 0 under the proposal, h of mean 0 under the posterior, and the transforms they need."""

    def __init__(self, law: BallLaw, g: Quadratic, *, plain: bool):
        self.law, self.g = law, g
        self.h = g.plus(-law.mean(1.0, g))
        self.zero, self.one = Request(0, (g,), centred=True), Request(1, (self.h,), centred=True)
        self.cross, self.twice = Request(1, (g, self.h)), Request(2, (self.h, self.h))
        self.square = Request(0, (g, g), centred=True)
        self.requests = [self.zero, self.one, self.cross, self.twice, *([self.square] if plain else [])]
        self.var = law.mean(0.0, g, g)
        self.posterior = law.mean(1.0, g, g).abs_upper()  # E[w g²]
        self.sigma = self.var.abs_upper().sqrt()


class AtK:
    """The integrals over the grid for one score and one K ≥ 2."""

    def __init__(self, grid: LogGrid, score: Score, k: int):
        self.grid, self.score, self.k, self.law = grid, score, k, score.law
        self.log_k = arb(k).log()
        logs = [float(grid.aliases(0.0, np.zeros(1), logs=one)[0]) for one in (False, True)]
        self.alias, self.alias_psi = (arb(x).exp().abs_upper() for x in logs)

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

    def pair_square(self, line: Line) -> arb:
        """E[g_1 g_2 log² S], log S from log K, for K ≥ 3."""
        s, zero, k = self.score, self.score.zero, self.k
        found = 2 * self.grid.integral((zero, zero), k - 2, self.log_k + arb.const_euler())
        power = min(line.sides[1], 0.5)  # |log y| ≤ (y^p + y^-p)/p, y^p ≤ 1 + y
        var = s.var.abs_upper()
        size = 2 * var + 2 * s.sigma * s.posterior.sqrt() / k
        size += var * arb(k) ** arb(power) * line.inverse(2, power)
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
        at = np.zeros(1)
        plain, psi = (arb(float(grid.aliases(1.0, at, logs=x)[0])).exp() for x in (False, True))
        size = grid.sums.size(k, s.h)
        error = psi * size * (k * s.var.abs_upper()).sqrt() + plain * size * square.abs_upper().sqrt()
        return -found + radius(error.abs_upper())

    # leave one out ---------------------------------------------------------------------------------------------------

    def others_var(self, form: LogForm, line: Line | None) -> arb:
        """Var[η Σ D_k g_k + κ T + θ W]. Formula: enclosed-log-weights."""
        eta, theta, kappa, k = arb(form.others), arb(form.weight), shift(form, self.k), self.k
        pairs, s = k * (k - 1), self.score
        single, cross, double = self.weighted
        assert line is not None
        found = eta * eta * (k * self._alone(line, "square") + pairs * self._pair(line) - self.mean**2)
        if theta != 0:
            both = k * self._alone(line, "weight") + pairs * self._pair_weight(line) - self.mean * single
            found += (
                2 * eta * theta * both
                + theta * theta * (double - single * single)
                + 2 * theta * kappa * cross
            )
        if kappa != 0:
            both = k * self._alone(line, "score") + pairs * self.pair_mean()
            found += 2 * eta * kappa * both + kappa * kappa * k * s.var
        return found

    def _alone(self, line: Line, what: str) -> arb:
        """E[D² g²] ("square"), E[D w̃ g h] ("weight") or E[D g²] ("score")."""
        g, other = self.score.g, self.score.h if what == "weight" else self.score.g
        ratio = {"square": 2 * line.shifted_psi, "weight": -line.s * line.shifted_psi, "score": -1}[what]
        values = line.kernel * ratio * line.moment * line.tilted.mean(g, other) * line.others
        return line.integral(values, lambda b: line.size_of(b, g, other) * line.inverse(1, b))

    def _pair(self, line: Line) -> arb:
        """E[D_1 g_1 D_2 g_2]. Formula: enclosed-log-pair."""
        s, alone = self.score, line.moment * line.tilted.mean(self.score.g)
        if self.k == 2:
            slope = balls(-1 / x - arb.pi() * (arb.pi() * x).cot() for x in line.s)
            other = line.law.tilted(line.s)
            moment = balls(x.exp() for x in other.log_moment()) * other.mean(s.g)
            values = line.kernel * (2 * line.shifted_psi + slope) * alone * moment
            return line.integral(values, lambda b: line.size_of(b, s.g) * line.size_of(-b, s.g))
        second = line.integral(
            -line.kernel * alone * line.with_score(s.zero, s.g),
            lambda b: line.size_of(b, s.g) * s.sigma * line.inverse_log(b),
        )
        last = line.double(-line.kernel * alone, lambda b: line.size_of(b, s.g), lambda b: line.inverse(2, b))
        return self.pair_square(line) - 2 * second + last

    def _pair_weight(self, line: Line) -> arb:
        """E[D_1 g_1 w̃_2 h_2]."""
        s = self.score
        values = line.kernel * (line.s * line.shifted_psi - 1) * line.moment * line.tilted.mean(s.g)

        def bound(b: float) -> arb:
            if self.k == 2:
                return line.size_of(b, s.g) * line.size_of(-b, s.h)
            return line.size_of(b, s.g) * line.size_of(0.0, s.h) * line.inverse(2, b)

        return line.integral(values * line.with_weight(s.one, s.h), bound)


def shift(form: LogForm, k: int) -> arb:
    """κ."""
    found = arb(form.uniform) / k
    return found + arb(form.constant) * (1 - arb(1) / k).log() if form.constant else found


def log_variances(
    problem: Problem, jobs: Mapping[Any, enclose.Job], particles: Sequence[int], *, digits: int = 30
) -> dict[Any, Balls]:
    """Variances of one replicate's gradient, log terms included, averaged over the observations: [nK, F].

    Args:
        problem: the problem.
        jobs: key -> (form, parameter of the proposal, coordinates or None for all); of forms without a `refusal`.
        particles: numbers of particles, at least 2.
        digits: significant decimal digits.

    Raises:
        InputError: for an exponent at which E[w^e] does not exist.
        PrecisionError: if the balls do not become small enough, or for the exponent 0.
    """
    if any(form.exponent == 0.0 for form, _, _ in jobs.values()):
        raise PrecisionError("logarithms of weights to the power 0 are not enclosed")
    chosen = {key: enclose._coordinates(problem, name, index) for key, (_, name, index) in jobs.items()}
    todo = [
        (key, index, jobs[key][0], problem.parameters.record(jobs[key][1]))
        for key, every in chosen.items()
        for index in every
    ]

    def evaluate(nats: float) -> enclose.Found:
        found: enclose.Found = {}
        pairs = [(row, e) for row in rows(problem) for e in sorted({form.exponent for _, _, form, _ in todo})]
        for row, exponent in pairs:
            law, log_mean = (
                enclose._power(row, exponent),
                exponent * row.log_evidence + row.law.log_moment(exponent),
            )
            mine = [one for one in todo if one[2].exponent == exponent and of_row(row, (one[3], one[1]))]
            base = Base(row, law, SCORE, [(parameter, index) for _, index, _, parameter in mine])
            forms = [LogForm.of(form) for _, _, form, _ in mine]
            values = _of_row(law, base, forms, log_mean, particles, nats)
            for i, (key, index, _, _) in enumerate(mine):
                factor = base.factors[i] / problem.n_rows
                scale = base.scales[base.which[i]] * factor.abs_upper()
                for k in particles:
                    old = found.get((key, "var", index, k), (arb(0), arb(0)))
                    found[key, "var", index, k] = old[0] + values[i, k] * factor**2, old[1] + scale**2
        return found

    found = enclose._converged(evaluate, digits, particles)
    return {
        key: balls(found[key, "var", index, k] for k in particles for index in every).reshape(
            len(particles), -1
        )
        for key, every in chosen.items()
    }


def _of_row(
    law: BallLaw, base: Base, forms: list[LogForm], log_evidence: arb, particles: Sequence[int], nats: float
) -> dict[tuple[int, int], arb]:
    """(coordinate, K) -> variance, of one observation."""
    plain, others = any(form.evidence for form in forms), any(form.others for form in forms)
    if plain and enclose._near_equal(law, particles, int(nats / 2.3)) is not None:
        raise PrecisionError(
            "the weights are too nearly equal for enclosures with the logarithm of the evidence"
        )
    known: dict[tuple, arb] = {}
    found, log_k = {}, float(np.log(max(particles)))
    nats, bits = nats + (_CANCELLED if others else 1.0) * log_k, int(1.45 * _CANCELLED * log_k) + 64
    scores = [Score(law, one.parts[0], plain=plain) for one in base.parts]
    for start in range(0, len(scores), _TOGETHER):
        some = range(start, min(start + _TOGETHER, len(scores)))
        requests = [request for i in some for request in scores[i].requests]
        grid = LogGrid(BallSums(law, particles, requests, nats, p=1, orders=[1, 2], reach=_REACH), bits)
        with ctx.workprec(grid.bits):
            for k in particles:
                line = Line(law, grid, k, nats) if others else None
                at = {i: AtK(grid, scores[i], k) for i in some}
                for i, form in enumerate(forms):
                    which = base.which[i]
                    if which not in at:
                        continue
                    if (which, k, form) not in known:
                        one = at[which]
                        var = (
                            one.others_var(form, line)
                            if form.others
                            else one.evidence_var(form, log_evidence)
                        )
                        known[which, k, form] = var
                    found[i, k] = known[which, k, form]
    return found
