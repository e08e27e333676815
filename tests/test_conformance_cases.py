"""Users' estimators of the kinds that public reports are about, each with the verdict that is right."""

import functools
import re

import numpy as np
import pytest

import toyiwae
from tests.members import correct
from toyiwae import estimators
from toyiwae.cli import main
from toyiwae.conformance import api, plan
from toyiwae.conformance.bank.bank import bank
from toyiwae.conformance.calling.forms import evaluated
from toyiwae.conformance.calling.subprocess_runner import Runner
from toyiwae.conformance.checks import deterministic
from toyiwae.conformance.truths.targets import Target
from toyiwae.oracle.closed_form.gaussian import condition

LIGHT = {"K": 3, "M": (1, 2), "shift": 0.12}
IWAE = estimators.get("iwae")
pytestmark = pytest.mark.usefixtures("remembered_truths")


def problem_of(name):
    return next(entry.problem for entry in bank() if entry.name == name)


# -K and -M -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["replicates", "coefficients", "surrogate"])
def test_every_call_keeps_to_the_particles_and_groups_asked_for(form, monkeypatch):
    """VIMCO, which refuses K = 1, judged as unbiased for L_K at K = 4 and M = 2 alone."""
    if form == "surrogate":
        pytest.importorskip("torch", reason="surrogates need torch")
    monkeypatch.setattr(api, "bank", lambda: bank()[:1])
    sizes, vimco = set(), estimators.get("vimco_arithmetic")

    def replicates(problem, *, K, M, replicates, seed):
        sizes.add((M, K))
        return correct("vimco_arithmetic")(problem, K=K, M=M, replicates=replicates, seed=seed)

    def coefficients(log_w):
        sizes.add(log_w.shape[-2:])
        return vimco(log_w)

    def surrogate(log_joint, log_q, sample, *, K, M):
        sizes.add((M, K))
        z = sample(M, K).detach()
        score, log_w = log_q(z), log_joint(z) - log_q(z)
        signal = vimco(log_w.detach()).score
        value = log_w.logsumexp(-1).mean(-1) - np.log(K)
        return value, {"model": value, "proposal": (signal * score).sum((-1, -2))}

    estimator = {"replicates": replicates, "coefficients": coefficients, "surrogate": surrogate}[form]
    report = toyiwae.check(estimator, "bound:iwae", form=form, K=4, M=2, shift=0.12)
    assert report.verdict == "conforms", report.failures
    assert sizes == {(2, 4)}


def test_without_them_every_size_that_the_claim_allows_is_called(monkeypatch):
    monkeypatch.setattr(api, "bank", lambda: bank()[:1])
    report = toyiwae.check(correct("vimco_arithmetic"), "bound:iwae", shift=0.3)
    assert report.verdict == "does not conform"
    assert {(failure.K, failure.name) for failure in report.failures} == {(1, "no exception")}


# digits of a formula -------------------------------------------------------------------------------------


def softmax(log_w, cast, center=None):
    """IWAE's coefficients in the dtype that `cast` makes, of log-weights that are centred first or not."""
    w = cast(log_w if center is None else log_w - log_w.max(-1, keepdims=True))
    w = np.exp(w - w.max(-1, keepdims=True)) if isinstance(w, np.ndarray) else w.softmax(-1)
    shares = w / w.sum(-1)[..., None] / log_w.shape[-2]
    return shares, shares, -shares


def torch_cast(name):
    torch = pytest.importorskip("torch")
    return lambda array: torch.tensor(np.asarray(array, float)).to(getattr(torch, name))


FORMULAS = {
    "float32": lambda w: softmax(w, lambda a: a.astype(np.float32)),
    "float16, centred": lambda w: softmax(w, lambda a: a.astype(np.float16), "first"),
    "bfloat16, centred": lambda w: softmax(w, torch_cast("bfloat16"), "first"),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_a_formula_is_measured_by_the_digits_of_its_dtype(name):
    report = toyiwae.check(FORMULAS[name], "iwae", form="coefficients", **LIGHT)
    assert report.verdict == "conforms", report.failures
    facts = [check for check in report.checks if check.problem == "log-weights"]
    assert sum(bool(check.passed) for check in facts) >= 9
    assert all(
        "digits, which its dtype carries" in (check.reason or "") for check in facts if not check.passed
    )


@pytest.mark.parametrize(("dtype", "coarse"), [("float32", "float16"), ("float64", "float32")])
def test_digits_that_a_formula_throws_away_are_missed(dtype, coarse):
    """It answers in a dtype of more digits than its weights have."""

    def rounded(log_w):
        shares, *_ = softmax(log_w, lambda array: array.astype(coarse).astype(dtype))
        return shares, shares, -shares

    facts = deterministic.formula_checks(
        functools.partial(evaluated, rounded), Target.of("iwae"), 5, 2, (True, True), 1
    )
    assert "shift by a constant" in {check.name for check in facts if check.passed is False}


def test_coefficients_in_float32_keep_gradients_small_at_the_posterior(monkeypatch):
    monkeypatch.setattr(api, "bank", lambda: bank()[:1])

    def formula(log_w):
        made = estimators.get("ovis:1")(log_w.astype(np.float32))
        return made.model, made.path, made.score

    report = toyiwae.check(formula, "ovis:1", form="coefficients", **LIGHT)
    assert report.verdict == "conforms", report.failures


# what a failure must not hide ----------------------------------------------------------------------------


def at_the_mean(problem, *, K, M, replicates, seed):
    """The bug: log p(x|mean) for its expectation; the KL to the prior is right. It uses no noise."""
    model, q = problem.model, problem.proposal
    misfit = problem.data.x - model.loading @ q.mean - model.offset
    value = -0.5 * misfit @ np.linalg.solve(model.noise_cov, misfit)
    value -= 0.5 * np.linalg.slogdet(2 * np.pi * model.noise_cov)[1]
    away, ratio = q.mean - model.prior_mean, np.linalg.solve(model.prior_cov, q.cov)
    kl = np.trace(ratio) - len(away) - np.linalg.slogdet(ratio)[1]
    kl += away @ np.linalg.solve(model.prior_cov, away)
    return np.full(replicates, value - 0.5 * kl), {}


@pytest.mark.parametrize(
    "count", [pytest.param(1, id="one"), pytest.param(None, id="all", marks=pytest.mark.slow)]
)
def test_equal_replicates_do_not_hide_how_far_off_they_are(count, monkeypatch):
    monkeypatch.setattr(api, "bank", lambda: bank()[:count])
    report = toyiwae.check(at_the_mean, "bound:elbo")
    assert report.exit_code == 1
    assert {failure.name for failure in report.failures if failure.tier == 0} == {
        "other seed, other numbers",
        "replicates differ",
    }
    value = next(failure for failure in report.failures if failure.tier == 2)
    problem = problem_of("wide")
    assert value.estimate is not None
    assert value.truth is not None
    above = value.estimate - condition(problem.model, problem.data.x).log_evidence[0]
    gain = problem.model.loading @ np.linalg.cholesky(problem.proposal.cov)
    expected = 0.5 * np.trace(gain.T @ np.linalg.solve(problem.model.noise_cov, gain))
    assert (value.problem, value.parameter, value.shift_in_sd) == ("wide", "value", None)
    assert value.estimate - value.truth == pytest.approx(expected, rel=1e-9)
    assert above == pytest.approx(0.8, abs=0.01)
    assert value.reason == f"the value lies {above:.3g} nats above log p(x)"


def test_the_command_line_says_so(tmp_path, capsys):
    file = tmp_path / "mine.py"
    file.write_text("from tests.test_conformance_cases import at_the_mean\n")
    assert main.main(["check", f"{file}:at_the_mean", "--target", "bound:elbo"]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"FAILED mean: value; on wide; .*the value lies 0\.8 nats above log p\(x\)", printed)


def one_noise(problem, *, K, M, replicates, seed):
    """IWAE whose replicates are all the first one."""
    values, gradients = correct("iwae")(problem, K=K, M=M, replicates=1, seed=seed)
    return np.repeat(values, replicates), {n: np.repeat(g, replicates, 0) for n, g in gradients.items()}


def no_seed(problem, *, seed, **options):
    """IWAE with the same noise in every call, and a bias."""
    values, gradients = correct("iwae")(problem, seed=1, **options)
    return values + 1.0, gradients


@pytest.mark.parametrize(
    ("estimator", "first", "means"),
    [(one_noise, "replicates differ", set()), (no_seed, "other seed, other numbers", {"value"})],
)
def test_noise_used_again_is_not_taken_for_a_bias(estimator, first, means):
    report = toyiwae.check(estimator, "bound:iwae", **LIGHT)
    assert report.failures[0].name == first
    assert {failure.parameter for failure in report.failures if failure.tier == 2} == means
    refused = {check.reason for check in report.refused if check.tier == 2}
    assert refused == ({"its replicates are copies of one another"} if estimator is one_noise else set())


def test_global_noise_does_not_hide_a_bias():
    def biased(problem, *, seed, **options):
        values, gradients = correct("iwae")(problem, seed=np.random.randint(2**31), **options)  # noqa: NPY002
        return values + 0.5, gradients

    np.random.seed(0)  # noqa: NPY002
    report = toyiwae.check(biased, "bound:iwae", **LIGHT)
    assert {failure.name for failure in report.failures} >= {"same seed, same numbers", "mean"}
    assert {failure.parameter for failure in report.failures if failure.tier == 2} == {"value"}


def test_an_exception_on_one_problem_does_not_hide_the_others():
    def fails(problem, *, K, M, **options):
        if problem.model.loading.shape == (3, 2):
            raise ValueError("no problem with two latents")
        values, gradients = correct("iwae")(problem, K=K, M=M, **options)
        return values + 0.5, gradients

    report = toyiwae.check(fails, "bound:iwae", **LIGHT)
    failed = {(failure.problem, failure.name) for failure in report.failures}
    assert {("wide", "no exception"), ("narrow", "no exception"), ("far", "mean")} <= failed
    assert sum(failure.name == "no exception" for failure in report.failures) == 3  # and at the posterior


def test_after_a_hang_nothing_more_is_called(monkeypatch):
    calls = []

    def hangs(runner, problem, K, M, replicates, seed):
        calls.append(K)
        raise plan.Violation("no hang", "a call did not end")

    monkeypatch.setattr(Runner, "__enter__", lambda self: self)
    monkeypatch.setattr(Runner, "sample", hangs, raising=False)
    monkeypatch.setattr(Runner, "formula", None, raising=False)
    monkeypatch.setattr(Runner, "mixed", None, raising=False)
    report = toyiwae.check(at_the_mean, "iwae")
    assert {failure.name for failure in report.failures} == {"no hang"}
    assert len(calls) == 2


def test_the_help_says_that_all_parameters_returned_are_judged(capsys):
    main.main(["check", "--help"])
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert re.search(r"--parameters\S* +.*whose gradients are judged; all that are returned", printed)
