"""What a run leaves when it ends early, and what resuming makes of it."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest
import torch

from tests import crashes
from tests.short_runs import IMAGES, short
from toyiwae import InputError, ToyiwaeError, load_run, locks
from toyiwae.networks.data.images import of_arrays
from toyiwae.networks.runs import checkpoints

pytest.importorskip("safetensors")


def test_what_is_resumed_is_the_uninterrupted_run(whole, broken_off):
    notes = []
    short(broken_off, resume=True, note=notes.append)
    assert notes == ["goes on after step 8 of 21"]
    assert crashes.content(broken_off) == crashes.content(whole)
    short(broken_off, resume=True, note=notes.append)  # nothing left to do
    assert crashes.content(broken_off) == crashes.content(whole)


def test_a_run_that_is_out_of_time_goes_on_as_if_it_had_not_been(whole, tmp_path):
    """However little time there is, a step is made, so that each resumption comes nearer to the end."""
    notes = []
    for _ in range(3):
        short(tmp_path, minutes=1e-9, resume=True, note=notes.append)
    assert notes[::2] == [f"stops after step {step} of 21: resume it to go on" for step in (1, 2, 3)]
    short(tmp_path, resume=True)
    before, after = crashes.content(whole), crashes.content(tmp_path)
    assert set(before) < set(after)  # and the checkpoints of its stops
    assert {name: after[name] for name in before} == before
    with pytest.raises(InputError, match="minutes is 0: expected a number greater than 0"):
        short(None, minutes=0)


def test_a_run_that_stops_after_some_steps_goes_on_as_if_it_had_not(whole, tmp_path):
    notes = []
    for steps in (5, 5, 9, 50):  # there is nothing left to do at the second
        short(tmp_path, steps=steps, resume=True, note=notes.append)
    stops = [note for note in notes if note.startswith("stops")]
    assert stops == [f"stops after step {step} of 21: resume it to go on" for step in (5, 5, 9)]
    before, after = crashes.content(whole), crashes.content(tmp_path)
    assert {name: after[name] for name in before} == before
    assert short(None, steps=2).step == 2
    with pytest.raises(InputError, match="steps is 0: expected a whole number of at least 1"):
        short(None, steps=0)


def test_a_run_on_counters_stops_after_some_steps_too(tmp_path):
    """As every run on a GPU."""
    for out, stops in (("whole", (50,)), ("stopped", (5, 50))):
        for steps in stops:
            run = short(tmp_path / out, "training.random=philox", steps=steps, resume=True)
            assert run.step == min(steps, 21)
    before, after = (crashes.content(tmp_path / out) for out in ("whole", "stopped"))
    assert {name: after[name] for name in before} == before


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
    with pytest.raises(
        InputError, match="belongs to a run with other settings, or with other code: take it away"
    ):
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
    pytest.importorskip("fcntl")
    with locks.only_process(broken_off / ".lock", "the run"):
        with pytest.raises(
            InputError, match=rf"run' is in use by process {os.getpid()} on \S+ since .* UTC$"
        ):
            short(broken_off, resume=True)
    short(broken_off, resume=True)


def test_half_written_files_are_cleared_on_resume(broken_off):
    part = broken_off / "checkpoints" / ".step-0000000012.safetensors.0a0a0a0a.part"
    part.write_bytes(b"half")
    short(broken_off, resume=True)
    assert not part.exists()


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
