"""The conformance suite judged in turn: correct estimators pass, planted bugs are killed, nothing crashes it."""

import time
from pathlib import Path

import numpy as np
import pytest

import toyiwae
from tests import calibrate
from tests.members import correct
from toyiwae import estimators
from toyiwae.conformance import api
from toyiwae.conformance.bank import particles
from toyiwae.conformance.bank.bank import bank
from toyiwae.conformance.bugs import catalogue
from toyiwae.conformance.checks import sequential
from toyiwae.conformance.checks.hypothesis_tests import compare, compare_known
from toyiwae.conformance.truths import values
from toyiwae.oracle.whitened.whitening import Whitened

ROOT = Path(__file__).resolve().parents[1]
BUGS = catalogue()
LIGHT = {"K": 3, "M": (1, 2), "shift": 0.12}
pytestmark = pytest.mark.usefixtures("remembered_truths")


def example():
    """The estimator that the documentation shows."""
    text = (ROOT / "docs/conformance.md").read_text(encoding="utf-8")
    return text.split("```python\n")[1].split("```")[0]


@pytest.fixture
def _first_problem(monkeypatch):
    """Where it is not about problems, one is enough."""
    monkeypatch.setattr(api, "bank", lambda: bank()[:1])


@pytest.fixture
def _two_problems(monkeypatch):
    """One whose proposal is wide, one whose log-weights overflow, and that with rows: they show every planted bug."""
    monkeypatch.setattr(
        api, "bank", lambda: tuple(e for e in bank() if e.name in ("wide", "overflow", "rows"))
    )


# correct estimators --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_first_problem")
@pytest.mark.parametrize(
    "claimed",
    # the truth of averages over subsets alone takes seconds
    [
        pytest.param(e, id=e.name, marks=[pytest.mark.slow] * (e.subsets is not None))
        for e in estimators.all()
    ],
)
def test_the_library_conforms_to_itself(claimed):
    """With few replicates, one K, one problem; on the whole bank with many among the long tests."""
    report = toyiwae.check(correct(claimed.name), claimed.name, **LIGHT)
    assert report.verdict == "conforms", report.failures


@pytest.mark.slow
@pytest.mark.parametrize("claimed", estimators.all(), ids=lambda claimed: claimed.name)
def test_the_library_conforms_to_itself_on_the_whole_bank(claimed):
    report = toyiwae.check(correct(claimed.name), claimed.name, rows=True)
    assert report.verdict == "conforms", report.failures
    assert report.smallest_detectable == pytest.approx(0.05, rel=0.01)


@pytest.mark.slow
def test_type_i_errors_keep_to_the_family_wise_rate():
    """The short form of `python -m tests.calibrate`: every estimator with six seeds."""
    reports = list(calibrate.runs(6 * len(estimators.all()), 1000, shift=0.1))
    assert not [str(count) for count in calibrate.judge(reports) if not count.passed]


@pytest.mark.usefixtures("_first_problem")
def test_the_same_seed_gives_the_same_report_and_another_seed_another():
    one, again, other = (toyiwae.check(correct("iwae"), "iwae", seed=s, **LIGHT) for s in (1, 1, 2))
    assert one.checks == again.checks
    assert one.checks != other.checks


def test_the_value_has_its_exact_variance():
    compared = []
    for entry in bank():
        K, M = entry.cells[0]
        for exponent in (1.0, 0.4):
            bound = toyiwae.Bound.vr_iwae(1 - exponent, K)
            found = values.fourth_moments_of(Whitened(entry.problem), bound, K, M)
            assert found is not None
            moments, error, groups = found
            assert 0 < error < 1e-12 * moments.var.value  # two formulas, and the error of one of them
            var = moments.var.value / groups
            log_w = exponent * particles.draw(entry.problem, K, M, 20_000, 5).log_w
            sampled = (np.log(np.mean(np.exp(log_w - log_w.max()), -1)) / exponent).mean((1, 2))
            squares = (sampled - sampled.mean()) ** 2 / var
            compared.append(compare(squares, np.ones(())))
    assert min(c.p_value for c in compared) > 1e-6 / len(compared)


def test_p_values_for_known_variances_hold_for_heavy_tails():
    """Ville's inequality at every level, for a law whose kurtosis is 90 and whose sample variances are far too low."""
    rng, runs, n = np.random.default_rng(3), 4000, 400
    x = rng.lognormal(0.0, 1.0, (n, runs))
    mean, var = np.exp(0.5), (np.e - 1) * np.e
    for level in (0.05, 1e-3):
        p = compare_known(x, np.full(runs, mean), np.full(runs, var), level).p_value
        failed = int((p <= level).sum())
        assert failed <= runs * level + 5 * np.sqrt(runs * level)
    shifted = compare_known(x, np.full(runs, mean - 0.6 * np.sqrt(var)), np.full(runs, var), 1e-3)
    assert (shifted.p_value <= 1e-3).mean() > 0.99
    assert np.median(shifted.shift) == pytest.approx(0.6, abs=0.05)


# planted bugs --------------------------------------------------------------------------------------------


def killed(bug, **options):
    report = toyiwae.check(bug.estimator, bug.target, rows=bug.rows, **options)
    assert report.verdict == "does not conform"
    tiers = {failure.tier for failure in report.failures}
    assert min(tiers) <= bug.tier
    assert bug.tier < 3 or 2 not in tiers, "it is unbiased"


@pytest.mark.usefixtures("_two_problems")
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_planted_bugs_are_killed(bug):
    """With few replicates, one K, two problems; at default settings among the long tests."""
    killed(bug, **LIGHT)


@pytest.mark.usefixtures("_first_problem")
@pytest.mark.parametrize("shift", [0.05, 0.12, 0.121, 0.123])
def test_large_calls_are_even(shift):
    """So that noise used twice is seen: on the halves of a batch, which face each other only where it is even."""
    sizes = []
    inner = correct("iwae")

    def estimator(problem, *, K, M, replicates, seed):
        sizes.append(replicates)
        return inner(problem, K=K, M=M, replicates=replicates, seed=seed)

    toyiwae.check(estimator, "iwae", K=3, M=1, shift=shift)
    assert {size % 2 for size in sizes if size > 100} == {0}


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_planted_bug_is_killed_at_default_settings(bug):
    killed(bug)


@pytest.mark.usefixtures("_two_problems")
def test_sequential_mode_rejects_gross_bugs_within_200_replicates():
    gross = [b for b in BUGS if b.name in ("log K missing", "score term dropped", "log p(z) missing")]
    for bug in gross:
        report = toyiwae.check(bug.estimator, bug.target, sequential=True, K=3, M=(1, 2))
        assert report.verdict == "does not conform"
        assert max(f.n or 0 for f in report.failures if f.tier == 2) <= 200


def test_an_e_process_of_the_truth_stays_below_its_bar():
    rng = np.random.default_rng(0)
    process = sequential.EProcess(np.zeros(4000), np.ones(4000))
    for _ in range(4):
        process.add(rng.standard_t(5, (100, 4000)) / np.sqrt(5 / 3))
    crossed = int((process.peak > np.log(20)).sum())
    assert crossed <= 4000 / 20  # Ville: in expectation at most this, in truth far fewer
    shifted = sequential.EProcess(np.zeros(200), np.ones(200))
    shifted.add(rng.standard_normal((200, 200)) + 0.7)
    assert (shifted.peak > np.log(200 / 1e-6)).mean() > 0.95


# what must not crash the suite ---------------------------------------------------------------------------

BROKEN = {
    "no exception": lambda problem, **options: 1 / 0,
    "shapes": lambda problem, **options: np.zeros(3),
    "finite": lambda problem, *, replicates, **options: (np.full(replicates, np.nan), {}),
    "no hang": lambda problem, **options: time.sleep(60),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_found_and_reproducible(kind):
    report = toyiwae.check(BROKEN[kind], "iwae", timeout=0.5 if kind == "no hang" else None)
    assert report.verdict == "does not conform"
    assert report.failures[0].name == kind
    assert report.failures[0].seed is not None
    assert report.failures[0].problem == "wide"


def test_a_dying_process_is_a_violation():
    import os

    report = toyiwae.check(lambda problem, **options: os._exit(3), "iwae", timeout=30)
    assert report.failures[0].name == "no crash"
    assert "exit code 3" in (report.failures[0].reason or "")


@pytest.mark.usefixtures("_first_problem")
def test_changed_inputs_and_moved_generators_are_found():
    def moves(problem, **options):
        np.random.normal()  # noqa: NPY002
        return correct("iwae")(problem, **options)

    assert "global generators untouched" in {f.name for f in toyiwae.check(moves, "iwae", **LIGHT).failures}


def test_what_is_left_out_is_not_judged():
    def part(problem, **options):
        return None, {"proposal_mean": correct("iwae")(problem, **options)[1]["proposal_mean"]}

    report = toyiwae.check(part, "bound:iwae", **LIGHT)
    assert report.verdict == "conforms"
    assert {c.parameter for c in report.checks if c.tier == 2} == {"proposal_mean"}


# formulas ------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_two_problems")
@pytest.mark.parametrize("name", ["dreg", "ciwae:0.3"])
def test_formulas_are_judged_on_log_weights_and_on_the_bank(name):
    report = toyiwae.check(estimators.get(name).function, name, form="coefficients", **LIGHT)
    assert report.verdict == "conforms", report.failures
    careless = toyiwae.check(
        lambda w: (np.exp(w) / np.exp(w).sum(-1, keepdims=True) / w.shape[-2],) * 3,
        name,
        form="coefficients",
        **LIGHT,
    )
    assert "rows at ±1e4" in {failure.name for failure in careless.failures}
