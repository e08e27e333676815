"""Problem files: the keys say which kind of problem it is."""

import json
import re

import pytest

import toyiwae
from tests.problems import random_problem
from tests.test_discrete import example
from toyiwae import DiscreteProblem, InputError, estimators
from toyiwae.cli import main
from toyiwae.files import toml_text

DISCRETE = DiscreteProblem.from_dict(example())


@pytest.mark.parametrize(
    "problem", [random_problem(1), random_problem(2, 3, 2, rows=4, amortised=True), DISCRETE]
)
def test_what_is_written_is_read_as_what_it_was(problem, tmp_path):
    toyiwae.dump(problem, tmp_path / "problem.toml")
    assert toyiwae.load(tmp_path / "problem.toml") == problem


LATENTS = r" \(the file was taken for a problem with binary latents"
FAULTS = {
    "a typo": ("prior_logit", "prior_logits", rf"prior_logits': did you mean prior_logit\?{LATENTS}\)$"),
    "a missing key": ("offset = [0.3, -0.2]", "", rf"lacks offset: .*{LATENTS}, since it has prior_logit\)$"),
    "a key of the other kind": ("prior_logit", "prior_mean", r"^\[model\] lacks prior_cov: it needs prior_mean"),
    "keys of both": ("[data]", "cov = [[1.0]]\n[data]", rf"^\[proposal\] has the unknown key 'cov'.*{LATENTS}"),
    "values": ("noise_cov = [", "noise_cov = 3\nx = [", rf"^\[model\] has the unknown key 'x': .*{LATENTS}"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_message_says_which_kind_the_file_was_taken_for(fault, tmp_path):
    old, new, message = FAULTS[fault]
    text = toml_text(DISCRETE.tables())
    assert old in text
    (tmp_path / "problem.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError) as caught:
        toyiwae.load(tmp_path / "problem.toml")
    assert re.search(message, str(caught.value)), caught.value


def test_a_linear_gaussian_file_with_a_key_of_binary_latents(tmp_path):
    text = toml_text(random_problem(1).tables()).replace("[proposal]", "[proposal]\nlogit = [0.3]")
    (tmp_path / "problem.toml").write_text(text, encoding="utf-8")
    taken = r"\(the file was taken for a linear-Gaussian problem, since it has cov, mean, prior_cov, prior_mean\)$"
    with pytest.raises(InputError, match=rf"^\[proposal\] has the unknown key 'logit': .*{taken}"):
        toyiwae.load(tmp_path / "problem.toml")


def test_the_command_line_answers_for_binary_latents(tmp_path, capsys):
    file = str(tmp_path / "discrete.toml")
    toyiwae.dump(DISCRETE, file)
    assert main.main(["exact", file, "-K", "3,8", "-e", "score_function", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    expected = toyiwae.exact(DISCRETE, K=[3, 8], estimators="score_function").to_dict()
    assert document["results"] == expected["results"]
    assert main.main(["exact", file, "-K", "3", "-e", "score_function"]) == 0
    assert "prior_logit" in capsys.readouterr().out


def test_the_estimator_that_is_not_named_is_one_that_the_problem_allows(tmp_path, capsys):
    """IWAE, whose model's gradient needs no path; for the proposal's the score function of the same bound."""
    toyiwae.dump(DISCRETE, tmp_path / "discrete.toml")
    for words, expected in (((), "score_function"), (("-p", "offset"), "iwae")):
        for particles in ("1", "3,8"):
            asked = ["exact", str(tmp_path / "discrete.toml"), "-K", particles, *words, "--json"]
            assert main.main(asked) == 0
            document = json.loads(capsys.readouterr().out)
            assert [list(cell["gradients"]) for cell in document["results"]] == [[expected]] * len(
                particles.split(",")
            )
    assert list(toyiwae.exact(random_problem(1), K=2).results[0].gradients) == ["iwae"]
    one, other = (estimators.get(name).target for name in ("iwae", "score_function"))
    assert one == other


def test_a_file_without_a_section_is_named_as_it_is(tmp_path):
    tables = {name: table for name, table in DISCRETE.tables().items() if name != "data"}
    (tmp_path / "mine.toml").write_text(toml_text(tables), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"^mine\.toml lacks data: it needs model, proposal, data \(the file was"
    ):
        toyiwae.load(tmp_path / "mine.toml")


def test_only_linear_gaussian_problems_are_sampled():
    montecarlo = pytest.importorskip("toyiwae.montecarlo")
    options = {"K": 3, "replicates": 10, "seed": 1}
    for problem in (DISCRETE, 3):
        kind = type(problem).__name__
        message = f"problem is a {kind}: expected a linear-Gaussian Problem"
        with pytest.raises(InputError, match=message):
            toyiwae.estimate(problem, **options)
        with pytest.raises(InputError, match=message):
            montecarlo.replicates(problem, "score_function", **options)
        with pytest.raises(InputError, match=message):
            montecarlo.gradients_of([[[[[0.0]]]]], problem, "score_function")
