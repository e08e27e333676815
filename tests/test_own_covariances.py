"""Every observation with a proposal of its own: the exact numbers are those of as many problems of one observation."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

import toyiwae
from tests.problems import random_problem
from toyiwae.oracle.enclosure import enclose, precision
from toyiwae.oracle.whitened.own_covariances import OwnWhitened, whiten
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal
from toyiwae.truth.averages import bounds

COUNTS = (1, 2, 10, 10**6)


def own_problem(dim_z: int, dim_x: int, rows: int, *, diagonal: bool = False, seed: int = 3) -> Problem:
    """A random problem whose observations have a mean and a covariance each."""
    rng = np.random.default_rng([seed, dim_z, rows])
    shared = random_problem(seed, dim_z, dim_x, rows=rows, amortised=True)
    given = shared.observations()
    means = given.proposal_mean + 0.1 * rng.normal(size=(rows, dim_z))
    if diagonal:
        var = np.diag(shared.proposal.cov) * rng.uniform(0.3, 0.8, (rows, dim_z))
        return Problem(shared.model, Proposal(var=var, mean=means), Data(given.x))
    roots = 0.2 * rng.normal(size=(rows, dim_z, dim_z))
    scale = rng.uniform(0.7, 1.5, (rows, 1, 1))
    cov = shared.proposal.cov * scale + roots @ roots.transpose(0, 2, 1)
    return Problem(shared.model, Proposal(cov, mean=means), Data(given.x))


def assert_agree(value, error, other, other_error) -> None:
    assert np.all(np.abs(np.asarray(value) - other) <= np.asarray(error) + other_error)


@pytest.mark.parametrize("diagonal", [True, False], ids=["var", "cov"])
@pytest.mark.parametrize(("dim_z", "dim_x"), [(1, 2), (3, 5), pytest.param(7, 4, marks=pytest.mark.slow)])
def test_bounds_are_those_of_single_observations(dim_z: int, dim_x: int, *, diagonal: bool) -> None:
    problem = own_problem(dim_z, dim_x, 3, diagonal=diagonal)
    whitened = whiten(problem)
    assert isinstance(whitened, OwnWhitened)
    together = bounds(whitened, COUNTS)
    for n in range(3):
        alone = bounds(whiten(problem.row(n)), COUNTS)
        for one, other in ((together.gap, alone.gap), (together.ess, alone.ess)):
            assert_agree(one.value[n], one.error[n], other.value[0], other.error[0])
            assert np.all(one.error[n] <= 1e-9 * np.abs(one.value[n]))


@pytest.mark.parametrize("diagonal", [True, False], ids=["var", "cov"])
def test_bounds_agree_with_many_digits(*, diagonal: bool) -> None:
    problem = own_problem(3, 4, 3, diagonal=diagonal, seed=8)
    found, known = bounds(whiten(problem), [2, 50]), enclose.bounds(problem, [2, 50], digits=30)
    for one, value in ((found.gap, known.gap), (found.ess, known.ess)):
        assert np.all(
            np.abs(one.value - precision.rounded(value).value) <= one.error + 1e-15 * np.abs(one.value)
        )


def test_a_spectrum_is_found_to_its_bounds_whatever_the_correlations() -> None:
    problem = own_problem(6, 8, 4)
    whitened = whiten(problem)
    for n in range(4):
        alone = Whitened(problem.row(n))
        order = np.argsort(alone.beta)
        assert np.all(np.abs(np.sort(whitened.beta[n]) - alone.beta[order]) <= whitened.beta_error[n])
        size = whitened.h_error[n].max() + 1e-12
        assert abs(np.linalg.norm(whitened.h[n]) - np.linalg.norm(alone.h[0])) <= 3.0 * size


def test_equal_matrices_give_what_one_matrix_gives() -> None:
    shared = random_problem(5, 3, 4, rows=4, amortised=True)
    given = shared.observations()
    cov = np.tile(shared.proposal.cov, (4, 1, 1))
    one = Problem(shared.model, Proposal(shared.proposal.cov, mean=given.proposal_mean), Data(given.x))
    many = Problem(shared.model, Proposal(cov, mean=given.proposal_mean), Data(given.x))
    asked = {"K": [1, 7, 300], "estimators": ["iwae", "dreg"], "parameters": ["loading", "proposal_mean"]}
    left, right = toyiwae.exact(one, **asked), toyiwae.exact(many, **asked)
    assert left.log_evidence == right.log_evidence
    for a, b in zip(left.results, right.results, strict=True):
        assert_agree(a.gap, a.gap_error, b.gap, b.gap_error)
        for name, gradient in a.gradients.items():
            for parameter, moments in gradient.parameters.items():
                other = b.gradients[name].parameters[parameter]
                assert_agree(moments.mean, moments.mean_error, other.mean, other.mean_error)
                assert_agree(moments.var, moments.var_error, other.var, other.var_error)


def test_gradients_are_those_of_single_observations() -> None:
    """By the mean and Cholesky factor of each; those of the model average over the observations."""
    problem, count = own_problem(2, 3, 3), 3
    asked = {"K": [1, 5], "estimators": ["iwae", "dreg", "score_function"], "parameters": "all"}
    together = toyiwae.exact(problem, **asked)
    alone = [toyiwae.exact(problem.row(n), **asked) for n in range(count)]
    for i, cell in enumerate(together.results):
        for name, gradient in cell.gradients.items():
            for parameter, found in gradient.parameters.items():
                parts = [one.results[i].gradients[name].parameters[parameter] for one in alone]
                own = parameter.startswith("proposal")
                for what, power in (("mean", 1), ("var", 2)):
                    value, error = (np.asarray(getattr(found, what + end)) for end in ("", "_error"))
                    values, errors = (
                        np.array([getattr(part, what + end) for part in parts]) / count**power
                        for end in ("", "_error")
                    )
                    if not own:
                        values, errors = values.sum(axis=0), errors.sum(axis=0)
                    assert value.shape == values.shape == problem.parameters[parameter]
                    slack = 1e-15 * np.abs(value)
                    assert_agree(value, error, values, errors + slack)


def test_bounds_alone_are_those_beside_gradients() -> None:
    problem = own_problem(2, 3, 3)
    alone, beside = (toyiwae.exact(problem, K=[2, 9], parameters=names) for names in ([], ["prior_mean"]))
    for one, other in zip(alone.results, beside.results, strict=True):
        for name in ("gap", "ess"):
            pairs: list[Any] = [(getattr(c, name), getattr(c, f"{name}_error")) for c in (one, other)]
            assert abs(pairs[0][0] - pairs[1][0]) <= pairs[0][1] + pairs[1][1]
        assert not one.gradients["iwae"].parameters


def test_samples_are_those_of_single_observations() -> None:
    """The sampler's gradients of one noise, by the mean and Cholesky factor of each observation and by the model."""
    montecarlo = pytest.importorskip("toyiwae.montecarlo")
    problem, names = own_problem(2, 3, 3), ["iwae", "dreg", "score_function"]
    noise = np.random.default_rng(5).normal(size=(4, 3, 2, 5, 2))
    together = montecarlo.gradients_of(noise, problem, names, parameters="all")
    alone = [
        montecarlo.gradients_of(noise[:, n : n + 1], problem.row(n), names, parameters="all")
        for n in range(3)
    ]
    for name, gradients in together.gradients.items():
        for parameter, found in gradients.items():
            parts = np.stack([one.gradients[name][parameter] for one in alone], axis=1) / 3
            expected = parts if parameter.startswith("proposal") else parts.sum(axis=1)
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
def test_estimates_agree_with_exact_numbers() -> None:
    """In standard errors, at a family-wise rate of one in a thousand; K = 1 in closed form among them."""
    pytest.importorskip("torch")
    count, rate = 4000, 1e-3
    found = toyiwae.estimate(
        own_problem(2, 3, 3),
        K=[1, 6],
        estimators=["iwae", "dreg"],
        replicates=count,
        seed=11,
        parameters="all",
    )
    scores = np.concatenate([np.ravel(z) for z in z_scores(found.to_dict()["results"])]).astype(float)
    assert len(scores) > 80
    assert np.abs(scores).max() <= float(norm.isf(rate / (2 * len(scores))))


def z_scores(tree: Any) -> Iterator[Any]:
    """All z-scores of means in a nested result."""
    if isinstance(tree, list):
        for part in tree:
            yield from z_scores(part)
    elif isinstance(tree, dict):
        for key, value in tree.items():
            if key == "z" and value is not None:
                yield value
            else:
                yield from z_scores(value)


@pytest.mark.slow
def test_observations_far_apart_do_not_spoil_each_other() -> None:
    """One contour for weights that lie hundreds of nats apart overflowed, and left the gap known to 271 nats."""
    rng = np.random.default_rng(0)
    model = Model(
        rng.normal(size=2), np.eye(2) * 1.3, rng.normal(size=(3, 2)), rng.normal(size=3), np.eye(3) * 0.7
    )
    x = rng.normal(size=(3, 3))
    rng.normal(size=(3, 2))
    var, _, mean = (
        1e-3 * np.exp(rng.normal(size=(3, 2))),
        rng.normal(size=(3, 2)),
        10.0 * rng.normal(size=(3, 2)),
    )
    whitened = whiten(Problem(model, Proposal(var=var, mean=mean), Data(x)))
    found = bounds(whitened, [64])
    assert np.all(found.gap.error <= 1e-8 * found.gap.value)
