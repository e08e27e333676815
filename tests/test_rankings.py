"""The ranking that `toyiwae compare` prints: what fits a line, what is said once, and what is not told from 0."""

from pathlib import Path

import pytest

from toyiwae.cli import rankings
from toyiwae.cli.main import main

FILE = str(Path(__file__).resolve().parents[1] / "docs" / "problem.toml")


def test_a_ranking_fits_eighty_columns_and_names_and_numbers_stay_whole(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    words = [
        "compare",
        FILE,
        "--budget",
        "64",
        "-e",
        "elbo,elbo_vargrad,iwae",
        "-p",
        "prior_mean",
    ]
    assert main([*words, "--by", "snr"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    rows = [line.split() for line in lines]
    assert any(row[:9] == ["4", "elbo_vargrad", "2", "to", "64", "32", "to", "1", "2.643"] for row in rows)


def test_a_narrow_ranking_says_what_it_lacks_and_keeps_what_ranks(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["compare", FILE, "--budget", "1", "-e", "rws_wake_phi_dreg", "-p", "prior_mean"]) == 0
    shown = capsys.readouterr().out
    assert "M·K = 1 particle: 1 estimator at 1 split\n" in " ".join(shown.split("\n")[:2]) + "\n" or (
        "1 particle: 1 estimator at" in shown
    )
    assert "rws_wake_phi_dreg  1  1" in shown
    assert "too narrow for bias" in shown


def test_reasons_that_differ_in_the_name_only_are_one():
    reason = "estimator '{}' needs the path derivative"
    made = [
        {"estimator": name, "K": k, "rank": None, "reason": reason.format(name)}
        for name, first in (("iwae", 1), ("dreg", 1), ("jackknife", 2))
        for k in (1, 2, 4, 8, 16)
        if k >= first
    ]
    expected = "Not known: iwae, dreg at K = 1 to 16; jackknife at K = 2 to 16: needs the path derivative"
    assert rankings._unknown(made, [1, 2, 4, 8, 16]) == [expected]
    assert rankings._counts([1, 2, 8, 16], [1, 2, 4, 8, 16]) == "4 from 1 to 16"


def test_where_nothing_has_the_number_that_ranks_the_error_does_and_noise_is_0():
    lines = [[{"relative_rmse": None}], [{"relative_rmse": None}]]
    assert rankings._decides("relative_rmse", lines) == ("rmse", ", since no line has RMSE/‖target‖")
    assert rankings._decides("relative_rmse", [*lines, [{"relative_rmse": 0.5}]]) == ("relative_rmse", "")
    assert rankings._beyond_error({"snr": 7.6e-16, "snr_error": 1e-15}, "snr") == 0.0
    assert rankings._beyond_error({"snr": 7.6e-16, "snr_error": 1e-16}, "snr") == 7.6e-16
    assert rankings._beyond_error({"snr": None, "snr_error": None}, "snr") is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--budget", "1.5"], "budget is '1.5': expected a whole number of at least 1"),
        (["--budget", "1e18"], "budget is '1e18': expected at most 1000000000"),
        (["--budget", "8", "--by", "rms"], "by is 'rms': did you mean rmse?"),
        (["--budget", "8", "-e", "drag"], "unknown estimator 'drag': did you mean dreg?"),
        (["--budget", "8", "-p", "none"], "parameters is empty"),
        ([], "Missing option '--budget'"),
    ],
)
def test_the_command_refuses_in_one_line(words, message, capsys):
    assert main(["compare", FILE, *words]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out


def test_the_command_prints_a_line_for_what_is_equal_and_one_for_each_reason(capsys):
    words = ["compare", FILE, "--budget", "2", "-e", "iwae,jackknife,vimco_geometric"]
    assert main([*words, "-p", "prior_mean", "--all"]) == 0
    shown = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert any(line.startswith("1 iwae, vimco_geometric 2 1 ") for line in lines)
    assert "Not known at K = 1: jackknife, vimco_geometric: needs K of at least 2" in lines
    assert sum(line.startswith("Not known at K = 2: jackknife: no closed form") for line in lines) == 1
    assert "more with --all" not in shown
