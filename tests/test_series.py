"""Expansions in 1/K against the finite-K oracle, closed forms, and themselves in more digits."""

import re
from dataclasses import replace

import numpy as np
import pytest
from flint import arb, ctx

from tests.problems import random_problem, symmetric
from toyiwae.errors import InputError, MissingMomentError
from toyiwae.forms import Form
from toyiwae.oracle.closed_form.gaussian import condition
from toyiwae.oracle.enclosure import enclose
from toyiwae.oracle.series import expansions
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal
from toyiwae.truth.averages import bounds

IWAE = Form({1: 1.0}, {1: 1.0}, {1: -1.0})


def near(problem, factor, seed=0):
    """The problem with a proposal not far from the posterior and wider, so that high moments of w exist."""
    rng, dim = np.random.default_rng(seed), problem.dim_z
    turn = np.eye(dim) + 0.3 / dim * rng.normal(size=(dim, dim))
    cov = condition(problem.model, problem.rows().x).cov
    proposal = replace(problem.proposal, cov=symmetric(factor * turn @ cov @ turn.T))
    if proposal.mean is not None:
        proposal = replace(
            proposal, mean=(proposal.mean + condition(problem.model, problem.data.x).mean[0]) / 2
        )
    return replace(problem, proposal=proposal)


SMALL = near(random_problem(1, 2, 3), 1.3)
MANY = near(random_problem(3, 2, 3, rows=2, amortised=True), 1.4)
LARGE = near(random_problem(0, 20, 23), 1.3)


def with_beta(*beta, shift=0.0):
    """A problem whose posterior is N(3/8, 2/3) in every coordinate, and S = (1 + β) P."""
    dim = len(beta)
    ones, eye = np.ones(dim), np.eye(dim)
    model = Model(0.375 * ones, 2 * eye, eye, 0.125 * ones, eye)  # binary fractions: equal means are equal
    cov = np.diag(1 + np.array(beta)) * 2 / 3
    return Problem(model, Proposal(cov, mean=(0.375 + shift) * ones), Data(0.5 * ones))


# the bound -----------------------------------------------------------------------------------------------------------


def test_first_terms_by_hand():
    law = Whitened(SMALL).law()
    m = [float(np.exp(law.log_moment(float(s)))[0, 0]) for s in range(5)]
    mu2, mu3 = m[2] - 1, m[3] - 3 * m[2] + 2
    mu4 = m[4] - 4 * m[3] + 6 * m[2] - 3
    third = -(mu4 - 3 * mu2**2) / 4 + 2 * mu2 * mu3 - 2.5 * mu2**3
    expected = [0.0, -mu2 / 2, mu3 / 3 - 0.75 * mu2**2, third]
    np.testing.assert_allclose(expansions.bound(Whitened(SMALL), 3).value, expected, rtol=1e-12)


def local_slopes(problem, particles, last, digits):
    """Slopes on a log-log plot of what the partial sums leave of L_K, between K and 2K."""
    expansion, counts = expansions.bound(Whitened(problem), last, digits=digits), (particles, 2 * particles)
    gap, slopes = enclose.bounds(problem, counts, digits=digits, with_ess=False).gap[0], []
    with ctx.workprec(7 * digits):
        for n in range(1, last + 1):
            left = [-g - expansion.at(k, n) for g, k in zip(gap, counts, strict=True)]
            slopes.append(float(abs(left[1] / left[0]).log() / arb(2).log()))
    return slopes


def test_the_remainder_falls_with_the_slope_of_the_next_term():
    slopes = local_slopes(SMALL, 10**6, last=5, digits=42)
    np.testing.assert_allclose(slopes, [-2, -3, -4, -5, -6], rtol=0, atol=1e-3)


def test_double_precision_carries_the_first_remainders():
    expansion = expansions.bound(Whitened(SMALL), 2)
    for order, k in ((1, 10**5), (2, 10**4)):
        gap = bounds(Whitened(SMALL), [k, 2 * k]).gap
        left = [-gap.value[0, i] - expansion.at(k * (i + 1), order) for i in range(2)]
        assert np.log2(left[1] / left[0]) == pytest.approx(-(order + 1), abs=5e-3)
        assert gap.error[0, 1] < 1e-3 * abs(left[1])


def test_two_heavy_tailed_directions_make_the_remainder_a_pure_power():
    """β = -0.4 twice: w is Pareto with index 2.5, and after the only term there is K^-(1/0.4 - 1) is left."""
    whitened = Whitened(with_beta(-0.4, -0.4))
    k = [10**8, 10**9, 2 * 10**9]
    gap = bounds(whitened, k).gap.value[0]
    left = -gap - np.array([expansions.bound(whitened, 1).at(n) for n in k])
    assert np.log2(left[2] / left[1]) == pytest.approx(-1.5, abs=1e-4)
    assert left[0] / left[1] == pytest.approx(10**1.5, rel=1e-3)


def test_one_heavy_tailed_direction_adds_a_logarithm():
    """β = -0.4 once: the tail is x^-2.5/√log x, and so the slope is -1.5 - 1/(2 log K) to leading order."""
    whitened = Whitened(with_beta(-0.4))
    for k in (10**8, 10**12):
        gap = bounds(whitened, [k, 2 * k]).gap.value[0]
        left = [-gap[i] - expansions.bound(whitened, 1).at(n) for i, n in enumerate((k, 2 * k))]
        assert np.log2(left[1] / left[0]) == pytest.approx(-1.5 - 0.5 / np.log(k), abs=1e-3)


def test_a_term_without_its_moment_is_refused_by_name():
    whitened = Whitened(with_beta(-0.4, 0.2))
    message = (
        "the expansion of the bound in 1/K has no term of order 2: E[w^3] is infinite: it exists only where"
        " every β > -0.333333, and the smallest β is -0.4"
    )
    for digits in (None, 20):
        with pytest.raises(MissingMomentError, match=re.escape(message)):
            expansions.bound(whitened, 2, digits=digits)
    with pytest.raises(MissingMomentError, match=r"no term of order 1: E\[w\^2\] is infinite"):
        expansions.bound(Whitened(with_beta(-0.6)), 1)
    with pytest.raises(MissingMomentError, match=r"largest β is 0.7"):
        expansions.bound(Whitened(with_beta(0.7)), 2, -0.5)


def test_tempered_bound():
    """VR-IWAE: the expansion of the bound itself, its limit included, for tempered and for inverse weights."""
    whitened, k = Whitened(MANY), 10**4
    for exponent in (0.6, -0.2):
        expansion, found = expansions.bound(whitened, 4, exponent), bounds(whitened, [k], exponent)
        truth = float(np.mean(found.log_mean.value - found.gap.value[:, 0])) / exponent
        assert expansion.at(k) == pytest.approx(truth, rel=1e-13)


def test_round_off_in_high_orders_is_avoided():
    """Coefficients that float64 would lose to cancellation come from multiprecision."""
    whitened = Whitened(SMALL)
    expansion, digits = expansions.bound(whitened, 14), expansions.bound(whitened, 14, digits=30)
    np.testing.assert_allclose(expansion.value, digits.value.astype(float), rtol=1e-12)


def test_a_proposal_equal_to_the_posterior_has_no_terms():
    expansion = expansions.bound(Whitened(with_beta(0.0, 0.0)), 3)
    assert not expansion.value.any()
    assert not expansion.error.any()


def test_expansions_answer_only_for_their_orders():
    expansion = expansions.bound(Whitened(SMALL), 2)
    assert expansion.term(2).value == expansion.value[2]
    assert expansion.at(100.0, 0) == 0.0
    with pytest.raises(InputError, match="orders 0 to 2"):
        expansion.term(3)
    with pytest.raises(InputError, match="ELBO"):
        expansions.bound(Whitened(SMALL), 1, 0.0)
    with pytest.raises(InputError, match="digits is 0"):
        expansions.bound(Whitened(SMALL), 1, digits=0)
