"""The command line: what it prints, its JSON, and one line for everything that is wrong."""

import json
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import toyiwae
from toyiwae import estimators
from toyiwae.cli import main

MODEL = """\
[model]
prior_mean = [0.3, -0.2]
prior_cov = [[1.2, 0.1], [0.1, 0.8]]
loading = [[1.0, 0.2], [0.1, 0.9], [0.4, -0.3]]
offset = [0.1, 0.0, -0.2]
noise_cov = [[0.5, 0.0, 0.0], [0.0, 0.7, 0.1], [0.0, 0.1, 0.9]]
"""
FIXED = "[proposal]\nmean = [0.2, 0.1]\ncov = [[0.6, 0.1], [0.1, 0.7]]\n[data]\nx = [0.4, -1.0, 0.3]\n"
AMORTISED = """\
[proposal]
weight = [[0.3, 0.1, 0.1], [0.1, 0.5, -0.2]]
offset = [0.1, -0.1]
cov = [[0.6, 0.1], [0.1, 0.7]]
[data]
x = [[0.4, -1.0, 0.3], [1.0, 0.2, -0.3], [-2.0, 0.0, 1.5]]
"""


@pytest.fixture
def problem(tmp_path):
    path = tmp_path / "problem.toml"
    path.write_text(MODEL + FIXED, encoding="utf-8")
    return str(path)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.toml"
    path.write_text(MODEL + AMORTISED, encoding="utf-8")
    return str(path)


@pytest.fixture
def run(capsys):
    """Runs the command line in this process: (exit code, standard output, standard error)."""

    def runner(*argv):
        code = main.main([str(argument) for argument in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return runner


@pytest.fixture
def answer(run):
    """The JSON document of a command that must succeed."""

    def runner(*argv):
        code, out, err = run(*argv, "--json")
        assert (code, err) == (0, "")
        return json.loads(out, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))

    return runner


def script(*argv, **kwargs):
    command = [sys.executable, "-m", "toyiwae", *map(str, argv)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **kwargs)


# exact ---------------------------------------------------------------------------------------------------


def test_exact_json_has_the_agreed_shape(answer, problem):
    document = answer("exact", problem, "-K", "1,16,1e6", "-M", "1,3", "-e", "iwae,ciwae:0.5")
    assert list(document) == ["log_evidence", "log_evidence_error", "posterior", "results", "provenance"]
    assert list(document["posterior"]) == ["mean", "mean_error", "cov", "cov_error"]
    order = [(cell["K"], cell["M"]) for cell in document["results"]]
    assert order == [(1, 1), (1, 3), (16, 1), (16, 3), (10**6, 1), (10**6, 3)]
    for cell in document["results"]:
        assert cell["bound"] + cell["gap"] == pytest.approx(document["log_evidence"], rel=1e-13)
        assert {"gap_error", "ess"} <= set(cell)
        assert "per_row" not in cell
        assert list(cell["gradients"]) == ["iwae", "ciwae:0.5"]
        for gradients in cell["gradients"].values():
            assert list(gradients) == ["target_bound", "target_bound_error", "prior_mean", "proposal_mean"]
            for parameter in ("prior_mean", "proposal_mean"):
                moments = gradients[parameter]
                assert {"mean", "var", "snr", "mean_error", "var_error"} <= set(moments)
                assert len(moments["mean"]) == 2
    asked = document["provenance"]["arguments"]
    assert asked["command"] == "exact"
    assert asked["file"] == "problem.toml"
    assert str(Path(problem).parent) not in json.dumps(document)


def test_exact_prints_what_the_library_computes(answer, problem):
    document = answer("exact", problem, "-K", "8", "-M", "3", "-e", "dreg", "-p", "all")
    result = toyiwae.exact(toyiwae.load(problem), K=8, M=3, estimators=("dreg",), parameters="all")
    expected = result.to_dict()
    assert document["results"] == expected["results"]
    assert document["log_evidence"] == expected["log_evidence"]


def test_names_are_spelled_as_asked_and_options_repeat(answer, problem):
    document = answer(
        "exact", problem, "-K", "2", "-K", "1_000", "-e", "ciwae:.50", "-e", "iwae,dreg", "-p", "prior_mean"
    )
    assert [cell["K"] for cell in document["results"]] == [2, 1000]
    assert list(document["results"][0]["gradients"]) == ["ciwae:.50", "iwae", "dreg"]
    assert list(document["results"][0]["gradients"]["dreg"]) == [
        "target_bound",
        "target_bound_error",
        "prior_mean",
    ]


def test_many_rows_are_reported_per_row(answer, rows):
    (cell,) = answer("exact", rows, "-K", "4")["results"]
    assert list(cell["per_row"]) == ["gap", "gap_error", "ess", "ess_error"]
    assert len(cell["per_row"]["gap"]) == 3
    assert np.mean(cell["per_row"]["gap"]) == pytest.approx(cell["gap"], rel=1e-12)
    assert np.shape(cell["gradients"]["iwae"]["proposal_weight"]["mean"]) == (2, 3)


def test_the_same_call_prints_the_same_bytes(run, problem):
    calls = [run("exact", problem, "-K", "3", "--json") for _ in range(2)]
    assert calls[0] == calls[1]


def test_a_users_own_estimator(answer, problem, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "import toyiwae\nfrom toyiwae.estimators import both, iwae_bound\nfrom toyiwae.weights import normalise\n\n"
        "@toyiwae.estimator(target=both(iwae_bound), form=toyiwae.Form({1: 1}, {2: 1}, {}))\n"
        'def squared(log_w):\n    """Mine."""\n'
        "    shares, groups = normalise(log_w), log_w.shape[-2]\n"
        "    return toyiwae.Coefficients(shares / groups, shares**2 / groups, 0 * shares)\n"
    )
    name = f"{file}:squared"
    document = answer("exact", problem, "-K", "5", "-e", f"{name},dreg")
    gradients = document["results"][0]["gradients"]
    assert gradients[name] == gradients["dreg"]
    assert "squared" not in estimators.names()
    assert str(tmp_path) not in json.dumps(document["provenance"])


# tables ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fixture", "options"),
    [
        ("problem", ["-K", "1,16,1e6", "-M", "1,3", "-e", "iwae,ciwae:0.5,iwae_stl", "-p", "all"]),
        ("rows", ["-K", "1,16,1e6", "-M", "1,3", "-e", "iwae,iwae_stl", "-p", "all"]),
        ("problem", ["-K", "2,16", "-M", "1,3", "-e", "iwae", "--covariance"]),
        ("rows", ["-K", "2,16", "-M", "1,3", "-e", "iwae", "--covariance"]),
        ("problem", ["-K", "3", "-e", ",".join(toyiwae.estimators.names()), "-p", "prior_mean"]),
        *(
            pytest.param(
                given, ["-K", "3", "-e", ",".join(toyiwae.estimators.names())], marks=pytest.mark.slow
            )
            for given in ("problem", "rows")
        ),
    ],
)
def test_tables_fit_eighty_columns(run, request, monkeypatch, fixture, options):
    monkeypatch.delenv("COLUMNS", raising=False)
    code, out, err = run("exact", request.getfixturevalue(fixture), *options)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert not re.search(r"[^(\s]…", out), "a cell was cut off"
    assert not re.search(r"\s$", out.removesuffix("\n"), re.MULTILINE) or "\n\n" in out
    assert "log evidence" in out
    assert "\x1b" not in out


def test_tables_show_the_numbers_and_say_why_one_is_missing(run, answer, problem):
    options = ["exact", problem, "-K", "8", "-e", "score_function"]
    (cell,) = answer(*options)["results"]
    _, out, _ = run(*options)
    assert f"{cell['bound']:.7f}" in out
    assert f"{cell['ess']:.5f}" in out
    for moments in cell["gradients"]["score_function"].values():
        if isinstance(moments, dict) and moments["var"] is None:
            assert "–[1]" in out
            assert " ".join(moments["reason"].split()) in " ".join(out.split())


# estimate --------------------------------------------------------------------------------------------------


def test_tables_have_the_digits_that_were_asked_for(run, answer, problem):
    """A line for each number that is not 0 by a theorem, the text of the JSON, and a bound that its ends are within."""
    options = ("exact", problem, "-K", "3", "-e", "iwae", "-p", "proposal_mean", "--digits", "24")
    moments = answer(*options)["results"][0]["gradients"]["iwae"]["proposal_mean"]
    _, out, _ = run(*options)
    lines = out[out.index("proven digits") :].splitlines()
    assert not [line for line in lines if "bias" in line]
    shown = dict(line.strip().split("  ") for line in lines if " ± " in line and "truth" not in line)
    assert {"log_evidence", "bound", "gap", "ess", "target_bound", "snr[0]", "rmse[1]"} <= shown.keys()
    for name in ("mean", "var", "snr", "rmse", "rmse_evidence"):
        for i, text in enumerate(moments["decimals"][name]):
            number, radius = shown[f"{name}[{i}]"].split(" ± ")
            ends = [Fraction(moments["enclosures"][name][side][i]) for side in ("lower", "upper")]
            assert number == text
            assert max(abs(Fraction(text) - end) for end in ends) <= Fraction(radius) < Fraction(1, 10**22)


def test_estimate_json_has_the_agreed_shape(answer, problem):
    options = ["-K", "2,4", "-M", "1,3", "-e", "iwae,dreg", "--replicates", "50", "--seed", "7"]
    document = answer("estimate", problem, *options)
    assert [(cell["K"], cell["M"]) for cell in document["results"]] == [(2, 1), (2, 3), (4, 1), (4, 3)]
    for cell in document["results"]:
        assert cell["replicates"] == 50
        assert {"estimate", "se", "truth", "z"} <= set(cell["bound"])
        assert list(cell["gradients"]) == ["iwae", "dreg"]
        for gradients in cell["gradients"].values():
            assert list(gradients) == ["prior_mean", "proposal_mean"]
            for moments in gradients.values():
                wanted = {"mean", "mean_se", "var", "var_se", "truth_mean", "truth_var", "z"}
                assert wanted <= set(moments)
    assert document["provenance"]["arguments"]["seed"] == 7
    assert document == answer("estimate", problem, *options)
    other = answer("estimate", problem, *options[:-1], "8")
    assert other["results"][0]["bound"]["estimate"] != document["results"][0]["bound"]["estimate"]


def test_estimate_tables(run, problem, rows):
    for file in (problem, rows):
        options = [
            "-K",
            "2,1e3",
            "-e",
            "iwae,score_function",
            "--replicates",
            "20",
            "--seed",
            "0",
            "-p",
            "all",
        ]
        code, out, err = run("estimate", file, *options)
        assert (code, err) == (0, "")
        assert max(map(len, out.splitlines())) <= 80
        assert "20 replicates" in out
        assert "Agrees with the truth" in out


def test_estimate_without_its_engine_names_the_extra(run, problem, monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("toyiwae.extras.importlib.import_module", missing)
    options = ["-K", "2", "--replicates", "9", "--seed", "0", "--engine"]
    for engine, what, extra in (
        ("torch", "toyiwae estimate", "torch"),
        ("numba", "the engine numba", "fast"),
    ):
        code, out, err = run("estimate", problem, *options, engine)
        assert (code, out) == (2, "")
        assert (
            err == f"error: {what} needs {engine}, which is not installed: pip install 'toyiwae[{extra}]'\n"
        )


# list and the rest -----------------------------------------------------------------------------------------


def test_list_is_the_registry(run, answer):
    entries = answer("list")["estimators"]
    assert tuple(entry["name"] for entry in entries) == estimators.names()
    code, out, err = run("list")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    for made in estimators.all():
        (entry,) = [entry for entry in entries if entry["name"] == made.family]
        assert (entry["parameter"] or {}).get("default") == made.parameter
        assert entry["min_particles"] == made.min_particles
        assert entry["cite"] == list(made.cite)
        assert (entry["target"]["theta"] is None) == (made.target.model is None)
        assert (entry["target"]["phi"] is None) == (made.target.proposal is None)
        assert re.search(rf"^{made.family}\b", out, re.MULTILINE)
        shown = made.summary.replace("`", "")
        assert " ".join(shown.split()) in " ".join(out.split())


def test_version_and_help(run):
    assert run("--version") == (0, f"toyiwae {toyiwae.__version__}\n", "")
    for argv in (["--help"], ["-h"], ["exact", "--help"], ["estimate", "-h"], ["list", "--help"]):
        code, out, err = run(*argv)
        assert (code, err) == (0, "")
        assert "Usage: toyiwae" in out


@pytest.mark.parametrize(
    ("command", "absent"),
    [
        ("--help", {"numpy", "scipy", "mpmath", "sympy", "torch", "matplotlib", "pandas", "toyiwae.truth"}),
        ("list", {"scipy", "mpmath", "sympy", "torch", "matplotlib", "pandas", "toyiwae.truth"}),
    ],
)
def test_start_is_light(command, absent):
    """What takes a tenth of a second or more to load is not loaded before it is needed."""
    code = f"import sys; from toyiwae.cli import main; main.main([{command!r}]); print(*sys.modules, file=sys.stderr)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert loaded.stdout
    assert "toyiwae.cli.main" in loaded.stderr.split()
    assert not absent & set(loaded.stderr.split())
