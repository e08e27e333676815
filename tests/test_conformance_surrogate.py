"""Surrogates judged: the documentation's conform, planted bugs are killed, nothing crashes the suite."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

import toyiwae
from tests.members import surrogate_of
from toyiwae import estimators
from toyiwae.cli import main
from toyiwae.conformance import api
from toyiwae.conformance.bank.bank import bank
from toyiwae.errors import MissingExtraError

torch = pytest.importorskip("torch", reason="surrogates need torch")
surrogates = pytest.importorskip("toyiwae.conformance.calling.torch_surrogate")

ROOT = Path(__file__).resolve().parents[1]
LIGHT = {"form": "surrogate", "K": 3, "M": (1, 2), "shift": 0.2}
pytestmark = pytest.mark.usefixtures("remembered_truths")


def source():
    """The surrogates that the documentation shows."""
    text = (ROOT / "docs/conformance.md").read_text(encoding="utf-8")
    return next(code.split("```")[0] for code in text.split("```python\n") if "log_joint" in code)


def functions(code):
    """The functions that a source defines, by name."""
    namespace = {}
    exec(code, namespace)
    return {name: value for name, value in namespace.items() if hasattr(value, "__code__")}


SHOWN = functions(source())


@pytest.fixture
def small(monkeypatch):
    """The first problem of the bank, and the nonlinear one: the truths of all take longer than the judging."""
    monkeypatch.setattr(api, "bank", lambda: bank()[:1])


# correct surrogates --------------------------------------------------------------------------------------


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["iwae", "dreg"])
def test_what_the_documentation_shows_conforms(name):
    report = toyiwae.check(SHOWN[name], name, **LIGHT)
    assert report.verdict == "conforms", report.failures
    assert any(check.tier == 2 and check.passed and check.problem == "nonlinear" for check in report.checks)


@pytest.mark.slow
@pytest.mark.parametrize("name", SHOWN)
def test_what_the_documentation_shows_conforms_at_default_settings(name):
    report = toyiwae.check(SHOWN[name], name, form="surrogate", rows=True)
    assert report.verdict == "conforms", report.failures
    assert report.smallest_detectable == pytest.approx(0.05, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("claimed", estimators.all(), ids=lambda claimed: claimed.name)
def test_the_library_conforms_to_itself_as_surrogates(claimed):
    report = toyiwae.check(surrogate_of(claimed), claimed.name, rows=True, **LIGHT)
    assert report.verdict == "conforms", report.failures


def test_a_surrogate_gives_the_gradients_of_its_coefficients():
    """Replicate by replicate, with rows: the hook of one form against the coefficients of the other."""
    problem = bank()[-1].problem
    options = {"K": 4, "M": 3, "replicates": 5, "seed": 8}
    value, gradients = surrogates.replicates(SHOWN["dreg"], problem, **options)
    other, expected = surrogates.replicates(surrogate_of(estimators.get("dreg")), problem, **options)
    np.testing.assert_allclose(value, other, rtol=1e-12)
    assert set(gradients) == set(problem.parameters)
    for name, shape in problem.parameters.items():
        assert gradients[name].shape == (5, *shape)
        np.testing.assert_allclose(gradients[name], expected[name], rtol=1e-9, atol=1e-12)


# planted bugs --------------------------------------------------------------------------------------------


def replaced(old, new):
    return lambda code: code.replace(old, new)


PLANTED = {
    "weights not detached": replaced("weights = log_w.softmax(-1).detach()", "weights = log_w.softmax(-1)"),
    "log_q not detached": replaced(", detach=True", ""),
    "no hook": replaced("    z.register_hook(lambda slope: weights[..., None] * slope)\n", ""),
    "particles not detached": replaced("sample(M, K).detach()", "sample(M, K)"),
    "signal not detached": replaced("math.log(K - 1)).detach()", "math.log(K - 1))"),
    "score term dropped": replaced("(signal * score)", "(signal * score.detach())"),
    "score term of the wrong sign": replaced("(signal * score)", "(-signal * score)"),
    "baseline divided by K": replaced("math.log(K - 1)", "math.log(K)"),
    "log K missing": replaced(" - math.log(K))", ")"),
    "wrong axis": replaced(".softmax(-1)", ".softmax(-2)"),
    "normalised over the batch": replaced(".softmax(-1)", ".softmax(0)"),
    "one noise for all groups": replaced("sample(M, K)", "sample(1, K).expand(-1, M, -1, -1)"),
    "θ and φ exchanged": lambda code: re.sub('(model.: )(pooled)(.*: )(bound)', r"\1\4\3\2", code),
    "the loss is minimised": replaced("return (log_w", "return -(log_w"),
    "averaged over the batch": replaced("return bound.mean(-1),", "return bound.mean(),"),
}  # fmt: skip


def bugs():
    """Every function of the documentation that a change changes: (what is wrong, name, function)."""
    for kind, change in PLANTED.items():
        code = source()
        before, after = (text.split("\ndef ") for text in (code, change(code)))
        changed = [b.partition("(")[0] for a, b in zip(before[1:], after[1:], strict=True) if a != b]
        wrong = functions(change(code))
        assert changed, f"{kind}: nothing changed"
        yield from (pytest.param(name, wrong[name], id=f"{kind}-{name}") for name in changed)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "wrong"), list(bugs()))
def test_every_planted_bug_is_killed(name, wrong):
    report = toyiwae.check(wrong, name, **LIGHT)
    assert report.verdict == "does not conform"


# the contract --------------------------------------------------------------------------------------------


def first(function, target="iwae", **options):
    """The first failure."""
    report = toyiwae.check(function, target, form="surrogate", **options)
    assert report.verdict == "does not conform"
    return report.failures[0]


def plain(log_joint, log_q, sample, K, M):
    z = sample(M, K)
    return (log_joint(z) - log_q(z)).logsumexp(-1).mean(-1)


BROKEN = {
    "a scalar": (lambda p, q, s, *, K, M: plain(p, q, s, K, M).mean(), "shapes", "first axis"),
    "not over the groups": (lambda p, q, s, *, K, M: p(s(M, K)).mean(-1), "shapes", "M groups"),
    "NumPy": (lambda p, q, s, *, K, M: plain(p, q, s, K, M).detach().numpy(), "shapes", "ndarray"),
    "three": (lambda p, q, s, *, K, M: (plain(p, q, s, K, M),) * 3, "shapes", "tuple of 3"),
    "other keys": (lambda p, q, s, *, K, M: (None, {"theta": plain(p, q, s, K, M)}), "shapes", "'model'"),
    "no gradient": (lambda p, q, s, *, K, M: plain(p, q, s, K, M).detach(), "shapes", "no parameter"),
    "whole numbers": (lambda p, q, s, *, K, M: plain(p, q, s, K, M).long(), "shapes", "real numbers"),
    "wrong particles": (lambda p, q, s, *, K, M: p(s(M, K)[..., 0]), "shapes", "z of shape"),
    "no particles": (lambda p, q, s, *, K, M: p(np.zeros(3)), "shapes", "ndarray"),
    "no size": (lambda p, q, s, *, K, M: s("K"), "shapes", "whole numbers"),
    "NaN": (lambda p, q, s, *, K, M: math.nan * plain(p, q, s, K, M), "finite", "not finite"),
    "an exception": (lambda p, q, s, *, K, M: {}[K], "no exception", "KeyError"),
    "sys.exit": (lambda p, q, s, *, K, M: exit(3), "no exception", "SystemExit"),
    "another signature": (lambda z: z, "no exception", "TypeError"),
    "more memory than there is": (lambda p, q, s, *, K, M: torch.empty(10**16), "no exception", "Error"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_broken_is_found(kind):
    function, name, message = BROKEN[kind]
    failure = first(function)
    assert (failure.name, failure.problem, failure.tier) == (name, "wide", 0)
    assert message in (failure.reason or "")


@pytest.mark.usefixtures("small")
def test_a_surrogate_that_mixes_replicates_is_found():
    def centred(log_joint, log_q, sample, *, K, M):
        values = plain(log_joint, log_q, sample, K, M) - math.log(K)
        return values, values - values.mean(0).detach() + values.detach() * values.mean(0)

    failures = toyiwae.check(centred, "iwae", **LIGHT).failures
    assert failures[0].name == "replicates do not mix"


@pytest.mark.usefixtures("small")
def test_noise_of_ones_own_comes_from_the_samplers_generator():
    def dithered(log_joint, log_q, sample, *, K, M):
        value = plain(log_joint, log_q, sample, K, M) - math.log(K)
        return value, value + 0.0 * torch.rand(len(value), generator=sample.generator)

    def careless(log_joint, log_q, sample, *, K, M):
        value = plain(log_joint, log_q, sample, K, M) - math.log(K)
        return value, value + 0.0 * torch.rand(len(value))

    names = {failure.name for failure in toyiwae.check(careless, "iwae", **LIGHT).failures}
    assert names == {"global generators untouched"}
    assert toyiwae.check(dithered, "iwae", **LIGHT).verdict == "conforms"


@pytest.mark.usefixtures("small")
def test_torchs_global_state_is_left_alone():
    def reckless(log_joint, log_q, sample, *, K, M):
        torch.set_default_dtype(torch.float16)
        value = plain(log_joint, log_q, sample, K, M) - math.log(K)
        torch.set_grad_enabled(False)
        return value

    torch.manual_seed(4)
    state = torch.get_rng_state()
    assert toyiwae.check(reckless, "iwae", **LIGHT).verdict == "conforms"
    assert torch.equal(state, torch.get_rng_state())
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()


@pytest.mark.usefixtures("small")
def test_what_is_left_out_is_not_judged():
    def only_proposal(log_joint, log_q, sample, *, K, M):
        return None, {"proposal": SHOWN["iwae"](log_joint, log_q, sample, K=K, M=M)}

    report = toyiwae.check(only_proposal, "bound:iwae", **LIGHT)
    assert report.verdict == "conforms"
    assert {c.parameter for c in report.checks if c.tier == 2} == {"proposal_mean", "proposal_chol"}


@pytest.mark.usefixtures("small")
def test_sequential_mode_takes_surrogates():
    wrong = functions(source().replace(" - math.log(K))", ")"))["iwae"]
    report = toyiwae.check(wrong, "iwae", form="surrogate", sequential=True, K=3, M=2)
    assert report.verdict == "does not conform"
    assert max(failure.n or 0 for failure in report.failures if failure.tier == 2) <= 200


# where it runs -------------------------------------------------------------------------------------------


@pytest.fixture
def mine(tmp_path, small):
    path = tmp_path / "losses.py"
    path.write_text(
        source() + "\n\ndef stuck(log_joint, log_q, sample, *, K, M):\n    while True:\n        pass\n"
    )
    return path


def test_the_command_line(mine, capsys):
    argv = ["check", f"{mine}:iwae", "--target", "iwae", "--form", "surrogate", "-K", "2", "-M", "2"]
    assert main.main([*argv, "--timeout", "60", "-p", "proposal_mean"]) == 0
    assert "nonlinear" in capsys.readouterr().out
    assert main.main([*argv[:1], f"{mine}:stuck", *argv[2:], "--timeout", "0.5"]) == 1
    assert "no hang" in capsys.readouterr().out


def test_a_fork_after_threads_of_gradients_is_refused_in_words(mine, monkeypatch):
    def refuse(*args, **options):
        raise RuntimeError("Unable to handle autograd's threading in combination with fork")

    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    with pytest.raises(toyiwae.InputError, match="leave out the timeout"):
        toyiwae.check(f"{mine}:iwae", "iwae", timeout=60, **LIGHT)


def test_without_torch_it_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "toyiwae.conformance.calling.torch_surrogate")
    monkeypatch.delitem(sys.modules, "toyiwae.montecarlo")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"toyiwae\[torch\]"):
        toyiwae.check(SHOWN["iwae"], "iwae", **LIGHT)
