"""Grids of cells: a TOML file or Python, checked before anything runs, the coarse picture first.

name = "bounds"
experiment = "exact"

[settings]                # the same in all cells
N = 16

[axes]                    # every combination is a cell; several tables [[axes]] are several products
estimator = ["iwae", "dreg"]
K = [1, 8, 64]

[replicates]              # of experiments that draw random numbers
quantity = "bound"
target_se = 1e-3
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import toyiwae
from analysis.sweep.adaptive import Replicates
from analysis.sweep.experiment import Experiment
from analysis.sweep.lookup import find
from analysis.sweep.work import with_values
from toyiwae import checks, files
from toyiwae.checks import shown
from toyiwae.errors import InputError

MOST_CELLS = 10_000_000
"""Cells that a grid may have."""


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        own: its values on the axes, as JSON.
        common: experiment, versions and the settings it shares with others, as JSON.
        key: what identifies its rows: a hash of both.
    """

    own: str
    common: str
    key: bytes


@dataclass(frozen=True)
class Grid:
    """An experiment, the cells it is done at, and how often.

    Attributes:
        name: for messages and exports.
        experiment: what a cell computes.
        axes: products of values; names with dots reach into tables of the settings.
        settings: the same in all cells.
        replicates: how many blocks a cell has.
    """

    name: str
    experiment: Experiment
    axes: Sequence[Mapping[str, Sequence[Any]]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    replicates: Replicates = field(default_factory=Replicates)

    def __post_init__(self):
        """Refuses what can be refused without looking at cells."""
        self.replicates.check(self.experiment)
        fixed = dict(_flat(self.settings))
        for table in self.axes:
            _check_axes(table, self.name, fixed)
        if not self.axes:
            raise InputError(f"sweep {self.name!r} has no axes: expected a table of lists under [axes]")
        if len(self) > MOST_CELLS:
            raise InputError(f"sweep {self.name!r} has {len(self):,} cells: expected at most {MOST_CELLS:,}")

    def __len__(self) -> int:
        """How many cells there are."""
        return sum(math.prod(map(len, table.values())) for table in self.axes)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the axes, in order."""
        return tuple(dict.fromkeys(name for table in self.axes for name in table))

    @property
    def declaration(self) -> dict[str, Any]:
        """All that decides what cells there are and what rows they have."""
        return {
            "name": self.name,
            "experiment": self.experiment.name,
            "version": self.experiment.version,
            "toyiwae": toyiwae.__version__,
            "settings": dict(self.settings),
            "axes": [dict(table) for table in self.axes],
            "replicates": vars(self.replicates),
        }

    def cells(self) -> Iterator[Cell]:
        """The cells in the order of the axes, the last one fastest.

        Raises:
            InputError: for a cell with settings that the experiment refuses, and for one that comes twice.
        """
        seen: set[bytes] = set()
        for table in self.axes:
            for values in itertools.product(*table.values()):
                own = dict(zip(table, values, strict=True))
                words = ", ".join(f"{name} = {shown(value)}" for name, value in own.items())
                where = f"sweep {self.name!r}, cell {words}"
                cell = self._cell(own, where)
                if cell.key in seen:
                    raise InputError(f"{where}: comes twice, expected every cell once")
                seen.add(cell.key)
                yield cell

    @property
    def contents(self) -> str:
        """The SHA-256 of what the grid's text does not show: the files that it names, and what `check` makes of them.

        Files are named by texts, so that cells with every text and the first of all numbers will do: it costs no time
        where there are a million cells.
        """
        few = [{name: _texts(values) for name, values in table.items()} for table in self.axes]
        found = hashlib.sha256()
        for cell in replace(self, axes=few).cells():
            found.update(cell.key)
        return found.hexdigest()

    def ordered(self) -> list[tuple[int, Cell]]:
        """Every cell with its place in the grid, in the order in which they are to be run.

        Ends of an axis come first, then the middle, the quarters, and so on; of seeds the first ones; the values of an
        axis of texts are all needed for a coarse picture.
        """
        levels = [level for table in self.axes for level in _levels(table)]
        placed = list(enumerate(self.cells()))
        return [placed[place] for place in sorted(range(len(placed)), key=levels.__getitem__)]

    def _cell(self, own: Mapping[str, Any], where: str) -> Cell:
        full = self.experiment.checked(with_values(self.settings, own), where)
        values = {name: _taken(full, name) for name in self.names if _has(full, name)}
        identity = [self.experiment.name, self.experiment.version, toyiwae.__version__]
        # what was taken out is put in again: the same cell on other axes is the same cell
        what = json.loads(json.dumps(with_values(full, values)))
        for name in (*self.experiment.elsewhere, *self.experiment.paths):
            if _has(what, name):
                _taken(what, name)
        for name in self.experiment.estimators:
            if ".py:" in (what.get(name) or ""):
                what[name] = os.path.basename(what[name])
        whole = json.dumps([*identity, what], sort_keys=True, separators=(",", ":"))
        return Cell(
            json.dumps(values, separators=(",", ":")),
            json.dumps([*identity, full], separators=(",", ":")),
            hashlib.sha256(whole.encode()).digest()[:16],
        )


def _texts(values: Sequence[Any]) -> Sequence[Any]:
    """What of an axis may name a file: all of it, of numbers alone the first."""
    return values[:1] if all(isinstance(value, (int, float)) for value in values) else values


def load(path: str | Path) -> Grid:
    """The grid in a TOML file.

    Raises:
        InputError: one line that says what is wrong in it; cells are checked by `Grid.cells`.
    """
    path = Path(path)
    tables = files.read_toml(path)
    checks.keys(tables, path.name, ["experiment", "axes"], ["name", "settings", "replicates"])
    axes = tables["axes"] if isinstance(tables["axes"], list) else [tables["axes"]]
    settings, replicates = tables.get("settings", {}), tables.get("replicates", {})
    named = [("settings", settings), ("replicates", replicates), *(("axes", table) for table in axes)]
    for name, table in named:
        if not isinstance(table, dict):
            raise InputError(f"{path.name}: {name} is {shown(table)}: expected a table")
    name = tables.get("name", path.stem)
    if not isinstance(name, str) or not name:
        raise InputError(f"{path.name}: name is {shown(name)}: expected a text")
    experiment = find(tables["experiment"], path.parent)
    folder = os.path.abspath(path.parent)
    axes = [_beside(table, experiment, folder) for table in axes]
    return Grid(name, experiment, axes, _beside(settings, experiment, folder), Replicates.read(replicates))


def _beside(table: Mapping[str, Any], experiment: Experiment, folder: str, above: str = "") -> dict[str, Any]:
    """Settings or axes of a file in a folder, with the paths in them as absolute ones."""

    def placed(name: str, value: Any) -> Any:
        if isinstance(value, list):
            return [placed(name, one) for one in value]
        if isinstance(value, dict):
            return _beside(value, experiment, folder, f"{name}.")
        is_path = isinstance(value, str) and value not in experiment.paths.get(name, (value,))
        is_code = isinstance(value, str) and name in experiment.estimators and ".py:" in value
        return os.path.join(folder, value) if is_path or is_code else value

    return {name: placed(f"{above}{name}", value) for name, value in table.items()}


def _check_axes(table: Mapping[str, Sequence[Any]], name: str, fixed: Mapping[str, Any]) -> None:
    for axis, values in table.items():
        where = f"sweep {name!r}, axis {axis}"
        if not isinstance(values, (list, tuple)):
            raise InputError(f"{where} is {shown(values)}: expected a list (what does not vary: [settings])")
        if not values:
            raise InputError(f"{where} is empty: expected at least one value")
        if axis in fixed:
            raise InputError(f"{where} stands under [settings], too: expected it in one place")
        parts = axis.split(".")
        for above in (".".join(parts[:count]) for count in range(1, len(parts))):
            if above in table or (above in fixed and not isinstance(fixed[above], Mapping)):
                other = "an axis" if above in table else "under [settings]"
                raise InputError(f"{where} reaches into {above}, which is {other}, too: expected one of them")
        texts = [json.dumps(value, sort_keys=True, default=repr) for value in values]
        twice = next((v for v, text in zip(values, texts, strict=True) if texts.count(text) > 1), None)
        if len(set(texts)) < len(texts):
            raise InputError(f"{where} has {shown(twice)} twice: expected every value once")
    if not table:
        raise InputError(f"sweep {name!r} has a table of axes without any: expected lists of values")


def _levels(table: Mapping[str, Sequence[Any]]) -> Iterator[int]:
    """How late each cell of a product comes."""
    by_axis = [_axis_levels(name, values) for name, values in table.items()]
    return (max(levels) for levels in itertools.product(*by_axis))


def _axis_levels(name: str, values: Sequence[Any]) -> list[int]:
    if name.rpartition(".")[2].endswith("seed"):
        return [index.bit_length() for index in range(len(values))]
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return [0] * len(values)
    levels = [0] * len(values)
    gaps = [(0, len(values) - 1, 1)]
    while gaps:
        low, high, level = gaps.pop()
        if high - low > 1:
            middle = (low + high) // 2
            levels[middle] = level
            gaps += [(low, middle, level + 1), (middle, high, level + 1)]
    return levels


def _flat(tables: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tables.items():
        yield f"{prefix}{key}", value
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")


def _has(settings: Mapping[str, Any], name: str) -> bool:
    for part in name.split("."):
        if not isinstance(settings, Mapping) or part not in settings:
            return False
        settings = settings[part]
    return True


def _taken(settings: dict[str, Any], name: str) -> Any:
    """Takes one value out of nested tables."""
    *above, last = name.split(".")
    for part in above:
        settings = settings[part]
    return settings.pop(last)
