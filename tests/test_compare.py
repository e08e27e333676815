"""`compare` against closed forms, against a simulation, and against what it promises of order and reasons."""

# pyright: reportOptionalOperand=false, reportArgumentType=false, reportOperatorIssue=false, reportCallIssue=false
# pyright: reportAttributeAccessIssue=false

import json
import math
from pathlib import Path

import numpy as np
import pytest

import toyiwae
from tests.problems import random_problem
from tests.test_discrete_truth import problem as binary_problem
from toyiwae import InputError, estimators, records, stats
from toyiwae.estimators import registry
from toyiwae.problems.linear_gaussian import Problem, Proposal
from toyiwae.truth.comparison import divisors, ranked
from toyiwae.truth.rankings import Entry

SEVERAL = ("elbo", "iwae", "jackknife")
PROBLEM = random_problem(7, 2, 3)
FILE = str(Path(__file__).resolve().parents[1] / "docs" / "problem.toml")
NUMBERS = ("rmse_evidence", "rmse", "relative_rmse", "snr", "bias", "std")


def solved(problem: Problem) -> dict[str, np.ndarray]:
    """Posterior and precisions of a problem with one observation."""
    model, proposal = problem.model, problem.proposal
    noise = np.linalg.inv(model.noise_cov)
    precision = np.linalg.inv(model.prior_cov) + model.loading.T @ noise @ model.loading
    pull = model.loading.T @ noise @ (problem.data.x - model.offset)
    assert proposal.mean is not None
    return {
        "mean": np.linalg.solve(precision, np.linalg.solve(model.prior_cov, model.prior_mean) + pull),
        "precision": precision,
        "prior": np.linalg.inv(model.prior_cov),
        "q": np.linalg.inv(proposal.cov),
    }


def entries(result, part):
    return {(entry.estimator, entry.K): entry for entry in result.parts[part].entries}


def near(entry: Entry, **expected: float) -> None:
    """The numbers are those expected, within their bounds and the rounding of the expected ones."""
    for name, number in expected.items():
        found, error = getattr(entry, name), getattr(entry, f"{name}_error")
        assert error <= 1e-10 * max(1.0, abs(number))
        assert found == pytest.approx(number, abs=error + 1e-13 * max(1.0, abs(number)))


def test_one_particle_has_closed_forms():
    """At K = 1 the gradients are affine in z."""
    own, q, total = solved(PROBLEM), PROBLEM.proposal, 6
    result = toyiwae.compare(PROBLEM, budget=total, estimators="iwae,dreg")
    shift = q.mean - PROBLEM.model.prior_mean
    target, cov = own["prior"] @ shift, own["prior"] @ q.cov @ own["prior"] / total
    std = math.sqrt(np.trace(cov))
    to_evidence = math.hypot(np.linalg.norm(own["prior"] @ (q.mean - own["mean"])), std)
    snr = np.linalg.norm(target) / std
    model = entries(result, "model")["iwae", 1]
    near(model, rmse=std, std=std, bias=0.0, snr=snr, relative_rmse=1 / snr, rmse_evidence=to_evidence)
    spread = own["q"] - own["precision"]
    std = math.sqrt(np.trace(spread @ q.cov @ spread.T) / total)
    target = own["precision"] @ (own["mean"] - q.mean)
    snr = np.linalg.norm(target) / std
    proposal = entries(result, "proposal")["dreg", 1]
    second_moment = math.hypot(std, np.linalg.norm(target))
    near(proposal, rmse=std, std=std, bias=0.0, snr=snr, relative_rmse=1 / snr, rmse_evidence=second_moment)
    std = math.sqrt(np.trace(own["precision"] @ q.cov @ own["precision"].T) / total)  # path less score
    near(entries(result, "proposal")["iwae", 1], rmse=std, snr=np.linalg.norm(target) / std)


def simulated(problem: Problem, k: int, m: int, count: int, chosen) -> dict[tuple[str, str], np.ndarray]:
    """Gradients [R, D] by prior and proposal mean, from their definition and the coefficients."""
    own, q, rng = solved(problem), problem.proposal, np.random.default_rng([k, m, 5])
    noise = rng.normal(size=(count, m, k, problem.dim_z)) @ np.linalg.cholesky(q.cov).T
    z = q.mean + noise
    from_posterior = z - own["mean"]
    score, path = noise @ own["q"], noise @ own["q"] - from_posterior @ own["precision"]
    log_w = 0.5 * ((noise @ own["q"]) * noise).sum(-1)
    log_w = log_w - 0.5 * ((from_posterior @ own["precision"]) * from_posterior).sum(-1)
    sign, scale = np.linalg.slogdet(q.cov @ own["precision"])
    assert sign > 0
    log_w = log_w + 0.5 * scale + toyiwae.exact(problem, K=1, parameters="none").log_evidence
    ascent = (z - problem.model.prior_mean) @ own["prior"]
    found = {}
    for estimator in chosen:
        c = estimator(log_w)
        found[estimator.name, "model"] = np.einsum("rmk,rmkd->rd", c.model, ascent)
        found[estimator.name, "proposal"] = np.einsum("rmk,rmkd->rd", c.path, path) + np.einsum(
            "rmk,rmkd->rd", c.score, score
        )
    return found


@pytest.mark.slow
def test_all_estimators_at_all_splits_agree_with_a_simulation():
    """Mean squared errors to both gradients, and the norm of the mean's deviation, at a family-wise rate of 1e-6."""
    count, total = 20_000, 4
    result = toyiwae.compare(PROBLEM, budget=total)
    own = solved(PROBLEM)
    slope = {"model": own["prior"] @ (own["mean"] - PROBLEM.model.prior_mean), "proposal": np.zeros(2)}
    scores = []
    for k in divisors(total):
        chosen = [one for one in estimators.all() if one.min_particles <= k]
        truth = toyiwae.exact(PROBLEM, K=k, M=total // k, estimators=chosen).results[0].gradients
        for (name, part), gradients in simulated(PROBLEM, k, total // k, count, chosen).items():
            entry = entries(result, part)[name, k]
            if entry.rmse is None:
                assert entry.reason
                continue
            moments = truth[name].parameters["prior_mean" if part == "model" else "proposal_mean"]
            own_target = moments.mean - moments.bias
            means = gradients.mean(axis=0)
            pairs = [(entry.rmse_evidence, slope[part]), (entry.rmse, own_target), (entry.std, means)]
            for expected, towards in pairs:
                squares = ((gradients - towards) ** 2).sum(axis=1)
                if np.ptp(squares) == 0.0:  # wake-φ along the path of a single particle is 0
                    assert expected**2 == pytest.approx(squares[0], rel=1e-12)
                    continue
                scores.append((squares.mean() - expected**2) / (squares.std(ddof=1) / math.sqrt(count)))
            assert entry.relative_rmse == pytest.approx(entry.rmse / np.linalg.norm(own_target), rel=1e-9)
            if entry.std > 0.0:
                assert entry.snr == pytest.approx(np.linalg.norm(moments.mean) / entry.std, rel=1e-9)
    assert len(scores) > 250
    assert max(map(abs, scores)) < stats.family_threshold(len(scores), 1e-6)


def test_every_registered_estimator_appears_at_every_split_and_the_best_come_first():
    result = toyiwae.compare(PROBLEM, budget=4, estimators=SEVERAL)
    for part, by in (("model", "rmse_evidence"), ("proposal", "relative_rmse")):
        ranking = result.parts[part]
        assert ranking.by == by
        assert sorted((e.estimator, e.K, e.M) for e in ranking.entries) == sorted(
            (name, k, 4 // k) for name in SEVERAL for k in (1, 2, 4)
        )
        known = [entry for entry in ranking.entries if entry.rank is not None]
        assert ranking.entries[: len(known)] == tuple(known)
        values = [getattr(entry, by) for entry in known]
        assert values == pytest.approx(sorted(values), rel=1e-12)
        assert ranking.best is known[0]
        missing = {(entry.estimator, entry.K): entry.reason for entry in ranking.entries[len(known) :]}
        assert missing["jackknife", 1] == "needs K of at least 2"
        assert "not derived" in missing["jackknife", 4]
        assert len(missing) == 3
    elbo = [entry.rank for entry in result.parts["model"].entries if entry.estimator == "elbo"]
    assert len(set(elbo)) == 1  # its particles are all alike
    by_snr = toyiwae.compare(
        PROBLEM, budget=2, estimators=["iwae", "dreg"], by="snr", parameters="proposal_mean"
    )
    assert list(by_snr.parts) == ["proposal"]
    ratios = [entry.snr for entry in by_snr.parts["proposal"].entries]
    assert ratios == pytest.approx(sorted(ratios, reverse=True), rel=1e-12)


def test_a_new_estimator_appears_without_another_edit(monkeypatch):
    monkeypatch.setattr(registry, "_REGISTRY", {"iwae": estimators.get("iwae")})

    @toyiwae.estimator(
        target=estimators.both(estimators.elbo_bound), form=toyiwae.Form({0: 1.0}, {0: 1.0}, {})
    )
    def newcomer(log_w):
        """Newcomer: equal weights along the path."""
        ones = 0 * log_w + 1.0 / (log_w.shape[-1] * log_w.shape[-2])
        return toyiwae.Coefficients(ones, ones, 0 * log_w)

    result = toyiwae.compare(PROBLEM, budget=2)
    assert {entry.estimator for entry in result.parts["model"].entries} == {"iwae", "newcomer"}
    assert entries(result, "model")["newcomer", 2].rmse == pytest.approx(
        entries(result, "model")["iwae", 1].rmse
    )


def test_where_the_proposal_is_the_posterior_the_exact_zeros_come_first():
    own = solved(PROBLEM)
    cov = np.linalg.inv(own["precision"])
    proposal = Proposal(mean=own["mean"], cov=(cov + cov.T) / 2)
    result = toyiwae.compare(
        Problem(PROBLEM.model, proposal, PROBLEM.data),
        budget=4,
        estimators="iwae,dreg",
        parameters="proposal_mean",
    )
    found = result.parts["proposal"].entries
    assert [entry.estimator for entry in found] == ["dreg"] * 3 + ["iwae"] * 3
    assert max(entry.rmse for entry in found[:3]) < 1e-12 < min(entry.rmse for entry in found[3:])
    document = result.to_dict()
    assert all(
        "target is not told from 0" in entry["reason"] for entry in document["parts"]["proposal"]["entries"]
    )


def test_order_of_what_is_known_and_not():
    made = [
        Entry("unknown", 1, 1, reason="r"),
        Entry(
            "zero target",
            1,
            1,
            rmse=2.0,
            relative_rmse=math.inf,
            rmse_error=0.0,
            relative_rmse_error=math.nan,
        ),
        Entry("0/0", 1, 1, rmse=0.0, relative_rmse=math.nan, rmse_error=0.0, relative_rmse_error=math.nan),
        Entry("second", 1, 1, rmse=1.0, relative_rmse=0.5, rmse_error=0.0, relative_rmse_error=0.1),
        Entry("first", 1, 1, rmse=1.0, relative_rmse=0.4, rmse_error=0.0, relative_rmse_error=0.1),
        Entry("last", 1, 1, rmse=1.0, relative_rmse=0.9, rmse_error=0.0, relative_rmse_error=0.1),
    ]
    found = [(entry.estimator, entry.rank) for entry in ranked(made, "relative_rmse")]
    # not told apart: one rank, in the order given
    expected = [("second", 1), ("first", 1), ("last", 2), ("0/0", 3), ("zero target", 4), ("unknown", None)]
    assert found == expected
    snr = [
        Entry("certain", 1, 1, rmse=0.0, snr=math.inf, rmse_error=0.0, snr_error=math.nan),
        Entry("other", 1, 1, rmse=1.0, snr=9.0, rmse_error=0.0, snr_error=0.0),
    ]
    assert [entry.estimator for entry in ranked(snr[::-1], "snr")] == ["certain", "other"]


@pytest.mark.parametrize(
    ("errors", "ranks"),
    [((0.0, 0.15, 0.0), (1, 1, 2)), ((0.25, 0.0, 0.0), (1, 1, 2)), ((0.0, 0.0, 0.25), (1, 2, 2))],
)
def test_a_wide_error_does_not_chain_what_clearly_differs(errors, ranks):
    """Of 0.1, 0.2 and 0.3 the one with a wide error is not told from either of the others, which differ."""
    made = [
        Entry(str(place), 1, 1, rmse=0.1 * place, rmse_error=error)
        for place, error in enumerate(errors, start=1)
    ]
    found = ranked(made, "rmse")
    assert [(entry.estimator, entry.rank) for entry in found] == list(zip("123", ranks, strict=True))


def test_binary_latents_have_no_path_but_the_models_gradient():
    result = toyiwae.compare(binary_problem(2), budget=2, estimators="iwae,score_function")
    assert all(entry.rank is not None for entry in result.parts["model"].entries)
    proposal = entries(result, "proposal")
    assert proposal["score_function", 2].rank is not None
    assert proposal["iwae", 2].rank is None
    assert "path derivative" in proposal["iwae", 2].reason


def test_with_rows_the_gradient_is_that_of_the_average():
    problem = random_problem(4, 2, 3, rows=3)
    result = toyiwae.compare(problem, budget=2, estimators="iwae", parameters="prior_mean")
    exact = (
        toyiwae.exact(problem, K=2, parameters="prior_mean")
        .cell(2)
        .gradients["iwae"]
        .parameters["prior_mean"]
    )
    assert entries(result, "model")["iwae", 2].rmse_evidence == pytest.approx(
        np.linalg.norm(exact.rmse_evidence), rel=1e-13
    )


def test_the_result_is_strict_json_and_a_data_frame():
    result = toyiwae.compare(PROBLEM, budget=2, estimators="iwae,vimco_geometric")
    document = json.loads(records.dumps(result.to_dict()), parse_constant=pytest.fail)
    assert document["budget"] == 2
    assert document["provenance"]["arguments"]["by"] == "rmse"
    frame = result.to_dataframe()
    assert len(frame) == sum(len(ranking["entries"]) for ranking in document["parts"].values()) == 8
    assert set(NUMBERS) <= set(frame.columns)
    with pytest.raises(AttributeError):
        result.budget = 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 0}, "budget is 0: expected a whole number of at least 1"),
        ({"budget": 10**12}, "expected at most 1000000000"),
        ({"budget": 4, "by": "snrr"}, "by is 'snrr': did you mean snr?"),
        ({"budget": 4, "estimators": "vimco"}, "did you mean vimco_star?"),
        ({"budget": 4, "parameters": []}, "parameters is empty"),
        ({"budget": 4, "parameters": "prior"}, "parameters contains 'prior'"),
    ],
)
def test_bad_requests_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        toyiwae.compare(PROBLEM, **arguments)


def test_divisors():
    assert divisors(1) == [1]
    assert divisors(36) == [k for k in range(1, 37) if 36 % k == 0]
