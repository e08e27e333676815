"""A run's folder: who works in it, and the files that grow.

settings.toml                    all settings, also those left at their defaults
metrics.jsonl                    bound and effective sample size of every member, averaged over some steps
times.jsonl                      steps per second; what differs from one machine to another
checkpoints/step-….safetensors   see `checkpoints`
tensorboard/                     if asked for
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from toyiwae.checks import shown
from toyiwae.errors import InputError, ToyiwaeError
from toyiwae.files import write_atomic
from toyiwae.locks import only_process
from toyiwae.networks.runs import checkpoints
from toyiwae.networks.runs.checkpoints import Checkpoint
from toyiwae.networks.runs.settings import Settings, read

LOCK, SETTINGS = ".lock", "settings.toml"


class RunFolder:
    """One folder, locked while it is open.

    Attributes:
        path: where it is.
        settings: of its run.
    """

    def __init__(self, path: Path, settings: Settings):
        """Takes what `opened` has prepared."""
        self.path, self.settings = path, settings

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def metrics(self) -> Path:
        """The file of metrics."""
        return self.path / "metrics.jsonl"

    def append(self, metrics: Mapping[str, Any], times: Mapping[str, Any]) -> None:
        """Adds a line to the metrics and to the times."""
        for path, record in ((self.metrics, metrics), (self.path / "times.jsonl", times)):
            with self._writing(path), open(path, "ab") as stream:
                stream.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    def save(self, step: int, images: str, tensors: Mapping[str, Any]) -> None:
        """Writes a checkpoint, after the metrics that belong to it, and deletes those that are not kept."""
        with self._writing(self.metrics), open(self.metrics, "ab") as stream:
            os.fsync(stream.fileno())
            length = stream.seek(0, os.SEEK_END)
        state = Checkpoint(step, self.settings.content_hash, images, length, tensors)
        with self._writing(checkpoints.path_of(self.checkpoints, step)):
            self.checkpoints.mkdir(exist_ok=True)
            checkpoints.save(self.checkpoints, state)
            keep = self.settings.output.keep
            for old in checkpoints.found(self.checkpoints)[:-keep]:  # none of them with [:-0]
                old.unlink()

    def last(self) -> Checkpoint | None:
        """The latest checkpoint, compared with the folder's settings; None if there is none yet.

        Raises:
            InputError: damaged, of other settings, or metrics that have become shorter since.
        """
        found = checkpoints.found(self.checkpoints)
        if not found:
            return None
        checkpoint = checkpoints.load(found[-1])
        if checkpoint.settings != self.settings.content_hash:
            raise InputError(
                f"{str(found[-1])!r} belongs to a run with other settings, or with other code: take it away to go on"
            )
        size = self.metrics.stat().st_size if self.metrics.is_file() else 0
        if size < checkpoint.metrics_bytes:
            since = f"{checkpoint.metrics_bytes} when {found[-1].name} was written"
            raise InputError(f"{str(self.metrics)!r} has {size} bytes, but had {since}: metrics are missing")
        return checkpoint

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Writes the settings, cuts the metrics to what they were at a checkpoint, clears what was half written."""
        with self._writing(self.path):
            for part in (*self.path.glob(f".{SETTINGS}.*.part"), *self.checkpoints.glob(".step-*.part")):
                part.unlink()  # other files of the folder may be another process's
            write_atomic(self.path / SETTINGS, self.settings.toml())
            if self.metrics.is_file():
                os.truncate(self.metrics, checkpoint.metrics_bytes if checkpoint else 0)

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Says of a file that cannot be written which one it is and how to go on."""
        try:
            yield
        except OSError as error:
            last = checkpoints.found(self.checkpoints)[-1:]
            rest = f"; the last checkpoint is {str(last[0])!r}" if last else ""
            raise ToyiwaeError(f"cannot write {str(path)!r}: {error.strerror or error}{rest}") from None


@contextlib.contextmanager
def opened(path: str | os.PathLike[str], settings: Settings, *, resume: bool) -> Iterator[RunFolder]:
    """A run's folder, for one process at a time.

    Args:
        path: the folder; made if it does not exist.
        settings: of the run.
        resume: whether it may hold the beginning of this run.

    Raises:
        InputError: it holds something already and `resume` is false; it holds something else than a run, or one with
            other settings; another process works in it.
        OSError: it cannot be made or written to.
    """
    home = Path(path)
    if home.exists() and not home.is_dir():
        raise InputError(f"{str(home)!r} is no folder: expected one for the run")
    own = home / SETTINGS
    if home.is_dir() and any(path.name != LOCK and path.suffix != ".part" for path in home.iterdir()):
        if not resume:
            raise InputError(
                f"{str(home)!r} holds something already: resume it (--resume), or choose another folder"
            )
        if not own.is_file():
            raise InputError(f"{str(home)!r} holds something else than a run: choose another folder")
    home.mkdir(parents=True, exist_ok=True)
    with only_process(home / LOCK, repr(str(home))):
        if own.is_file():
            _compare(own, settings, resume)
        yield RunFolder(home, settings)


def _compare(own: Path, settings: Settings, resume: bool) -> None:
    """Refuses to go on with other settings than the run's."""
    if not resume:  # another process has begun it in the meantime
        raise InputError(
            f"{str(own.parent)!r} holds a run already: resume it (--resume), or choose another folder"
        )
    before, now = read(own).numbers(), settings.numbers()
    for key in [*before, *now]:
        if before.get(key) != now.get(key):
            raise InputError(
                f"{key} is {shown(now.get(key))}, but the run in {str(own.parent)!r} began with "
                f"{shown(before.get(key))}: expected the same, or another folder"
            )
