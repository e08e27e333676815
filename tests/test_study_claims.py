"""Studies of score functions, orders, budgets and sample sizes: whom they compare, and that wrong numbers fail."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

import functools
import math

import numpy as np
import pandas as pd
import pytest

from analysis.studies import (
    _alpha_claims,
    _alpha_truth,
    _budget_claims,
    _budget_truth,
    _collapse_claims,
    _ess_claims,
    _narrow_proposals,
    _score_claims,
    _score_truth,
    ratios,
)
from analysis.study import discover, settings_of
from toyiwae import estimators, plot
from toyiwae.errors import InputError
from toyiwae.estimators import both, iwae_bound, registry
from toyiwae.forms import Coefficients, Form

STUDIES = {study.name: study for study in discover()}


@functools.cache
def quick_table(name):
    """What a study computes at its quick settings, once for all tests."""
    return STUDIES[name].compute(settings_of(STUDIES[name], quick=True))


def failed(name, frame, **columns):
    """Numbers of the claims that fail, in order, when columns of one data frame are others."""
    table = quick_table(name)
    claims = STUDIES[name].verdicts({**table, frame: table[frame].assign(**columns)})
    return [place for place, claim in enumerate(claims) if not claim.passed]


@pytest.fixture
def dropped_in(monkeypatch):
    """Registers an estimator as a file in estimators/ would."""
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))

    def register(name, form, **claims):
        def function(log_w):
            """Dropped in: for the test."""
            return Coefficients(0 * log_w, 0 * log_w, 0 * log_w)

        function.__name__ = name
        return registry.estimator(target=both(iwae_bound), form=form, **claims)(function)

    return register


def test_a_new_estimator_takes_part_in_every_comparison_of_its_kind(dropped_in):
    dropped_in("new_score", Form({1: 1}, score={1: -1}))
    dropped_in("new_path", Form({1: 1}, path={1: 1}))
    assert "new_score" in {one.name for one in _score_truth.members()}
    asked = _budget_truth.asked(8, (0.0, 1.0), (1, 8))
    assert all("new_path" in {one.name for one in listed} for listed in asked.values())
    assert not any("new_score" in {one.name for one in listed} for listed in asked.values())


def test_comparisons_hold_whole_classes_of_the_registry():
    everyone = estimators.all()
    score = {one.family for one in _score_truth.members()}
    path = {one.family for listed in _budget_truth.asked(4, (0.5,), (2,)).values() for one in listed}
    assert score | path == {one.family for one in everyone}
    assert not score & path
    orders = {one.family for one in everyone if one.parameter_name == "alpha"}
    assert {one.family for one in _alpha_truth.families()} == orders - score
    assert all(m * k == 12 for m, k in _budget_truth.splits(12))
    assert len(_budget_truth.splits(12)) == 6


def test_compositions_are_all_ways_to_share_particles_among_states():
    found = _score_truth._compositions(5, 3)
    assert len(found) == math.comb(7, 2) == len({tuple(one) for one in found})
    assert (found.sum(axis=1) == 5).all()
    assert found.min() == 0
    assert len(_score_truth._compositions(4, 2)) == 5


def test_the_powers_of_k_join_where_a_moment_is_lost():
    for name in (_narrow_proposals.BASELINE, _narrow_proposals.UNIFORM):
        for beta in (-0.25, -0.5):
            near = [_narrow_proposals.exponent(beta + step, name) for step in (-1e-9, 1e-9)]
            assert near[0] == pytest.approx(near[1], abs=1e-7)
    assert _narrow_proposals.exponent(0.3, _narrow_proposals.BASELINE) == -0.5
    assert _narrow_proposals.exponent(0.3, _narrow_proposals.UNIFORM) == 0.5
    assert _narrow_proposals.exponent(-0.4, _narrow_proposals.UNIFORM) == pytest.approx(-0.25)


def test_the_front_holds_what_no_other_beats_in_both():
    error, worth = np.array([1.0, 2.0, 3.0, 2.0, np.nan]), np.array([1.0, 3.0, 2.0, 3.0, 9.0])
    assert _budget_truth._front(error, worth).tolist() == [True, True, False, True, False]


def test_who_needs_more_particles_than_there_are_is_named_under_the_ratios(dropped_in):
    dropped_in("needs_three", None, min_particles=3)
    curves = pd.DataFrame({"estimator": "iwae", "K": [2, 4], "snr": 1.0, "rmse": 1.0})
    missing = pd.DataFrame({"estimator": ["needs_three", "vimco_geometric"], "K": 2, "reason": "why"})
    text = ratios.caption({"curves": curves, "missing": missing})
    short = plot.short("vimco_geometric")
    assert text.endswith(
        f"Without exact variance: {short}. In need of more particles than the least $K$: Dropped in."
    )


def test_a_claim_of_agreement_fails_where_nothing_was_sampled():
    none, exact = pd.DataFrame(columns=["estimator", "K"]), pd.DataFrame({"latents": ["gaussian"]})
    claims = _ess_claims._sampled(none)
    claims += _score_claims._sampled({"exact": exact, "samples": none}, pd.DataFrame())
    claims += [_alpha_claims._sampled(none, exact), _budget_claims._sampled(none, exact)]
    claims.append(_collapse_claims._sampled({"samples": none}))
    assert [claim.passed for claim in claims] == [False] * 5


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("alpha", {"k": [8]}, r"k is \[8\]: expected two values or more"),
        ("alpha", {"k": [8, 8]}, r"k is \[8, 8\]: expected two values or more"),
        ("budget", {"sampled_k": 128}, "sampled_k is 128: expected at most budget, 64"),
        ("budget", {"betas": [0.0, 0.5]}, r"betas is \[0\.0, 0\.5\]: expected 0\.0 and 1\.0 among them"),
    ],
)
def test_settings_that_leave_nothing_to_compare_are_refused(name, changes, message):
    study = STUDIES[name]
    with pytest.raises(InputError, match=rf"^settings of {name}: {message}"):
        study.compute(settings_of(study, {name: changes}, quick=True))


@pytest.mark.slow
def test_wrong_numbers_fail_the_claims_of_score_functions():
    table = quick_table("discrete")
    exact, tuples = table["exact"], table["enumerated"]
    assert failed("discrete", "exact", var=exact["var"]) == []
    assert failed("discrete", "exact", var=exact["var"] * exact.K**0.01) == [0, 1, 2, 3, 4, 5, 6, 15]
    assert failed("discrete", "exact", mean=exact["mean"] * 1.001) == [1, 3, 5, 15]
    assert failed("discrete", "enumerated", var=tuples["var"] * (1 + 1e-2 * (tuples.K > 2))) == [13, 15]
    assert failed("discrete", "tails", slope=table["tails"].slope + 0.02) == [16]
    assert failed("discrete", "identity", apart=1e-6) == [10, 11]
    assert failed("discrete", "samples", mean=table["samples"]["mean"] + 9 * table["samples"].mean_se) == [14]


@pytest.mark.slow
def test_wrong_numbers_fail_the_claims_of_orders():
    table = quick_table("alpha")
    bounds, best, lines = table["bounds"], table["best"], table["lines"]
    assert failed("alpha", "ends", apart=table["ends"].apart + 1e-3) == [0, 1]
    assert failed("alpha", "bounds", gap=1 / bounds.gap) == [2, 3]
    assert failed("alpha", "exact", var=table["exact"]["var"] * table["exact"].K ** 0.1) == [4, 5]
    assert failed("alpha", "best", alpha=best.alpha * 1.1) == [8]
    assert failed("alpha", "lines", model_rmse=1.1 * lines.model_rmse) == [9]


@pytest.mark.slow
def test_wrong_numbers_fail_the_claims_of_a_budget():
    table = quick_table("budget")
    exact, together = table["exact"], table["together"]
    subsets = exact.family.eq("u_statistic") & ~exact.estimator.isin(["u_statistic:1", "u_statistic:64"])
    assert failed("budget", "exact", var=exact["var"].where(~subsets, 2 * exact["var"])) == [1, 8]
    assert failed("budget", "bounds", bound=table["bounds"].bound + 1e-6 * table["bounds"].M) == [0]
    partial = exact.family.eq("piwae")
    assert failed("budget", "exact", var=exact["var"].where(~partial, 2 * exact["var"])) == [4, 8]
    assert failed("budget", "together", proposal_snr=-together.proposal_snr) == []
    assert failed("budget", "together", proposal_snr=1 / together.proposal_snr) == [2, 6]
    assert failed("budget", "together", model_rmse=1 / together.model_rmse) == [7]
    each = table["each"]
    for wrong in (1 / each.model_rmse, each.K, each.M):  # the inner splits worst, one particle best, all best
        assert failed("budget", "each", model_rmse=wrong.astype(float)) == [3]


@pytest.mark.slow
def test_wrong_numbers_fail_the_claims_of_sample_sizes():
    table = quick_table("ess")
    curve, tails, images = table["curve"], table["tails"], table["images"]
    assert failed("ess", "curve", ess=curve.ess * 1.5) == [0, 1, 2]
    assert failed("ess", "limits", fraction=table["limits"].fraction * 1.01) == [1, 2, 4]
    assert failed("ess", "tails", ess=tails.ess * tails.K**0.05) == [6]
    assert failed("ess", "images", ess=-images.ess) == [7]
    assert failed("ess", "samples", z=8.0) == [8]
