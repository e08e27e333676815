"""Evidences beyond the range of exp, and estimators in float32: what is right conforms, what overflows fails."""

import functools

import numpy as np
import pytest

import toyiwae
from tests.members import correct
from tests.test_conformance_cases import IWAE, LIGHT
from toyiwae.conformance import api
from toyiwae.conformance.bank import particles
from toyiwae.conformance.bank.bank import bank
from toyiwae.conformance.truths import linear_gaussian
from toyiwae.conformance.truths.targets import Target
from toyiwae.forms import Coefficients
from toyiwae.oracle.closed_form.gaussian import condition


def test_the_bank_reaches_beyond_the_range_of_exp_with_moderate_weights():
    found = {}
    for entry in bank():
        K, M = entry.cells[0]
        log_w = particles.draw(entry.problem, K, M, 500, 0).log_w
        found[entry.name] = log_w.max(-1).min(), log_w.max(-1).max()
        assert np.median(log_w.std(-1)) < 3.0, entry.name
    assert found["underflow"][1] < -745
    assert found["overflow"][0] > 709.8


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_exp_without_a_maximum_fails(dtype):
    def naive(problem, *, K, M, replicates, seed):
        log_w = particles.draw(problem, K, M, replicates, seed).log_w.astype(dtype)
        return np.log(np.exp(log_w).mean(-1)).mean((1, 2)), {}

    report = toyiwae.check(naive, "iwae", **LIGHT)
    assert report.exit_code == 1
    assert {(f.problem, f.name) for f in report.failures} == {("underflow", "finite"), ("overflow", "finite")}


def in_float32(problem, *, K, M, replicates, seed):
    """IWAE in float32 throughout: parameters, noise, densities, a log-sum-exp, gradients."""
    model, q = problem.model, problem.proposal
    single = functools.partial(np.asarray, dtype=np.float32)
    noise = np.random.default_rng(seed).standard_normal((replicates, M, K, len(q.cov)), dtype=np.float32)
    chol = np.linalg.cholesky(single(q.cov))
    z = single(q.mean) + noise @ chol.T
    prior, likelihood = np.linalg.inv(single(model.prior_cov)), np.linalg.inv(single(model.noise_cov))
    away = z - single(model.prior_mean)
    misfit = single(problem.data.x) - z @ single(model.loading).T - single(model.offset)
    by_prior_mean, by_offset = away @ prior, misfit @ likelihood
    log_w = (
        -0.5 * (by_prior_mean * away).sum(-1) - 0.5 * (by_offset * misfit).sum(-1) + 0.5 * (noise**2).sum(-1)
    )
    log_w += np.log(np.diag(chol)).sum() - 0.5 * np.float32(len(misfit[0, 0, 0]) * np.log(2 * np.pi))
    log_w -= 0.5 * sum(np.linalg.slogdet(single(cov))[1] for cov in (model.prior_cov, model.noise_cov))
    largest = log_w.max(-1, keepdims=True)
    w = np.exp(log_w - largest)
    values = (largest[..., 0] + np.log(w.mean(-1))).mean(-1)
    weights = (w / w.sum(-1, keepdims=True) / np.float32(M))[..., None]
    gradients = {
        "prior_mean": (weights * by_prior_mean).sum((1, 2)),
        "offset": (weights * by_offset).sum((1, 2)),
        "loading": np.einsum("rmki,rmkj->rij", weights * by_offset, z),
        "proposal_mean": (weights * (by_offset @ single(model.loading) - by_prior_mean)).sum((1, 2)),
    }
    assert log_w.dtype == values.dtype == np.float32
    assert {array.dtype for array in gradients.values()} == {np.dtype("float32")}
    return values, gradients


@pytest.mark.parametrize(
    "settings", [LIGHT, pytest.param({}, marks=pytest.mark.slow)], ids=["light", "default"]
)
def test_a_right_estimator_in_float32_conforms(settings):
    """With the total gradient by the proposal's mean, which at a fixed covariance is IWAE's."""
    report = toyiwae.check(in_float32, "iwae", **settings)
    assert report.verdict == "conforms", report.failures
    judged = {check.problem for check in report.checks if check.tier == 2 and check.passed}
    assert judged == {entry.name for entry in bank() if not entry.rows}


@pytest.mark.parametrize("name", ["overflow", "underflow"])
def test_the_truth_beyond_the_range_of_exp_agrees_with_monte_carlo(name):
    """The value and all gradients, with their variances, where p(x) itself is beyond float64."""
    entry = next(entry for entry in bank() if entry.name == name)
    K, M = entry.cells[0]
    truth = linear_gaussian.truths(Target.of("iwae"), entry)[K, M]
    drawn = particles.draw(entry.problem, K, M, 20_000, 3)
    made = IWAE(drawn.log_w)
    arrays = {"value": IWAE.value_of(drawn.log_w).mean(1)}
    arrays |= drawn.gradients(Coefficients(made.model, made.path, made.score))
    z = []
    for parameter, array in arrays.items():
        exact, var = truth[parameter].mean, truth[parameter].var
        assert var is not None
        z += list(np.ravel((array.mean(0) - exact) / np.sqrt(var / len(array))))
    assert np.abs(z).max() < 6.0  # 204 coordinates at most, all together at 4e-7
    assert truth["value"].log_evidence == pytest.approx(
        condition(entry.problem.model, entry.problem.data.x).log_evidence[0], rel=1e-12
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_value_rounded_to_its_dtype_has_the_variance_of_its_rounding(dtype, monkeypatch):
    """At log p(x) = −1010 a value in float16 moves in steps of 0.5, far more than it varies."""
    both = tuple(entry for entry in bank() if entry.name in ("wide", "underflow"))
    monkeypatch.setattr(api, "bank", lambda: both)

    def rounded(problem, **options):
        return correct("iwae")(problem, **options)[0].astype(dtype), {}

    report = toyiwae.check(rounded, "iwae", **LIGHT)
    assert report.verdict == "conforms", report.failures
