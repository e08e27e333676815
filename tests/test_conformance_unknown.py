"""What is not known of the truth is not judged, and is told; what is known beside it is judged as ever."""

from dataclasses import replace

import numpy as np
import pytest

import toyiwae
from tests.members import correct
from toyiwae import estimators
from toyiwae.conformance import api
from toyiwae.conformance.bank.bank import bank, nonlinear_bank
from toyiwae.conformance.checks import dependence, mean_variance, sequential
from toyiwae.conformance.checks.hypothesis_tests import Compared, worst
from toyiwae.conformance.checks.mean_variance import Level
from toyiwae.conformance.truths import linear_gaussian, nonlinear, targets, values
from toyiwae.conformance.truths.targets import Truth
from toyiwae.oracle.finite_k.every_k import log_moments
from toyiwae.truth import linear_gaussian as gaussian_source

LEVEL, WHERE = Level(1e-6, 10), {"problem": "any", "K": 2, "M": 1}
NAN, N = float("nan"), 3000


def normal(seed=0, shift=0.0, size=3):
    """Replicates of a gradient, its last coordinate off by some standard deviations."""
    x = np.random.default_rng(seed).standard_normal((N, size))
    x[:, -1] += shift
    return {"proposal_mean": x}


def known(mean=(0.0, 0.0, 0.0), var=(1.0, 1.0, 1.0), **options):
    """A truth whose errors are NaN where its numbers are."""
    mean, var = np.array(mean), np.array(var)
    options = {
        "kurtosis": np.full(3, 3.0),
        "mean_reason": "mean masked",
        "var_reason": "var masked",
    } | options
    return {"proposal_mean": Truth(mean, 0.0 * mean, var, 1e-9 * var, **options)}  # fmt: skip


def summary(checks):
    return [(c.name, c.coordinates, c.passed, c.reason) for c in checks]


# the checks ----------------------------------------------------------------------------------------------


def test_means_that_are_not_known_are_left_out_and_told():
    def judged(mean, shift=0.0):
        return summary(mean_variance.mean_checks(normal(shift=shift), known(mean), WHERE, LEVEL, 15))

    assert judged((0.0, 0.0, 0.0)) == [("mean", 3, True, None)]
    rest = ("mean where it is not known", 1, None, "1 of 3 coordinates: mean masked")
    assert judged((NAN, 0.0, 0.0)) == [("mean", 2, True, None), rest]
    assert judged((NAN, 0.0, 0.0), shift=1.0) == [("mean", 2, False, None), rest]
    assert judged((NAN, NAN, NAN)) == [("mean", 3, None, "mean masked")]


def test_means_that_are_known_too_vaguely_are_left_out_and_told():
    truth = known()["proposal_mean"]
    vague = {"proposal_mean": replace(truth, mean_error=np.array([0.1, 0.0, NAN]))}
    first, rest = mean_variance.mean_checks(normal(), vague, WHERE, LEVEL, 15)
    assert (first.coordinates, first.passed) == (1, True)
    assert rest.coordinates == 2
    assert rest.reason is not None
    assert "1 of 3 coordinates: mean masked" in rest.reason
    assert "1 of 3 coordinates: the truth is not known to 1 %" in rest.reason


@pytest.mark.parametrize("value", [NAN, np.inf])
def test_a_value_that_is_not_known_is_not_judged(value):
    truths = {"value": Truth(np.asarray(value), np.asarray(0.0), mean_reason="masked")}
    arrays = {"value": normal()["proposal_mean"][:, 0]}
    assert summary(mean_variance.mean_checks(arrays, truths, WHERE, LEVEL, 15)) == [
        ("mean", 1, None, "masked")
    ]


@pytest.mark.parametrize("kurtosis", [np.full(3, 3.0), None], ids=["known kurtosis", "estimated"])
def test_variances_that_are_not_known_are_not_zero(kurtosis):
    def judged(var, scale=1.0, mean=(0.0, 0.0, 0.0)):
        arrays = {"proposal_mean": normal()["proposal_mean"] * np.array([1.0, 1.0, scale])}
        truths = known(mean, var, kurtosis=kurtosis)
        return summary(mean_variance.variance_checks(arrays, truths, WHERE, LEVEL, 15))

    rest = ("variance where it is not known", 1, None, "1 of 3 coordinates: var masked")
    assert judged((1.0, 1.0, 1.0)) == [("variance", 3, True, None)]
    assert judged((NAN, 1.0, 1.0)) == [("variance", 2, True, None), rest]
    assert judged((NAN, 1.0, 1.0), scale=1.5) == [("variance", 2, False, None), rest]
    assert judged((NAN, NAN, NAN)) == [("variance", 3, None, "var masked")]
    assert judged((NAN, 0.0, 0.0)) == [("variance", 2, False, None), rest]
    off = ("variance where it is not known", 1, None, "1 of 3 coordinates: mean masked")
    assert judged((1.0, 1.0, 1.0), mean=(NAN, 0.0, 0.0)) == [("variance", 2, True, None), off]


def test_a_fourth_moment_that_is_not_known_is_told():
    truths = known(kurtosis=np.array([NAN, 3.0, 3.0]))
    first, rest = mean_variance.variance_checks(normal(), truths, WHERE, LEVEL, 15)
    assert (first.coordinates, first.passed) == (2, True)
    assert rest.reason == "1 of 3 coordinates: the fourth moment is not known"


def test_a_nan_hides_no_other_coordinate():
    p, shift = np.array([0.3, NAN, 0.0]), np.array([1.0, NAN, 9.0])
    compared = Compared(shift, shift, p, shift)
    assert worst(compared, np.array([True, False, True])) == (2,)
    assert worst(compared, np.array([True, True, False])) == (1,), (
        "a judged coordinate without a p-value fails"
    )


def test_replicates_too_large_for_their_squares_fail():
    arrays = normal()
    arrays["proposal_mean"][:, 0] *= 1e200
    with np.errstate(all="ignore"):
        checks = [
            *mean_variance.mean_checks(arrays, known(), WHERE, LEVEL, 15),
            *mean_variance.variance_checks(arrays, known(), WHERE, LEVEL, 15),
        ]
    assert [check.passed for check in checks] == [False, False]


def test_sequential_mode_wagers_on_what_is_known():
    def started(mean, var):
        return sequential.start(known(mean, var)["proposal_mean"], ("any", 2, 1), "proposal_mean")

    process, refused = started((NAN, 0.0, 0.0), (1.0, NAN, 1.0))
    assert process is not None
    process.add(normal(shift=0.5)["proposal_mean"])
    assert np.isfinite(process.peak).all()
    assert process.peak.argmax() == 2
    assert process.peak[2] > np.log(1e6)
    assert [(c.coordinates, c.passed) for c in refused] == [(2, None)]
    assert refused[0].reason is not None
    assert "1 of 3 coordinates: mean masked" in refused[0].reason
    assert "1 of 3 coordinates: no bound on the variance: var masked" in refused[0].reason
    process, refused = started((0.0, 0.0, 0.0), (NAN, NAN, NAN))
    assert process is None
    assert refused[0].reason == "no bound on the variance: var masked"


# the whole suite -----------------------------------------------------------------------------------------


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(api, "bank", lambda: bank()[:1])


@pytest.mark.usefixtures("_small")
@pytest.mark.parametrize("stops", [False, True], ids=["all tiers", "sequential"])
def test_a_variance_that_exact_masks_is_no_reason_to_fail(stops, monkeypatch):
    """A variance known to four digits is masked; NaN was taken for a variance of 0."""

    def coarse(*args):
        found = log_moments(*args)
        return replace(found, var=found.var.widened(1e-4 * np.abs(found.var.value)))

    monkeypatch.setattr(gaussian_source, "log_moments", coarse)
    report = toyiwae.check(correct("ovis:0"), "ovis:0", K=30, M=1, shift=0.3, sequential=stops)
    assert report.verdict == "conforms", report.failures
    told = [c for c in report.refused if "of its size, not to 1e-08" in (c.reason or "")]
    assert {c.parameter for c in told} == {"proposal_mean", "proposal_chol"}


def masked(cell, name):
    """A cell whose target bound is masked."""
    hidden = replace(cell.gradients[name], target_bound=None, target_bound_error=None, reason="masked")
    return replace(cell, gradients=cell.gradients | {name: hidden})


@pytest.mark.parametrize("module", [linear_gaussian, nonlinear])
def test_another_bound_does_not_stand_in_for_one_that_is_masked(module, monkeypatch):
    """L_K was taken for the value of vr_iwae, wherever its own bound was None."""
    name, inner = "vr_iwae:0.5", module.exact

    def exact(*args, **options):
        found = inner(*args, **options)
        return replace(found, results=tuple(masked(cell, name) for cell in found.results))

    monkeypatch.setattr(module, "exact", exact)
    monkeypatch.setattr(module, "_KNOWN", {})
    entry = replace((bank() if module is linear_gaussian else nonlinear_bank())[0], cells=((3, 1),))
    truth = module.truths(targets.Target.of(name), entry)[3, 1]["value"]
    assert (truth.mean, truth.mean_reason) == (None, "masked")
    assert truth.var is not None


def test_an_estimator_without_a_target_reports_the_bound_of_its_particles():
    claimed = replace(estimators.get("iwae"), target=estimators.Target(None, None))
    cell = toyiwae.exact(bank()[0].problem, K=3, estimators="iwae").cell(3)
    target = targets.Target("iwae", claimed, named=True)
    found = values.truth(target, cell, -1.0)
    assert found.mean is not None
    assert (float(found.mean), found.mean_reason, found.log_evidence) == (cell.bound, None, -1.0)
    assert found.mean_error > 0
    found = values.truth(target, replace(cell, bound=None, reason="masked"), -1.0)
    assert (found.mean, found.mean_reason) == (None, "masked")


# replicates twice ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2, 4])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16"])
def test_what_rounding_repeats_is_not_held_against_the_replicates(columns, dtype):
    digits = {"float64": 15, "float32": 6, "float16": 3}[dtype]
    x = np.random.default_rng(1).standard_normal((40_000, columns)).astype(dtype).astype(float)
    check = dependence.repeat_check(x, WHERE, LEVEL, 15 if dtype == "float32" else digits, 8)
    assert check.passed is (True if columns * digits >= 12 else None)
    if (columns, dtype) in ((1, "float32"), (1, "float16"), (2, "float16")):
        assert len(x) - len(np.unique(x, axis=0)) >= 3, "independent, and yet they repeat"
    x[20_000:20_010] = x[:10]
    check = dependence.repeat_check(x, WHERE, LEVEL, digits, 8)
    assert check.passed is (False if columns * digits >= 12 else None)


def test_columns_that_follow_from_one_another_count_once():
    x = np.random.default_rng(1).standard_normal((40_000, 1)).astype("float32").astype(float)
    joint = (x * np.array([[1.0, -2.0, 4.0]])) + 8.0 * np.array([[0.0, 0.0, 0.0]])
    assert dependence.repeat_check(joint, WHERE, LEVEL, 6, 8).passed is None
    noise_is_one = np.random.default_rng(1).standard_normal((40_000, 4))
    assert dependence.repeat_check(noise_is_one, WHERE, LEVEL, 15, 1).passed is None
