"""Cells inside a study: run here and now, or as a sweep with a store where the command line asks for one."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from analysis.settings import Settings
from analysis.study import track
from analysis.sweep import export
from analysis.sweep.adaptive import Replicates, merged
from analysis.sweep.executors import Workers
from analysis.sweep.experiment import Experiment
from analysis.sweep.grid import Grid
from analysis.sweep.run import sweep
from analysis.sweep.store import reading
from toyiwae import records
from toyiwae.errors import ToyiwaeError


@dataclass(frozen=True)
class Place:
    """Where the cells of studies are kept and run.

    Attributes:
        folder: of the stores, one for each experiment.
        workers: what cells run on.
        note: told in one line what a user should know.
    """

    folder: Path
    workers: Workers
    note: Callable[[str], Any]


_place: ContextVar[Place | None] = ContextVar("place", default=None)


@contextmanager
def kept_in(place: Place) -> Iterator[None]:
    """Within the block, `rows` keeps cells in stores, and takes from them what is there."""
    token = _place.set(place)
    try:
        yield
    finally:
        _place.reset(token)


def rows(
    experiment: Experiment,
    settings: Sequence[Settings],
    label: Callable[[Any], str] = str,
    *,
    blocks: int = 1,
) -> list[dict[str, Any]]:
    """The rows of an experiment at some settings, in their order.

    A study calls this for what takes long, and names the experiment in `Study.experiments`. Without a store the cells
    run one after the other; the numbers are the same either way.

    Args:
        experiment: what a cell computes.
        settings: of each cell.
        label: of a cell under way, for the progress bar.
        blocks: of replicates that each cell has.

    Raises:
        ToyiwaeError: with a store, if cells failed; the others are kept.
        Exception: without one, what a cell raises.
    """
    plain = [experiment.checked(one.model_dump(mode="json"), experiment.name) for one in settings]
    place = _place.get()
    if place is None:
        pairs = list(zip(settings, plain, strict=True))
        return [_row(experiment, values, blocks) for _, values in track(pairs, lambda pair: label(pair[0]))]
    place.folder.mkdir(parents=True, exist_ok=True)
    path = place.folder / f"{experiment.name}.sqlite"
    axes = [{name: [value] for name, value in values.items()} for values in plain]
    grid = Grid(experiment.name, experiment, axes, replicates=Replicates(blocks))
    summary = sweep(grid, path, workers=place.workers, update=True, retry_failed=True, note=place.note)
    if summary.failed:
        raise ToyiwaeError(
            f"{summary.failed} of {len(grid)} cells failed: python -m analysis sweep status {path}"
        )
    with reading(path) as store:
        return [row for _, row in export.cells(store, experiment)]


def _row(experiment: Experiment, values: dict[str, Any], blocks: int) -> dict[str, Any]:
    """A cell's row, as it would come out of a store."""
    found = [experiment.run(SimpleNamespace(**values), block) for block in range(blocks)]
    return records.plain(merged(experiment, [json.loads(json.dumps(records.plain(row))) for row in found]))
