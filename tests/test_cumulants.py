# pyright: basic, reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportOptionalMemberAccess=false
"""The expansions' algebra against weights whose truth is known at every K: gamma weights, and two-point weights."""

from fractions import Fraction
from math import comb, lgamma, log

import numpy as np
import pytest
import sympy as sp

from toyiwae import estimators
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.oracle.series.cumulants import Factor, Means, lowest_order, taylor
from toyiwae.oracle.series.delta_method import statistic
from toyiwae.oracle.series.weight_moments import Tag, WeightMoments

SHAPE = Fraction(3, 7)  # of gamma weights of mean 1: K of them add up to a gamma variable of shape 3K/7
EPSILON = sp.Symbol("epsilon", positive=True)


def gamma_moment(power):
    value = Fraction(1)
    for i in range(power):
        value *= (SHAPE + i) / SHAPE
    return value


def gamma_spread(power, n):
    """E[w^power (w - 1)^n]."""
    return sum((comb(n, k) * (-1) ** (n - k) * gamma_moment(power + k) for k in range(n + 1)), Fraction(0))


def gamma_means():
    return Means(lambda n: gamma_spread(0, n), lambda tags, n: gamma_spread(sum(map(int, map(str, tags))), n))


@pytest.mark.parametrize("order", range(1, 9))
def test_bound_of_gamma_weights_is_the_digamma_function(order):
    """E log(gamma of shape aK)/(aK) = ψ(aK) - log(aK), whose asymptotic series has Bernoulli numbers."""
    expected = Fraction(-1, 2) if order == 1 else -Fraction(str(sp.bernoulli(order))) / order
    assert gamma_means().log(order) == expected / SHAPE**order


def coefficients(expression, last):
    """Taylor coefficients in EPSILON of a rational function, from the order 0 on."""
    top, bottom = (sp.Poly(part, EPSILON) for part in sp.fraction(sp.cancel(sp.together(expression))))
    p, q = ([*poly.all_coeffs()[::-1], *[0] * last] for poly in (top, bottom))
    terms = []
    for n in range(last + 1):
        terms.append((p[n] - sum(q[i] * terms[n - i] for i in range(1, min(n, len(q) - 1) + 1))) / q[0])
    return [Fraction(int(term.p), int(term.q)) for term in map(sp.sympify, terms)]


def dirichlet(*powers):
    """E[Π p_i^power_i] of K shares with parameter a, as a function of ε = 1/K."""
    a = sp.Rational(SHAPE.numerator, SHAPE.denominator)
    top = sp.prod([sp.rf(a, power) for power in powers])
    return top / sp.prod([a / EPSILON + i for i in range(sum(powers))])


@pytest.mark.parametrize("power", [1, 2, 3])
def test_mean_of_powers_of_gamma_shares(power):
    """Σ w̃^r of gamma weights: shares are Dirichlet, their moments rational in K."""
    factors = {power: [Factor(Fraction(1), power - 1, power)]}
    expected = coefficients(dirichlet(power) / EPSILON, 5)
    assert [gamma_means().mean(factors, n) for n in range(6)] == expected


@pytest.mark.parametrize("mixture", [{2: 1}, {3: 1}, {2: 2, 3: -1}, {0: 1, 2: 1}])
def test_variance_of_powers_of_gamma_shares(mixture):
    """Var[Σ_r c_r Σ_k w̃_k^r], the power 0 adding the constant 1/K to each share: no variance."""
    factors = {r: [Factor(Fraction(c), max(r - 1, 0), r)] for r, c in mixture.items()}
    k, second, mean = 1 / EPSILON, sp.Integer(0), sp.Integer(0)
    for r, c in mixture.items():
        mean += c * (k * dirichlet(r) if r else 1)
        for s, d in mixture.items():
            pair = k * dirichlet(r + s) + k * (k - 1) * dirichlet(r, s)
            alone = k * dirichlet(r or s) if r or s else 1
            second += c * d * (pair if r and s else alone)
    expected = coefficients(second - mean**2, 6)
    assert [gamma_means().variance(factors, n) for n in range(7)] == expected


def test_taylor_coefficients():
    assert taylor(2, 3) == (1, -2, 3, -4)
    assert taylor("log", 3) == (0, 1, Fraction(-1, 2), Fraction(1, 3))
    assert taylor(0, 2) == (1, 0, 0)
    assert taylor(5, -1) == ()


class TwoStates:
    """A latent of two states: every sum over K particles depends on how many are in the first, and enumerates."""

    prob, log_w, score = np.array([0.3, 0.7]), np.array([0.4, -0.35]), np.array([[1.1, -1.1 * 3 / 7]])

    def __init__(self):
        self.log_evidence = log(self.prob @ np.exp(self.log_w))

    def enumerated(self, estimator, particles):
        """Mean and variance of Σ_k score coefficient_k · score_k, by the estimator's own function."""
        values, log_probs = [], []
        for n in range(particles + 1):
            states = np.repeat([0, 1], [n, particles - n])
            made = estimator(self.log_w[states][None])
            values.append(float(np.sum(made.score[0] * self.score[0][states])))
            ways = lgamma(particles + 1) - lgamma(n + 1) - lgamma(particles - n + 1)
            log_probs.append(ways + n * log(self.prob[0]) + (particles - n) * log(self.prob[1]))
        prob, value = np.exp(log_probs), np.array(values)
        mean = prob @ value
        return mean, prob @ (value - mean) ** 2

    def expanded(self, form, last):
        """Coefficients of the mean and of the variance, with the orders that they start from."""
        form, factors = statistic(form, True, last)
        law = DiscreteLaw(np.log(self.prob), form.exponent * self.log_w)
        moments = WeightMoments(law)
        score = law.table(self.score)
        for r, factor in form.score.items():
            moments.tags[r] = Tag(r, law.table(factor * self.score))
        scale = np.full((1, 1), self.log_evidence)
        moments.tags |= {"score": Tag(0, score), "scaled": Tag(0, score, Bounded(scale, 0 * scale))}
        means, first = Means(moments.central, moments.joint), lowest_order(factors)
        mean = {n: means.mean(factors, n) for n in range(first, last + 1)}
        var = {n: means.variance(factors, n) for n in range(2 * first, last + 1)}
        return [{n: float(np.sum(t.value)) for n, t in d.items() if t != 0} for d in (mean, var)]


def scored(form):
    """Whether the proposal's gradient is made of scores alone, and has an expansion."""
    return form is not None and form.score and not form.path and not form.leave_one_out_geometric


SCORED = [member for member in estimators.all() if scored(member.form)]


@pytest.mark.parametrize("member", SCORED, ids=lambda member: member.name)
def test_log_terms_against_enumeration(member):
    """What a partial sum leaves of the mean and the variance is about the next term, for the score's coefficients."""
    problem, last, k = TwoStates(), 6, 200
    for truth, series in zip(problem.enumerated(member, k), problem.expanded(member.form, last), strict=True):
        for n in range(min(series), last):
            remainder = truth - sum(value / k**m for m, value in series.items() if m <= n)
            next_terms = sum(abs(value) / k**m for m, value in series.items() if n < m <= n + 2)
            round_off = 2e-13 * max(abs(truth), 0.01 * k)  # the enumerated values are sums over k particles
            assert abs(remainder) < 1.1 * next_terms + round_off


def test_bounded_numbers_bound_their_round_off():
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=12)
    exact, bounded = Fraction(0), Bounded(np.zeros(1), np.zeros(1))
    for a, b in zip(numbers[::2], numbers[1::2], strict=True):
        exact += Fraction(a) * Fraction(b) * 7 / 3
        one, other = (Bounded(np.array([x]), np.zeros(1)) for x in (a, b))
        bounded = one * other * 7 / 3 + bounded
    assert abs(Fraction(float(bounded.value[0])) - exact) <= Fraction(float(bounded.error[0]))
