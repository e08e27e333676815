"""`python -m analysis mnist`: skipped without the data, resumed with it; the page says what was run."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from analysis import __main__ as commands
from analysis.mnist import run
from toyiwae.networks.runs import checkpoints
from toyiwae.networks.runs.settings import read

MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


def mnist(*arguments):
    """Exit code and output."""
    found = CliRunner().invoke(commands.app, ["mnist", *map(str, arguments)])
    return found.exit_code, found.output


def test_without_the_data_it_says_how_to_get_them_and_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setenv("TOYIWAE_DATA", str(tmp_path / "none"))
    code, text = mnist("--full", "--out", tmp_path / "out")
    assert code == 0
    assert "`toyiwae data fetch mnist`" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("plan", [run.QUICK, run.FULL])
def test_the_methods_are_those_of_the_papers_table(plan):
    members = read(run.settings(plan)).stack()
    assert {member.particles for member in members} == {64}
    assert sorted((member.M, member.K) for member in members) == [(1, 64), (1, 64), (8, 8), (8, 8), (64, 1)]
    assert len({member.model.partition(":")[0] for member in members}) == 4


@pytest.mark.slow
@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's files do not stand beside this clone")
def test_a_quick_run_is_resumed_and_its_page_says_what_was_run(tmp_path):
    arguments = ("--quick", "--data-dir", MNIST, "--out", tmp_path, "--docs", tmp_path / "docs" / "page.md")
    code, text = mnist(*arguments, "--minutes", 0.01)  # a step at least
    assert code == 0, text
    first = checkpoints.step_of(checkpoints.found(tmp_path / "quick" / "deep" / "checkpoints")[-1])
    assert 1 <= first < 100
    gaps = (tmp_path / "quick" / "linear.npz").stat().st_mtime_ns
    code, text = mnist(*arguments)
    assert code == 0, text
    assert f"goes on after step {first} of 100" in text
    assert (tmp_path / "quick" / "linear.npz").stat().st_mtime_ns == gaps
    page = (tmp_path / "docs" / "page.md").read_text(encoding="utf-8")
    assert "100 steps were made" in page
    assert "(1.00 epochs of 2,000 images)" in page
    for name in ("linear", "training", "samples"):
        assert (tmp_path / "docs" / "figures" / f"mnist-{name}.png").stat().st_size > 10_000
    with np.load(tmp_path / "quick" / "linear.npz") as found:
        assert found["gap"].shape == (3, 300)
        assert (np.diff(found["gap"], axis=0) < 0).all()
        assert found["error"] < 1e-8
    code, text = mnist(*arguments)  # nothing is left to do
    assert code == 0, text
    assert "evaluation" not in text
