"""`python -m analysis mnist`: plans by device, what is kept, resumed and shown; the page says what was run."""

import dataclasses
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("torch")

from analysis import __main__ as commands
from analysis import output
from analysis.mnist import command, deep, linear, plans, published, results
from toyiwae import InputError
from toyiwae.networks.data.images import images_named
from toyiwae.networks.runs import checkpoints

MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
TINY = {
    "model": {"hidden": [6], "latents": 3},
    "train": 60,
    "epochs": 3,
    "test": 12,
    "largest_k": 100,
    "curve_images": 6,
    "curve_points": 3,
    "snr_images": 2,
    "snr_replicates": 20,
    "snr_points": 2,
    "metrics_every": 1,
    "checkpoint_every": 4,
    "latents": 2,
    "linear_images": 8,
    "encoder_images": 20,
    "linear_k": (1, 64, 500),
}
QUICK = dataclasses.replace(plans.QUICK, **TINY)
TABLE = dataclasses.replace(plans.TABLE, device="cpu", milestones=(1,), seeds=(1, 2), **TINY)
FIGURES = ("linear", "training", "results", "budget", "snr", "samples")


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Figures of few pixels and of no layout, which take most of the time."""
    monkeypatch.setattr(output, "PNG_DPI", 30)
    monkeypatch.setattr(
        "matplotlib.layout_engine.ConstrainedLayoutEngine.execute", lambda engine, figure: None
    )


def made(folder, seed=1, pixels=(3, 2)):
    """A folder of IDX files with 60 training and 20 test images."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, count in (("train", 60), ("t10k", 20)):
        images = np.random.default_rng(seed).integers(0, 256, (count, *pixels), np.uint8)
        head = bytes([0, 0, 8, 3]) + np.array(images.shape, ">i4").tobytes()
        (folder / f"{split}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    return folder


def mnist(*arguments):
    """Exit code and output."""
    found = CliRunner().invoke(commands.app, ["mnist", *map(str, arguments)])
    return found.exit_code, found.output


def place_of(data, home):
    return deep.Place(data, images_named("idx", data), home)


def test_without_the_data_it_says_how_to_get_them_and_is_skipped(tmp_path, monkeypatch):
    monkeypatch.setenv("TOYIWAE_DATA", str(tmp_path / "none"))
    code, text = mnist("--full", "--out", tmp_path / "out")
    assert code == 0
    assert "`toyiwae data fetch mnist`" in text
    assert not (tmp_path / "out").exists()


def test_exact_gaps_are_kept_for_their_data_and_sizes_alone(tmp_path):
    plan = dataclasses.replace(plans.QUICK, latents=2, linear_images=3, encoder_images=20, linear_k=(1, 4))
    notes: list[str] = []

    def gaps(plan, seed):
        notes.clear()
        found = linear.linear(plan, made(tmp_path / "data", seed), tmp_path / "out", notes.append)
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


def test_a_study_that_was_interrupted_ends_with_the_same_files(tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "QUICK", QUICK)
    data = made(tmp_path / "data")
    arguments = ("--quick", "--any-images", "--data-dir", data, "--out")
    with monkeypatch.context() as undrawn:
        undrawn.setattr(command, "_figures", lambda *_: {})
        code, text = mnist(*arguments, tmp_path / "broken", "--minutes", 1e-9)  # a step
    assert code == 0, text
    assert "stops after step 1 of 9" in text
    assert "0.33 epochs" in (tmp_path / "broken" / "quick" / "mnist.md").read_text(encoding="utf-8")
    for out in ("broken", "whole"):
        code, text = mnist(*arguments, tmp_path / out)
        assert code == 0, text
    whole, broken = (tmp_path / out / "quick" for out in ("whole", "broken"))
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    assert {f"figures/mnist-{name}.png" for name in FIGURES} < set(map(str, names))
    differ = {"linear.npz", "deep/times.jsonl", "mnist.md"}  # they hold times
    for name in names:
        if name.suffix == ".npz" and str(name) not in differ:
            first, second = (np.load(home / name) for home in (whole, broken))
            assert all(
                np.array_equal(first[key], second[key], equal_nan=key != "of") for key in first.files
            ), name
        elif str(name) not in differ:
            assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    pages = [
        re.sub(r"[\d.–]+ s(teps a second)? ", "", (home / "mnist.md").read_text()) for home in (whole, broken)
    ]
    assert re.sub(r"rate was [\d.]+", "", pages[0]) == re.sub(r"rate was [\d.]+", "", pages[1])
    monkeypatch.setattr(command, "_figures", lambda *_: {})
    code, text = mnist(*arguments, tmp_path / "whole")
    assert text.count("\n") == 1  # nothing but where the page is


def test_stacks_stop_at_the_epoch_that_is_asked_for_and_go_on(tmp_path):
    place = place_of(made(tmp_path / "data"), tmp_path / "home")
    plan = dataclasses.replace(TABLE, stacks={name: TABLE.stacks[name] for name in ("methods", "splits")})

    def steps(name):
        return [checkpoints.step_of(path) for path in checkpoints.found(place.home / name / "checkpoints")]

    notes: list[str] = []
    page = command.study(plan, place, plans.Wish(epochs=2), tmp_path / "docs" / "here.md", notes.append)
    assert (
        steps("methods") == steps("splits") == [0, 3, 4, 6]
    )  # each epoch has 3 steps, milestones are after 1
    text = page.read_text(encoding="utf-8")
    assert "trained for 2.00 epochs" in text
    assert "figures/here-budget.png" in text
    assert {path.name for path in (page.parent / "figures").iterdir()} == {
        f"here-{name}.png" for name in FIGURES
    }
    deep.train_stacks(
        dataclasses.replace(plan, stacks={"methods": plan.stacks["methods"]}), place, None, None, notes.append
    )
    assert steps("methods") == [0, 3, 4, 6, 8, 9]
    found = results.results(deep.measure(plan, place, notes.append))
    assert sorted(set(found.methods.step)) == [6, 9]
    assert set(found.together.step) == {9}
    assert len(found.together) == 5


def test_what_was_measured_is_taken_for_the_same_checkpoint_and_arguments(tmp_path):
    place = place_of(made(tmp_path / "data"), tmp_path / "home")
    plan = dataclasses.replace(QUICK, stacks={"deep": QUICK.stacks["deep"][:2]}, epochs=1)
    notes: list[str] = []
    deep.train_stacks(plan, place, None, None, notes.append)

    def computed(plan):
        notes.clear()
        return deep.measure(plan, place, notes.append)[0], sum(
            "evaluation" in n or "signal" in n for n in notes
        )

    assert computed(plan)[1] == 2
    assert computed(plan)[1] == 0
    fewer, count = computed(dataclasses.replace(plan, test=7))
    assert (fewer.evaluation["bound"].shape, count) == ((4, 3, 7), 1)
    assert computed(dataclasses.replace(plan, test=7, snr_replicates=40))[1] == 1
    measured = place.home / "deep" / "measured"
    measured.rename(tmp_path / "measured")
    shutil.rmtree(place.home / "deep")
    other = dataclasses.replace(plan, test=7, snr_replicates=40, seeds=(3, 4))
    deep.train_stacks(other, place, None, None, notes.append)
    (tmp_path / "measured").rename(measured)
    again, count = computed(other)
    assert count == 2
    assert not np.array_equal(again.evaluation["bound"], fewer.evaluation["bound"])


def test_ours_stands_beside_the_published_numbers_with_what_differs(tmp_path):
    place = place_of(made(tmp_path / "data"), tmp_path / "home")
    ours = published.THEIRS
    assert published.comparable(ours)
    assert published.comparable(dataclasses.replace(ours, products="tf32"))  # theirs is not said
    for name, value in {
        "epochs": 3279.0,
        "seeds": 1,
        "test": 1000,
        "learning_rate": "0.001, constant",
    }.items():
        other = dataclasses.replace(ours, **{name: value})
        assert not published.comparable(other)
        assert [what for what, *_, agrees in published.beside(other) if agrees is False] == [
            published.WORDS[name]
        ]
    mine = dataclasses.replace(place.images, name="mnist")
    named = deep.Place(place.data, mine, place.home)
    plan = dataclasses.replace(QUICK, epochs=1)
    deep.train_stacks(plan, place, None, None, print)
    found = results.results(deep.measure(plan, named, print))
    text = command.page.markdown(
        plan,
        linear.linear(plan, place.data, place.home, print),
        found,
        {"date": "today", "command": "run", "scale": "", "stem": "x", "title": "t"},
    )
    assert "ours under **other conditions** (training images, images of the evaluation, network," in text
    row = found.methods.iloc[1]
    assert f"| IWAE(64) | −84.52 ± 0.02 |  | −{-row.log_p:.2f} ± {row.log_p_se:.2f} |" in text
    assert re.search(r"\| PIWAE\(8, 8\) \| −84.46 ± 0.06 \| −84.58 \| −\d", text)
    assert "| epochs | 3,280 | 1 (differs) |" in text
    assert "Nothing here is a result of a paper" in text
    assert "−\\" not in text


def test_names_of_images_are_escaped_in_the_page(tmp_path):
    data = made(tmp_path / "a|b_c*$d")
    plan = dataclasses.replace(QUICK, stacks={"deep": QUICK.stacks["deep"][:5]}, epochs=1)
    plan = dataclasses.replace(plan, minutes=1e-9)  # a step, of which there are figures, too
    page = command.study(plan, place_of(data, tmp_path / "home"), plans.Wish(), None, print)
    text = page.read_text(encoding="utf-8")
    assert "a\\|b\\_c\\*\\$d, dynamic binarisation" in text
    assert "a|b" not in text
    assert "A folder of images" in text
    assert "Rainforth et al. (2018) |" not in text  # whose numbers are MNIST's


def test_a_gpu_that_is_not_there_is_refused_in_one_line(tmp_path, monkeypatch):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(plans, "TABLE", TABLE)
    data = made(tmp_path / "data")
    found = CliRunner().invoke(
        commands.app,
        [
            "mnist",
            "--full",
            "--device",
            "cuda",
            "--any-images",
            "--data-dir",
            str(data),
            "--out",
            str(tmp_path),
        ],
    )
    assert isinstance(found.exception, InputError)
    assert "training.device is 'cuda'" in str(found.exception)


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
    assert "100 steps of the 20 members" in page
    assert "trained for 1.00 epochs" in page
    for name in FIGURES:
        assert (tmp_path / "docs" / "figures" / f"page-{name}.png").stat().st_size > 1000
    with np.load(tmp_path / "quick" / "linear.npz") as found:
        assert found["gap"].shape == (3, 200)
        assert (np.diff(found["gap"], axis=0) < 0).all()
        assert found["error"] < 1e-8
    code, text = mnist(*arguments)  # nothing is left to do
    assert code == 0, text
    assert "evaluation" not in text
