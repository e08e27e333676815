"""Exact variance of gradients whose score coefficient carries the logarithm of a sum of weights.

With `T = Σ s_k` the sum of scores (E[s] = 0), `W = Σ w̃_k s_k`, `Ẑ = S/K` and `Ẑ_-k` the mean of the other weights:

    plain            Δ = λ T log Ẑ + κ T + θ W
    leave one out    Δ = η Σ s_k D_k + κ T + θ W,      log Ẑ - log Ẑ_-k = D_k + log(1 - 1/K),  D_k = log S/S_-k

`log y = ∫ (e^{-t} - e^{-ty}) dt/t` and `log² y = 2∫ (e^{-ty} - e^{-t})(log t + γ) dt/t` turn the plain form into sums
over the grid of the other integrals. In the second, `D_k = f(w̃_k) + w̃_k` with the function f of second order whose
moments `toyiwae.oracle.finite_k.log_weights` has. At exponent 0, where logarithms of sums become sums of logarithms,
`D_k = (ℓ_k - ℓ̄)/(K-1)` and `Σ s_k D_k` is the sample covariance of log-weight and score: `SampleCovariance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae.forms import Form
from toyiwae.oracle.finite_k.gradients import GradientEngine
from toyiwae.oracle.finite_k.log_weights import LogWeights
from toyiwae.oracle.finite_k.one_particle import mean_log, var_log
from toyiwae.oracle.laws.bounded import EPS, Bounded, where
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.grid import Grid, Transform
from toyiwae.oracle.laws.protocol import Function, Law
from toyiwae.oracle.laws.tilted import TiltedNoise

_EULER = float(np.euler_gamma)


@dataclass(frozen=True)
class LogForm:
    """What a form's score coefficient amounts to: `λ log Ẑ + η D_k + κ + θ w̃`, one of λ and η zero.

    All of the weights w^e of the form's exponent e: λ and η have its 1/e.

    Attributes:
        evidence: λ.
        others: η.
        weight: θ.
        uniform: factor of 1/K in κ.
        constant: factor of log(1 - 1/K) in κ.
        exponent: e; where it is 0, D_k is the deviation of a log-weight.
    """

    evidence: float
    others: float
    weight: float
    uniform: float
    constant: float
    exponent: float = 1.0

    @classmethod
    def of(cls, form: Form) -> LogForm:
        """The reduced form, of one for which `refusal` is None."""
        if form.exponent == 0.0:
            return cls(0.0, -form.leave_one_out, 0.0, form.score.get(0, 0.0), form.constant, 0.0)
        loo, score = form.leave_one_out / form.exponent, form.score
        constant = form.constant - loo
        evidence = form.log_evidence / form.exponent + loo
        return cls(evidence, -loo, score.get(1, 0.0), score.get(0, 0.0), constant)

    def shift(self, k: np.ndarray) -> np.ndarray:
        """κ for each number of particles."""
        if self.constant == 0.0:
            return self.uniform / k
        with np.errstate(divide="ignore"):
            return self.uniform / k + self.constant * np.log1p(-1.0 / k)


def refusal(form: Form) -> str | None:
    """Why the variance of a form with log terms is not known in closed form; None where it is."""
    if form.leave_one_out_geometric:
        return "the geometric baseline needs the joint law of Σ w and Σ log w"
    if form.leave_one_out and form.log_evidence + form.leave_one_out != 0.0:
        return "log Ẑ and the leave-one-out terms have factors that do not cancel"
    if "score" in form.pooled:
        return "its weights are not those of the group's log Ẑ"
    if form.exponent == 0.0 and form.log_evidence + form.leave_one_out != 0.0:
        return "the mean of all log-weights, without a baseline, is not derived"
    if form.path or any(power > 1 for power in form.score):
        return "beside log terms only powers 0 and 1 of the weight on the score are derived"
    return None


@dataclass(frozen=True)
class LogMoments:
    """Moments of one group's gradient Δ for each K, with the sum T of the scores: [N, nK, F] each.

    Attributes:
        var: Var[Δ].
        with_scores: Cov[Δ, T]: adding a constant b to every coefficient adds 2b Cov[Δ, T] + b² Var[T] to the variance.
        of_scores: Var[T].
    """

    var: Bounded
    with_scores: Bounded
    of_scores: Bounded


class LogEngine(GradientEngine):
    """The integrals of gradients with log terms, for a list of K ≥ 2."""

    def __init__(self, law: Law, particles: Sequence[int], grid: Grid | None = None):
        super().__init__(law, particles, grid)
        self._logs: dict[Function, LogWeights] = {}

    def log_weights(self, s: Function) -> LogWeights:
        """The moments of Σ f(w̃_k) s_k, shared by all forms."""
        if s not in self._logs:
            score = self.centre(0, s)
            self._logs[s] = LogWeights(self, score, less_limit(self.get(0, score)))
        return self._logs[s]

    def log_mean(self, s: Any, form: LogForm) -> Bounded:
        """E[Δ] from transforms of the score alone, no path derivative needed: [N, nK, F]."""
        both = form.others + form.weight  # η D + θ w̃ = η f + (η + θ) w̃
        mean = self.integral(self.weights[0], less_limit(self.get(0, self.centre(0, s))), 3) * -form.evidence
        if both:
            mean = mean + self.integral(self.weights[0], self.get(1, s).value, 2) * both
        if form.others:
            mean = mean + self.log_weights(s).mean * form.others
        return mean

    def log_variance(self, s: Any, form: LogForm, log_evidence: np.ndarray) -> Bounded:
        """Var[Δ] of one group for each K: [N, nK, F].

        Formula: log-evidence-score.

        Args:
            s: the score of the coordinates.
            form: the coefficients.
            log_evidence: log E[w^e] of each row [N], on which only the plain form depends.
        """
        score = self.centre(0, s)
        kappa, k = form.shift(self.particles)[:, None], self.particles[:, None]
        square = self.law.moment(0, (score, score))[:, None, :]
        found, both = square * (kappa**2 * k), form.others + form.weight
        terms: list[tuple[Any, Bounded]] = []
        if both or form.evidence:
            share, scores = {1: s}, {0: s}
            terms.append((both**2, self.covariance(share, share)))
            terms.append((2.0 * kappa * k * both, self.covariance(share, scores)))
        if form.evidence:
            terms += self._plain(s, square, form, kappa, log_evidence[:, None, None])
        if form.others:
            logs, eta = self.log_weights(s), form.others
            terms.append((eta**2, logs.var))
            if both:
                one = self.centre(1, s)
                cross = logs.with_weights(one, self.get(1, one).value, self.single(1, one))
                terms.append((2.0 * eta * both, cross))
            if kappa.any():
                terms.append((2.0 * eta * kappa, logs.with_scores))
        for factor, term in terms:
            found = found + term * factor
        return found

    def with_scores(self, s: Any, form: LogForm, log_evidence: np.ndarray) -> Bounded:
        """Cov[Δ, T], the arguments those of `log_variance`: [N, nK, F]."""
        score, k = self.centre(0, s), self.particles[:, None]
        square = self.law.moment(0, (score, score))[:, None, :]
        found, both = square * (form.shift(self.particles)[:, None] * k), form.others + form.weight
        if both or form.evidence:
            found = found + self.covariance({1: s}, {0: s}) * (both * k)
        if form.evidence:
            log_y = self._scores_squared(score, square, np.ones(1))
            found = found + (square * log_evidence[:, None, None] * k + log_y) * form.evidence
        return found + self.log_weights(s).with_scores * form.others if form.others else found

    def _plain(self, s, sigma2: Bounded, form: LogForm, kappa, a) -> list[tuple[Any, Bounded]]:
        """The terms that `λ T log Ẑ`, log Ẑ = a + log y, adds to the variance, with their factors; σ² = E[s²]."""
        zero, one, (first, second) = self.centre(0, s), self.centre(1, s), self.weights
        lam, theta, k = form.evidence, form.weight, self.particles[:, None]
        log_kt = np.log(k) + self.grid.log_t
        squares = [
            self._scores_squared(zero, sigma2, weight) for weight in (np.ones(1), -2.0 * (log_kt + _EULER))
        ]
        scores, weighed = less_limit(self.get(0, zero)), self.get(1, one).value
        mean, pair = self.integral(first, -scores, 3), weighed * scores  # E[T log y]
        both = self.get(1, one, zero).value
        products = [  # E[W T log^j y]
            self.integral(first * weight, both, 3) + self.integral(second * weight, pair, 3)
            for weight in (np.ones(1), -_EULER - log_kt)
        ]
        return [
            (lam**2 * a**2 + 2 * lam * kappa * a, sigma2 * k),
            (2 * lam**2 * a + 2 * lam * kappa, squares[0]),
            (lam**2, squares[1]),
            (-(lam**2), mean * mean),
            (2 * lam * theta * a, products[0]),
            (2 * lam * theta, products[1]),
            (-2 * lam * theta, mean * self.single(1, one)),
        ]

    def _scores_squared(self, zero: Any, sigma2: Bounded, weight: np.ndarray) -> Bounded:
        """∫ weight · (C(0)e^{-Kt} - C(t)) dt/t with C(t) = E[T² e^{-tS}], free of cancellation at large K."""
        wanted = [(), (zero,), (zero, zero)]
        self.request([(0, factors) for factors in wanted])
        base, scores, square = (less_limit(self.get(0, *factors)) for factors in wanted)
        first, second = self.weights
        step = Bounded.exact(self.grid.weight[:, None])
        whole = self.integral(self.difference * weight, step, 3) * self.particles[:, None]
        near = self.integral(first * weight, sigma2 * base - square, 3)
        return near - whole * sigma2 - self.integral(second * weight, scores * scores, 3)


def less_limit(transform: Transform) -> Bounded:
    """The transform of power 0 less its limit for t → 0: [N, T, F]."""
    limit = transform.leading[:, :1]  # power 0: the same for every t, and split off at the smallest
    return where(~transform.split[:, None], transform.remainder - limit, transform.remainder)


def moments_of_one(law: Any, s: Any, form: LogForm, log_evidence: np.ndarray) -> LogMoments:
    """Of s (λ log w + κ + θ) at K = 1, where Ẑ = w: [N, 1, F].

    Log w enters less its mean, since log Z and that mean may be far larger than their sum.
    """
    score, centre = _own(law, s), mean_log(law).value
    known = ((Bounded.exact(centre) + log_evidence) * form.evidence + (form.uniform + form.weight))[:, None]
    squares, single, lam = _with_logs(law, (score, score)), _with_logs(law, (score,))[1], form.evidence
    var = (
        squares[0] * known * known
        + squares[1] * known * (2.0 * lam)
        + (squares[2] - single * single) * lam**2
    )
    both = squares[0] * known + squares[1] * lam
    return LogMoments(*(found[:, None, :] for found in (var, both, squares[0])))


def sample_covariance(law: Any, s: Any, form: LogForm, particles: Sequence[int]) -> LogMoments:
    """Of η Σ s_k (ℓ_k - ℓ̄)/(K-1) + κ T for each K, at exponent 0; an infinite error says that there is none at K = 1.

    Formula: sample-covariance. Its variance is that of a U-statistic of order 2, from E[s² (ℓ - Eℓ)²], E[s (ℓ - Eℓ)],
    Var[ℓ] and E[s²], which are closed-form; Cov[Σ s_k (ℓ_k - ℓ̄)/(K-1), T] is E[s² (ℓ - Eℓ)], whatever K.
    """
    score, k = _own(law, s), np.asarray(particles, dtype=float)[:, None]
    square, third, fourth = (found[:, None, :] for found in _with_logs(law, (score, score)))
    cov, var, pairs = _with_logs(law, (score,))[1][:, None, :], var_log(law)[:, None, None], k * (k - 1.0)
    kappa, eta, none = form.shift(k), form.others, k == 1.0
    pairs = np.where(none, 1.0, pairs)
    own = fourth * (1.0 / k) - cov * cov * ((k - 2.0) / pairs) + var * square * (1.0 / pairs)
    total = own * eta**2 + third * (2.0 * eta * kappa) + square * (kappa**2 * k)
    both = third * eta + square * (kappa * k)
    unknown = Bounded(np.zeros(1), np.array([np.inf]))
    return LogMoments(*(where(none, unknown, x) for x in (total, both)), of_scores=square * k)


def mean_of_one(law: Any, s: Any, form: LogForm) -> Bounded:
    """E[s λ log w] at K = 1, where the mean of log w drops out: [N, 1, F]."""
    return _with_logs(law, (_own(law, s),))[1][:, None, :] * form.evidence


def _own(law: Any, s: Any) -> Any:
    """A score less its mean of 0 under the proposal."""
    return s.in_own_noise if isinstance(law, GaussianLaw) else s.less(law.moment(0, (s,)).value)


def _with_logs(law: Any, factors: tuple[Any, ...]) -> list[Bounded]:
    """E[Π g (log w - E log w)^j] for j = 0, 1, 2: derivatives of E[e^{p(log w - E log w)} Π g] at p = 0: [N, F] each.

    The g are what `_own` makes of scores.

    They are Cauchy's integrals over a circle inside the strip on which the logarithm varies by about 1.
    """
    centre = mean_log(law).value
    if isinstance(law, DiscreteLaw):
        return law.log_moments(factors, 2, centre)
    assert isinstance(law, GaussianLaw)
    spread = np.sqrt((0.5 * law.beta**2 + law.h**2).sum(axis=1).max())
    radius = min(0.4 * law.max_power, -0.4 * law.min_power, 1.0 / max(spread, 1e-9))
    count = 64  # aliases fall like 0.4^64
    power = radius * np.exp(2j * np.pi * np.arange(count) / count)
    turned = np.multiply.outer(centre, power)
    moment = np.exp(law.log_moment(power) - turned)[:, :, None]
    mean = TiltedNoise(law.beta, law.h, power, 0.0).expectation(factors)  # [N, S, F]
    relative = law.log_moment_error(power) + EPS * np.abs(turned)
    slack = np.abs(moment) * (relative[:, :, None] * np.abs(mean) + EPS * law.sizes(power, factors, 0.0))
    found = []
    for j in range(3):
        scale = float(max(j, 1)) / (count * radius**j)  # j! for j up to 2
        turn = np.exp(-2j * np.pi * j * np.arange(count) / count)
        found.append(Bounded(scale * np.real(turn @ (moment * mean)), scale * slack.sum(axis=1)))
    return found
