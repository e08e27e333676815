"""`python -m analysis mnist`: skipped without the data, resumed with it; the page says what was run."""

import dataclasses
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


def test_exact_gaps_are_kept_for_their_data_and_sizes_alone(tmp_path):
    plan = dataclasses.replace(run.QUICK, latents=2, linear_images=3, encoder_images=20, linear_k=(1, 4))
    notes: list[str] = []

    def gaps(plan, seed):
        folder = tmp_path / "data"
        folder.mkdir(exist_ok=True)
        for split in ("train", "t10k"):
            pixels = np.random.default_rng(seed).integers(0, 256, (60, 3, 2), np.uint8)
            head = bytes([0, 0, 8, 3]) + np.array(pixels.shape, ">i4").tobytes()
            (folder / f"{split}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        notes.clear()
        found = run.linear(plan, folder, tmp_path / "out", notes.append)
        return found.gap, bool(notes)

    first, computed = gaps(plan, 1)
    assert computed
    assert first.shape == (2, 3)
    again, computed = gaps(plan, 1)
    assert not computed
    assert (again == first).all()
    assert gaps(plan, 2)[1]
    assert gaps(plan, 1)[1]
    assert gaps(dataclasses.replace(plan, latents=1), 1)[1]
    assert not gaps(dataclasses.replace(plan, latents=1, test=7), 1)[1]


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
