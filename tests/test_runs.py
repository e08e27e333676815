"""Runs: settings, the folder, checkpoints, and that what is resumed is the uninterrupted run."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import toyiwae
from tests import crashes
from toyiwae import DivergenceError, InputError, ToyiwaeError, load_run, train
from toyiwae.cli import main
from toyiwae.networks.data.batches import Batches
from toyiwae.networks.data.images import of_arrays
from toyiwae.networks.noise import Noise
from toyiwae.networks.runs import checkpoints
from toyiwae.networks.runs.settings import read

pytest.importorskip("safetensors")

EXAMPLE = Path(__file__).resolve().parents[1] / "docs" / "train.toml"
MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
IMAGES = crashes.images()
SHORT = ["training.epochs=3", "output.checkpoint_every=4", "output.keep=0"]  # 21 steps of 8, or of 2 images


def short(out: Path | None, *assignments: str, **arguments: Any) -> toyiwae.Run:
    """The run of `tests.crashes`, shortened."""
    arguments = {"images": IMAGES} | arguments
    return train(crashes.SETTINGS, out, assignments=[*SHORT, *assignments], **arguments)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    short(folder)
    return folder


@pytest.fixture
def broken_off(whole, tmp_path):
    """A copy of it as it was after eight steps and a metrics line, in the middle of an epoch."""
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    for path in checkpoints.found(folder / "checkpoints"):
        if checkpoints.step_of(path) > 8:
            path.unlink()
    return folder


FAULTS = {
    "training.epochs=x": "training.epochs is 'x': expected a valid integer",
    "training.epochs=0": "training.epochs is 0: expected greater than or equal to 1",
    "training.epoch=3": "training has the unknown key 'epoch': did you mean epochs?",
    "trianing.epochs=3": "the settings has the unknown key 'trianing': did you mean training?",
    "training=3": "training is 3: expected a table",
    "training.seeds=[-1]": "training.seeds[0] is -1: expected greater than or equal to 0",
    "training.seeds=[]": "training.seeds is empty: expected at least one",
    "training.seeds=[1, 1]": "two members are the same: ",
    "training.learning_rates=[inf]": "training.learning_rates[0] is inf: expected a finite number",
    "training.learning_rates=[nan]": "training.learning_rates[0] is nan: expected a finite number",
    "training.learning_rates=[0.0]": "training.learning_rates[0] is 0.0: expected greater than 0",
    "training.dtype=float16": "training.dtype is 'float16': expected 'float32' or 'float64'",
    "training.device=abacus": "training.device is 'abacus': ",
    "training.batch=51": "training.batch is 51: expected at most 50, all images",
    "model.kind=vae": "model.kind is 'vae': expected bernoulli_vae or linear_gaussian or two_layer_vae",
    "model={latents = 3}": "model.kind is None: expected bernoulli_vae or",
    "model.latents=1.5": "model.latents is 1.5: expected a valid integer",
    "model.layers=1": "model has the unknown key 'layers': did you mean latents?",
    "model.proposal=bernoulli": "binary latents have no path derivative",
    "model={kind = 'linear_gaussian', noise_var = 1e-4}": "model: noise_var is 0.0001: expected more than floor_var",
    "model.products=float16": "model.products is 'float16': expected 'float32', 'tf32' or 'bfloat16'",
    "members=[]": "members is empty: expected at least one",
    "members=[{estimator = 'iwae'}]": "members[0] lacks K",
    "members=[{estimator = 'iwae', K = 0}]": "members[0].K is 0: expected greater than or equal to 1",
    "members=[{estimator = 'iwea', K = 2}]": "members[0]: unknown estimator 'iwea': did you mean iwae?",
    "members=[{model = 'iwae', K = 2}]": "members[0]: expected either estimator, or both model and proposal",
    "members=[{estimator = 'iwae', K = 2}, {estimator = 'iwae', K = 3}]": "members have M·K = 2, 3: expected the same",
    "data.binarisation=threshold": "data.binarisation is 'threshold': expected 'dynamic', 'fixed' or 'grey'",
    "data.train=51": "data.train is 51: expected at most 50",
    "data.name=1979-05-27": "a setting is datetime.date(1979, 5, 27): expected numbers, texts",
    "output.tensorboard=1": "output.tensorboard is 1: expected a valid boolean",
    "epochs": "--set epochs: expected TABLE.KEY=VALUE",
    "members.0.K=3": "--set members.0.K=3: members is [{",
}


@pytest.mark.parametrize("assignment", FAULTS)
def test_bad_settings_are_refused_in_one_line_and_nothing_is_written(assignment, tmp_path):
    with pytest.raises(InputError, match=re.escape(FAULTS[assignment])) as caught:
        short(tmp_path / "run", assignment)
    assert len(str(caught.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_only_a_step_refuses_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(
        InputError, match=r"products = 'bfloat16' rounds float32, not .*64: choose dtype float32"
    ):
        short(tmp_path / "run", "model.products=bfloat16", "training.dtype=float64")
    assert list(tmp_path.iterdir()) == []


def test_settings_survive_their_file(tmp_path):
    settings = read(EXAMPLE, ["training.batch=7", "model.hidden=[3, 4]"])
    (tmp_path / "settings.toml").write_text(settings.toml(), encoding="utf-8")
    assert read(tmp_path / "settings.toml") == settings
    assert settings.content_hash != read(EXAMPLE).content_hash
    assert read(EXAMPLE, ["data.folder=x", "output.keep=9"]).content_hash == read(EXAMPLE).content_hash
    assert len(settings.stack()) == 4
    assert [member.seed for member in settings.stack()] == [1, 2, 1, 2]


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


def test_what_is_resumed_is_the_uninterrupted_run(whole, broken_off):
    notes = []
    short(broken_off, resume=True, note=notes.append)
    assert notes == ["goes on after step 8 of 21"]
    assert crashes.content(broken_off) == crashes.content(whole)
    short(broken_off, resume=True, note=notes.append)  # nothing left to do
    assert crashes.content(broken_off) == crashes.content(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_wait_for_a_checkpoint(number, whole, tmp_path, monkeypatch):
    """One comes during the tenth step. Its own effect is replaced, since SIGTERM's would end the tests."""

    def end(*_):
        raise KeyboardInterrupt

    @contextlib.contextmanager
    def bar(*_, **__):
        yield lambda step, bound: step == 10 and signal.raise_signal(number)

    monkeypatch.setattr("toyiwae.networks.runs.progress.bar", bar)
    before = signal.signal(number, end)
    try:
        with pytest.raises(KeyboardInterrupt):
            short(tmp_path / "run")
        assert signal.getsignal(number) is end
    finally:
        signal.signal(number, before)
    assert load_run(tmp_path / "run", images=IMAGES).step == 10
    monkeypatch.undo()
    run = short(tmp_path / "run", resume=True)
    assert run.metrics == load_run(whole, images=IMAGES).metrics


def test_when_checkpoints_are_written_may_change(whole, broken_off):
    run = short(broken_off, "output.checkpoint_every=5", "output.keep=1", resume=True)
    assert [checkpoints.step_of(path) for path in checkpoints.found(broken_off / "checkpoints")] == [21]
    assert run.metrics == load_run(whole, images=IMAGES).metrics
    assert load_run(broken_off, images=IMAGES).settings.output.checkpoint_every == 5


def test_the_stages_lower_the_rate_after_one_epoch():
    constant, staged = (
        short(None, "training.epochs=2", "output.metrics_every=7", f"training.schedule={name}").metrics
        for name in ("constant", "stages")
    )
    assert staged[0] == constant[0]
    assert min(abs(np.subtract(staged[1]["bound"], constant[1]["bound"]))) > 0


def test_resume_from_nothing_starts(whole, tmp_path):
    (tmp_path / "run").mkdir()
    short(tmp_path / "run", resume=True)
    assert crashes.content(tmp_path / "run") == crashes.content(whole)


def test_only_the_latest_checkpoints_are_kept(tmp_path):
    short(tmp_path / "run", "output.keep=2")
    assert [checkpoints.step_of(path) for path in checkpoints.found(tmp_path / "run" / "checkpoints")] == [
        20,
        21,
    ]


def test_a_folder_that_holds_something_is_refused(whole, tmp_path):
    before = crashes.content(whole)
    with pytest.raises(
        InputError, match=r"holds something already: resume it \(--resume\), or choose another"
    ):
        short(whole)
    assert crashes.content(whole) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds something else than a run: choose another folder"):
        short(tmp_path, resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(InputError, match="is no folder: expected one for the run"):
        short(tmp_path / "notes.txt")


def test_other_settings_and_other_images_are_refused_on_resume(broken_off):
    before = crashes.content(broken_off)
    for assignment, message in {
        "training.batch=10": r"training\.batch is 10, but the run in '.*run' began with 8: expected the same, or",
        "training.seeds=[1]": r"training\.seeds is \[1\], but the run in '.*' began with \[1, 2\]",
        "data.train=50": r"data\.train is 50, but the run in '.*' began with None",
    }.items():
        with pytest.raises(InputError, match=message):
            short(broken_off, assignment, resume=True)
    with pytest.raises(InputError, match="these are other images than the run was trained on"):
        short(broken_off, resume=True, images=of_arrays("random", 1 - IMAGES.train, IMAGES.test))
    assert crashes.content(broken_off) == before


def flipped(data: bytes, place: int) -> bytes:
    """The same with one bit flipped."""
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


DAMAGES = {
    "flipped": lambda data: flipped(data, -5 % len(data)),
    "flipped in what it says of itself": lambda data: data.replace(
        b'\\"metrics_bytes\\": ', b'\\"metrics_bytes\\": 1'
    ),
    "truncated": lambda data: data[:-1],
    "header cut": lambda data: data[:20],
    "empty": lambda data: b"",
    "a page": lambda data: b"<html>" + data,
    "a pickle": lambda data: b"\x80\x04]\x94." + bytes(100),
    "huge header": lambda data: b"\xff" * 8 + data[8:],
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_refused(damage, broken_off):
    path = checkpoints.found(broken_off / "checkpoints")[-1]
    damaged = DAMAGES[damage](path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    before = crashes.content(broken_off)
    message = (
        r"step-0000000008\.safetensors' is (damaged|no checkpoint).*: delete it to go on from an earlier one$"
    )
    with pytest.raises(InputError, match=message) as caught:
        short(broken_off, resume=True)
    assert len(str(caught.value).splitlines()) == 1
    assert crashes.content(broken_off) == before
    with pytest.raises(InputError, match=message):
        load_run(broken_off, images=IMAGES)


def test_a_foreign_checkpoint_is_refused_and_an_earlier_one_serves(broken_off, whole, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    path = checkpoints.found(broken_off / "checkpoints")[-1]
    own = path.read_bytes()
    safetensors.save_file({"weight": torch.ones(3)}, path)
    with pytest.raises(InputError, match=r"08\.safetensors' is no checkpoint of toyiwae: delete it"):
        short(broken_off, resume=True)
    checkpoints.path_of(path.parent, 9).write_bytes(own)
    with pytest.raises(InputError, match=r"09\.safetensors' holds step 8: delete it"):
        short(broken_off, resume=True)
    checkpoints.path_of(path.parent, 9).unlink()
    short(tmp_path / "other", "training.batch=10")
    shutil.copy(checkpoints.path_of(tmp_path / "other" / "checkpoints", 8), path)
    with pytest.raises(InputError, match="belongs to a run with other settings: take it away"):
        short(broken_off, resume=True)
    path.unlink()
    notes = []
    short(broken_off, resume=True, note=notes.append)
    assert notes == ["goes on after step 4 of 21"]
    assert crashes.content(broken_off) == crashes.content(whole)


def test_metrics_that_are_missing_are_noticed(broken_off):
    metrics = broken_off / "metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes()[:100])
    with pytest.raises(InputError, match=r"metrics\.jsonl' has 100 bytes, but had \d+ when step-0000000008"):
        short(broken_off, resume=True)
    assert metrics.stat().st_size == 100


def test_a_bound_that_is_not_finite_stops_the_run(tmp_path, capsys):
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


def test_a_full_disk_is_one_line_and_the_run_goes_on_where_there_is_room(whole, broken_off):
    """The limit of a file's size lets metrics through and no checkpoint."""
    resource = pytest.importorskip("resource")
    size = checkpoints.found(broken_off / "checkpoints")[-1].stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = {path: path.read_bytes() for path in checkpoints.found(broken_off / "checkpoints")}
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, before[1]))
    try:
        message = (
            r"cannot write '.*12\.safetensors': File too large; the last checkpoint is '.*08\.safetensors'$"
        )
        with pytest.raises(ToyiwaeError, match=message):
            short(broken_off, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert {path: path.read_bytes() for path in (broken_off / "checkpoints").iterdir()} == old
    short(broken_off, resume=True)
    assert crashes.content(broken_off) == crashes.content(whole)


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a mount of its own")
@pytest.mark.slow
def test_a_disk_that_is_really_full(whole, tmp_path):
    code = (
        "import sys; from tests.test_runs import short; from pathlib import Path\n"
        "try:\n    short(Path(sys.argv[1]) / 'run')\nexcept Exception as error:\n    print(error)"
    )
    kib = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file()) // 2048
    script = (
        f'mount -t tmpfs -o size={kib}k tmpfs "$0" || exit 9; "$1" -c "$2" "$0"; cp -r "$0/run" "$3"; '
        'find "$0" -name "*.part"'
    )
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["unshare", "-m", "sh", "-c", script, disk, sys.executable, code, tmp_path / "copy"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"no mount: {done.stderr}")
    assert re.fullmatch(
        r"cannot write '.*': No space left on device; the last checkpoint is .*\n", done.stdout
    )
    short(tmp_path / "copy", resume=True)
    assert crashes.content(tmp_path / "copy") == crashes.content(whole)


def test_a_second_process_is_refused(broken_off):
    fcntl = pytest.importorskip("fcntl")
    with open(broken_off / ".lock", "r+", encoding="ascii") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=rf"run' is in use by process {os.getpid()}$"):
            short(broken_off, resume=True)
    short(broken_off, resume=True)


def test_half_written_files_are_cleared_on_resume(broken_off):
    part = broken_off / "checkpoints" / ".step-0000000012.safetensors.0a0a0a0a.part"
    part.write_bytes(b"half")
    short(broken_off, resume=True)
    assert not part.exists()


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


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_ten_kills_change_nothing():
    done = subprocess.run(
        [sys.executable, "-m", "tests.crashes", "10", "1"],
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert re.fullmatch(
        r"\d+ kills in \d+ runs: 0 ended otherwise than the uninterrupted run\n", done.stdout
    ), done
