"""The commands of sweeps: what they print, and their exit codes."""

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from analysis import __main__ as cli

ROOT = Path(__file__).resolve().parents[1]
OWN = """
from tests.sweep_cells import TOY as EXPERIMENT
"""
GRID = """
experiment = "own.py:EXPERIMENT"
[settings]
trouble = ""
[axes]
kind = ["sin", "cos"]
n = [1, 2, 4]
"""


@pytest.fixture
def files(tmp_path):
    """A grid and what it needs; the store beside it."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "toys.toml").write_text(GRID)
    return tmp_path / "toys.toml", tmp_path / "toys.sqlite"


@pytest.fixture
def said(monkeypatch, capsys):
    """Runs a command: its exit code, and what it printed on standard output and error."""

    def run(*words):
        monkeypatch.setattr("sys.argv", ["analysis", "sweep", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return end.value.code, *capsys.readouterr()

    return run


def test_from_plan_to_export(files, said):
    toml, store = files
    code, out, _ = said("plan", toml, "--store", store)
    assert code == 0
    assert "6 cells of toy" in out
    assert "stored: 0, failed: 0, to do: 6" in out
    assert "unknown until some cells have run" in out
    assert not store.exists()
    code, out, _ = said("run", toml, "--store", store, "--limit", 4)
    assert code == 0
    assert "4 of 6 cells done, 0 failed, 2 to do" in out
    code, out, _ = said("plan", toml, "--store", store)
    assert "stored: 4, failed: 0, to do: 2" in out
    assert re.search(r"time: about \S+ \S+ on 1 process$", out, re.MULTILINE)
    assert said("run", toml, "--store", store)[0] == 0
    code, out, _ = said("status", toml, "--store", store)
    assert "6 of 6 cells done (100.0 %), 0 failed, 0 to do" in out
    assert "nobody writes to it" in out
    for name in ("a.csv", "a.nc"):
        code, out, _ = said("export", toml, "--store", store, "--out", store.with_name(name))
        assert (code, "6 cells" in out) == (0, True)
    toml.write_text(GRID.replace("[1, 2, 4]", "[1, 2]"))
    code, out, err = said("run", toml, "--store", store)
    assert code == 2
    assert re.fullmatch(r"error: axes is .*--update.*\n", err)
    code, out, _ = said("plan", toml, "--store", store)
    assert "run with --update" in out
    assert "stored: 4, failed: 0, to do: 0" in out
    assert said("run", toml, "--store", store, "--update")[0] == 0
    assert "2 rows of other settings or versions, kept until gc" in said("status", store)[1]
    assert "2 rows deleted" in said("gc", store)[1]


def test_an_edited_problem_file_is_noticed(tmp_path, said):
    toml, store, problem = (tmp_path / name for name in ("e.toml", "e.sqlite", "p.toml"))
    text = (ROOT / "docs" / "problem.toml").read_text()
    problem.write_text(text)
    toml.write_text(f'experiment = "exact"\n[settings]\nproblem = "{problem}"\n[axes]\nK = [1, 3]\n')
    assert said("run", toml, "--store", store, "--limit", 1)[0] == 0
    problem.write_text(re.sub(r"(?m)^(x = .*?)(\d)\b", lambda found: f"{found[1]}9", text, count=1))
    code, _, err = said("run", toml, "--store", store)
    assert code == 2
    assert re.fullmatch(r"error: .*a file that it names has changed; .*--update.*\n", err)
    out = said("plan", toml, "--store", store)[1]
    assert "stored: 0, failed: 0, to do: 2" in out
    assert "run with --update" in out
    assert "2 of 2 cells done" in said("run", toml, "--store", store, "--update")[1]


def test_a_store_that_cannot_be_is_one_line_and_leaves_nothing(files, said):
    toml, _ = files
    (toml.parent / "folder").mkdir()
    before = sorted(toml.parent.rglob("*"))
    for place, words in (("folder", "cannot be opened as a store"), ("none/a.sqlite", "no such folder")):
        code, _, err = said("run", toml, "--store", toml.parent / place)
        assert code == 2
        assert re.fullmatch(rf"error: .*{words}.*\n", err)
    assert sorted(path for path in toml.parent.rglob("*") if "__pycache__" not in str(path)) == before


def test_failures_are_listed_with_settings_and_tracebacks(files, said):
    toml, store = files
    toml.write_text(GRID.replace('trouble = ""', 'trouble = "overflow"'))
    code, out, _ = said("run", toml, "--store", store)
    assert code == 1
    assert "0 of 6 cells done, 6 failed" in out
    assert "Traceback" not in out
    out = said("status", store, "--most", 2)[1]
    assert "✗ kind = sin, n = 1 (block 0): ArithmeticError: overflow at x = 1.0" in out
    assert "… and 4 more" in out
    assert "--retry-failed" in out
    assert "in toy" in said("status", store, "--tracebacks")[1]
    assert said("run", toml, "--store", store, "--retry-failed")[0] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "none.toml"], "no such file"),
        (["status", "none.sqlite"], "no such store"),
        (["gc", "none.sqlite"], "no such store"),
        (["export", "none.sqlite", "--out", "a.txt"], "expected a name that ends in .csv or .nc"),
        (
            ["run", "TOML", "--processes", "2", "--threads", "2"],
            "--processes and --threads are given: expected one",
        ),
        (["run", "TOML", "--batch", "0"], "--batch is 0.0: expected seconds greater than 0"),
    ],
)
def test_bad_words_are_one_line(files, said, words, message):
    words = [str(files[0]) if word == "TOML" else word for word in words]
    code, _, err = said(*words)
    assert code == 2
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_study_needs_a_folder_to_run_elsewhere(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["analysis", "run", "gap", "--quick", "--processes", "2"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "expected --sweeps FOLDER, too" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("where", [[], ["--processes", "2"], ["--threads", "2"]])
def test_ctrl_c_ends_the_command_in_two_seconds(files, where):
    toml, store = files
    (toml.parent / "own.py").write_text(
        "import time\nfrom analysis.settings import Settings\nfrom analysis.sweep.experiment import Experiment\n"
        "class Own(Settings):\n    n: int\n"
        "def run(settings, block):\n    time.sleep(0 if settings.n < 4 else 60)\n    return {'n': settings.n}\n"
        "EXPERIMENT = Experiment('own', 1, Own, run)\n"
    )
    toml.write_text(
        'experiment = "own.py:EXPERIMENT"\n[[axes]]\nn = [1]\n[[axes]]\nn = [2]\n[[axes]]\nn = [9, 8]\n'
    )
    command = [sys.executable, "-m", "analysis", "sweep", "run", str(toml), "--store", str(store), *where]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, heard)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not store.exists():
        time.sleep(0.05)
    time.sleep(6)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - began < 2
    assert process.returncode == 130
    assert re.search(
        r"^interrupted; what was finished is in .*: run the same command to go on$", err, re.MULTILINE
    )
    assert "Traceback" not in err
    out = subprocess.run(
        [sys.executable, "-m", "analysis", "sweep", "status", str(store)],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "2 of 4 cells done" in out
