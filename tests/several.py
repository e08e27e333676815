"""Several processes on one training, over gloo and the loopback, forked so that they start at once.

    python -m tests.several FOLDER                   what the jobs below find, as JSON
    torchrun … -m tests.several train FOLDER WHAT    one process of a run that is disturbed, see `disturbed`

A run here is that of `tests.crashes`, shortened, in float64: another order of sums changes its last digits alone.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

import toyiwae
from tests import crashes
from tests.short_runs import IMAGES, MODULE, SHORT, broken_off
from toyiwae import ToyiwaeError
from toyiwae.networks.runs import checkpoints, progress

DOUBLE = [*SHORT, "training.dtype=float64"]
AT = 10
"""The step after which a run is disturbed: in an epoch, and past a checkpoint."""


def train(out: Path, *assignments: str, **arguments: Any) -> toyiwae.Run:
    """The run, in a folder."""
    arguments = {"images": IMAGES, "assignments": [*DOUBLE, *assignments], "spread": True} | arguments
    return toyiwae.train(crashes.SETTINGS, out, **arguments)


def forked(
    processes: int, work: Callable[[int], Any], folder: Path, *, stuck: int | None = None
) -> list[Any]:
    """What each of some processes answers: a value, the text of an error, or the signal that ended it.

    Args:
        processes: how many.
        work: gets a process's number; what it returns can be written as JSON.
        folder: new, for answers and where they meet.
        stuck: the process that is killed once the others have ended.
    """
    folder.mkdir()
    children, states = [], {}
    for rank in range(processes):
        child = os.fork()
        if not child:
            try:
                answer = _answer(processes, rank, work, folder)
                (folder / f"answer-{rank}").write_text(json.dumps(answer))
            finally:
                os._exit(0)
        children.append(child)
    order = [rank for rank in range(processes) if rank != stuck]
    for rank in order:
        states[rank] = os.waitpid(children[rank], 0)[1]
    if stuck is not None:
        os.kill(children[stuck], signal.SIGKILL)
        states[stuck] = os.waitpid(children[stuck], 0)[1]
    return [
        os.WTERMSIG(states[rank])
        if os.WIFSIGNALED(states[rank])
        else json.loads((folder / f"answer-{rank}").read_text())
        for rank in range(processes)
    ]


def _answer(processes: int, rank: int, work: Callable[[int], Any], folder: Path) -> Any:
    place, timeout = f"file://{folder / 'store'}", datetime.timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=place, rank=rank, world_size=processes, timeout=timeout)
    try:
        return work(rank)
    except ToyiwaeError as error:
        return f"{type(error).__name__}: {error}"


def numbers(folder: Path) -> dict[str, torch.Tensor]:
    """All numbers of a run: its metrics, and the tensors of its checkpoints."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    columns = ("step", "epoch", "bound", "ess")
    found = {key: torch.tensor([line[key] for line in lines], dtype=torch.float64) for key in columns}
    for path in checkpoints.found(folder / "checkpoints"):
        tensors = checkpoints.load(path).tensors
        found |= {f"{path.stem} {name}": value for name, value in tensors.items()}
    return found


def difference(one: Path, other: Path) -> float:
    """The largest difference between the numbers of two runs, to the largest of its kind; infinite if names differ."""
    first, second = numbers(one), numbers(other)
    if {k: v.shape for k, v in first.items()} != {k: v.shape for k, v in second.items()}:
        return float("inf")
    return max(
        float((first[name] - second[name]).abs().max() / first[name].abs().max().clamp_min(1e-300))
        for name in first
    )


def same(folder: Path) -> dict[str, Any]:
    """Runs of several processes beside that of one, begun anew and resumed, and what every process returns."""
    whole, found = folder / "whole", {}
    train(whole)
    for processes, split in ((2, "members"), (5, "members"), (3, "images")):
        name = f"{processes} {split}"
        out = folder / name

        def work(_: int, out: Path = out, split: str = split) -> list[float]:
            run = train(out, f"training.split={split}")
            value = run.model.parameters["encoder.0.weight"]
            return [
                run.step,
                len(run.members),
                len(run.metrics),
                float(value.sum()),
                run.metrics[-1]["bound"][3],
            ]

        answers = forked(processes, work, folder / f"{name} answers")
        found[name] = [difference(whole, out), answers]
    train(folder / "counted", "training.random=philox")
    three = ["training.split=images", "training.random=philox"]
    forked(3, lambda _: train(folder / "3 counted", *three).step, folder / "3 counted answers")
    found["counted"] = difference(folder / "counted", folder / "3 counted")
    for processes, split in ((2, "images"), (3, "members")):  # by one in `lost`
        out = broken_off(folder / "3 images", folder / f"resumed by {processes}")
        notes: list[list[str]] = []

        def resume(rank: int, out: Path = out, split: str = split) -> list[str]:
            notes: list[str] = []
            train(out, f"training.split={split}", resume=True, note=notes.append)
            return notes

        notes = forked(processes, resume, folder / f"resumed by {processes} answers")
        found[f"resumed by {processes}"] = [difference(whole, out), notes]
    return found


def module(folder: Path) -> float:
    """How far a user's module, which computes its gradients by autograd, is off on three processes."""
    (folder / "linear.py").write_text(MODULE)
    settings = {
        "data": {"binarisation": "grey"},
        "model": {"kind": "module", "file": str(folder / "linear.py:make")},
        "members": [{"model": "iwae", "proposal": "dreg", "K": 70}],
        "training": {"epochs": 1, "batch": 8, "dtype": "float64"},
        "output": {"metrics_every": 3},
    }
    toyiwae.train(settings, folder / "whole", images=IMAGES)
    forked(
        3,
        lambda _: toyiwae.train(settings, folder / "run", images=IMAGES, spread=True).step,
        folder / "answers",
    )
    return difference(folder / "whole", folder / "run")


def lost(folder: Path) -> dict[str, Any]:
    """What is left, and resumed, of runs one of whose processes is killed, stands still, or has an error."""
    whole, found = folder / "whole", {}
    train(whole)
    for what, split in (
        ("killed", "members"),
        ("killed", "images"),
        ("stopped", "images"),
        ("full", "members"),
    ):
        name, out = f"{what} {split}", folder / f"{what} {split}"

        def work(rank: int, what: str = what, split: str = split, out: Path = out) -> int:
            os.environ["TOYIWAE_TIMEOUT"] = "3" if what == "stopped" else "60"
            with disturbed(what, rank, out):
                return train(out, f"training.split={split}").step

        answers = forked(2, work, folder / f"{name} answers", stuck=1 if what == "stopped" else None)
        left = checkpoints.step_of(checkpoints.found(out / "checkpoints")[-1])
        train(out, resume=True)
        found[name] = [answers, left, difference(whole, out)]
    return found


def refused(folder: Path) -> dict[str, Any]:
    """Errors before the first step: of all processes, of the first alone, and of another alone."""
    (folder / "full").mkdir()
    (folder / "full" / "notes.txt").write_text("mine")

    def other(rank: int) -> int:
        return train(folder / "other", f"training.batch={8 + rank}").step

    return {
        "settings": forked(2, lambda _: train(folder / "a", "training.batch=0").step, folder / "1"),
        "folder": forked(2, lambda _: train(folder / "full").step, folder / "2"),
        "other": forked(2, other, folder / "3"),
        "written": sorted(path.name for path in folder.iterdir() if path.name in ("a", "other")),
    }


@contextlib.contextmanager
def disturbed(what: str, rank: int, out: Path) -> Iterator[None]:
    """Within the block: after step `AT` of a training something happens, once in a folder.

    killed: process 1 ends by SIGKILL. stopped: it stands still. full: process 0 cannot write its next checkpoint.
    ended: process 0 sends SIGTERM to the one that started it, and steps become slow.
    """

    def act(step: int, _: Any) -> None:
        marker = out.with_name(f"{out.name} {what}")
        if step > AT and what == "ended":
            time.sleep(0.02)
        if step != AT or rank != (what in ("killed", "stopped")) or marker.exists():
            return
        marker.touch()
        if what == "full":
            (out / "checkpoints").rename(out / "away")
            (out / "checkpoints").touch()
        elif what == "ended":
            os.kill(os.getppid(), signal.SIGTERM)
        else:
            os.kill(os.getpid(), signal.SIGKILL if what == "killed" else signal.SIGSTOP)

    @contextlib.contextmanager
    def bar(*_: Any, **__: Any) -> Iterator[Callable[[int, Any], None]]:
        yield act

    before, progress.bar = progress.bar, bar
    try:
        yield
    finally:
        progress.bar = before
        if what == "full" and (out / "away").exists() and rank == 0:
            (out / "checkpoints").unlink()
            (out / "away").rename(out / "checkpoints")


def evaluated(folder: Path) -> dict[str, list[bool]]:
    """Whether an evaluation by several processes is that of one: of members and images."""
    settings = crashes.SETTINGS | {
        "training": {"epochs": 1, "batch": 8, "seeds": [1], "dtype": "float64"},
    }
    run = toyiwae.train(settings, images=IMAGES)
    asked = {"K": [1, 30], "annealing_steps": 2, "annealing_images": 3, "chains": 2, "snr_replicates": 4}
    whole = toyiwae.evaluate(run, **asked)

    def work(_: int) -> bool:
        return _alike(whole, toyiwae.evaluate(run, **asked, spread=True))

    return {f"{size}": forked(size, work, folder / f"{size}") for size in (2, 5)}


def _alike(one: Any, other: Any) -> bool:
    """Whether two records hold the same numbers, up to rounding."""
    if isinstance(one, np.ndarray | float):
        return bool(np.allclose(one, other, rtol=1e-6, atol=1e-9, equal_nan=True))
    if hasattr(one, "__dict__") or isinstance(one, dict):
        first, second = (dict(v) if isinstance(v, dict) else vars(v) for v in (one, other))
        return first.keys() == second.keys() and all(_alike(first[key], second[key]) for key in first)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    return one == other


JOBS = (same, module, lost, refused, evaluated)


def under_torchrun(folder: Path, what: str) -> None:
    """One process of a run under torchrun, its images split."""
    epochs = ["training.epochs=10000"] if what == "ended" else []
    with disturbed(what, int(os.environ["RANK"]), folder):
        train(folder, "training.split=images", *epochs, resume=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "train":
        under_torchrun(Path(sys.argv[2]), sys.argv[3])
    else:
        home = Path(sys.argv[1])
        for job in JOBS:
            (home / job.__name__).mkdir()
        print(json.dumps({job.__name__: job(home / job.__name__) for job in JOBS}))
