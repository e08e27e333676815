"""Estimates beside their truth: agreement, the statistics, what does not exist, and what is refused."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch

import toyiwae
from tests.problems import random_problem, reference
from toyiwae import stats
from toyiwae.errors import InputError
from toyiwae.estimators import both, iwae_bound
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
