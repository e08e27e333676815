"""What the README shows works as shown."""

import re
import shlex
from pathlib import Path

import pytest

import toyiwae
from toyiwae.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def example() -> dict[str, object]:
    """The names that the Python example defines."""
    names: dict[str, object] = {}
    exec(compile("\n".join(blocks("python")), "README.md", "exec"), names)
    return names


def test_the_python_example_runs(example):
    truth, sampled = example["truth"], example["sampled"]
    assert isinstance(truth, toyiwae.ExactResult)
    assert isinstance(sampled, toyiwae.EstimateResult)
    assert sampled.agreement().passed


def test_the_problem_file_is_the_same_problem(example):
    problem = example["problem"]
    assert isinstance(problem, toyiwae.Problem)
    assert toyiwae.load(ROOT / "docs/problem.toml").to_dict() == problem.to_dict()


SHELL = "\n".join(blocks("console"))


@pytest.mark.parametrize("command", re.findall(r"^\$ toyiwae (.*)$", SHELL, re.MULTILINE))
def test_the_commands_run(command, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert main(shlex.split(command)) == 0
    assert capsys.readouterr().out


def test_the_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    shown = re.findall(r"^\$ make ([a-z-]+)", SHELL, re.MULTILINE) + re.findall(r"`make ([a-z-]+)`", README)
    assert shown
    assert set(shown) <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))


def test_linked_files_exist():
    linked = set(re.findall(r"\]\(((?!http)[^)#]+)", README))
    assert linked
    assert not {name for name in linked if not (ROOT / name).is_file()}
