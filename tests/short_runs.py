"""Runs that several tests look at: an uninterrupted one, and what a broken-off one leaves."""

import shutil
from pathlib import Path
from typing import Any

import toyiwae
from tests import crashes
from toyiwae.networks.runs import checkpoints

IMAGES = crashes.images()
SHORT = ["training.epochs=3", "output.checkpoint_every=4", "output.keep=0"]  # 21 steps of 8, or of 2 images


def short(out: Path | None, *assignments: str, **arguments: Any) -> toyiwae.Run:
    """The run of `tests.crashes`, shortened."""
    arguments = {"images": IMAGES} | arguments
    return toyiwae.train(crashes.SETTINGS, out, assignments=[*SHORT, *assignments], **arguments)


def broken_off(whole: Path, folder: Path) -> Path:
    """A copy of a whole run as it was after eight steps and a metrics line, in the middle of an epoch."""
    shutil.copytree(whole, folder)
    for path in checkpoints.found(folder / "checkpoints"):
        if checkpoints.step_of(path) > 8:
            path.unlink()
    return folder
