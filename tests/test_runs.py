"""Runs: settings, the folder, checkpoints, and that what is resumed is the uninterrupted run."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests import crashes
from tests.short_runs import IMAGES, SHORT, short
from toyiwae import DivergenceError, InputError, load_run, train
from toyiwae.cli import main
from toyiwae.networks.data.batches import Batches
from toyiwae.networks.data.images import of_arrays
from toyiwae.networks.noise import Noise
from toyiwae.networks.runs import checkpoints
from toyiwae.networks.runs.settings import read

pytest.importorskip("safetensors")

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "train.toml"
MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


def test_every_epoch_takes_every_image_once_and_members_differ():
    grey = np.arange(7, dtype=np.float32)[:, None] / 8
    images = of_arrays("numbers", grey, grey)
    batches = Batches(images, Noise((3, 4, 3), dtype=torch.float64), 3)
    assert batches.per_epoch == 3
    epochs = [torch.cat([batches.at(step) for step in range(3 * e, 3 * e + 3)], dim=1) for e in range(2)]
    assert [batches.at(step).shape[1] for step in range(3)] == [3, 3, 1]
    for epoch in epochs:
        np.testing.assert_array_equal(epoch.sort(dim=1).values[..., 0], [grey[:, 0]] * 3)
        assert torch.equal(epoch[0], epoch[2])
        assert not torch.equal(epoch[0], epoch[1])
    assert not torch.equal(*epochs)


def test_dynamic_binarisation_draws_anew_and_fixed_does_not():
    images = of_arrays("one", np.full((1, 4000), 0.3), np.full((1, 4000), 0.3))
    noise = Noise((5,), dtype=torch.float32)
    dynamic = Batches(images.binarised("dynamic"), noise, 1)
    first, second = dynamic.at(0), dynamic.at(1)
    assert set(first.unique().tolist()) == {0.0, 1.0}
    assert not torch.equal(first, second)
    z = (torch.cat([first, second]).mean().item() - 0.3) / np.sqrt(0.3 * 0.7 / 8000)
    assert abs(z) < 4.9  # at a rate of 1e-6; a probability off by 0.04 would be seen
    fixed = Batches(images.binarised("fixed", 2), noise, 1)
    assert torch.equal(fixed.at(0), fixed.at(1))
    assert torch.equal(Batches(images, noise, 1).at(3), torch.full((1, 1, 4000), 0.3))


def test_a_run_and_what_its_folder_holds(whole):
    run = load_run(whole, images=IMAGES)
    assert (run.step, len(run.members)) == (21, 4)
    assert run.images.description == "random, dynamic binarisation"
    assert [line["step"] for line in run.metrics] == list(range(3, 22, 3))
    assert all(np.isfinite(line["bound"]).all() and len(line["ess"]) == 4 for line in run.metrics)
    assert run.metrics[-1]["epoch"] == 3
    assert run.metrics[-1]["data"] == run.images.description
    steps = [checkpoints.step_of(path) for path in checkpoints.found(whole / "checkpoints")]
    assert steps == [0, 4, 8, 12, 16, 20, 21]
    assert len(run.to_dataframe()) == 7 * 4
    document = json.loads(json.dumps(run.to_dict(), allow_nan=False))
    assert document["members"][3]["proposal"] == "dreg"
    early = load_run(whole, step=4, images=IMAGES)
    assert early.step == 4
    assert [line["step"] for line in early.metrics] == [3]
    assert not torch.equal(
        early.model.parameters["encoder.0.weight"], run.model.parameters["encoder.0.weight"]
    )
    with pytest.raises(
        InputError, match="step is 5: expected one of 0, 4, 8, 12, 16, 20, 21, the checkpoints"
    ):
        load_run(whole, step=5, images=IMAGES)
    with pytest.raises(InputError, match="these are other images than the run was trained on"):
        load_run(whole, images=of_arrays("random", IMAGES.test, IMAGES.train))
    with pytest.raises(InputError, match="no run in"):
        load_run(whole.parent)


KINDS = {
    "linear_gaussian": (
        {"latents": 2, "hidden": [5], "proposal": "full", "per_pixel": True},
        "iwae_stl",
        "grey",
    ),
    "bernoulli_vae": ({"latents": 4, "hidden": [5], "proposal": "bernoulli"}, "vimco_geometric", "fixed"),
    "two_layer_vae": ({"latents": [3, 2], "hidden": [5], "inner_hidden": [4]}, "dreg", "dynamic"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_trains_from_settings_and_comes_back(kind, tmp_path):
    sizes, estimator, binarisation = KINDS[kind]
    settings = {
        "data": {"binarisation": binarisation, "binarisation_seed": 3},
        "model": {"kind": kind, **sizes},
        "members": [{"estimator": estimator, "K": 4}],
        "training": {"epochs": 1, "batch": 25, "seeds": [5, 6], "dtype": "float64"},
    }
    run = train(settings, tmp_path / "run", images=IMAGES)
    again = load_run(tmp_path / "run", images=IMAGES)
    assert again.settings == run.settings
    assert again.images.description == run.images.description == IMAGES.binarised(binarisation, 3).description
    for name, value in run.model.parameters.items():
        assert torch.equal(again.model.parameters[name], value)
        assert value.dtype == torch.float64
        assert not torch.equal(value, torch.zeros_like(value))


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's files do not stand beside this clone")
def test_mnist_trains_from_its_folder(tmp_path):
    options = ["data.name=mnist", "data.train=60", "training.epochs=1", "training.batch=30"]
    run = train(crashes.SETTINGS, tmp_path / "run", assignments=options, data_dir=MNIST)
    assert run.images.description == "mnist, dynamic binarisation"
    assert (
        run.to_dict()["provenance"]["arguments"]["data"]["folder"] == "mnist"
    )  # and nothing of this machine
    again = load_run(tmp_path / "run")
    assert again.settings.data.folder == str(MNIST)
    assert torch.equal(*(r.model.parameters["encoder.0.weight"] for r in (run, again)))


def test_without_a_folder_the_numbers_are_the_same(whole):
    run = short(None)
    assert run.folder is None
    assert list(run.metrics) == list(load_run(whole, images=IMAGES).metrics)


def test_averages_of_metrics_are_over_images(whole):
    """One line for an epoch of 8, 8, 8, 8, 8, 8 and 2 images: the last two images count as two."""
    single = short(None, "output.metrics_every=1").metrics[:7]
    counts = np.array([8] * 6 + [2])[:, None]
    expected = (counts * [line["bound"] for line in single]).sum(0) / 50
    found = short(None, "output.metrics_every=7").metrics[0]["bound"]
    np.testing.assert_allclose(found, expected, rtol=1e-14)


def test_members_alone_give_the_stacks_numbers(whole):
    """In float32 up to rounding, which 21 steps enlarge; another seed differs at once."""
    alone = short(None, "training.seeds=[2]")
    stacked = load_run(whole, images=IMAGES).metrics[-1]["bound"]
    np.testing.assert_allclose(alone.metrics[-1]["bound"], stacked[1::2], rtol=1e-5)
    assert abs(stacked[0] - stacked[1]) > 1e-3


def test_the_stages_lower_the_rate_after_one_epoch():
    constant, staged = (
        short(None, "training.epochs=2", "output.metrics_every=7", f"training.schedule={name}").metrics
        for name in ("constant", "stages")
    )
    assert staged[0] == constant[0]
    assert min(abs(np.subtract(staged[1]["bound"], constant[1]["bound"]))) > 0


@pytest.mark.parametrize("random", ["torch", "philox"])
def test_a_bound_that_is_not_finite_stops_the_run(random, tmp_path, capsys):
    """At a learning rate of 1e9 the log-weights overflow; the other member is well, and not named."""
    settings = read({**crashes.SETTINGS, "members": [{"estimator": "iwae", "K": 6}]}, SHORT)
    (tmp_path / "settings.toml").write_text(settings.toml(), encoding="utf-8")
    arguments = ["train", str(tmp_path / "settings.toml"), "--out", str(tmp_path / "run")]
    arguments += [
        "--set",
        "data.train=50",
        "--set",
        "training.seeds=[1]",
        "--set",
        "output.metrics_every=100",
        "--set",
        f"training.random={random}",
    ]
    assert main.main([*arguments, "--set", "training.learning_rates=[1e-3, 1e19]"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    message = (
        r"error: the bound is not finite at step (\d+) for Member\(.* seed=1, learning_rate=1e\+19\); "
        r"the last good checkpoint is '(.*)'\n"
    )
    found = re.fullmatch(message, captured.err)
    assert found
    good = checkpoints.load(Path(found[2]))
    assert good.step < int(found[1]) <= 21
    assert all(tensor.isfinite().all() for tensor in good.tensors.values())
    assert not [path for path in checkpoints.found(Path(found[2]).parent) if path.name > Path(found[2]).name]
    with pytest.raises(DivergenceError, match=r"no checkpoint was written$"):
        short(None, "training.learning_rates=[1e19]")


def test_the_progress_bar_shows_bound_and_speed(capsys, monkeypatch):
    """On a terminal, and only there."""
    monkeypatch.setattr("toyiwae.networks.runs.progress.SECONDS", 0.0)
    short(None, "training.epochs=1")
    assert capsys.readouterr().err == ""
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "100"}.items():
        monkeypatch.setenv(name, value)
    short(None, "training.epochs=1", show_progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    shown = re.sub(r"\x1b\[[\d;?]*\w", "", captured.err)
    assert re.search(r"bound -\d+\.\d\d .* 7/7 \d+\.\d steps/s", shown)


def test_the_command_line_and_the_example_of_the_docs(tmp_path, capsys):
    pytest.importorskip("sklearn")
    arguments = ["train", str(EXAMPLE), "--out", str(tmp_path / "run"), "--set", "data.train=100"]
    assert main.main([*arguments, "--set", "training.epochs=1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["folder"], document["step"], document["data"]) == (
        "run",
        2,
        "digits, dynamic binarisation",
    )
    assert main.main([*arguments, "--set", "training.epochs=1", "--resume"]) == 0
    captured = capsys.readouterr()
    assert captured.err == "note: goes on after step 2 of 2\n"
    assert captured.out.startswith(
        "digits, dynamic binarisation; after step 2\nmodel  proposal  M   K  seed "
    )
    assert main.main(arguments) == 2
    assert re.fullmatch("error: .* holds something already: .*\n", capsys.readouterr().err)


def test_the_documented_run(capsys, monkeypatch):
    pytest.importorskip("sklearn")
    page = (EXAMPLE.parent / "networks.md").read_text(encoding="utf-8")
    (block,) = (
        b
        for b in re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        if "toyiwae.train(" in b
    )
    monkeypatch.chdir(EXAMPLE.parents[1])
    exec(compile(block, "docs/networks.md", "exec"), {})
    assert re.fullmatch(r"(iwae (iwae|dreg) [12] -\d+\.\d+\n){4}", capsys.readouterr().out)


@pytest.mark.parametrize("missing", ["torch", "tensorboard"])
def test_what_is_not_installed_is_named_with_its_extra(missing, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, missing, None)
    arguments = ["train", str(EXAMPLE), "--out", str(tmp_path / "run"), "--set", "output.tensorboard=true"]
    assert main.main(arguments) == 2
    extra = "tensorboard" if missing == "tensorboard" else "networks"
    message = rf"error: .* needs {missing}, which is not installed: pip install 'toyiwae\[{extra}\]'\n"
    assert re.fullmatch(message, capsys.readouterr().err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_tensorboard_gets_every_line(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = short(tmp_path / "run", "output.tensorboard=true")
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    found = events.Scalars("bound/3 iwae/dreg M=2 K=3 seed=2")
    assert [(event.step, pytest.approx(event.value, rel=1e-6)) for event in found] == [
        (line["step"], line["bound"][3]) for line in run.metrics
    ]
