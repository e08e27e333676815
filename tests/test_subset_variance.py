"""The exact variance of averages over subsets: against tensor quadrature, its ends, its limit, and groups of MIWAE."""

from typing import Any

import numpy as np
import pytest

import toyiwae
from tests.problems import random_problem
from toyiwae.problems.linear_gaussian import Data, Model, Proposal

TWO = random_problem(4, 2, 3)


def moments(problem, particles, name, parameter="proposal_mean", groups=1) -> Any:
    found: Any = toyiwae.exact(problem, K=particles, M=groups, estimators=name, parameters=parameter)
    return found.results[0].gradients[name].parameters[parameter]


def log_normal(x, mean, var):
    return -((x - mean) ** 2) / (2 * var) - np.log(2 * np.pi * var) / 2


@pytest.mark.parametrize("cov", [0.7, 0.45])  # β above and below 0
@pytest.mark.parametrize(("size", "particles"), [(1, 2), (2, 3), (3, 4)])
def test_tensor_quadrature(cov, size, particles):
    nodes, weights = np.polynomial.hermite_e.hermegauss(60 if particles < 4 else 36)
    weights = weights / weights.sum()
    kept = weights > 1e-17
    z = 0.3 + np.sqrt(cov) * nodes[kept]
    log_w = log_normal(z, 0.0, 1.3) + log_normal(0.6, 0.8 * z, 0.7) - log_normal(z, 0.3, cov)
    slope = -z / 1.3 + 0.8 * (0.6 - 0.8 * z) / 0.7  # of log w along z, where log q does not change
    axes = np.meshgrid(*[np.arange(kept.sum())] * particles, indexing="ij")
    index = np.stack([axis.ravel() for axis in axes], axis=-1)[:, None]
    prob = weights[kept][index[:, 0]].prod(axis=-1)
    name = f"u_statistic:{size}"
    made = toyiwae.estimators.get(name)(log_w[index])
    drawn = (made.path * slope[index]).sum(axis=(1, 2))
    expected = prob @ (drawn - prob @ drawn) ** 2
    one = np.ones((1, 1))
    model = Model(np.zeros(1), 1.3 * one, 0.8 * one, np.zeros(1), 0.7 * one)
    problem = toyiwae.Problem(model, Proposal(cov * one, mean=np.array([0.3])), Data(np.array([0.6])))
    found = moments(problem, particles, name)
    assert found.mean.item() == pytest.approx(prob @ drawn, rel=1e-8)
    assert found.var.item() == pytest.approx(expected, rel=1e-8)
    assert found.var_error.item() < 1e-9 * found.var.item()
    assert found.snr.item() == pytest.approx(abs(prob @ drawn) / expected**0.5, rel=1e-8)


@pytest.mark.parametrize("parameter", ["proposal_chol", "loading"])
def test_the_ends_of_the_family_have_the_variances_of_the_elbo_and_of_iwae(parameter):
    for name, same in (("u_statistic:1", "elbo"), ("u_statistic:5", "iwae")):
        found, expected = (moments(TWO, 5, e, parameter, groups=3) for e in (name, same))
        np.testing.assert_allclose(found.var, expected.var, rtol=1e-12)
        np.testing.assert_allclose(found.rmse_evidence, expected.rmse_evidence, rtol=1e-12)


def test_no_partition_into_groups_varies_less_and_the_first_projection_is_what_is_left():
    """K Var falls to m² ζ_1, linearly in 1/K, from above; MIWAE's with K/m groups is m ζ_m at every K."""
    grouped = 3 * moments(TWO, 3, "iwae").var
    scaled = np.stack([k * moments(TWO, k, "u_statistic:3").var for k in (3, 6, 60, 10**5, 2 * 10**5)])
    np.testing.assert_allclose(scaled[0], grouped, rtol=1e-12)
    assert (np.diff(scaled, axis=0) < 0).all()
    limit = 2 * scaled[-1] - scaled[-2]
    np.testing.assert_allclose(10**5 * (scaled[-2] - limit) / (60 * (scaled[2] - limit)), 1.0, atol=0.05)


@pytest.mark.parametrize(
    ("rows", "particles", "size"), [(None, 5, 3), pytest.param(2, 7, 4, marks=pytest.mark.slow)]
)
def test_a_tight_bound_on_the_error_holds_a_finer_rule(rows, particles, size, monkeypatch):
    """The error that is stated, against a rule of another step."""
    problem = random_problem(6, 2, 3, rows=rows)
    coarse = moments(problem, particles, f"u_statistic:{size}")
    monkeypatch.setattr("toyiwae.oracle.finite_k.subsets.STEP", 0.17)
    fine = moments(problem, particles, f"u_statistic:{size}")
    assert (np.abs(coarse.var - fine.var) <= coarse.var_error + fine.var_error).all()
    assert (coarse.var_error < 1e-9 * coarse.var).all()


def test_many_observations_average_their_variances():
    both = random_problem(6, 2, 3, rows=2)
    alone = [
        moments(toyiwae.Problem(both.model, both.proposal, Data(both.data.x[n])), 6, "u_statistic:2")
        for n in (0, 1)
    ]
    np.testing.assert_allclose(
        moments(both, 6, "u_statistic:2").var, (alone[0].var + alone[1].var) / 4, rtol=1e-12
    )


def test_what_is_not_computed_has_a_reason(monkeypatch):
    monkeypatch.setattr("toyiwae.truth.linear_gaussian.MOST_SHARED", 2)
    none = moments(TWO, 4, "u_statistic:3")
    assert none.var is None
    assert "double integrals for more than 2000 coordinates of all rows or subsets of 2" in none.reason
    assert moments(TWO, 4, "u_statistic:2").var is not None
