"""TensorBoard's files of a run, if the settings ask for them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from toyiwae.extras import import_extra
from toyiwae.networks.members import Member
from toyiwae.networks.runs.folder import RunFolder

Tell = Callable[[Mapping[str, Any], Mapping[str, Any]], Any]
"""Is told a line of metrics and one of times."""


@contextlib.contextmanager
def tensorboard(folder: RunFolder | None, members: Sequence[Member], done: int) -> Iterator[Tell]:
    """Within the block: what writes TensorBoard's files, if there is a folder and its settings ask for them."""
    if folder is None or not folder.settings.output.tensorboard:
        yield lambda metrics, times: None
        return
    module = import_extra("torch.utils.tensorboard", extra="tensorboard", purpose="output.tensorboard")
    writer = module.SummaryWriter(str(folder.path / "tensorboard"), purge_step=done + 1)
    names = [f"{i} {m.model}/{m.proposal} M={m.M} K={m.K} seed={m.seed}" for i, m in enumerate(members)]

    def write(metrics: Mapping[str, Any], times: Mapping[str, Any]) -> None:
        for key in ("bound", "ess"):
            for name, value in zip(names, metrics[key], strict=True):
                writer.add_scalar(f"{key}/{name}", value, metrics["step"])
        writer.add_scalar("steps per second", times["steps_per_second"], metrics["step"])

    try:
        yield write
    finally:
        writer.close()
