"""What a sweep has left to do, and about how long it takes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from analysis.sweep.grid import Grid
from analysis.sweep.store import Store, reading

SAMPLE = 2000
"""Cells, timed and to do, that a forecast looks at."""


@dataclass(frozen=True)
class Forecast:
    """What is there and what is left.

    Attributes:
        done, failed, to_do: cells.
        edited: whether the store was made for another grid or version.
        seconds: of one process, for the cells to do; None if no cell has been timed.
    """

    done: int
    failed: int
    to_do: int
    edited: bool
    seconds: float | None


def forecast(grid: Grid, path: Path) -> Forecast:
    """Looks at the store, if there is one, and at the grid's cells, which are checked unless it has planned them.

    Raises:
        InputError: a bad grid, no store.
    """
    if not path.is_file():
        return Forecast(0, 0, sum(1 for _ in grid.cells()), False, None)
    with reading(path) as store:
        same = store.declaration == json.loads(json.dumps(grid.declaration))
        if same and store.contents == grid.contents:
            to_do, done, failed = store.counts()
            left = [cell.own for cell in store.to_do(-1, SAMPLE)]
            return Forecast(done, failed, to_do, False, _seconds(store, left, to_do))
        there = store.keys(grid.replicates.blocks)
        missing = [cell.own for cell in grid.cells() if cell.key not in there]
        seconds = _seconds(store, missing[:: max(1, len(missing) // SAMPLE)], len(missing))
        return Forecast(len(grid) - len(missing), 0, len(missing), True, seconds)


def _seconds(store: Store, left: Sequence[str], count: int) -> float | None:
    """Seconds for so many cells, of which some are given."""
    timed = store.timings(SAMPLE)
    if not timed or not left:
        return None if left else 0.0
    model = fit([json.loads(own) for own, _ in timed], [seconds for _, seconds in timed])
    return count * sum(model(json.loads(own)) for own in left) / len(left)


def fit(cells: Sequence[dict[str, Any]], seconds: Sequence[float]) -> Any:
    """A function from a cell to its expected seconds: a product of one factor for each value on each axis.

    Least squares on the logarithms, drawn a little to no factors at all; the mean of what it leaves out is put back. A
    number that was not timed gets the factor of the nearest one.
    """
    names = [name for name in cells[0] if all(name in cell for cell in cells)]
    columns = {
        (name, key): index
        for index, (name, key) in enumerate(
            dict.fromkeys((name, json.dumps(cell[name])) for name in names for cell in cells)
        )
    }
    known = {name: [json.loads(key) for other, key in columns if other == name] for name in names}

    def row(cell: dict[str, Any]) -> np.ndarray:
        found = np.zeros(len(columns))
        for name in names:
            if (name, json.dumps(cell.get(name))) in columns:
                found[columns[name, json.dumps(cell.get(name))]] = 1.0
            elif isinstance(cell.get(name), (int, float)):
                numbers = [value for value in known[name] if isinstance(value, (int, float))]
                if numbers:
                    nearest = min(numbers, key=lambda value: abs(value - cell[name]))
                    found[columns[name, json.dumps(nearest)]] = 1.0
        return found

    design = np.array([row(cell) for cell in cells])
    logs = np.log(np.maximum(seconds, 1e-6))
    centre = logs.mean()
    normal = design.T @ design + 0.1 * np.eye(len(columns))
    factors = np.linalg.solve(normal, design.T @ (logs - centre))
    scale = float(np.mean(np.maximum(seconds, 1e-6) / np.exp(centre + design @ factors)))
    return lambda cell: scale * math.exp(centre + float(row(cell) @ factors))
