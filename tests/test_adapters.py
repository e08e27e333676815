"""The audit's adapters: what each library's objective conforms to, and where it fails, as `subjects.toml` records."""

import ast
import dataclasses
import importlib.util
import sys

import numpy as np
import pytest

import toyiwae
from analysis.audit import divergences, page, scripts
from analysis.audit.judge import COLUMNS, MISSING, RAISES, judge
from analysis.audit.run import Outcome, chosen
from analysis.audit.subjects import subjects
from toyiwae.conformance import api
from toyiwae.conformance.bank.bank import bank
from toyiwae.errors import InputError, MissingMomentError

pytestmark = pytest.mark.usefixtures("remembered_truths")
IMPORTED = {
    "plain_numpy": ["numpy"],
    "torch_autograd": ["torch"],
    "jax_autograd": ["jax"],
    "numpyro_renyi": ["numpyro"],
    "pyro_renyi": ["pyro"],
    "tfp_loss": ["tensorflow", "tf_keras", "tensorflow_probability"],
    "tfp_jax_loss": ["tensorflow_probability", "jax"],
    "pythae_models": ["pythae"],
}
SLOW = {
    "torch_autograd",
    "jax_autograd",
    "numpyro_renyi",
    "pyro_renyi:all_rows",
    "pyro_renyi:subsampled",
    "pyro_renyi:subsampled_in_turn",
}


def parameters():
    """Every subject; those that take longer than seconds are marked."""
    for subject in subjects():
        slow = SLOW & {subject.key, subject.library.adapter}
        yield pytest.param(subject, id=subject.key, marks=[pytest.mark.slow] if slow else [])


@pytest.mark.filterwarnings("default")  # of libraries that are not ours
@pytest.mark.parametrize("subject", list(parameters()))
def test_it_fails_where_recorded_and_nowhere_else(subject):
    for name in IMPORTED[subject.library.adapter]:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed")
    result = judge(subject, light=True)
    assert result.as_recorded, f"{result.verdict}, fails {sorted(result.fails)}: {result.reason}"


def test_every_adapter_has_subjects_and_every_subject_an_adapter():
    files = {file.stem for file in subjects()[0].library.file.parent.glob("*.py")}
    assert files == {subject.library.adapter for subject in subjects()} == set(IMPORTED)
    for subject in subjects():
        tree = ast.parse(subject.library.file.read_text(encoding="utf-8"))
        defined = {name for node in tree.body for name in scripts._defines(node)}
        assert subject.function in defined
        assert subject.fails <= {*COLUMNS, RAISES}


def test_a_library_that_is_missing_is_not_judged(monkeypatch):
    (subject,) = chosen(["numpyro_renyi:order_0"])
    monkeypatch.setattr("analysis.audit.subjects._version", lambda distribution: None)
    result = judge(subject, light=True)
    assert result.verdict == MISSING
    assert not result.fails
    assert "numpyro, jax: not installed here" in result.reason


def test_an_unknown_key_is_refused():
    with pytest.raises(InputError, match="no objective 'tfp_los'"):
        chosen(["tfp_los"])


def moved(problem, parameter, index, size):
    """The problem with one coordinate of a parameter moved."""
    model, q = problem.model, problem.proposal
    start = {"prior_mean": model.prior_mean, "loading": model.loading, "offset": model.offset}
    start |= {"proposal_mean": q.mean, "proposal_chol": np.linalg.cholesky(q.cov)}
    start[parameter] = np.array(start[parameter])
    start[parameter][index] += size
    chol = start["proposal_chol"]
    return toyiwae.Problem(
        toyiwae.Model(
            start["prior_mean"], model.prior_cov, start["loading"], start["offset"], model.noise_cov
        ),
        toyiwae.Proposal(chol @ chol.T, mean=start["proposal_mean"]),
        problem.data,
    )


@pytest.mark.parametrize(("name", "K"), [*((name, 1) for name in divergences.DIVERGENCES), ("pearson", 3)])
def test_the_truth_of_a_divergence_has_its_own_gradient(name, K):
    """Against central differences of the value, in every coordinate."""
    problem, step = bank()[0].problem, 1e-5
    _, gradients = divergences.truth(problem, name, K)
    for parameter, gradient in gradients.items():
        for index in np.ndindex(gradient.shape):
            if parameter == "proposal_chol" and index[1] > index[0]:
                continue
            ends = [
                divergences.truth(moved(problem, parameter, index, size), name, K)[0]
                for size in (-step, step)
            ]
            slope = (ends[1] - ends[0]) / (2 * step)
            assert gradient[index] == pytest.approx(slope, rel=1e-5, abs=1e-8), (parameter, index)


def test_the_value_of_a_divergence_is_that_of_sampled_weights():
    """Within four standard errors, one in 16,000 for each of four."""
    problem, rng = bank()[0].problem, np.random.default_rng(3)
    model, q = problem.model, problem.proposal
    assert q.mean is not None
    chol = np.linalg.cholesky(q.cov)
    noise = rng.standard_normal((200_000, len(chol)))
    z = q.mean + noise @ chol.T

    def log_density(residual, cov):
        distance = np.einsum("ni,ij,nj->n", residual, np.linalg.inv(cov), residual)
        return -0.5 * (distance + np.linalg.slogdet(2 * np.pi * cov)[1])

    log_w = log_density(z - model.prior_mean, model.prior_cov) - log_density(z - q.mean, q.cov)
    log_w += log_density(problem.data.x - z @ model.loading.T - model.offset, model.noise_cov)
    w = np.exp(log_w)
    for name, f in {
        "kl_forward": w * log_w,
        "pearson": (w - 1) ** 2,
        "squared_hellinger": (np.sqrt(w) - 1) ** 2,
        "amari_half": 4 - 4 * np.sqrt(w),
    }.items():
        error = f.std() / np.sqrt(len(f))
        assert abs(f.mean() - divergences.truth(problem, name, 1)[0]) < 4 * error, name


def test_an_infinite_moment_is_refused():
    with pytest.raises(MissingMomentError, match="E_q w\\^"):
        divergences.moment(bank()[1].problem, 200.0)


FIRST_PROBLEM = (
    "from toyiwae.conformance import api\n"
    "from toyiwae.conformance.bank.bank import bank\n"
    "api.bank = lambda: bank()[:1]\n"
)


@pytest.mark.parametrize(
    "few", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["one problem", "bank"]
)
def test_the_page_shows_a_failure_and_the_script_that_repeats_it(few, tmp_path, monkeypatch):
    """With the NumPy adapter judged as another estimator than it is; the fast test on one problem, the script too."""
    if few:
        monkeypatch.setattr(api, "bank", lambda: bank()[:1])
    (subject,) = chosen(["plain_numpy:iwae"])
    wrong = dataclasses.replace(subject, target="dreg", light={"K": 3, "M": 2, "shift": 0.5})
    result = judge(wrong, light=True)
    assert "variance" in result.fails
    file = tmp_path / "iwae.py"
    file.write_text(FIRST_PROBLEM * few + scripts.script(result), encoding="utf-8")
    script = scripts.run(file.read_text(encoding="utf-8"), file)
    assert script.shows, script.error
    assert "does not conform" in script.printed
    outcomes = [Outcome(result, script, 1.0)]
    run = page.facts(outcomes, True, "2026-01-01", "python -m analysis audit")
    assert run["changed"] == ["plain_numpy:iwae"]
    html = page.html(outcomes, run, {"toyiwae": "0"})
    assert "does not conform" in html
    assert "<script" not in html
    assert "import numpy as np" in html
    assert page.document(outcomes, run, {})["results"][0]["script"]["shows_the_failure"]
    assert "## NumPy" in page.markdown(outcomes, run, {"toyiwae": "0", "python": "3"})
    assert sys.executable not in html
