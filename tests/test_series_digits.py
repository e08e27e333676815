"""Expansions in 1/K on balls: against an engine of another kind, by hand in one dimension, and against more digits."""

import json
from pathlib import Path

import mpmath
import numpy as np
import pytest
from flint import arb, ctx

from tests.test_enclosure import OneDimension
from tests.test_series import IWAE, MANY, SMALL
from tests.test_series_gradients import form_of
from toyiwae import Problem
from toyiwae.oracle.series import expansions

FILE = json.loads((Path(__file__).parent / "data" / "series_digits.json").read_text(encoding="utf-8"))
PROBLEMS = {name: Problem.from_dict(given) for name, given in FILE["problems"].items()}


def expansion(given, digits):
    """What one entry of the file asks for."""
    problem = PROBLEMS[given["problem"]]
    if given["kind"] == "bound":
        return expansions.bound(problem, given["order"], given["exponent"], digits=digits)
    expand = {"mean": expansions.gradient_mean, "var": expansions.gradient_var}[given["kind"]]
    return expand(problem, form_of(given["estimator"]), given["parameter"], given["order"], digits=digits)


@pytest.mark.parametrize(
    "given",
    FILE["numbers"],
    ids=lambda g: f"{g['problem']}-{g['kind']}-{g.get('estimator', g.get('exponent'))}",
)
def test_numbers_of_the_engine_before_balls_are_reproduced(given):
    """Written by mpmath at two precisions, their difference taken for the error: within both, and the printing's."""
    found = expansion(given, given["digits"])
    assert found.first == given["first"]
    with ctx.workprec(400):
        for ball, radius, text, error in zip(
            found.value.ravel(), found.error.ravel(), given["value"], given["error"], strict=True
        ):
            away = abs(ball.mid() - arb(text))
            assert away <= arb(error) + arb(radius) + abs(arb(text)) * arb(10) ** -(given["digits"] + 9)
            assert radius <= 10.0 ** -given["digits"] * max(abs(float(ball)), 1e-20)


@pytest.mark.parametrize("seed", [0, 3, 4, 5, 13])
def test_one_dimension_by_hand(seed):
    """The first three terms from central moments, these from the posterior of one latent, in 120 digits of mpmath."""
    one = OneDimension(seed)
    model, proposal = one.problem.model, one.problem.proposal
    assert proposal.mean is not None
    with mpmath.workdps(120):
        prior, load, noise, m0, offset, x, cov, mean = (
            mpmath.mpf(float(np.ravel(value)[0]))
            for value in (
                model.prior_cov,
                model.loading,
                model.noise_cov,
                model.prior_mean,
                model.offset,
                one.problem.data.x,
                proposal.cov,
                proposal.mean,
            )
        )
        precision = 1 / prior + load**2 / noise
        center = (m0 / prior + load * (x - offset) / noise) / precision
        beta, shift = cov * precision - 1, (mean - center) ** 2 * precision  # E[w^s] by completing the square
        last = int(min(4, mpmath.ceil(-1 / beta) - 1)) if beta < 0 else 4

        def moment(s):
            width = 1 + s * beta
            return (
                mpmath.exp((s * (s - 1) * shift / width) / 2)
                * (1 + beta) ** (mpmath.mpf(s) / 2)
                / mpmath.sqrt(width)
            )

        m = [moment(s) for s in range(last + 1)]
        mu = [
            sum(mpmath.binomial(n, k) * (-1) ** (n - k) * m[k] for k in range(n + 1)) for n in range(last + 1)
        ]
        terms = {
            2: lambda: -mu[2] / 2,
            3: lambda: mu[3] / 3 - 3 * mu[2] ** 2 / 4,
            4: lambda: -(mu[4] - 3 * mu[2] ** 2) / 4 + 2 * mu[2] * mu[3] - 5 * mu[2] ** 3 / 2,
        }
        expected = [mpmath.nstr(terms[n](), 90) for n in range(2, last + 1)]
    found = expansions.bound(one.problem, max(last - 1, 0), digits=60)
    with ctx.workprec(400):
        for ball, text in zip(found.value[1:], expected, strict=True):
            assert abs(ball - arb(text)) < arb(10) ** -75 * abs(ball)


@pytest.mark.parametrize("problem", [SMALL, MANY], ids=["one_row", "amortised"])
def test_balls_hold_the_value_of_100_digits(problem):
    """Balls of 8 and 30 digits, of bounds, means, variances and constants of the SNR."""
    cases = [
        lambda digits: expansions.bound(problem, 5, 0.7, digits=digits).value,
        lambda digits: (
            expansions.gradient_mean(problem, form_of("dreg"), "proposal_chol", 2, digits=digits).value
        ),
        lambda digits: (
            expansions.gradient_var(problem, form_of("ovis:0.7"), "proposal_chol", 2, digits=digits).value
        ),
        lambda digits: expansions.snr_constant(problem, IWAE, "proposal_chol", digits=digits).constant,
    ]
    for case in cases:
        for wide, other, exact in zip(*(case(digits).ravel() for digits in (8, 30, 100)), strict=True):
            if exact.is_finite():
                assert wide.contains(exact)
                assert wide.overlaps(other)
                assert exact.rad() <= arb(10) ** -100 * max(abs(exact).upper(), arb(10) ** -20)


def test_a_sum_of_balls_is_a_ball_of_all_its_digits():
    """At a number of particles whose powers float64 cannot hold."""
    found, k = expansions.bound(SMALL, 4, digits=50), 10**9 + 7
    with ctx.workprec(600):
        expected = sum(x / arb(k) ** n for n, x in enumerate(found.value))
        assert found.at(k).overlaps(expected)
    assert found.at(k).rad() < arb(10) ** -50 * abs(found.at(k))


@pytest.mark.parametrize("name", ["iwae", "dreg", "ovis:0"])
def test_constants_of_the_snr_agree_with_double_precision(name):
    """Within its stated error; coordinates without a gradient have none."""
    for parameter in ("proposal_mean", "proposal_chol"):
        plain = expansions.snr_constant(
            MANY if parameter == "proposal_chol" else SMALL, form_of(name), parameter
        )
        digits = expansions.snr_constant(
            MANY if parameter == "proposal_chol" else SMALL, form_of(name), parameter, digits=25
        )
        np.testing.assert_array_equal(plain.exponent, digits.exponent)
        value = digits.constant.astype(float)
        known = ~np.isnan(plain.constant)
        assert np.isnan(value[~known]).all()
        assert (abs(value - plain.constant)[known] <= plain.error[known]).all()
        assert (digits.error[known] <= 1e-25 * value[known]).all()
