"""`python -m analysis bench`: every benchmark there is, by name; what each one times has tests of its own."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analysis import benchmarks
from analysis.benchmarks.__main__ import BENCHMARKS
from analysis.benchmarks.timing import Timing
from tests.made_study import invoke

HOME = Path(benchmarks.__path__[0])
ROOT = HOME.parents[1]


def test_every_module_that_can_run_is_a_benchmark() -> None:
    found = [
        path.stem for path in HOME.glob("*.py") if re.search(r"^def run\(\)", path.read_text(), re.MULTILINE)
    ]
    assert sorted(found) == list(BENCHMARKS)
    assert all(callable(importlib.import_module(f"analysis.benchmarks.{name}").run) for name in BENCHMARKS)


def test_all_run_in_turn_or_those_named(monkeypatch, capsys) -> None:
    for name in BENCHMARKS:
        module = importlib.import_module(f"analysis.benchmarks.{name}")
        monkeypatch.setattr(
            module, "run", lambda name=name: iter([Timing(f"{name} was timed", 2.0, "calls/s", 0.5)])
        )
    assert invoke(monkeypatch, "bench") == 0
    text = capsys.readouterr().out
    places = [text.index(f"{name} was timed") for name in BENCHMARKS]
    assert places == sorted(places)
    assert re.search(r"sweep was timed +2 calls/s +0\.50 of the limit", text)
    assert invoke(monkeypatch, "bench", "oracle", "sweep") == 0
    assert re.findall(r"(\w+) was timed", capsys.readouterr().out) == ["oracle", "sweep"]


@pytest.mark.parametrize("names", [["orakel"], ["oracle", "precision"]])
def test_an_unknown_name_is_refused_before_anything_runs(monkeypatch, capsys, names) -> None:
    module = importlib.import_module("analysis.benchmarks.oracle")
    monkeypatch.setattr(module, "run", lambda: pytest.fail("ran"))
    assert invoke(monkeypatch, "bench", *names) == 2
    assert "expected one of digits, graph, mnist" in capsys.readouterr().err


def test_the_package_itself_is_the_same_command() -> None:
    command = [sys.executable, "-m", "analysis.benchmarks", "orakel"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: benchmark 'orakel': expected one of")
