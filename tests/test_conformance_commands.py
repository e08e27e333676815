"""The conformance suite from the command line and as a pytest plugin."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_conformance import example
from toyiwae.cli import main
from toyiwae.conformance import api
from toyiwae.conformance.bank.bank import bank

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.usefixtures("remembered_truths")


@pytest.fixture
def _first_problem(monkeypatch):
    """Where it is not about problems, one is enough, in one cell."""
    entry = bank()[0]
    monkeypatch.setattr(api, "bank", lambda: (dataclasses.replace(entry, cells=entry.cells[:1]),))


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        example() + "\n\ndef wrong(problem, **o):\n    v, g = dreg(problem, **o)\n    return v + 1, g\n"
    )
    return path


@pytest.mark.usefixtures("_first_problem")
@pytest.mark.parametrize(
    ("name", "code", "verdict"), [("dreg", 0, "conforms"), ("wrong", 1, "does not conform")]
)
def test_the_command_line(name, code, verdict, mine, capsys):
    assert main.main(["check", f"{mine}:{name}", "--target", "dreg", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document["verdict"] == verdict
    keys = "name tier problem K M parameter n estimate truth truth_error shift_in_sd p_value smallest_detectable passed"
    assert all(set(keys.split()) <= set(check) for check in document["checks"])


@pytest.mark.usefixtures("_first_problem")
def test_what_cannot_be_judged_exits_2(mine, capsys):
    assert main.main(["check", f"{mine}:nothing", "--target", "dreg"]) == 2
    assert "defines no function 'nothing'" in capsys.readouterr().err
    assert main.main(["check", f"{mine}:dreg", "--target", "bound:iwae", "--sequential"]) == 2
    assert "no bound on the variance" in capsys.readouterr().out


def test_the_plugin_loads_nothing_until_it_is_asked():
    code = "import toyiwae.conformance.pytest_plugin, sys; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"numpy", "scipy", "sympy", "torch", "rich"} & set(run.stdout.split())


def plugged(*argv, cwd):
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "toyiwae.conformance.pytest_plugin",
        "-p",
        "no:cacheprovider",
        "-q",
    ]
    environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT), "PATH": ""}
    return subprocess.run(
        [*command, *argv], cwd=cwd, capture_output=True, text=True, timeout=300, check=False, env=environment
    )


def test_the_plugin_judges_and_its_expected_failures_are_strict(mine, tmp_path):
    """On the first problem of the bank, in one of its cells."""
    (tmp_path / "conftest.py").write_text(
        "import dataclasses\nfrom toyiwae.conformance import api\nentry = api.bank()[0]\n"
        "api.bank = lambda: (dataclasses.replace(entry, cells=entry.cells[:1]),)\n"
    )
    (tmp_path / "listed.txt").write_text(
        "deterministic-value_is_log_p(x)_at_the_posterior-posterior-K=4-M=3-value\n"
    )
    options = ["--toyiwae-estimator", f"{mine}:wrong", "--toyiwae-target", "dreg"]
    done = plugged(*options, "--toyiwae-expected-failures", "listed.txt", cwd=tmp_path)
    assert done.returncode == 1
    assert "1 xfailed" in done.stdout
    options[1] = f"{mine}:dreg"
    done = plugged(*options, "--toyiwae-expected-failures", "listed.txt", "-v", cwd=tmp_path)
    assert "it passes: take it off the list" in done.stdout
    assert "minimum detectable effect: a bias of 0.05" in done.stdout
