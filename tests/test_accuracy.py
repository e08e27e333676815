"""The accuracy that exact numbers promise: 1e-8 with an honest error for each, by mpmath where float64 misses it."""

# pyright: reportOptionalSubscript=false, reportOptionalMemberAccess=false, reportOptionalOperand=false
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest

import toyiwae
from tests.problems import random_problem
from tests.test_truth import FORMS, KINDS
from tests.test_truth_limits import scaled_problem
from toyiwae import estimators
from toyiwae.estimators import Estimator
from toyiwae.forms import Bound
from toyiwae.oracle.series import expansions
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal
from toyiwae.truth import accuracy
from toyiwae.truth.request import reference

TWO = random_problem(3, 2, 3)
NUMBERS = (
    "bound",
    "gap",
    "ess",
    "mean",
    "var",
    "snr",
    "bias",
    "rmse",
    "rmse_evidence",
    "target_bound",
    "log_evidence",
)


# the jackknife -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "particles"),
    [
        (1, 10**9),
        (2, 10**9),
        (5, 10**4),
        pytest.param(3, 10**15, marks=pytest.mark.slow),
        pytest.param(20, 200, marks=pytest.mark.slow),
        pytest.param(5, 10**6, marks=pytest.mark.slow),
    ],
)
def test_the_jackknife_survives_the_cancellation_of_its_terms(order: int, particles: int) -> None:
    """Its weights reach 1e44; its bias is of order K^-m-1, so that all of these bounds are log Z to float64."""
    name = f"jackknife:{order}"
    exact = toyiwae.exact(TWO, K=particles, estimators=["iwae", name])
    cell = exact.cell(particles)
    truth = cell.gradients[name]
    assert truth.target_bound_error < 1e-12
    assert abs(truth.target_bound - exact.log_evidence) <= truth.target_bound_error + exact.log_evidence_error
    iwae = cell.gradients["iwae"].parameters
    for parameter, moments in truth.parameters.items():
        limit = moments.mean if parameter == "prior_mean" else np.zeros_like(moments.mean)
        assert np.all(moments.mean_error <= 1e-8 * np.maximum(np.abs(limit), np.sqrt(iwae[parameter].var)))
        assert np.all(np.abs(moments.mean - limit) <= 1e-8 * np.sqrt(iwae[parameter].var))


def test_the_jackknifes_gradient_agrees_with_its_expansion() -> None:
    """What is left of the terms at K = 10⁵, against six orders of the expansion in 1/K, weighted exactly."""
    order, particles, name = 2, 10**5, "proposal_mean"
    bound = Bound.jackknife(order, particles)
    found = expansions.gradient_mean(Whitened(TWO), reference(1.0), name, order=6, digits=40)
    expected = np.zeros(2)
    for i in range(2):
        total = 0
        for n in range(found.first, found.last + 1):
            weight = sum((c / Fraction(k) ** n for k, c in bound.exact), Fraction(0))
            coefficient = found.term(n).value[i]
            total = total + coefficient * weight.numerator / weight.denominator
        expected[i] = float(total)
    moments = toyiwae.exact(TWO, K=particles, estimators=f"jackknife:{order}").cell(particles)
    mean = moments.gradients[f"jackknife:{order}"].parameters[name].mean
    assert 0.0 < np.abs(expected).max() < 1e-12
    np.testing.assert_allclose(mean, expected, rtol=1e-9)


# the contract --------------------------------------------------------------------------------------------------------


def test_what_float64_misses_is_computed_with_mpmath(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a tolerance that float64 cannot meet, everything is recomputed; without effort, it is withheld."""
    options = {"K": [4, 10**6], "estimators": "dreg,iwae"}
    plain = toyiwae.exact(TWO, **options)
    monkeypatch.setattr(accuracy, "TOLERANCE", 1e-17)
    monkeypatch.setattr(accuracy, "MOST_EFFORT", 0.0)
    withheld = toyiwae.exact(TWO, **options)
    monkeypatch.setattr(accuracy, "TOLERANCE", 2e-15)
    monkeypatch.setattr(accuracy, "DIGITS", 20)
    monkeypatch.setattr(accuracy, "MOST_EFFORT", 1e3)
    finer = toyiwae.exact(TWO, **options)
    for before, none, after in zip(plain.results, withheld.results, finer.results, strict=True):
        assert none.bound is none.gap is none.ess is None
        assert "multiprecision would take too long" in none.reason
        assert after.gap == pytest.approx(before.gap, abs=before.gap_error, rel=0)
        assert after.gap_error < 1e-15 * after.gap
        for name, truth in before.gradients.items():
            for parameter, moments in truth.parameters.items():
                gone = none.gradients[name].parameters[parameter]
                assert np.isnan(gone.var).all()
                assert f"the variance of {name} at K = {before.K}" in gone.reason
                other = after.gradients[name].parameters[parameter]
                assert np.all(np.abs(other.var - moments.var) <= moments.var_error)
                assert np.all(other.var_error < 2e-15 * other.var)


def test_a_moment_that_does_not_exist_is_named() -> None:
    """E[w^-99] is infinite for a wide proposal: no number of that estimator, all of the others."""
    cell = toyiwae.exact(scaled_problem(0.3, 1.4), K=8, estimators="vr_iwae:100,iwae").cell(8)
    truth = cell.gradients["vr_iwae:100"]
    assert truth.target_bound is truth.parameters["prior_mean"].mean is None
    assert "E[w^-99] is infinite: it exists only where every β < 0.010101" in truth.reason
    assert cell.gradients["iwae"].parameters["prior_mean"].reason is None


# errors --------------------------------------------------------------------------------------------------------------


def errors_missing(entry: object, found: list[str]) -> list[str]:
    """Keys of numbers without their error beside them."""
    if isinstance(entry, dict):
        for key, value in entry.items():
            if key == "decimals":
                continue
            if key in (*NUMBERS, "cov", "directional_snr") and f"{key}_error" not in entry:
                found.append(key)
            errors_missing(value, found)
    if isinstance(entry, list):
        for value in entry:
            errors_missing(value, found)
    return found


@pytest.mark.parametrize(
    "chosen", [KINDS, pytest.param(estimators.all(), marks=pytest.mark.slow)], ids=["a few", "all"]
)
def test_every_number_has_its_error(chosen: list[Estimator]) -> None:
    """In the JSON, whatever was asked for; the keys that were promised are all there."""
    problem = toyiwae.paper_problem(D=2, N=2, perturbation_std=0.3, seed=1)
    document = toyiwae.exact(problem, K=2, M=2, estimators=chosen, covariance=True).to_dict()
    assert errors_missing(document, []) == []
    entry = document["results"][0]
    assert {"K", "M", "bound", "gap", "gap_error", "ess", "gradients"} <= entry.keys()
    assert {"mean", "var", "snr", "mean_error", "var_error"} <= entry["gradients"][chosen[0].name][
        "prior_mean"
    ].keys()


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(TWO, id="wide", marks=pytest.mark.slow),
        pytest.param(scaled_problem(0.5, 0.45), id="narrow", marks=pytest.mark.slow),
    ],
)
def test_errors_are_honest(problem: toyiwae.Problem) -> None:
    """Float64 numbers differ from those with 25 digits by no more than they say, derived ones too."""
    options = {"K": [1, 3, 10**4], "M": 2, "estimators": FORMS}
    plain = toyiwae.exact(problem, covariance=True, **options)
    exact = toyiwae.exact(problem, digits=25, covariance=True, **options)
    assert abs(plain.log_evidence - exact.log_evidence) <= plain.log_evidence_error
    for a, b in zip(plain.results, exact.results, strict=True):
        for name in ("bound", "gap", "ess"):
            assert abs(getattr(a, name) - getattr(b, name)) <= getattr(a, f"{name}_error") + 1e-15 * getattr(
                b, name
            )
        for name, truth in a.gradients.items():
            other = b.gradients[name]
            assert abs(truth.target_bound - other.target_bound) <= truth.target_bound_error
            for part, snr in truth.directional_snr.items():
                if snr is not None:  # without a mean there is no direction
                    assert abs(snr - other.directional_snr[part]) <= truth.directional_snr_error[part]
            for parameter, moments in truth.parameters.items():
                for field in ("mean", "var", "snr", "bias", "rmse", "rmse_evidence"):
                    one, two = (getattr(m, field) for m in (moments, other.parameters[parameter]))
                    slack = getattr(moments, f"{field}_error")
                    # what is 0 by cancellation is 0 to the digits that were asked for
                    near = np.abs(one - two) <= slack + 1e-15 * np.abs(two) + 1e-100
                    assert np.all(near | (other.parameters[parameter].var < 1e-100)), (name, parameter, field)


# what is equal -------------------------------------------------------------------------------------------------------


def test_the_geometric_baseline_of_two_particles_is_the_arithmetic_one() -> None:
    """So its variance is known at K = 2, and at no other K."""
    cells = toyiwae.exact(TWO, K=[2, 3], M=2, estimators="vimco_geometric,vimco_arithmetic").results
    one, other = (
        cells[0].gradients[f"vimco_{kind}"].parameters["proposal_mean"]
        for kind in ("geometric", "arithmetic")
    )
    np.testing.assert_array_equal(one.var, other.var)
    assert cells[1].gradients["vimco_geometric"].parameters["proposal_mean"].var is None
    assert math.isfinite(one.var_error.max())


def _times(p: list[Any], q: list[Any]) -> list[Any]:
    """The product of two polynomials, lowest coefficients first."""
    product = [mpmath.mpf(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            product[i + j] += a * b
    return product


def _normal_mean(p: list[Any]) -> Any:
    """E[p(ε)] for standard normal ε."""
    return sum(a * (mpmath.fac2(i - 1) if i else 1) for i, a in enumerate(p) if i % 2 == 0)


@pytest.mark.parametrize("seed", range(12))
def test_the_score_functions_variance_at_one_particle_is_honest(seed: int) -> None:
    """Against Var[s (log w - 1)] as a polynomial in ε, in 50 digits; from a proposal far narrower to one far wider."""
    rng = np.random.default_rng(seed)
    prior, noise, cov = 10.0 ** rng.uniform([-2, -2, -4], [2, 2, 1])
    loading, x, mean = rng.normal(size=3) * [10.0 ** rng.uniform(-1, 1), 2.0, 1.0]
    model = Model(np.zeros(1), np.array([[prior]]), np.array([[loading]]), np.zeros(1), np.array([[noise]]))
    proposal = Proposal(np.array([[cov]]), mean=np.array([mean]))
    problem = toyiwae.Problem(model, proposal, Data(np.array([x])))
    parameters = ("proposal_mean", "proposal_chol")
    found = toyiwae.exact(problem, K=1, estimators="score_function", parameters=parameters)
    moments = found.cell(1).gradients["score_function"].parameters
    with mpmath.workdps(50):
        s0, w, r, c, z, m = map(mpmath.mpf, map(float, (prior, loading, noise, cov, x, mean)))
        scale, rest = mpmath.sqrt(c), z - w * m
        log_w = [
            mpmath.log(c / (2 * mpmath.pi * s0 * r)) / 2 - m**2 / (2 * s0) - rest**2 / (2 * r) - 1,
            scale * (w * rest / r - m / s0),
            (1 - c / s0 - w**2 * c / r) / 2,
        ]
        for name, score in zip(parameters, ([0, 1 / scale], [-1 / scale, 0, 1 / scale]), strict=True):
            drawn = _times(score, log_w)
            truth = _normal_mean(_times(drawn, drawn)) - _normal_mean(drawn) ** 2
            var, error = moments[name].var, moments[name].var_error
            assert var is not None
            assert error is not None
            assert error.item() <= 1e-8 * var.item()
            assert abs(mpmath.mpf(var.item()) - truth) <= error.item()


def test_a_variance_out_of_reach_takes_nothing_else_with_it() -> None:
    """A proposal twenty posterior deviations wide at K = 3: one uniform grid would be too long; K = 2 needs none."""
    names = ["iwae", "vimco_arithmetic"]
    result = toyiwae.exact(scaled_problem(1.0, 400.0), K=[2, 3], estimators=names)
    for cell in result.results:
        assert cell.gap is not None
        one, other = (cell.gradients[name].parameters["proposal_mean"] for name in names)
        np.testing.assert_allclose(np.asarray(one.mean), np.asarray(other.mean), rtol=1e-8)
        assert (other.var is None) == (cell.K == 3)
        assert ("not computed" in (other.reason or "")) == (cell.K == 3)


@pytest.mark.slow
def test_means_of_targets_state_what_cancelling_observations_round():
    """∂ log p/∂m₀ = Σ (x - m₀)/1.5/N cancels to nothing; K = 4 moves the jackknife's bound by less than 1e-16."""
    x = 1e3 * np.random.default_rng(3).normal(size=(200, 1))
    centre = x.mean()
    model = Model([centre], [[1.0]], [[1.0]], [0.0], [[0.5]])
    problem = Problem(model, Proposal(cov=[[0.34]], weight=[[2 / 3]], offset=[centre / 3]), Data(x))
    result = toyiwae.exact(problem, K=4, estimators=["jackknife", "iwae"], parameters=["prior_mean"])
    truth = float(sum(Fraction(float(v)) - Fraction(float(centre)) for v in x[:, 0]) / 300)
    for name in ("jackknife", "iwae"):
        found = result.results[0].gradients[name].parameters["prior_mean"]
        assert np.all(abs(found.mean - truth) <= found.mean_error + 1e-16)
        assert np.all(found.mean_error < 1e-10)
