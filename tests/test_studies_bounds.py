"""Claims of the studies of importance sampling, bounds, histograms and slips fail where the numbers are others."""

import pytest

from tests.test_studies import quick_table
from tests.test_studies_failing import holding


def test_other_weights_and_gaps_fail_the_claims_of_importance_sampling():
    curves, samples, variance, found = (
        quick_table("importance")[name] for name in ("curves", "samples", "variance", "divergence")
    )
    assert holding("importance", "samples", z_mean=samples.z_mean + 8)[0] is False
    assert holding("importance", "samples", z_var=samples.z_var + 8)[1] is False
    assert holding("importance", "variance", variance=variance.variance + 1e-3)[2:5:2] == [False, False]
    assert holding("importance", "variance", variance=1 / (1 + variance.variance))[3] is False
    assert holding("importance", "curves", gap=1 / curves.gap)[5] is False
    assert holding("importance", "divergence", divergence=found.gap * (1 + 1e-9))[6] is False


@pytest.mark.slow
def test_other_bounds_fail_the_claims_of_the_gallery():
    exact, facts, samples = (quick_table("gallery")[name] for name in ("exact", "facts", "samples"))
    assert holding("gallery", "exact", value=-exact.value)[0] is False
    assert holding("gallery", "facts", eubo=facts.log_evidence - 1)[1] is False
    assert holding("gallery", "exact", value=exact.value + 2)[2] is False
    assert holding("gallery", "facts", vr_constant=1.001 * facts.vr_constant)[3] is False
    assert holding("gallery", "exact", std=1.001 * exact["std"])[4] is False
    assert holding("gallery", "facts", cubo_limit=facts.cubo_limit + 1e-3)[5] is False
    assert holding("gallery", "exact", value=exact.value * exact.K**0.1)[6] is False
    assert holding("gallery", "samples", z=samples.z + 8)[8] is False


def test_other_gradients_fail_the_claims_of_the_histograms():
    summaries = quick_table("histograms")["summaries"]
    mean, std, count = (summaries[name] for name in ("mean", "std", "count"))
    assert holding("histograms", "summaries", mean=mean * count**1e-9)[0] is False
    assert holding("histograms", "summaries", mean=mean / count**0.5)[1] is False
    assert holding("histograms", "summaries", std=std / count**0.2)[2] is False
    assert holding("histograms", "summaries", z_var=summaries.z_var + 8)[3] is False


def test_other_formulas_fail_the_claims_of_the_slips():
    slips = quick_table("slips")["slips"]
    wrong = holding("slips", "slips", printed_error=slips.right_error, right_error=slips.printed_error)
    assert wrong[: 2 * len(slips)] == [False] * (2 * len(slips))
    assert holding("slips", "extras", vimco_bias=1e-3, flat_slope=0.5)[-2:] == [False, False]


@pytest.mark.slow
def test_other_moments_fail_the_claims_of_the_ratios():
    curves, laws = (quick_table("ratios")[name] for name in ("curves", "laws"))
    assert holding("ratios", "laws", slope=laws.slope + 0.01, constant=1.01 * laws.constant)[:2] == [
        False,
        False,
    ]
    assert holding("ratios", "curves", snr=1 / curves.snr, rmse=1 / curves.rmse)[2:4] == [False, False]
    assert holding("ratios", "curves", directional=curves.directional * curves.K**0.1)[4:] == [False, False]
