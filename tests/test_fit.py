"""The proposal that each K wants, against closed forms at K = 1 and K = ∞ and its neighbours between."""

from dataclasses import replace
from math import inf, sqrt
from pathlib import Path

import numpy as np
import pytest

from tests.problems import random_problem
from toyiwae.errors import InputError
from toyiwae.files import read_toml
from toyiwae.forms import Form
from toyiwae.oracle.closed_form.gaussian import condition
from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal
from toyiwae.truth.averages import gradients
from toyiwae.truth.optimal_proposal import optimal_proposals

CORRELATION = 0.7
STDS = np.array([1.4, 0.6])


def correlated(x=(0.4, -1.0), **proposal):
    """A problem in two dimensions whose posterior has the correlation 0.7 and the standard deviations STDS."""
    cov = np.outer(STDS, STDS) * np.array([[1.0, CORRELATION], [CORRELATION, 1.0]])
    prior = 3.0 * cov
    noise = np.linalg.inv(np.linalg.inv(cov) - np.linalg.inv(prior))
    model = Model([0.3, -0.2], prior, np.eye(2), [0.1, 0.2], (noise + noise.T) / 2)
    return Problem(model, Proposal(np.eye(2), **(proposal or {"mean": [0.0, 0.0]})), Data(x))


def relative_var(optimum):
    """The proposal's variances in units of the posterior's marginal ones."""
    return np.diag(optimum.problem.proposal.cov) / STDS**2


def gap(problem, particles):
    return float(FiniteK(Whitened(problem).law(), [particles]).gap().value.mean())


def test_the_path_from_kl_to_least_variance():
    """The variance of a mean-field proposal, in units of the marginal one: from 1 - ρ² = 0.5100 to 1.3045."""
    found = optimal_proposals(correlated(), [inf, 1, 16, 10**6])
    limit, first, middle, late = (relative_var(optimum) for optimum in found)
    np.testing.assert_allclose(first, 1 - CORRELATION**2, rtol=1e-12)
    np.testing.assert_allclose(first, 0.5100, atol=5e-5)
    # in units of the marginal variance the eigenvalues λ are 1 ∓ ρ, and the limit v solves 2/v = Σ 1/(2v - λ)
    root = (3 + sqrt(9 - 8 * (1 - CORRELATION**2))) / 4
    np.testing.assert_allclose(limit, root, rtol=1e-6)
    np.testing.assert_allclose(limit, 1.3045, atol=5e-5)
    assert (first < middle).all()
    assert (middle < late).all()
    np.testing.assert_allclose(late, limit, rtol=1e-5)
    assert found[3].gap * 10**6 == pytest.approx(found[0].gap, rel=1e-4)


@pytest.mark.slow
def test_a_search_that_round_off_stops_begins_again():
    """Here the first search from K = 1 to 16 ends with a slope of 2e-6: it mistook round-off for curvature."""
    problem = Problem.from_dict(read_toml(Path(__file__).resolve().parents[1] / "docs/problem.toml"))
    direct, stepwise = (optimal_proposals(problem, path)[-1] for path in ([1, 16], [1, 4, 16]))
    assert direct.slope < 1e-6
    np.testing.assert_allclose(
        direct.problem.proposal.cov, stepwise.problem.proposal.cov, rtol=1e-8, atol=1e-12
    )


def test_neighbours_are_worse_and_the_slope_vanishes():
    (found,) = optimal_proposals(correlated(), [8])
    assert found.gap == pytest.approx(gap(found.problem, 8), rel=1e-12)
    proposal = found.problem.proposal
    for factor in (0.99, 1.01):
        for i in range(2):
            stretch = np.ones(2)
            stretch[i] = factor
            cov = proposal.cov * np.outer(stretch, stretch)
            mean = np.asarray(proposal.mean) + (stretch - 1) * STDS
            for moved in (replace(proposal, cov=cov), replace(proposal, mean=mean)):
                assert gap(replace(found.problem, proposal=moved), 8) > found.gap
    form = Form({1: 1.0}, {1: 1.0}, {1: -1.0})
    slope = gradients(Whitened(found.problem), {"chol": (form, "proposal_chol")}, [8])["chol"].mean.value[0]
    np.testing.assert_allclose(np.diag(slope), 0.0, atol=1e-7)


def test_the_first_optimum_is_where_the_elbo_has_no_slope():
    (found,) = optimal_proposals(random_problem(5, 3, 2), [1])
    form = Form({0: 1.0}, {0: 1.0}, {0: -1.0})
    jobs = {name: (form, name) for name in ("proposal_mean", "proposal_chol")}
    slopes = gradients(Whitened(found.problem), jobs, [1])
    np.testing.assert_allclose(slopes["proposal_mean"].mean.value[0], 0.0, atol=1e-12)
    np.testing.assert_allclose(np.diag(slopes["proposal_chol"].mean.value[0]), 0.0, atol=1e-12)


def test_an_amortised_proposal_reaches_the_same_covariances():
    """The posterior's mean is affine in x, so rows with an amortised mean want what one row wants."""
    x = [[0.4, -1.0], [-0.9, 0.3], [1.7, 0.8]]
    many = optimal_proposals(correlated(x, weight=np.eye(2), offset=[0.0, 0.0]), [4, inf])
    one = optimal_proposals(correlated(), [4, inf])
    for a, b in zip(many, one, strict=True):
        np.testing.assert_allclose(a.problem.proposal.cov, b.problem.proposal.cov, rtol=1e-6)
        assert a.gap == pytest.approx(b.gap, rel=1e-9)
        means = condition(a.problem.model, np.array(x)).mean
        np.testing.assert_allclose(a.problem.rows().proposal_mean, means, atol=1e-7)


def test_a_family_that_holds_the_posterior_reaches_it():
    problem = random_problem(2, 3, 2)
    for optimum in optimal_proposals(problem, [1, 5, inf], "full"):
        assert optimum.gap < 1e-13
        cov = optimum.problem.proposal.cov
        np.testing.assert_allclose(cov, condition(problem.model, problem.data.x).cov, rtol=1e-11)


def test_one_full_proposal_for_several_rows():
    """A mean and covariance shared by rows with different posteriors: wider than any of them, ever wider with K."""
    problem = random_problem(4, 2, 3, rows=2)
    found = optimal_proposals(problem, [1, 8], "full")
    volumes = [np.linalg.det(optimum.problem.proposal.cov) for optimum in found]
    assert volumes == sorted(volumes)
    assert volumes[0] == pytest.approx(np.linalg.det(condition(problem.model, problem.data.x).cov), rel=1e-10)
    for optimum in found[1:]:
        assert optimum.gap == pytest.approx(gap(optimum.problem, int(optimum.particles)), rel=1e-9)
        assert optimum.slope < 1e-6


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="expected a whole number"):
        optimal_proposals(correlated(), [0])
    with pytest.raises(InputError, match="expected a whole number"):
        optimal_proposals(correlated(), [2.5])
    with pytest.raises(InputError, match="mean_field"):
        optimal_proposals(correlated(), [1], "diagonal")
