"""Parameters: sums over observations into their shapes, against sums written out; what problems say of theirs."""

from typing import Any

import numpy as np
import pytest

import toyiwae
from tests.problems import random_problem
from toyiwae.problems.linear_gaussian import Problem, Proposal
from toyiwae.problems.parameter import Parameter

RNG = np.random.default_rng(0)
X = RNG.normal(size=(5, 4))
LOWER = [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
MEAN, CHOL = RNG.normal(size=(5, 2, 3)), RNG.normal(size=(5, 2, 6))


def chol(entries: np.ndarray) -> np.ndarray:
    """A lower triangle as a matrix."""
    full = np.zeros((3, 3))
    for value, index in zip(entries, LOWER, strict=True):
        full[index] = value
    return full


CASES = {
    "loading": (Parameter("loading", (2, 3), "model"), CHOL, lambda n, k: CHOL[n, k].reshape(2, 3)),
    "mean": (Parameter("proposal_mean", (3,), "proposal", "mean"), MEAN, lambda n, k: MEAN[n, k]),
    "weight": (
        Parameter("proposal_weight", (3, 4), "proposal", "mean", "weight"),
        MEAN,
        lambda n, k: np.outer(MEAN[n, k], X[n]),
    ),
    "offset": (
        Parameter("proposal_offset", (3,), "proposal", "mean", "offset"),
        MEAN,
        lambda n, k: MEAN[n, k],
    ),
    "chol": (
        Parameter("proposal_chol", (3, 3), "proposal", "chol"),
        CHOL,
        lambda n, k: chol(CHOL[n, k]),
    ),
    "own mean": (
        Parameter("proposal_mean", (7, 3), "proposal", "mean", own=True),
        MEAN,
        lambda n, k: np.insert(np.zeros((6, 3)), ROWS[n], MEAN[n, k], axis=0),
    ),
    "own chol": (
        Parameter("proposal_chol", (7, 3, 3), "proposal", "chol", own=True),
        CHOL,
        lambda n, k: np.insert(np.zeros((6, 3, 3)), ROWS[n], chol(CHOL[n, k]), axis=0),
    ),
}
ROWS = np.array([6, 0, 3, 1, 4])


@pytest.mark.parametrize("case", CASES)
def test_sums_over_observations_have_the_parameters_shape(case: str) -> None:
    """And the linear maps of `design` give the same."""
    parameter, by_row, one = CASES[case]
    expected = np.array([sum(one(n, k) for n in range(5)) for k in range(2)])
    np.testing.assert_allclose(parameter.summed(by_row, X, ROWS), expected, rtol=1e-14, atol=1e-15)
    assert not expected[:, ~parameter.free].any()
    design = parameter.design(X, by_row.shape[-1], ROWS)
    np.testing.assert_allclose(
        np.einsum("npf,nkf->kp", design, by_row), expected.reshape(2, -1), rtol=1e-13, atol=1e-15
    )


@pytest.mark.parametrize("case", CASES)
def test_free_entries_are_listed_row_by_row(case: str) -> None:
    parameter = CASES[case][0]
    assert parameter.indices() == [tuple(index) for index in np.argwhere(parameter.free)]
    assert parameter.size == np.prod(parameter.shape)
    assert parameter.kind in (parameter.moves, parameter.name)


def test_problems_say_what_their_parameters_are() -> None:
    problem = random_problem(3, 2, 3)
    assert dict(problem.parameters) == {
        "prior_mean": (2,),
        "loading": (3, 2),
        "offset": (3,),
        "proposal_mean": (2,),
        "proposal_chol": (2, 2),
    }
    assert problem.mean_parameters == ("prior_mean", "proposal_mean")
    paper = toyiwae.paper_problem(D=2, N=3)
    assert paper.parameters.where(part="proposal") == ("proposal_weight", "proposal_offset", "proposal_chol")
    assert paper.parameters.record("proposal_weight").amortised == "weight"
    assert paper.parameters.record("proposal_chol").moves == "chol"


def test_digits_serve_proposals_of_each_observation() -> None:
    """Gradients by one's own mean and Cholesky factor are those of the observation alone, over N."""
    base = random_problem(3, 2, 3, rows=2)
    mean, cov = np.array([[0.3, -0.2], [0.1, 0.4]]), np.stack([base.proposal.cov, 1.2 * base.proposal.cov])
    problem = Problem(base.model, Proposal(cov, mean=mean), base.data)
    options = {"K": 4, "estimators": "iwae", "parameters": ["proposal_mean", "proposal_chol"]}

    def gradients(of: Problem, **more: Any) -> Any:
        return toyiwae.exact(of, **options, **more).cell(4).gradients["iwae"].parameters

    exact, plain = gradients(problem, digits=20), gradients(problem)
    for n in range(2):
        alone = gradients(problem.row(n))
        for name in options["parameters"]:
            for found in (exact[name], plain[name]):
                np.testing.assert_allclose(found.mean[n], alone[name].mean / 2, rtol=1e-11, atol=1e-14)
                np.testing.assert_allclose(found.var[n], alone[name].var / 4, rtol=1e-11)
