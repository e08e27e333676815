"""What a sweep found, for others: CSV, a pandas data frame, an xarray data set and netCDF, each with its provenance.

A row is a finished cell, in the order of the grid: its values on the axes, then what the experiment gives, with its
blocks merged.
The same rows make the same bytes, whoever computed them, in whatever order, however often it was interrupted.
"""

from __future__ import annotations

import csv
import itertools
import json
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.sweep.experiment import Experiment
from analysis.sweep.store import Store
from toyiwae import records
from toyiwae.errors import InputError
from toyiwae.extras import import_extra
from toyiwae.files import replacing, write_atomic

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

CHUNK = 20_000
LARGEST_INT32 = 2**31 - 1


def cells(store: Store, experiment: Experiment) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(values on the axes, row) of every finished cell, in the order of the grid.

    Raises:
        InputError: the rows are of another version of the experiment.
    """
    declared = store.declaration or {}
    for name, now in (("experiment", experiment.name), ("version", experiment.version)):
        if name in declared and declared[name] != now:
            raise InputError(
                f"the rows in {str(store.path)!r} are of {name} {declared[name]}, not {now}: run the sweep again, or "
                "export them with the code that made them"
            )
    for _, found in itertools.groupby(store.finished(), lambda block: block[0]):
        blocks = list(found)
        rows = [json.loads(text) for *_, text in blocks]
        own = json.loads(blocks[0][1])
        yield own, rows[0] if experiment.merge is None else records.plain(experiment.merge(rows))


def provenance(store: Store) -> dict[str, Any]:
    """The grid, and the versions, platforms and commits that the rows come from."""
    to_do, done, failed = store.counts()
    counts = {"done": done, "failed": failed, "to_do": to_do}
    return {"sweep": store.declaration, "cells": counts, "origins": store.origins()}


def to_csv(store: Store, experiment: Experiment, path: str | os.PathLike[str]) -> int:
    """Writes a CSV file and `PATH.json` with its provenance; lists are JSON, what there is not is empty.

    Memory does not depend on how many rows there are. Numbers have all their digits.

    Returns:
        How many rows there are.

    Raises:
        InputError: another version of the experiment, no folder to write to.
        OSError: it cannot be written; an old file stays.
    """
    columns = _columns(store, experiment)
    count = 0
    with replacing(path) as stream:
        text = _Text(stream)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(columns)
        for own, row in cells(store, experiment):
            both = own | row
            writer.writerow([_cell(both.get(name)) for name in columns])
            count += 1
    write_atomic(f"{os.fspath(path)}.json", records.dumps(provenance(store)) + "\n")
    return count


def to_dataframe(store: Store, experiment: Experiment) -> pd.DataFrame:
    """A data frame with a row for every finished cell; its provenance is in `.attrs`.

    Raises:
        InputError: another version of the experiment.
    """
    pandas: Any = import_extra("pandas", extra="analysis", purpose="a data frame")
    columns = _columns(store, experiment)
    found, parts = cells(store, experiment), []
    while rows := [own | row for own, row in itertools.islice(found, CHUNK)]:
        parts.append(pandas.DataFrame({name: _column([row.get(name) for row in rows]) for name in columns}))
    frame = pandas.concat(parts, ignore_index=True) if parts else pandas.DataFrame(columns=list(columns))
    frame.attrs["provenance"] = provenance(store)
    return frame


def to_xarray(store: Store, experiment: Experiment) -> xr.Dataset:
    """A data set whose dimensions are the axes; a cell that is not there is NaN, or "" among texts.

    So is the place on an axis of a cell that has no value there: of another product, where the default is none.

    Lists of numbers get dimensions of their own, `NAME_0` and so on, and NaN where they are shorter than the longest.

    Raises:
        InputError: another version of the experiment; values on an axis that are lists or tables.
    """
    xarray: Any = import_extra("xarray", extra="analysis", purpose="a data set")
    frame = to_dataframe(store, experiment)
    declared = store.declaration or {"axes": []}
    names = list(dict.fromkeys(name for table in declared["axes"] for name in table))
    places = []
    for name in names:
        found = set(map(type, frame[name]))
        if found & {list, dict}:
            raise InputError(f"axis {name} has lists or tables: expected numbers and texts; export to CSV")
        values = dict.fromkeys(value for table in declared["axes"] for value in table.get(name, ()))
        there = dict.fromkeys(map(_known, frame[name]))  # with defaults, where a product has no such axis
        ordered = [value for value in values | there if value in there]
        places.append({value: index for index, value in enumerate(ordered)})
    shape = tuple(map(len, places))
    index = tuple(
        np.array([place[_known(value)] for value in frame[name]], dtype=int)
        for name, place in zip(names, places, strict=True)
    )
    variables = {
        name: _variable(name, frame[name], names, shape, index) for name in frame if name not in names
    }
    coordinates = {name: _coordinate(list(place)) for name, place in zip(names, places, strict=True)}
    attributes = {"provenance": json.dumps(provenance(store), ensure_ascii=False)}
    return xarray.Dataset(variables, coordinates, attributes)


def to_netcdf(store: Store, experiment: Experiment, path: str | os.PathLike[str]) -> int:
    """Writes `to_xarray` as a netCDF 3 file; whole numbers beyond 32 bits become floating-point numbers.

    Returns:
        How many finished cells it has.

    Raises:
        InputError: as `to_xarray`.
        OSError: it cannot be written; an old file stays.
    """
    found = to_xarray(store, experiment)
    for name, variable in found.variables.items():
        if variable.dtype.kind == "i" and variable.size and np.abs(variable.values).max() > LARGEST_INT32:
            found[name] = found[name].astype(float)
    content = found.to_netcdf(engine="scipy")
    write_atomic(path, bytes(content))
    return store.counts()[1]


def _columns(store: Store, experiment: Experiment) -> list[str]:
    """Axes, then the names in rows, in the order in which they first appear."""
    columns: dict[str, None] = {}
    seen: set[tuple[str, ...]] = set()
    axes: dict[str, None] = {}
    for own, row in cells(store, experiment):
        keys = (*own, "", *row)
        if keys not in seen:
            seen.add(keys)
            axes |= dict.fromkeys(own)
            columns |= dict.fromkeys(row)
    return list(axes | columns)


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _column(values: list[Any]) -> Any:
    """Numbers with None as NaN; anything else as it is."""
    if all(
        value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)) for value in values
    ):
        return _typed([np.nan if value is None else value for value in values])
    return values


def _typed(values: list[Any]) -> np.ndarray:
    """As whole numbers, numbers or texts."""
    return np.array(values) if values else np.array(values, dtype=float)


def _known(value: Any) -> Any:
    """A value on an axis; None for NaN, which is not equal to itself."""
    return None if value != value else value


def _coordinate(values: list[Any]) -> np.ndarray:
    """An axis; what there is not is NaN, or "" among texts."""
    absent = "" if any(isinstance(value, str) for value in values) else np.nan
    return _typed([absent if value is None else value for value in values])


def _variable(
    name: str, column: Any, names: list[str], shape: tuple[int, ...], index: tuple[np.ndarray, ...]
) -> tuple[list[str], np.ndarray]:
    """A column on the grid of the axes."""
    values = list(column)
    if any(isinstance(value, str) for value in values):
        texts = ["" if not isinstance(value, str) else value for value in values]
        grid = np.full(shape, "", dtype=np.array(texts).dtype)
        grid[index] = texts
        return names, grid
    arrays = [np.array(np.nan if value is None else value, dtype=float) for value in values]
    dimensions = max((array.ndim for array in arrays), default=0)
    longest = tuple(
        max(array.shape[axis] for array in arrays if array.ndim == dimensions) for axis in range(dimensions)
    )
    grid = np.full((*shape, *longest), np.nan)
    if not dimensions:
        grid[index] = np.array(arrays)
    else:
        for place, array in zip(zip(*index, strict=True), arrays, strict=True):
            if array.ndim == dimensions:
                grid[(*place, *map(slice, array.shape))] = array
    return [*names, *(f"{name}_{axis}" for axis in range(dimensions))], grid


class _Text:
    """Text into a stream of bytes."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> None:
        """Writes it as UTF-8."""
        self._stream.write(text.encode("utf-8"))


FORMATS: Mapping[str, Any] = {".csv": to_csv, ".nc": to_netcdf}
"""Suffix of a file -> what writes it."""
