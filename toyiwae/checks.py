"""Checks of numeric input: arrays, shapes, the keys of a mapping, each refused in one line.

Everything a user hands in becomes a read-only float64 array here, or an `InputError` that names the field,
the value and what would be right.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from toyiwae.errors import InputError

_KIND_OF_DIMENSIONS = {
    0: "a number",
    1: "a list of numbers",
    2: "a list of rows of numbers",
    3: "a list of matrices",
}


def real_array(value: Any, field: str, dimensions: tuple[int, ...]) -> np.ndarray:
    """A read-only float64 copy of `value`; integers are converted, −0.0 becomes 0.0.

    Args:
        value: nested lists, or an array, of real numbers.
        field: its name in messages, e.g. ``"model.prior_mean"``.
        dimensions: numbers of dimensions that are allowed.

    Raises:
        InputError: for strings, booleans, complex numbers, ragged or empty lists, NaN and infinity, numbers
            beyond the range of float64, and any other number of dimensions.
    """
    wanted = " or ".join(_KIND_OF_DIMENSIONS[n] for n in dimensions)
    if isinstance(value, (Sequence, numbers.Number, np.bool_)):
        _refuse_other_than_numbers(value, field, wanted)
    try:
        detach = getattr(value, "detach", None)  # of a tensor of torch
        raw = np.asarray(value if detach is None else detach().cpu())
        if raw.dtype.kind not in "iuf" and raw.size:
            raise TypeError
        array = np.array(raw, dtype=np.float64)
        array += 0.0
    except (TypeError, ValueError, RuntimeError, OverflowError):
        if isinstance(value, Sequence) and _is_ragged(value):
            raise InputError(f"{field} is ragged: its rows differ in length, expected {wanted}") from None
        raise InputError(f"{field} is {shown(value)}: expected {wanted}, real and within float64") from None
    if array.size == 0:
        raise InputError(f"{field} is empty: expected {wanted}")
    if array.ndim not in dimensions:
        raise InputError(f"{field} is {array.ndim}-dimensional: expected {wanted}")
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise InputError(f"{entry_name(field, index)} is {array[index]}: every entry must be a finite number")
    array.setflags(write=False)
    return array


def vector(value: Any, field: str) -> np.ndarray:
    """A read-only float64 vector [D]; see `real_array`."""
    return real_array(value, field, (1,))


def matrix(value: Any, field: str) -> np.ndarray:
    """A read-only float64 matrix [D, E]; see `real_array`."""
    return real_array(value, field, (2,))


def shape(array: np.ndarray, expected: tuple[int, ...], field: str, because: str) -> None:
    """Refuses an array whose shape is not `expected`.

    Args:
        array: what was given.
        expected: the shape it must have.
        field: its name.
        because: what the expected shape follows from, e.g. ``"model.prior_mean has 3 entries"``.

    Raises:
        InputError: naming both shapes.
    """
    if array.shape != expected:
        hint = ""
        if array.ndim == 2 and array.shape[::-1] == expected:
            hint = " (its transpose would fit: is it transposed?)"
        raise InputError(
            f"{field} has {shape_text(array.shape)} but {because}: expected {shape_text(expected)}{hint}"
        )


def axis(array: np.ndarray, axis: int, size: int, field: str, because: str) -> None:
    """Refuses an array whose first (0) or last (−1) axis has not the given size; see `shape`."""
    expected = list(array.shape)
    expected[axis] = size
    if array.ndim == 2 and array.shape[axis] != size == array.shape[-1 - axis]:
        expected.reverse()
        expected[-1 - axis] = array.shape[axis]
    shape(array, tuple(expected), field, because)


def real(value: Any, field: str, minimum: float, *, above: bool = False) -> float:
    """A finite float of at least `minimum` (greater than it with `above`).

    Raises:
        InputError: for anything else, booleans and strings included.
    """
    number = math.nan
    if isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_)):
        with contextlib.suppress(OverflowError):  # an int beyond float64
            number = float(value)
    if not math.isfinite(number) or number < minimum or (above and number == minimum):
        limit = f"{'greater than' if above else 'of at least'} {minimum:g}"
        raise InputError(f"{field} is {shown(value)}: expected a finite number {limit}")
    return number


def one_of(where: str, *alternatives: Mapping[str, Any]) -> int:
    """Which of several sets of arguments was given: all of one, none of the others; None means not given.

    Raises:
        InputError: naming what was given and what would be right.
    """
    given = [name for values in alternatives for name, value in values.items() if value is not None]
    for index, values in enumerate(alternatives):
        if given == list(values):
            return index
    expected = ", or ".join(" and ".join(values) for values in alternatives)
    found = f"has {' and '.join(given)}" if given else "has none of them"
    raise InputError(f"{where} {found}: expected either {expected}")


def keys(mapping: Any, where: str, required: Sequence[str], optional: Sequence[str] = ()) -> None:
    """Refuses what is not a mapping, unknown keys (naming the nearest known one), and missing keys.

    Args:
        mapping: what was given.
        where: how messages call it, e.g. ``"[model]"``.
        required: keys that must be there.
        optional: keys that may be there.

    Raises:
        InputError: naming the key.
    """
    if not isinstance(mapping, Mapping):
        known = ", ".join([*required, *optional])
        raise InputError(f"{where} is {shown(mapping)}: expected a table with the keys {known}")
    known = [*required, *optional]
    for key in mapping:
        if key not in known:
            squared = str(key) in ("std", "scale", "sigma") and "var" in known
            hint = "var takes variances, their squares" if squared else nearest(str(key), known)
            raise InputError(f"{where} has the unknown key {shown(key)}: {hint}")
    missing = [key for key in required if key not in mapping]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}: it needs {', '.join(required)}")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name: the nearest known one whatever its case, or all of them."""
    known = list(known)
    folded = {candidate.casefold(): candidate for candidate in reversed(known)}
    close = difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.5)
    return f"did you mean {folded[close[0]]}?" if close else f"known are {', '.join(known)}"


def entries(count: int) -> str:
    """The length of a vector in words: "1 entry", "3 entries"."""
    return f"{count} entr{'y' if count == 1 else 'ies'}"


def shown(value: Any, width: int = 60) -> str:
    """A value in one line of at most `width` characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def _refuse_other_than_numbers(value: Any, field: str, wanted: str, index: tuple[int, ...] = ()) -> None:
    """Walks nested lists, since NumPy would turn booleans into numbers and numbers into strings."""
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            if type(item) is not float:
                _refuse_other_than_numbers(item, field, wanted, (*index, i))
    elif isinstance(value, (str, bytes, bool, np.bool_)) or value is None:
        raise InputError(f"{entry_name(field, index)} is {shown(value)}: expected a number ({wanted})")


def entry_name(field: str, index: Sequence[int]) -> str:
    """The name of one entry of a field in messages: "model.loading[2, 0]"; of the field itself without an index."""
    return f"{field}[{', '.join(map(str, index))}]" if index else field


def _is_ragged(value: Any) -> bool:
    sequences = [item for item in value if isinstance(item, Sequence) and not isinstance(item, str)]
    if not sequences:
        return False
    lengths = {len(s) for s in sequences}
    return len(sequences) < len(value) or len(lengths) > 1 or any(map(_is_ragged, sequences))


def shape_text(dimensions: tuple[int, ...]) -> str:
    """A shape in words: "3 entries", "shape 3×2"."""
    if len(dimensions) == 1:
        return entries(dimensions[0])
    return f"shape {'×'.join(map(str, dimensions))}"
