"""Exports of sweeps: all digits, every axis, and the rows of studies with a store and without."""

import csv
import io
import json
import math
import re

import numpy as np
import pytest
import xarray

import toyiwae
from analysis.sweep import cells, executors, export, forecast
from analysis.sweep.experiment import Experiment
from analysis.sweep.run import sweep
from analysis.sweep.store import reading, writing
from tests.sweep_cells import TOY, ToySettings, exported, grid, of_all, toy
from toyiwae import InputError, ToyiwaeError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "a.sqlite"
    sweep(grid(axes=[{"kind": ["sin", "cos"], "n": [1, 3]}, {"x": [0.5], "n": [4]}]), path)
    with reading(path) as found:
        yield found


def test_csv_has_all_digits_and_no_number_where_there_is_none(store, tmp_path):
    assert export.to_csv(store, TOY, tmp_path / "a.csv") == 5
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [(row["kind"], row["n"], row["x"]) for row in rows] == [
        ("sin", "1", "1.0"), ("sin", "3", "1.0"), ("cos", "1", "1.0"), ("cos", "3", "1.0"), ("sin", "4", "0.5"),
    ]  # fmt: skip
    assert float(rows[0]["value"]) == math.sin(1.0)
    assert json.loads(rows[2]["list"]) == [math.cos(1.0), 0]
    assert rows[1]["log"] == ""
    assert rows[0]["log"] == rows[0]["value"]


def test_a_data_frame_has_the_same(store):
    frame = export.to_dataframe(store, TOY)
    assert frame["value"].tolist() == [
        math.sin(1.0),
        math.sin(3.0),
        math.cos(1.0),
        math.cos(3.0),
        math.sin(2.0),
    ]
    assert np.isnan(frame["log"][1])
    found = frame.attrs["provenance"]
    assert found["cells"] == {"done": 5, "failed": 0, "to_do": 0}
    assert found["sweep"]["experiment"] == "toy"
    (origin,) = found["origins"]
    assert origin["toyiwae"] == toyiwae.__version__
    assert origin["blocks"] == 5
    assert re.fullmatch(r"[0-9a-f]{40}(\+changed)?", origin["commit"] or "0" * 40)


def test_products_side_by_side_make_one_data_set(store):
    data = export.to_xarray(store, TOY)
    assert dict(data.sizes) == {"kind": 2, "n": 3, "x": 2, "list_0": 2}
    assert int(data["value"].notnull().sum()) == 5
    assert float(data["value"].sel(kind="sin", n=4, x=0.5)) == math.sin(2.0)


def test_a_data_set_has_the_axes_as_dimensions(tmp_path):
    full = grid(axes=[{"kind": ["sin", "cos"], "n": [1, 3_000_000_000], "x": [0.5, 1.0, 2.0]}])
    sweep(full, tmp_path / "a.sqlite")
    with reading(tmp_path / "a.sqlite") as found:
        data = export.to_xarray(found, TOY)
        assert export.to_netcdf(found, TOY, tmp_path / "a.nc") == 12
    assert dict(data.sizes) == {"kind": 2, "n": 2, "x": 3, "list_0": 2}
    read = xarray.open_dataset(tmp_path / "a.nc", engine="scipy")
    assert float(read["value"].sel(kind="cos", n=3e9, x=2.0)) == math.cos(6e9)
    np.testing.assert_array_equal(read["list"].sel(kind="sin", n=1.0, x=0.5), [math.sin(0.5), 0])
    assert json.loads(read.attrs["provenance"])["cells"]["done"] == 12
    read.close()


def test_an_axis_that_a_product_lacks_and_whose_default_is_none(tmp_path):
    class Optional(ToySettings):
        size: int | None = None
        label: str | None = None

    experiment = Experiment("optional", 1, Optional, toy, merge=of_all)
    axes = [{"size": [4, 9], "label": ["a"]}, {"x": [0.5, 2.0]}]
    sweep(grid(experiment=experiment, axes=axes), tmp_path / "a.sqlite")
    with reading(tmp_path / "a.sqlite") as found:
        assert export.to_netcdf(found, experiment, tmp_path / "a.nc") == 4
    with xarray.open_dataset(tmp_path / "a.nc", engine="scipy") as data:
        np.testing.assert_array_equal(data["size"], [4, 9, np.nan])
        assert [str(text) for text in np.char.decode(data["label"].values.astype(bytes))] == ["a", ""]
        assert int(data["value"].notnull().sum()) == 4
        assert float(data["value"].isel(size=2, label=1).sel(x=2.0)) == math.sin(2.0)
        assert float(data["value"].isel(label=0).sel(size=9, x=1.0)) == math.sin(1.0)


def ragged(settings, block):
    """A list as long as n, in a table's size."""
    return {"list": list(range(settings.n)), "words": "a" * settings.n}


def test_lists_of_several_lengths_and_cells_that_are_missing(tmp_path):
    experiment = Experiment("ragged", 1, ToySettings, ragged)
    sweep(grid(experiment=experiment, axes=[{"n": [1, 3]}]), tmp_path / "a.sqlite", limit=2)
    with reading(tmp_path / "a.sqlite") as found:
        data = export.to_xarray(found, experiment)
    np.testing.assert_array_equal(data["list"], [[0, np.nan, np.nan], [0, 1, 2]])
    assert data["words"].values.tolist() == ["a", "aaa"]


def test_an_unfinished_sweep_exports_what_there_is(tmp_path):
    sweep(grid(), tmp_path / "a.sqlite", limit=5)
    with reading(tmp_path / "a.sqlite") as found:
        assert len(export.to_dataframe(found, TOY)) == 5
        assert int(export.to_xarray(found, TOY)["value"].notnull().sum()) == 5


def test_rows_of_another_version_are_not_merged_with_this_one(store):
    other = Experiment("toy", 2, ToySettings, toy, merge=of_all)
    with pytest.raises(InputError, match="are of version 1, not 2"):
        export.to_dataframe(store, other)


def test_a_study_gets_the_same_rows_with_and_without_a_store(tmp_path):
    settings = [ToySettings(x=x, n=n) for x in (0.5, 2.0) for n in (1, 3)]
    plain = cells.rows(TOY, settings, blocks=2)
    place = cells.Place(tmp_path / "sweeps", executors.threads(2), print)
    with cells.kept_in(place):
        assert cells.rows(TOY, settings, blocks=2) == plain
        assert cells.rows(TOY, settings[:2], blocks=2) == plain[:2]  # other settings are no edit
        with pytest.raises(ToyiwaeError, match=r"1 of 2 cells failed: .* status .*toy\.sqlite"):
            cells.rows(TOY, [settings[0], ToySettings(trouble="overflow")])
    assert plain[0]["value"] == math.sin(0.5)
    assert plain[0]["blocks"] == 2
    with reading(tmp_path / "sweeps" / "toy.sqlite") as found:
        assert found.unplanned() == 6  # of three cells


def test_the_time_a_sweep_takes_is_foretold(tmp_path):
    """From a sixth of the cells, whose times differ by a factor of a thousand."""
    path = tmp_path / "a.sqlite"
    many = grid(axes=[{"kind": ["sin", "cos"], "n": list(range(1, 31)), "seed": [0, 1]}])
    assert forecast.forecast(many, path) == forecast.Forecast(0, 0, 120, False, None)
    sweep(many, path, limit=1)
    seconds = {
        (kind, n): (2.0 if kind == "sin" else 0.1) * n for kind in ("sin", "cos") for n in range(1, 31)
    }
    sweep(many, path, limit=19)
    with writing(path) as store:
        for cell, own in store._query("SELECT id, own FROM cells").fetchall():
            values = json.loads(own)
            took = seconds[values["kind"], values["n"]]
            store._query("UPDATE blocks SET seconds = ? WHERE cell = ?", (took, cell))
        left = [json.loads(cell.own) for cell in store.to_do(-1, 1000)]
    found = forecast.forecast(many, path)
    assert (found.done, found.to_do) == (20, 100)
    right = sum(seconds[own["kind"], own["n"]] for own in left)
    assert found.seconds is not None
    assert 0.5 * right < found.seconds < 2 * right


def test_exports_stay_what_they_are(tmp_path):
    """The same rows, the same bytes: in another order, interrupted, on threads."""
    sweep(grid(), tmp_path / "a.sqlite")
    for limit in (5, 5, 5):
        sweep(grid(), tmp_path / "b.sqlite", limit=limit, workers=executors.threads(2))
    assert exported(tmp_path / "a.sqlite") == exported(tmp_path / "b.sqlite")
