"""Results as data: strict JSON, data frames, and where a number came from.

Every result of toyiwae is a frozen dataclass; this module turns it into plain Python values that any
strict JSON reader takes. A number that does not exist (infinite, undefined) becomes ``null`` and the record
that holds it gets a ``reason``; nothing is ever written as ``NaN`` or ``Infinity``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

import toyiwae
from toyiwae.extras import import_extra

if TYPE_CHECKING:
    import pandas as pd

_ABSOLUTE = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\)")


Found = TypeVar("Found")


def cell_at(cells: Sequence[Found], K: int, M: int) -> Found:
    """The cell of one (K, M).

    Raises:
        KeyError: if there is none.
    """
    known = {(cell.K, cell.M): cell for cell in cells}  # pyright: ignore[reportAttributeAccessIssue]
    if (K, M) not in known:
        raise KeyError(f"no cell K={K}, M={M}: there are {list(known)}")
    return known[K, M]


def plain(record: Any) -> Any:
    """A record as plain Python values for strict JSON, keys in the order of its fields.

    Dataclasses and mappings become dicts, arrays (NumPy, torch) and sequences nested lists, NumPy scalars
    Python numbers. A number that is not finite becomes ``None``, and the nearest enclosing dict gets a
    ``reason`` that names the key, unless it states one itself. A ``reason`` that is ``None`` is left out.

    Args:
        record: dataclass instance, mapping, array, sequence, number, string, bool or ``None``.

    Raises:
        TypeError: for anything else, and for keys that are not strings.
        ValueError: for a number that is not finite and has no enclosing record to carry a reason.
    """
    missing: set[str] = set()
    converted = _plain(record, missing)
    if missing:
        raise ValueError("a number that is not finite needs a record around it to carry its reason")
    return converted


def dumps(record: Any) -> str:
    """A record as strict JSON text: dicts indented by two spaces, lists of numbers on one line.

    Raises:
        TypeError, ValueError: as `plain`.
    """
    return _layout(plain(record), "")


def coordinates(columns: Mapping[str, Any], **labels: Any) -> Iterator[dict[str, Any]]:
    """Rows of a long table: one for every coordinate of arrays of equal shape.

    Args:
        columns: column name -> array; all of one shape. ``None`` is a column of ``None``.
        labels: columns with the same value in every row; they come first.

    Yields:
        ``{**labels, "index": "0" or "2,1", **values}``; ``index`` is empty for scalars.
    """
    arrays = {name: None if value is None else np.asarray(value) for name, value in columns.items()}
    shapes = {array.shape for array in arrays.values() if array is not None}
    if len(shapes) > 1:
        raise ValueError(f"columns differ in shape: {sorted(shapes)}")
    for index in np.ndindex(shapes.pop() if shapes else ()):
        values = {name: None if array is None else array[index].item() for name, array in arrays.items()}
        yield {**labels, "index": ",".join(map(str, index)), **values}


def to_dataframe(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A pandas data frame of flat rows, columns in order of first appearance.

    Raises:
        MissingExtraError: if pandas is not installed; the message names the extra.
    """
    pandas = import_extra("pandas", extra="analysis", purpose="to_dataframe()")
    return pandas.DataFrame([dict(row) for row in rows])


def provenance(arguments: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Where a number came from: versions, platform and arguments; no folder of this machine.

    Args:
        arguments: what the function was called with. A path, and a string that starts like an absolute path,
            is reduced to its file name.

    Returns:
        ``{"toyiwae", "python", "numpy", "scipy", "torch" (only if loaded), "platform", "arguments"}``.
    """
    found = {"toyiwae": toyiwae.__version__, "python": platform.python_version()}
    found |= {name: _version_of(name) for name in ("numpy", "scipy")}
    if "torch" in sys.modules:
        found["torch"] = str(getattr(sys.modules["torch"], "__version__", _version_of("torch")))
    return {
        **found,
        "platform": f"{platform.system()} {platform.machine()}",
        "arguments": plain(_without_folders(dict(arguments or {}))),
    }


def _version_of(distribution: str) -> str:
    from importlib import metadata  # 20 ms that `import toyiwae` need not pay

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "unknown"


def _without_folders(value: Any) -> Any:
    if isinstance(value, PurePath):
        return value.name
    if isinstance(value, str) and _ABSOLUTE.match(value):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1]
    if isinstance(value, Mapping):
        return {key: _without_folders(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_folders(item) for item in value]
    return value


def _plain(value: Any, missing: set[str]) -> Any:
    """`plain`, adding to `missing` what was infinite or undefined and still needs a reason."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if not math.isfinite(number):
            missing.add("undefined" if math.isnan(number) else "infinite")
            return None
        return number
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain_mapping({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Mapping):
        return _plain_mapping(value)
    if hasattr(value, "detach"):  # a torch tensor, on whatever device
        value = value.detach().cpu().numpy()  # pyright: ignore[reportAttributeAccessIssue]
    if isinstance(value, (np.ndarray, np.bool_)):
        return _plain(value.tolist(), missing)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [_plain(item, missing) for item in value]
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _plain_mapping(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    converted: dict[str, Any] = {}
    reasons: list[str] = []
    for key, value in mapping.items():
        if not isinstance(key, str):
            raise TypeError(f"a JSON key is a string, not {key!r}")
        missing: set[str] = set()
        converted[key] = _plain(value, missing)
        if missing:
            reasons.append(f"{key} is {' or '.join(sorted(missing))}")
    if converted.get("reason") is None:
        converted.pop("reason", None)
        if reasons:
            converted["reason"] = "; ".join(reasons)
    return converted


def _layout(value: Any, indent: str) -> str:
    inner = indent + "  "
    if isinstance(value, dict) and value:
        items = [f"{_flat(key)}: {_layout(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(inner + item for item in items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(inner + _layout(item, inner) for item in value) + f"\n{indent}]"
    return _flat(value)


def _flat(value: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False)
