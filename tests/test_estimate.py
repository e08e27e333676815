"""Estimates beside their truth: agreement, the statistics, what does not exist, and what is refused."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch

import toyiwae
from tests.problems import random_problem, reference
from toyiwae import stats
from toyiwae.errors import InputError, PrecisionError
from toyiwae.estimators import Target, both, iwae_bound
from toyiwae.estimators.record import family
from toyiwae.forms import Coefficients
from toyiwae.montecarlo import Chunk, api, replicates

ONE_ROW = random_problem(1)
AMORTISED = random_problem(2, 3, 2, rows=4, amortised=True)


def user_estimator(function):
    """A user's estimator that claims to be unbiased for L_K and gives no Form."""
    claims = {"target": both(iwae_bound), "form": None, "value": None}
    claims |= {"vanishes_at_posterior": False, "subsets": None, "min_particles": 1}
    shared = {"shift_invariant": True, "cite": (), "between": (-math.inf, math.inf)}
    return family(function, claims, shared)


def unbiased(log_w):
    """IWAE once more."""
    shares = torch.softmax(log_w, -1) / log_w.shape[-2]
    return Coefficients(shares, shares, -shares)


def biased(log_w):
    """IWAE with a tenth of its score missing."""
    shares = torch.softmax(log_w, -1) / log_w.shape[-2]
    return Coefficients(shares, shares, -0.9 * shares)


def joined(problem, estimators, **options):
    """All replicates, as NumPy arrays."""
    chunk = Chunk.join(list(replicates(problem, estimators, **options)))
    return chunk.values, {
        name: {parameter: value for parameter, value in parts.items()}
        for name, parts in chunk.gradients.items()
    }


# Agreement with the truth -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("replicates", "shift"),
    [(5_000, 0.15), pytest.param(40_000, 0.05, marks=pytest.mark.slow)],
    ids=["few", "many"],
)
@pytest.mark.parametrize(
    "problem", [ONE_ROW, pytest.param(AMORTISED, marks=pytest.mark.slow)], ids=["one row", "amortised"]
)
def test_estimates_agree_with_the_truth(problem, replicates, shift, capsys):
    """Every registered estimator with an exact mean, at K = 8, M = 3; rate 1e-6 over both problems."""
    exact = toyiwae.exact(problem, K=8, M=3, estimators=toyiwae.estimators.all()).cell(8, 3)
    known = [
        name
        for name, truth in exact.gradients.items()
        if all(moments.mean is not None for moments in truth.parameters.values())
    ]
    assert len(known) >= len(toyiwae.estimators.all()) - 1
    result = toyiwae.estimate(problem, K=8, M=3, estimators=known, replicates=replicates, seed=20)
    agreement = result.agreement(rate=0.5e-6)
    with capsys.disabled():
        print(
            f"\n{len(known)} estimators, {agreement.tests} tests: largest |z| {agreement.largest_z:.2f},"
            f" threshold {agreement.threshold:.2f}; smallest detectable shift"
            f" {agreement.smallest_shift:.4f} standard deviations of one replicate"
        )
    assert agreement.passed
    assert stats.smallest_detectable_shift(replicates, tests=agreement.tests, rate=0.5e-6) < shift


def test_an_estimator_that_is_not_what_it_claims_disagrees():
    options = {"K": 8, "M": 3, "replicates": 40_000, "seed": 21}
    right = toyiwae.estimate(ONE_ROW, estimators=[user_estimator(unbiased)], **options)
    wrong = toyiwae.estimate(ONE_ROW, estimators=[user_estimator(biased)], **options)
    assert right.agreement().passed
    assert not wrong.agreement().passed


@pytest.mark.slow
def test_false_alarms_are_as_rare_as_stated(monkeypatch):
    """200 seeds at family-wise rate 0.05: alarms within the binomial bound at 1e-6."""
    options = {"K": 4, "M": 3, "estimators": toyiwae.estimators.all(), "replicates": 1500}
    truth = toyiwae.exact(ONE_ROW, K=4, M=3, estimators=toyiwae.estimators.all())
    monkeypatch.setattr(api, "exact", lambda *args, **kwargs: truth)  # the same for every seed
    results = (toyiwae.estimate(ONE_ROW, seed=seed, **options) for seed in range(200))
    alarms = sum(not result.agreement(rate=0.05).passed for result in results)
    assert scipy.stats.binom.sf(alarms - 1, 200, 0.05) > 1e-6


def elbo_gradients(problem):
    """∇ELBO of a problem with one row in closed form."""
    model, q, x = problem.model, problem.proposal, problem.data.x
    prior, noise = np.linalg.inv(model.prior_cov), np.linalg.inv(model.noise_cov)
    residual = x - model.offset - model.loading @ q.mean
    pull = noise @ residual
    chol = np.linalg.cholesky(q.cov)
    precision = prior + model.loading.T @ noise @ model.loading
    return {
        "prior_mean": prior @ (q.mean - model.prior_mean),
        "loading": np.outer(pull, q.mean) - noise @ model.loading @ q.cov,
        "offset": pull,
        "proposal_mean": model.loading.T @ pull - prior @ (q.mean - model.prior_mean),
        "proposal_chol": np.tril(np.linalg.inv(chol).T - precision @ chol),
    }


def test_gradients_of_the_elbo_agree_with_closed_forms():
    """Without the oracle: every parameter at K = 1, by path, by path and score, and by score alone."""
    expected = elbo_gradients(ONE_ROW)
    options = {"K": 1, "M": 3, "replicates": 40_000, "seed": 5, "parameters": "all"}
    _, gradients = joined(ONE_ROW, "elbo,elbo_stl,score_function", **options)
    z = []
    for parts in gradients.values():
        for name, value in parts.items():
            moments = stats.Moments.of(value)
            z.append(np.ravel(stats.z_score(moments.mean, expected[name], moments.mean_se)))
    scores = np.concatenate(z)
    assert np.abs(scores).max() < stats.family_threshold(len(scores), 1e-6)


def test_estimates_agree_with_the_reference_values():
    """Gap, ESS, and gradient means and variances of the reference's three problems at one small K."""
    z = []
    for entry in reference().values():
        problem, truth = toyiwae.Problem.from_dict(entry["problem"]), entry["truth"]
        row = next(row for row in truth["rows"] if 1 < row["K"] <= 64)
        names = list(dict.fromkeys(key.partition("/")[0] for key in row["gradients"]))
        options = {"K": row["K"], "replicates": 10_000, "seed": 30}
        cell = toyiwae.estimate(problem, estimators=names, **options).cell(row["K"])
        z.append((cell.bound.estimate - truth["log_evidence"] + row["gap"]) / cell.bound.se)
        z.append((cell.ess.estimate - row["ess"]) / cell.ess.se)
        for key, moments in row["gradients"].items():
            name, _, parameter = key.partition("/")
            found = cell.gradients[name][parameter]
            for statistic in ("mean", "var"):
                own = np.ravel(getattr(found, statistic))[:3], np.ravel(getattr(found, f"{statistic}_se"))[:3]
                z += list((own[0] - moments[statistic]) / own[1])
    assert np.abs(z).max() < stats.family_threshold(len(z), 1e-6)


# The statistics ---------------------------------------------------------------------------------------------


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


def test_cells_come_in_order_and_as_strict_json_and_a_table():
    options = {"estimators": "iwae, ciwae:0.25", "replicates": 20, "seed": 1, "parameters": "all"}
    result = toyiwae.estimate(AMORTISED, K=[1, 3], M="2,1", **options)
    assert [(cell.K, cell.M) for cell in result.results] == [(1, 2), (1, 1), (3, 2), (3, 1)]
    text = json.dumps(result.to_dict(), allow_nan=False)
    assert list(json.loads(text)) == ["results", "agreement", "provenance"]
    keys = {"mean", "mean_se", "var", "var_se", "truth_mean", "truth_var", "z"}
    assert keys <= set(result.to_dict()["results"][0]["gradients"]["ciwae:0.25"]["loading"])
    frame = result.to_dataframe()
    coordinates = sum(math.prod(shape) for shape in AMORTISED.parameters.values())
    assert len(frame) == 4 * 2 * coordinates
    assert {"K", "M", "estimator", "parameter", "index", "mean", "snr_se", "bound"} <= set(frame.columns)
    with pytest.raises(KeyError, match="no cell K=7"):
        result.cell(7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"K": 0}, "K is 0: expected a whole number of at least 1"),
        ({"K": 1.5}, "K is 1.5"),
        ({"K": True}, "K is True"),
        ({"K": [2, math.nan]}, "K is nan"),
        ({"M": -1}, "M is -1"),
        ({"replicates": 1}, "replicates is 1: expected a whole number of at least 2"),
        ({"replicates": 2.5}, "replicates is 2.5"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": None}, "seed is None"),
        ({"estimators": "iwea"}, "did you mean iwae"),
        ({"estimators": "miwae"}, "iwae with M > 1"),
        ({"K": 1, "estimators": "vimco_arithmetic"}, "K is 1: vimco_arithmetic needs K of at least 2"),
        ({"parameters": "prior_maen"}, "did you mean prior_mean"),
        ({"parameters": "proposal_weight"}, "proposal_weight.*did you mean"),
        ({"engine": "nmuba"}, "engine is 'nmuba': did you mean numba"),
        ({"engine": 3}, "engine is 3"),
        ({"engine": "numba", "device": "cuda"}, "device is 'cuda': the engine numba runs on the cpu"),
        ({"precision": "half"}, "precision is 'half': expected float32 or float64"),
        (
            {"precision": "float32", "engine": "torch"},
            "precision is 'float32': the engine torch draws in float64",
        ),
        ({"threads": 0}, "threads is 0: expected a whole number of at least 1"),
        ({"device": "gpu"}, "device is 'gpu': expected cpu, cuda or cuda:N"),
        ({"device": "meta"}, "device is 'meta': expected cpu, cuda or cuda:N"),
        ({"device": "cuda:99"}, "device is 'cuda:99': this machine has"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message) as caught:
        toyiwae.estimate(ONE_ROW, **{"K": 3, "replicates": 5, "seed": 1} | options)
    assert "\n" not in str(caught.value)
