"""Strict JSON, data frames and provenance."""

import builtins
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest

from toyiwae import records
from toyiwae.errors import MissingExtraError, ToyiwaeError
from toyiwae.extras import import_extra


@dataclasses.dataclass(frozen=True)
class Inner:
    """A record inside a record."""

    mean: object
    var: object = 1.0
    reason: str | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    """A record whose fields are not in alphabetical order."""

    zulu: object
    alpha: object
    inner: Inner


def strict(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


def test_fields_keep_their_order_and_arrays_become_lists():
    record = Outer(
        zulu=np.float32(0.5), alpha=np.arange(6.0).reshape(2, 3), inner=Inner(mean=(np.int64(3), True))
    )
    converted = records.plain(record)
    assert list(converted) == ["zulu", "alpha", "inner"]
    assert converted == {
        "zulu": 0.5,
        "alpha": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        "inner": {"mean": [3, True], "var": 1.0},
    }
    assert type(converted["inner"]["mean"][0]) is int


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (float("inf"), "infinite"),
        (-np.inf, "infinite"),
        (np.float64("nan"), "undefined"),
        (np.array(np.inf), "infinite"),
    ],
)
def test_a_number_that_does_not_exist_is_null_with_a_reason(number, word):
    assert records.plain({"gap": 1.0, "ess": number}) == {"gap": 1.0, "ess": None, "reason": f"ess is {word}"}


def test_the_reason_stands_in_the_nearest_record_and_an_own_reason_wins():
    record = Outer(
        zulu=[1.0, np.nan, np.inf], alpha=np.inf, inner=Inner(mean=np.nan, reason="0/0: all weights equal")
    )
    converted = records.plain(record)
    assert converted["zulu"] == [1.0, None, None]
    assert converted["reason"] == "zulu is infinite or undefined; alpha is infinite"
    assert converted["inner"] == {"mean": None, "var": 1.0, "reason": "0/0: all weights equal"}
    assert "reason" not in records.plain(Inner(mean=None))


def test_what_has_no_json_form_is_refused():
    for value in (1j, {1: 2}, {1, 2}, b"bytes", Path("p"), object(), Inner):
        with pytest.raises(TypeError):
            records.plain({"value": value})
    with pytest.raises(ValueError, match="reason"):
        records.plain([1.0, float("nan")])


def test_torch_tensors_convert():
    torch = pytest.importorskip("torch")
    tensor = torch.tensor([1.0, float("nan")], dtype=torch.float64, requires_grad=True)
    assert records.plain({"mean": tensor}) == {"mean": [1.0, None], "reason": "mean is undefined"}


def test_dumps_is_strict_exact_and_readable():
    document = {"β": 0.1 + 0.2, "rows": [{"K": 1, "x": [1.5, np.nan]}, {}], "empty": {}, "none": []}
    text = records.dumps(document)
    assert strict(text) == records.plain(document)
    assert '"x": [1.5, null]' in text
    assert "β" in text
    assert text == records.dumps(document)


def test_coordinates_walk_arrays_of_any_shape():
    rows = list(records.coordinates({"mean": [[1, 2], [3, 4]], "var": None}, K=8))
    assert rows[1] == {"K": 8, "index": "0,1", "mean": 2, "var": None}
    assert len(rows) == 4
    assert list(records.coordinates({"bound": 2.5})) == [{"index": "", "bound": 2.5}]
    with pytest.raises(ValueError, match="shape"):
        list(records.coordinates({"a": [1], "b": [1, 2]}))


def test_dataframe_keeps_rows_and_columns():
    pytest.importorskip("pandas")
    frame = records.to_dataframe(records.coordinates({"mean": [0.5, 1.5]}, K=8, estimator="iwae"))
    assert list(frame.columns) == ["K", "estimator", "index", "mean"]
    assert frame["mean"].tolist() == [0.5, 1.5]


def test_a_missing_extra_is_named(monkeypatch):
    real = builtins.__import__

    def hide(name, *args, **kwargs):
        if name.partition(".")[0] == "pandas":
            raise ModuleNotFoundError("No module named 'pandas'", name="pandas")
        return real(name, *args, **kwargs)

    monkeypatch.setattr("importlib.import_module", lambda name: hide(name))
    with pytest.raises(MissingExtraError, match=re.escape("pip install 'toyiwae[analysis]'")) as caught:
        records.to_dataframe([])
    assert isinstance(caught.value, ToyiwaeError)
    assert isinstance(caught.value, ImportError)


def test_a_broken_dependency_is_not_called_missing(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'deeper'", name="deeper")

    monkeypatch.setattr("importlib.import_module", broken)
    with pytest.raises(ModuleNotFoundError, match="deeper"):
        import_extra("torch", extra="torch", purpose="this test")


def test_provenance_names_versions_and_arguments_but_no_folder():
    arguments = {
        "problem": Path("/home/someone/p.toml"),
        "K": (1, 8),
        "e": ["iwae", "/data/mine.py:f", "~/g.py:f"],
    }
    found = records.provenance(arguments)
    assert [key for key in found if key != "torch"] == [
        "toyiwae",
        "python",
        "numpy",
        "scipy",
        "platform",
        "arguments",
    ]
    assert found["numpy"] == np.__version__
    assert found["arguments"] == {"problem": "p.toml", "K": [1, 8], "e": ["iwae", "mine.py:f", "g.py:f"]}
    text = records.dumps(found)
    assert not re.search(r"/(home|root|data|usr|tmp)", text)
    assert found == records.provenance(arguments)
