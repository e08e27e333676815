"""`python -m analysis` on a study made for the test: files, exit codes, progress."""

import io

import pandas as pd
import pytest
from rich.console import Console

from analysis.run_all import run_all
from tests.made_study import (
    Small,
    breaking,
    compute,
    draw,
    failing,
    invoke,
    make,
    only_these,
    written,
)


@pytest.fixture
def only(monkeypatch):
    """Makes the command line see the given studies and no others."""
    return only_these(monkeypatch)


def test_the_command_line_reports_and_a_failed_claim_ends_in_1(tmp_path, monkeypatch, only, capsys):
    only(make())
    assert invoke(monkeypatch, "report", "--jobs", "1", "--quick", "--out", tmp_path) == 0
    assert written(tmp_path) == {
        "report.html", "explorer.html", "ledger.csv", "ledger.json",
        "small.png", "small.pdf", "small-curve.csv", "small.txt", "small.py.txt",
    }  # fmt: skip
    assert len(pd.read_csv(tmp_path / "small-curve.csv")) == 3
    only(make(verdicts=failing, compute=lambda settings: {"other": compute(settings)["curve"]},
              draw=lambda table: draw({"curve": table["other"]}), caption=lambda table: "c"))  # fmt: skip
    assert invoke(monkeypatch, "report", "--jobs", "1", "--again", "--out", tmp_path) == 1
    assert "this report fails" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "small-curve.csv").exists()
    assert (tmp_path / "small-other.csv").exists()
    only(make(compute=breaking))
    assert invoke(monkeypatch, "report", "--jobs", "1", "--again", "--out", tmp_path) == 1
    assert "broke down" in (tmp_path / "report.html").read_text()
    assert written(tmp_path) == {"report.html", "explorer.html", "ledger.csv", "ledger.json"}
    assert "broke down" in capsys.readouterr().out


def test_the_command_line_runs_one_study_and_lists_all(tmp_path, monkeypatch, only, capsys):
    only(make(), make(name="another", order=2))
    assert invoke(monkeypatch, "run", "small", "--set", "points=4", "--out", tmp_path) == 0
    assert len(pd.read_csv(tmp_path / "small-curve.csv")) == 4
    assert invoke(monkeypatch, "run", "small", "--set", "slope=-0.25", "--out", tmp_path) == 1
    assert (
        invoke(
            monkeypatch, "run", "small", "--figure", tmp_path / "docs" / "one.png", "--out", tmp_path / "no"
        )
        == 0
    )
    assert (tmp_path / "docs" / "one.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "no").exists()
    capsys.readouterr()
    assert invoke(monkeypatch, "list") == 0
    assert "another" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "smal"], "no study 'smal'; did you mean small?"),
        (["run", "small", "--style", "icmll"], "--style is 'icmll': did you mean icml?"),
        (["report", "--style", "paper"], "--style is 'paper': "),
        (["run", "small", "--set", "points=x"], "settings of small: points = 'x'"),
        (["report", "--set", "points=3"], "expected STUDY.key=value"),
        (["report", "--set", "tiny.points=3"], "no study 'tiny'; there are small"),
        (["report", "--settings", "absent.toml"], "no such file"),
        (["report", "--settings", "flat.toml"], "points = 3 stands outside a table"),
        (["run", "small", "--quik"], "No such option: --quik"),
        (["report", "--jobs", "0"], "Invalid value for '--jobs'"),
        (["sweep", "plan"], "(see `python -m analysis sweep plan --help`)"),
        (["reprot"], "No such command 'reprot'"),
    ],
)
def test_bad_input_takes_one_line_and_ends_in_2(tmp_path, monkeypatch, only, capsys, words, message):
    only(make())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat.toml").write_text("points = 3\n")
    assert invoke(monkeypatch, *words, "--out", "results") == 2
    captured = capsys.readouterr().err
    assert captured.startswith("error: ")
    assert message in captured
    assert captured.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_the_ledger_takes_claims_again_whatever_the_style_of_the_figures(tmp_path, monkeypatch, only):
    calls = []
    only(make(compute=lambda settings: calls.append(settings) or compute(settings)))
    words = ("--jobs", "1", "--quick", "--out", tmp_path)
    assert invoke(monkeypatch, "report", "--style", "icml", *words) == 0
    assert invoke(monkeypatch, "ledger", *words) == 0
    assert len(calls) == 1
    assert invoke(monkeypatch, "report", *words) == 0  # its figures do depend on it
    assert len(calls) == 2
    assert invoke(monkeypatch, "ledger", *words, "--set", "small.points=4") == 0
    assert len(calls) == 3


def test_without_a_command_the_program_explains_itself(monkeypatch, capsys):
    for words in ((), ("sweep",)):
        assert invoke(monkeypatch, *words) == 0
        captured = capsys.readouterr()
        assert "Usage: python -m analysis" in captured.out
        assert captured.err == ""


def test_an_interrupted_write_leaves_the_old_report(tmp_path, monkeypatch, only):
    only(make())
    (tmp_path / "report.html").write_text("old")

    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert invoke(monkeypatch, "report", "--jobs", "1", "--out", tmp_path) == 2
    assert written(tmp_path) == {"report.html"}
    assert (tmp_path / "report.html").read_text() == "old"
    assert not list((tmp_path / ".kept").iterdir())


def test_progress_shows_studies_and_cells(monkeypatch):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=100, highlight=False)
    run_all([(make(), Small())], console)
    assert "✓ A <small> study: 1 of 1 claims hold" in stream.getvalue()
