"""The posterior and the bounds on its error: against 80 digits, factorisations in float64, and scipy's integration."""

import itertools
from typing import Any

import mpmath
import numpy as np
import pytest
from scipy.integrate import quad

import toyiwae
from tests.problems import random_problem
from tests.test_discrete_truth import problem as binary_problem
from toyiwae.oracle.closed_form.gaussian import condition
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal


def near_singular(size: float) -> Problem:
    """Covariances whose correlations have the condition number 1/size, in units that are far apart."""
    base, units = random_problem(4, 3, 4, rows=2), np.array([1e-3, 1.0, 50.0])
    direction = np.ones((3, 3)) + size * np.diag([1.0, 2.0, 3.0])
    model = Model(
        base.model.prior_mean * units,
        direction * np.multiply.outer(units, units),
        base.model.loading / units,
        base.model.offset,
        np.ones((4, 4)) + size * np.diag([1.0, 3.0, 2.0, 1.5]),
    )
    return Problem(
        model, Proposal(base.proposal.cov * np.multiply.outer(units, units), mean=units), base.data
    )


def at_posterior() -> Problem:
    """A proposal that is the posterior, up to its rounding."""
    base = random_problem(2, 2, 3)
    found = condition(base.model, np.asarray(base.data.x))
    return Problem(base.model, Proposal(found.cov, mean=found.mean[0]), base.data)


def narrow(scale: float) -> Problem:
    """A proposal of other widths than the posterior, far off."""
    base = random_problem(3, 2, 3)
    return Problem(base.model, Proposal(base.proposal.cov * scale, mean=[4.0, -7.0]), Data(base.data.x))


PROBLEMS = {
    "random": random_problem(1, 3, 5, rows=4),
    "amortised": random_problem(7, 2, 4, rows=5, amortised=True),
    "one": random_problem(2, 4, 3),
    "conditioned": near_singular(1e-6),
    "nearly singular": near_singular(1e-10),
    "at the posterior": at_posterior(),
    "narrow": narrow(1e-8),
    "wide": narrow(1e6),
}


def matrix(values: Any) -> Any:
    """A float64 array as an exact matrix of mpmath; vectors as columns."""
    return mpmath.matrix(np.asarray(values, dtype=float).tolist())


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_gaussian_posterior_is_right_to_its_error(name: str) -> None:
    """`P = (S₀⁻¹ + WᵀR⁻¹W)⁻¹` and `m = P (S₀⁻¹ m₀ + WᵀR⁻¹(x - o))` in 80 digits; and the error is small."""
    problem = PROBLEMS[name]
    found, model = toyiwae.exact(problem, K=1, parameters=[]).posterior, problem.model
    deviations = np.sqrt(np.diag(found["cov"]))
    with mpmath.workdps(80):
        prior, noise, loading = (matrix(a) for a in (model.prior_cov, model.noise_cov, model.loading))
        pulled = mpmath.inverse(noise) * loading
        cov = mpmath.inverse(mpmath.inverse(prior) + loading.T * pulled)
        prior_part = mpmath.inverse(prior) * matrix(model.prior_mean)
        for x, mean, error in zip(
            *(np.atleast_2d(a) for a in (problem.data.x, found["mean"], found["mean_error"])), strict=True
        ):
            truth = cov * (prior_part + pulled.T * (matrix(x) - matrix(model.offset)))
            assert all(abs(mpmath.mpf(m) - t) <= e for m, t, e in zip(mean, truth, error, strict=True))
            assert np.all(error <= 1e-13 * (np.abs(mean) + deviations))
        for i, j in itertools.product(range(problem.dim_z), repeat=2):
            assert abs(mpmath.mpf(found["cov"][i, j]) - cov[i, j]) <= found["cov_error"][i, j]
    assert np.all(found["cov_error"] <= 1e-13 * np.multiply.outer(deviations, deviations))


@pytest.mark.parametrize("name", ["random", "amortised", "one", "narrow"])
def test_the_gaussian_posterior_is_that_of_orthogonal_factorisations(name: str) -> None:
    problem = PROBLEMS[name]
    found, other = (
        toyiwae.exact(problem, K=1, parameters=[]).posterior,
        condition(problem.model, problem.data.x),
    )
    np.testing.assert_allclose(np.atleast_2d(found["mean"]), other.mean, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found["cov"], other.cov, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("rows", [None, 3])
def test_the_binary_posterior_is_right_to_its_error(rows: int | None) -> None:
    """By Bayes' rule over all states, in 50 digits."""
    made = binary_problem(3, amortised=rows is not None, rows=rows)
    found, model = (
        toyiwae.exact(made, K=2, estimators="score_function", parameters="prior_logit").posterior,
        made.model,
    )
    shape = (-1, *found["mean"].shape[-1:])
    means, errors = found["mean"].reshape(shape), found["mean_error"].reshape(shape)
    covs, cov_errors = (np.reshape(found[key], (-1, 3, 3)) for key in ("cov", "cov_error"))
    states = list(itertools.product([0, 1], repeat=3))
    with mpmath.workdps(50):
        precision = mpmath.inverse(matrix(model.noise_cov))
        for n, x in enumerate(np.atleast_2d(made.data.x)):
            weights = []
            for z in states:
                misfit = matrix(x) - matrix(model.offset) - matrix(model.loading) * mpmath.matrix(z)
                logit = mpmath.fdot(z, [mpmath.mpf(v) for v in model.prior_logit])
                weights.append(mpmath.exp(logit - (misfit.T * precision * misfit)[0] / 2))
            total = mpmath.fsum(weights)
            mean = [mpmath.fdot(weights, [z[i] for z in states]) / total for i in range(3)]
            for i in range(3):
                assert abs(mpmath.mpf(means[n, i]) - mean[i]) <= errors[n, i] <= 1e-13
                for j in range(3):
                    product = mpmath.fdot(weights, [z[i] * z[j] for z in states]) / total
                    truth = product - mean[i] * mean[j]
                    assert abs(mpmath.mpf(covs[n, i, j]) - truth) <= cov_errors[n, i, j] <= 1e-12


def test_the_binary_posterior_is_that_of_conditional_flips() -> None:
    """p(z_i | z_-i, x) is a logistic function of the change of log p(x, z)."""
    made = binary_problem(2)
    model, x = made.model, made.data.x
    found = toyiwae.exact(made, K=2, estimators="score_function", parameters="prior_logit").posterior
    mean, cov = found["mean"], found["cov"]
    second = cov + np.outer(mean, mean)  # E[z zᵀ]
    joint = np.array(
        [
            [1 - mean[0] - mean[1] + second[0, 1], mean[1] - second[0, 1]],
            [mean[0] - second[0, 1], second[0, 1]],
        ]
    )
    for other in (0, 1):
        z = np.array([[0.0, other], [1.0, other]])
        misfit = x - model.offset - z @ model.loading.T
        log_p = z @ model.prior_logit - 0.5 * (misfit * np.linalg.solve(model.noise_cov, misfit.T).T).sum(
            axis=1
        )
        assert joint[1, other] / joint[0, other] == pytest.approx(np.exp(log_p[1] - log_p[0]), rel=1e-11)
    np.testing.assert_allclose(np.diag(cov), mean * (1.0 - mean), rtol=1e-12)


def test_the_posterior_of_a_density_is_right_to_its_error() -> None:
    """Against adaptive integration, for two unequal modes; and against the Gaussian posterior."""

    def log_joint(z: np.ndarray) -> np.ndarray:
        first = np.log(0.6) - 0.5 * ((z[:, 0] - 0.9) / 0.5) ** 2 - np.log(0.5)
        return np.logaddexp(first, np.log(0.4) - 0.5 * ((z[:, 0] + 0.9) / 0.7) ** 2 - np.log(0.7))

    def moment(power: int) -> float:
        def density(z: float) -> float:
            return z**power * np.exp(log_joint(np.array([[z]])))[0]

        return quad(density, -9.0, 9.0, points=[-0.9, 0.9], epsabs=1e-14, epsrel=1e-13, limit=200)[0]

    made = toyiwae.QuadratureProblem(log_joint, proposal_mean=[0.1], proposal_cov=[[1.0]])
    found = toyiwae.exact(made, K=4, parameters="proposal_mean").posterior
    total, first, second = (moment(power) for power in range(3))
    assert abs(found["mean"][0] - first / total) <= found["mean_error"][0] + 1e-13
    assert (
        abs(found["cov"][0, 0] - (second / total - (first / total) ** 2)) <= found["cov_error"][0, 0] + 1e-12
    )
    assert found["mean_error"][0] < 1e-10
    # in closed form: 0.6 N(0.9, 0.5²) + 0.4 N(-0.9, 0.7²)
    mean = 0.6 * 0.9 - 0.4 * 0.9
    assert abs(found["mean"][0] - mean) <= found["mean_error"][0]
    cov = 0.6 * (0.25 + 0.81) + 0.4 * (0.49 + 0.81) - mean**2
    assert abs(found["cov"][0, 0] - cov) <= found["cov_error"][0, 0]
