"""Runs that several tests look at: an uninterrupted one, and what a broken-off one leaves."""

import shutil
from pathlib import Path
from typing import Any

import toyiwae
from tests import crashes
from toyiwae.networks.runs import checkpoints

IMAGES = crashes.images()
SHORT = ["training.epochs=3", "output.checkpoint_every=4", "output.keep=0"]  # 21 steps of 8, or of 2 images

MODULE = """
import torch
from torch.distributions import Independent, Normal

class Linear(torch.nn.Module):
    def __init__(self, mean):
        super().__init__()
        self.encoder, self.decoder = torch.nn.Linear(len(mean), 4), torch.nn.Linear(2, len(mean))
        self.decoder.bias.data = mean

    def encode(self, x):
        mean, log_std = self.encoder(x).chunk(2, -1)
        return Independent(Normal(mean, log_std.exp()), 1)

    def log_joint(self, x, z):
        return Normal(self.decoder(z), 0.4).log_prob(x).sum(-1) + Normal(0.0, 1.0).log_prob(z).sum(-1)

def make(mean):
    return Linear(mean)

def nothing(mean):
    return None

def fails(mean):
    raise ValueError("no weights")
"""
"""A user's module, as a file."""


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
