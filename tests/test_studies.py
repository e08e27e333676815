"""The studies themselves at their quick settings, and the independent check that their limits come from."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportOptionalSubscript=false

import dataclasses
import functools

import numpy as np
import pytest

import toyiwae
from analysis import measures, runner
from analysis.closed_limits import ClosedLimits
from analysis.studies import _budget_truth, _expansion_terms
from analysis.study import discover, settings_of
from tests.problems import random_problem
from toyiwae import estimators
from toyiwae.errors import InputError, MissingMomentError
from toyiwae.problems.linear_gaussian import Proposal

STUDIES = {study.name: study for study in discover()}


@functools.cache
def quick_table(name):
    """What a study computes at its quick settings, once for all tests."""
    study = STUDIES[name]
    return study.compute(settings_of(study, quick=True))


SHORT = {"gap", "limit", "histograms", "slips"}


def marked(name):
    """A study that takes seconds even at its quick settings is run by the long tests, and by every report."""
    return pytest.param(name, marks=[] if name in SHORT else [pytest.mark.slow])


@pytest.mark.parametrize("name", [marked(name) for name in STUDIES])
def test_quick_studies_hold_their_claims(name):
    study = dataclasses.replace(STUDIES[name], compute=lambda _: quick_table(name))
    outcome = runner.run(study, settings_of(study, quick=True))
    assert not outcome.error
    assert [claim for claim in outcome.claims if not claim.passed] == []
    assert outcome.caption


def test_the_snr_study_takes_its_estimators_from_the_registry():
    study = STUDIES["snr"]
    small = {"compared_k": 10, "replicates": 2, "largest_k": 10}
    table = study.compute(settings_of(study, {"snr": small}, quick=True))
    found, missing = set(table["estimators"].estimator), set(table["missing"].estimator)
    assert found | missing == {estimator.name for estimator in estimators.all()}
    exact = {e.name for e in estimators.all() if e.form is not None and not e.form.leave_one_out_geometric}
    assert found == exact | {e.name for e in estimators.all() if e.subsets is not None}
    assert not found & missing
    caption = study.caption(table)
    assert all(name in caption for name in missing)


@pytest.mark.slow
def test_a_variance_that_m_does_not_divide_fails_its_claim():
    study, table = STUDIES["snr"], dict(quick_table("snr"))
    samples = table["samples"]
    claims = {claim.text: claim.passed for claim in study.verdicts(table)}
    shifted = samples.z_var + np.log(samples.M) / np.sqrt(2 / samples.replicates)
    table["samples"] = samples.assign(z_var=shifted)
    failed = [claim.text for claim in study.verdicts(table) if not claim.passed and claims[claim.text]]
    assert len(failed) == 1
    assert "number of groups" in failed[0]


def test_a_wrong_gap_fails_its_claims():
    study, table = STUDIES["gap"], dict(quick_table("gap"))
    curve = table["curve"]
    table["curve"] = curve.assign(
        gap=curve.gap * (1 + 1e-5), departure=(1 + curve.departure) * (1 + 1e-5) - 1
    )
    assert [claim.passed for claim in study.verdicts(table)] == [True, True, False, False, True]


@pytest.mark.parametrize("name", ["gap", "limit"])
def test_a_number_that_multiprecision_contradicts_fails_its_claim(name):
    study, table = STUDIES[name], dict(quick_table(name))
    limits = table["check"]
    assert study.verdicts(table)[-1].passed
    table["check"] = limits.assign(relative_error=np.where(limits.index == 1, 1e-11, 0.0))
    assert [claim.passed for claim in study.verdicts(table)][-1] is False


def replaced(study, table, frame, **columns):
    """Whether each claim holds when columns of one data frame are others."""
    changed = {**table, frame: table[frame].assign(**columns)}
    return [claim.passed for claim in STUDIES[study].verdicts(changed)]


@pytest.mark.slow
def test_the_studies_of_training_fail_where_the_numbers_are_others():
    table = quick_table("training")
    assert replaced("training", table, "images", ess=-table["images"].ess) == [False, True]
    images = table["images"]
    assert replaced("training", table, "images", log_p=2 * images.bound_64 - images.log_p) == [True, False]
    table = quick_table("likelihood")
    below = table["likelihood"].below
    assert replaced("likelihood", table, "likelihood", below=below + 0.1) == [False, True, True]
    assert replaced("likelihood", table, "likelihood", below=-below) == [False, False, False]
    table = quick_table("encoder_snr")
    level = table["against_k"].groupby("K").log_snr.transform("mean")
    assert replaced("encoder_snr", table, "against_k", log_snr=level) == [False, False]
    table, kept = quick_table("transfer"), [True] * 5
    squared = table["squares"].squared
    rows = table["squares"].network.eq("linear decoder") & table["squares"].image.eq(0)
    assert replaced("transfer", table, "squares", squared=squared.where(~rows, 30 * squared))[0] is False
    swapped = table["squares"].K.replace({4: 64, 64: 4})
    assert replaced("transfer", table, "squares", K=swapped)[1:4] == [False, False, False]
    assert replaced("transfer", table, "squares", squared=squared * table["squares"].K)[4] is False
    assert replaced("transfer", table, "images", least_var=0.8) == [*kept, False]


def test_the_gap_of_weights_without_variance_follows_the_law_of_their_tail():
    problem = random_problem(4, 3, 4, rows=3)
    narrow = dataclasses.replace(
        problem, proposal=Proposal(ClosedLimits(problem).cov * 0.42, mean=problem.proposal.mean)
    )
    limits, k = ClosedLimits(narrow), 10**12
    assert limits.least_beta() == pytest.approx(-0.58)
    gaps = toyiwae.exact(narrow, K=k, estimators="elbo").results[0].per_row["gap"]
    np.testing.assert_allclose(limits.heavy_tail_gap(k) / gaps, 1.0, atol=3 * gaps.max())
    assert gaps.max() < 1e-4
    with pytest.raises(MissingMomentError, match="finite"):
        ClosedLimits(problem).heavy_tail_gap(k)


def test_the_tail_of_a_whole_order_has_its_law_and_mismatches_without_an_end_are_refused():
    found, k = _expansion_terms.ending(-0.5, [10**6], 24).iloc[0], 10**6  # s* = 2 + 4e-16
    assert found.order == 0
    assert found.remainder / found.law == pytest.approx(1, abs=10 * np.log(k) ** 0.5 / k)
    with pytest.raises(InputError, match="between −1 and 0"):
        _expansion_terms.ending(0.1, [10], 24)
    with pytest.raises(InputError, match="−1/β a whole number"):
        _expansion_terms.ending(-0.4999, [10], 24)
    with pytest.raises(InputError, match="ending_beta"):
        settings_of(STUDIES["expansion"], {"expansion": {"ending_beta": [0.1]}})


def test_a_gap_that_falls_like_1_over_k_fails_the_claims_of_a_heavy_tail():
    study = STUDIES["digits"]
    small = {"latents": 10, "images": 9, "examples": 2}
    table = dict(study.compute(settings_of(study, {"digits": small}, quick=True)))
    assert all(claim.passed for claim in study.verdicts(table))
    tail = table["tail"]
    far, near = (f"gap_{k}" for k in (10**12, 9 * 10**11))
    table["tail"] = tail.assign(**{far: 0.9 * tail[near]})
    assert [claim.passed for claim in study.verdicts(table)][-2:] == [False, False]


@pytest.mark.parametrize("amortised", [False, True])
def test_the_closed_limits_are_the_limits_of_the_exact_answers(amortised):
    problem = random_problem(3, dim_z=3, dim_x=4, rows=5, amortised=amortised)
    cov = problem.proposal.cov * 1.6
    problem = dataclasses.replace(problem, proposal=dataclasses.replace(problem.proposal, cov=cov))
    limits, k = ClosedLimits(problem), 10**7
    truth = toyiwae.exact(problem, K=k, estimators=("iwae", "dreg"))
    cell = truth.results[0]
    rows = cell.per_row["gap"]
    np.testing.assert_allclose(k * rows, limits.weight_variance() / 2, rtol=1e-4)
    np.testing.assert_allclose(toyiwae.exact(problem, K=1).results[0].per_row["gap"], limits.kl(), rtol=1e-10)
    name = "proposal_weight" if amortised else "proposal_mean"
    iwae, dreg = (cell.gradients[which].parameters for which in ("iwae", "dreg"))
    drift, slope = limits.inference_drift(), limits.evidence_slope()
    for moments, rows_mean, rows_var, power, parameter in [
        (iwae, drift, limits.inference_noise(), 1, name),
        (dreg, drift, limits.inference_noise_dreg(), 3, name),
        (iwae, slope, limits.generative_noise(), 1, "prior_mean"),
    ]:
        mean = limits.average(rows_mean, parameter) / k ** (parameter == name)
        var = limits.average(rows_var, parameter, squared=True) / float(k) ** power
        np.testing.assert_allclose(moments[parameter].mean, mean, rtol=1e-3, atol=1e-4 * np.abs(mean).max())
        np.testing.assert_allclose(moments[parameter].var, var, rtol=1e-3)


def test_the_closed_limits_refuse_moments_that_do_not_exist():
    problem = random_problem(4, rows=2)
    narrow = dataclasses.replace(
        problem, proposal=Proposal(ClosedLimits(problem).cov * 0.4, mean=problem.proposal.mean)
    )
    assert ClosedLimits(narrow).least_beta() == pytest.approx(-0.6)
    with pytest.raises(MissingMomentError, match=r"E\[w\^2\] is infinite"):
        ClosedLimits(narrow).weight_variance()


def test_measures():
    assert measures.counts(1000, 1) == [1, 10, 100, 1000]
    assert measures.counts(10, 4) == [1, 2, 3, 6, 10]
    x = np.array([1.0, 2.0, 8.0])
    np.testing.assert_allclose(measures.slopes(x, np.stack([x**-0.5, -(x**2)], axis=1)), [[-0.5, 2.0]] * 2)
    assert measures.farthest([0.9, 1.2, 1.05], 1.0) == 1.2
    assert np.isnan(measures.farthest([1.0, np.nan], 1.0))
    assert np.isnan(measures.farthest([], 1.0))
    largest, limit, tests = measures.agreement([0.5, -2.0], replicates=1000)
    assert (largest, tests) == (2.0, 2)
    assert 5 < limit < 5.3
    assert np.isnan(measures.agreement([np.nan, 1.0], 10)[0])
    assert measures.detectable(2.0, 1) == 2 * measures.detectable(1.0, 1)


@pytest.mark.parametrize("sampled_k", [2, 16])
def test_what_a_budget_samples_is_named_once_where_one_group_has_all_of_it_too(sampled_k):
    asked = _budget_truth.asked(16, (0.0, 0.5, 1.0), [1, 2, 16])
    places = _budget_truth.sampled_at(asked, sampled_k)
    assert set(places) == {(16 // sampled_k, sampled_k), (1, 16)}
    assert all(len(set(names)) == len(names) for names in places.values())
    assert {"ciwae:0.5", "u_statistic:2"} <= set(places[1, 16])
