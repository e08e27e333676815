"""What the studies of training share: the stack of methods on scikit-learn's digits, and its runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import toyiwae
from toyiwae.networks.runs import checkpoints
from toyiwae.networks.runs.run import Run, load_run

PARTICLES = 64


AGAINST_ELBO = (("iwae", False), ("iwae", True), ("ciwae:0.5", False), ("piwae", True))
"""Estimators that the paper's table compares with the ELBO's, and whether in several groups."""


def methods(particles: int = PARTICLES) -> list[dict[str, Any]]:
    """The rows of the paper's table with as many particles each: VAE, IWAE, MIWAE, CIWAE, PIWAE.

    References:
        rainforth2018tighter
    """
    root = round(particles**0.5)
    one_group, several = {"M": 1, "K": particles}, {"M": root, "K": root}
    rows = [{"estimator": name} | (several if grouped else one_group) for name, grouped in AGAINST_ELBO]
    return [{"estimator": "elbo", "M": particles, "K": 1}, *rows]


def settings(
    model: Mapping[str, Any], members: Sequence[Mapping[str, Any]], training: Mapping[str, Any], **tables: Any
) -> dict[str, Any]:
    """A settings file's tables: digits, grey for Gaussian pixels and otherwise binarised anew for each batch."""
    grey = model["kind"] == "linear_gaussian"
    data = {"binarisation": "grey" if grey else "dynamic"} | tables.pop("data", {})
    return {
        "data": data,
        "model": dict(model),
        "members": list(members),
        "training": dict(training),
        **tables,
    }


@dataclass(frozen=True)
class Kept:
    """A run with its checkpoints.

    Attributes:
        folder: where it is.
        steps: of its checkpoints, from 0 on.
    """

    folder: Path
    steps: list[int]

    def at(self, step: int) -> Run:
        """The run as it was after a step."""
        return load_run(self.folder, step=step)


@contextmanager
def kept(tables: Mapping[str, Any], every: int) -> Iterator[Kept]:
    """Trains with a checkpoint after each `every` steps, gone at the end of the block."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "run"
        output = {"checkpoint_every": every, "keep": 0, **tables.get("output", {})}
        toyiwae.train({**tables, "output": output}, folder, show_progress=False)
        yield Kept(folder, [checkpoints.step_of(path) for path in checkpoints.found(folder / "checkpoints")])
