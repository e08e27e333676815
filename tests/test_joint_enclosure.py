"""Enclosures of covariances and fourth moments against double precision, variances and closed forms."""

import numpy as np
import pytest
from flint import arb

from tests import certify_joint
from tests.quadrature import Toy
from tests.test_truth import as_problem
from toyiwae.errors import PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.enclosure import enclose, joint
from toyiwae.oracle.whitened.own_covariances import whiten
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal
from toyiwae.truth.covariance import covariance

IWAE = Form({1: 1.0}, {1: 1.0}, {1: -1.0})
DREG = Form({1: 1.0}, {1: 0.4, 2: 0.6}, exponent=0.6)
CIWAE = Form({0: 0.3, 1: 0.7}, {0: 0.3, 1: 0.7}, {0: -0.3, 1: -0.7})
COUNTS = [1, 2, 1000]


def amortised(seed: int = 3) -> Problem:
    """Two observations, two latents, and a proposal whose mean is affine in x."""
    rng = np.random.default_rng(seed)
    model = Model(
        rng.normal(size=2), np.diag([1.0, 0.6]), rng.normal(size=(3, 2)), np.zeros(3), 0.8 * np.eye(3)
    )
    cov = np.array([[0.5, 0.1], [0.1, 0.4]])
    return Problem(
        model,
        Proposal(cov, weight=0.2 * rng.normal(size=(2, 3)), offset=[0.1, 0.0]),
        Data(rng.normal(size=(2, 3))),
    )


@pytest.mark.parametrize("parameters", [("proposal_weight", "proposal_chol"), ("loading", "prior_mean")])
def test_covariances_of_observations_agree_with_double_precision(parameters: tuple[str, ...]) -> None:
    """Parameters that share polynomials, several observations, zeros above the diagonal; variances on the diagonal."""
    problem = amortised()
    truth = joint.covariances(problem, DREG, parameters, COUNTS, digits=12)
    found = covariance(whiten(problem), DREG, parameters, COUNTS)
    for value, error, ball in zip(found.value.ravel(), found.error.ravel(), truth.ravel(), strict=True):
        assert abs(ball - value) < error + 1e-300
    first = problem.parameters.record(parameters[0])
    var = enclose.gradients(problem, {0: (DREG, first.name, None)}, COUNTS, digits=12)[0].var
    for n in range(len(COUNTS)):
        assert all(a.overlaps(b) for a, b in zip(np.diag(truth[n])[: first.size], var[n], strict=True))


@pytest.mark.parametrize("form", [IWAE, CIWAE], ids=["iwae", "ciwae"])
def test_fourth_moments_agree_with_double_precision(form: Form) -> None:
    """Products of up to eight affine functions, powers 0 and 1."""
    problem = as_problem(Toy())
    for values in (
        certify_joint.fourth(problem, form, "proposal_chol", [(0, 0)], [1, 3], 12),
        certify_joint.covariances(problem, form, "loading", [1, 3], 12),
    ):
        for name, value, error, ball in values:
            assert abs(ball - value) < error, name
            assert ball.rad() < 1e-12 * abs(ball), name


def test_equal_weights_have_closed_forms() -> None:
    """The proposal is the posterior: covariances are those of means of K terms; fourth moments are not enclosed."""
    problem = Problem(
        Model(np.zeros(2), np.eye(2), np.eye(2), np.zeros(2), np.eye(2)),
        Proposal(0.5 * np.eye(2), mean=[0.0, 0.0]),
        Data(np.zeros(2)),
    )
    found = joint.covariances(problem, IWAE, ["proposal_mean"], [1, 100], digits=20)
    assert found[1, 0, 0].overlaps(arb("0.02"))
    assert found[1, 1, 0].contains(0)
    assert found[1, 1, 0].rad() < 1e-45
    with pytest.raises(PrecisionError, match="nearly equal"):
        joint.fourth_moments(problem, IWAE, {"proposal_mean": [(0,)]}, [2], digits=20)
