"""Sampled means, variances and directional ratios: those of the replicates, with reasons where there are none."""

import math
from dataclasses import replace

import numpy as np
import pytest

import toyiwae
from tests.problems import random_problem
from tests.test_estimate import AMORTISED, ONE_ROW, joined, unbiased, user_estimator
from toyiwae import stats
from toyiwae.errors import PrecisionError
from toyiwae.estimators import Target
from toyiwae.montecarlo import api


def test_the_statistics_are_those_of_the_replicates():
    options = {"K": 4, "M": 2, "replicates": 3000, "seed": 2}
    values, gradients = joined(AMORTISED, "dreg", **options)
    result = toyiwae.estimate(AMORTISED, estimators="dreg", **options)
    cell, truth = result.cell(4, 2), toyiwae.exact(AMORTISED, K=4, M=2, estimators="dreg").cell(4, 2)
    assert cell.bound.estimate == pytest.approx(values.mean(), rel=1e-12)
    assert cell.bound.se == pytest.approx(values.std(ddof=1) / math.sqrt(3000), rel=1e-10)
    assert cell.bound.truth == truth.bound
    for name, moments in cell.gradients["dreg"].items():
        samples = gradients["dreg"][name]
        exact = np.asarray(truth.gradients["dreg"].parameters[name].mean)
        np.testing.assert_allclose(moments.mean, samples.mean(0), rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(moments.var, samples.var(0, ddof=1), rtol=1e-10)
        snr = np.abs(samples.mean(0)) / samples.std(0, ddof=1)
        np.testing.assert_allclose(moments.snr, snr, rtol=1e-9, atol=1e-12)
        rmse = np.sqrt(((samples - exact) ** 2).mean(0))
        np.testing.assert_allclose(np.asarray(moments.rmse), rmse, rtol=1e-10)
        assert np.array_equal(np.asarray(moments.truth_mean), exact)


def split(samples, direction):
    """Lengths along a direction and across it."""
    along = samples @ direction / np.linalg.norm(direction)
    across = samples - along[:, None] * direction / np.linalg.norm(direction)
    return np.abs(along), np.linalg.norm(across, axis=1)


def root_ratio(along, across):
    """√(ā/b̄) of the squares a and b, and its standard error by the delta method: `½ √(ā/b̄) sd(a/ā − b/b̄)/√n`."""
    a, b = along**2, across**2
    value = math.sqrt(a.mean() / b.mean())
    return value, 0.5 * value * (a / a.mean() - b / b.mean()).std(ddof=1) / math.sqrt(len(a))


def flat(parts, *names):
    return np.concatenate([parts[name].reshape(len(parts[name]), -1) for name in names], axis=1)


def test_directional_snr_is_a_ratio_of_parallel_to_perpendicular_parts():
    options = {"K": 4, "M": 2, "replicates": 2000, "seed": 2}
    _, gradients = joined(AMORTISED, "iwae", **options)
    cell = toyiwae.estimate(AMORTISED, estimators="iwae", **options).cell(4, 2)
    truth = toyiwae.exact(AMORTISED, K=4, M=2, estimators="iwae").cell(4, 2).gradients["iwae"].parameters
    parts = {"model": ["prior_mean"], "proposal": ["proposal_weight", "proposal_offset"]}
    for part, names in parts.items():  # the last has three dimensions across: everything has a standard error
        means = np.concatenate([np.ravel(np.asarray(truth[name].mean)) for name in names])
        along, across = split(flat(gradients["iwae"], *names), means)
        found = cell.directional_snr["iwae"][part]
        assert found.direction == "exact"
        value, se = root_ratio(along, across)
        assert found.estimate == pytest.approx(value, rel=1e-10)
        assert found.se == pytest.approx(se, rel=1e-8)
        assert found.mean_ratio == pytest.approx((along / across).mean(), rel=1e-10)
        if part == "proposal":
            assert found.mean_ratio_se == pytest.approx(
                (along / across).std(ddof=1) / math.sqrt(2000), rel=1e-8
            )


def test_sampled_and_exact_directional_snrs_are_one_quantity():
    """Four comparisons at a family-wise rate of 1e-6; a mean of ratios would fail each by more than 20 deviations."""
    options = {"K": 4, "M": 2, "estimators": ["iwae", "dreg"]}
    sampled = toyiwae.estimate(AMORTISED, replicates=20_000, seed=5, **options).cell(4, 2)
    exact = toyiwae.exact(AMORTISED, covariance=True, **options).cell(4, 2)
    threshold = stats.family_threshold(4, 1e-6)
    for name, truth in exact.gradients.items():
        for part, value in (truth.directional_snr or {}).items():
            found = sampled.directional_snr[name][part]
            assert found.estimate is not None
            assert found.se is not None
            assert value is not None
            assert abs(found.estimate - value) < threshold * found.se
            if found.mean_ratio is not None and found.mean_ratio_se is not None:
                assert abs(found.mean_ratio - value) > threshold * found.mean_ratio_se


@pytest.mark.parametrize(
    ("dim", "reason"),
    [(1, "nothing varies across"), (2, "mean_ratio is infinite"), (3, "_se is infinite"), (4, None)],
)
def test_directional_snr_exists_where_there_are_dimensions_enough(dim, reason):
    result = toyiwae.estimate(random_problem(3, dim, dim + 1), K=2, estimators="iwae", replicates=50, seed=1)
    ratio = result.cell(2).directional_snr["iwae"]["proposal"]
    assert (ratio.estimate is None) == (ratio.se is None) == (dim < 2)
    assert (ratio.mean_ratio is None) == (dim < 3)
    assert (ratio.mean_ratio_se is None) == (dim < 4)
    assert reason in ratio.reason if reason else ratio.reason is None


def nothing_known(log_w):
    """IWAE, about which nothing is claimed."""
    return unbiased(log_w)


def test_without_a_truth_there_are_nulls_with_a_reason_and_directions_from_a_pilot():
    estimator = replace(user_estimator(nothing_known), target=Target(None, None))
    options = {"K": 3, "replicates": 2000, "seed": 1}
    result = toyiwae.estimate(random_problem(6, 4, 5), estimators=[estimator, "iwae"], **options)
    document = result.to_dict()["results"][0]
    unknown = document["gradients"]["nothing_known"]["prior_mean"]
    assert unknown["truth_mean"] is unknown["truth_var"] is unknown["z"] is unknown["rmse"] is None
    assert unknown["reason"]
    pair = [result.cell(3).directional_snr[name]["proposal"] for name in ("nothing_known", "iwae")]
    assert [ratio.direction for ratio in pair] == ["pilot", "exact"]
    assert pair[0].estimate == pytest.approx(pair[1].estimate, rel=0.1)


def test_a_mean_that_is_not_known_everywhere_has_no_exact_direction(monkeypatch):
    """A NaN made the direction zero, and "the mean is zero" the reason."""
    truth = toyiwae.exact(AMORTISED, K=3, estimators="iwae")
    (cell,) = truth.results
    gradient = cell.gradients["iwae"]
    moments = gradient.parameters["proposal_offset"]
    mean = np.where(np.arange(np.asarray(moments.mean).size) == 1, np.nan, np.asarray(moments.mean))
    parameters = gradient.parameters | {"proposal_offset": replace(moments, mean=mean, reason="withheld")}
    hidden = replace(cell, gradients={"iwae": replace(gradient, parameters=parameters)})
    monkeypatch.setattr(api, "exact", lambda *args, **options: replace(truth, results=(hidden,)))
    result = toyiwae.estimate(AMORTISED, K=3, estimators="iwae", replicates=200, seed=1)
    pair = result.cell(3).directional_snr["iwae"]
    assert (pair["model"].direction, pair["proposal"].direction) == ("exact", "pilot")
    assert pair["proposal"].estimate is not None


def test_a_truth_that_cannot_be_computed_is_a_reason_not_an_error(monkeypatch):
    def failing(*args, **options):
        raise PrecisionError("the integral does not settle")

    monkeypatch.setattr(api, "exact", failing)
    result = toyiwae.estimate(ONE_ROW, K=3, replicates=10, seed=1)
    cell = result.to_dict()["results"][0]
    assert cell["bound"]["truth"] is None
    assert cell["bound"]["reason"] == "the integral does not settle"
    assert cell["gradients"]["iwae"]["prior_mean"]["reason"] == "the integral does not settle"
    assert result.agreement().tests == 0


def test_what_vanishes_has_no_snr_and_agrees_exactly():
    posterior = toyiwae.exact(ONE_ROW, K=1).posterior
    proposal = toyiwae.Proposal(posterior["cov"], mean=np.ravel(posterior["mean"]))
    problem = toyiwae.Problem(ONE_ROW.model, proposal, ONE_ROW.data)
    result = toyiwae.estimate(problem, K=4, M=3, estimators="dreg,iwae", replicates=500, seed=1)
    cell = result.to_dict()["results"][0]
    vanishing = cell["gradients"]["dreg"]["proposal_mean"]
    assert vanishing["mean"] == vanishing["var"] == vanishing["rmse"] == [0.0, 0.0]
    assert vanishing["snr"] == [None, None]
    assert "0/0" in vanishing["reason"]
    assert vanishing["z"] == [0.0, 0.0]
    assert cell["bound"]["se"] < 1e-12
    assert result.agreement().passed
