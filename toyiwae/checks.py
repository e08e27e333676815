"""Checks of numeric input: arrays, covariances, the keys of a mapping, each refused in one line.

Everything a user hands in becomes a read-only float64 array here, or an `InputError` that names the field,
the value and what would be right.
"""

from __future__ import annotations

import contextlib
import difflib
import math
import numbers
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from toyiwae.errors import InputError, InputWarning

SYMMETRY_TOLERANCE = 1e-12
"""Relative difference between `cov[i, j]` and `cov[j, i]` that counts as float64's rounding: averaged away."""

FLOAT32_SYMMETRY_TOLERANCE = 16 * 2.0**-23
"""The same for float32's rounding: averaged away with a warning."""

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
        raw = np.asarray(value)
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
        raise InputError(f"{_entry(field, index)} is {array[index]}: every entry must be a finite number")
    array.setflags(write=False)
    return array


def vector(value: Any, field: str) -> np.ndarray:
    """A read-only float64 vector [D]; see `real_array`."""
    return real_array(value, field, (1,))


def matrix(value: Any, field: str) -> np.ndarray:
    """A read-only float64 matrix [D, E]; see `real_array`."""
    return real_array(value, field, (2,))


def variances(value: Any, field: str, size: int, dimensions: tuple[int, ...] = (0, 1)) -> np.ndarray:
    """Read-only positive float64 variances [D] or [N, D]; a scalar stands for `size` equal ones.

    Raises:
        InputError: if an entry is not positive; and as `real_array` does.
    """
    array = real_array(value, field, dimensions)
    if not (array > 0).all():
        index = [int(i) for i in np.argwhere(array <= 0)[0]]
        raise InputError(f"{_entry(field, index)} is {array[*index]}: a variance must be greater than 0")
    if not array.ndim:
        array = np.full(size, array)
        array.setflags(write=False)
    return array


def covariance(value: Any, field: str, size: int, *, stack: bool = False) -> np.ndarray:
    """A read-only symmetric positive definite float64 matrix [D, D], or with `stack` also many [N, D, D].

    A scalar or a vector stands for the diagonal matrix of these variances. An asymmetry of at most
    `SYMMETRY_TOLERANCE`, relative to the entries and to the standard deviations of their row and column, is taken
    for round-off and replaced by the mean of both entries; up to `FLOAT32_SYMMETRY_TOLERANCE` with a warning; a
    larger one is refused. A matrix is refused as singular where its correlation matrix is so to double precision
    (smallest eigenvalue ≤ D·2⁻⁵²), so different units of the coordinates are no obstacle.

    Args:
        value: what was given.
        field: its name; a matrix of many is named by its index.
        size: the dimension D of a scalar or vector; matrices may have another.
        stack: whether there may be a matrix for each observation.

    Raises:
        InputError: if it is not square, not symmetric, or not positive definite; and as `real_array` does.

    Warns:
        InputWarning: where the asymmetry is that of float32.
    """
    array = real_array(value, field, (0, 1, 2, 3) if stack else (0, 1, 2))
    if array.ndim < 2:
        array = np.diag(variances(array, field, size))
    rows, columns = array.shape[-2:]
    if rows != columns:
        raise InputError(f"{field} has shape {rows}×{columns}: a covariance is square")
    array = _symmetrised(array, field)
    _refuse_indefinite(array, field)
    array.setflags(write=False)
    return array


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
        raise InputError(f"{where} is {shown(mapping)}: expected a table with the keys {', '.join(required)}")
    known = [*required, *optional]
    for key in mapping:
        if key not in known:
            raise InputError(f"{where} has the unknown key {shown(key)}: {nearest(str(key), known)}")
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


def _symmetrised(array: np.ndarray, field: str) -> np.ndarray:
    """The symmetric part of a covariance [..., D, D] that is symmetric up to rounding; see `covariance`."""
    transposed = np.swapaxes(array, -1, -2)
    if np.array_equal(array, transposed):
        return array
    root = np.sqrt(np.abs(np.diagonal(array, axis1=-2, axis2=-1)))
    size = np.maximum(np.maximum(np.abs(array), np.abs(transposed)), root[..., :, None] * root[..., None, :])
    relative = 2 * np.abs(array / 2 - transposed / 2) / np.where(size > 0, size, 1.0)
    worst = relative.max()
    if worst > SYMMETRY_TOLERANCE:
        *n, i, j = (int(k) for k in np.unravel_index(np.argmax(relative), relative.shape))
        pair = f"[{i}, {j}] is {float(array[*n, i, j])!r} but [{j}, {i}] is {float(array[*n, j, i])!r}"
        message = f"{_entry(field, n)} is not symmetric: {pair}, relative difference {worst:.2g}"
        if worst > FLOAT32_SYMMETRY_TOLERANCE:
            triangular = np.array_equal(array, np.tril(array))
            mend = (
                "give L Lᵀ for a Cholesky factor L"
                if triangular
                else "if only rounding did that, give (C + Cᵀ)/2"
            )
            raise InputError(f"{message}; {mend}")
        warnings.warn(
            f"{message}: taken for float32's rounding, (C + Cᵀ)/2 is used", InputWarning, stacklevel=2
        )
    return np.where(array == transposed, array, array / 2 + transposed / 2)


def _refuse_indefinite(array: np.ndarray, field: str) -> None:
    """Refuses what is not positive definite among covariances [..., D, D], one by one only where a quick test fails."""
    var, eps = np.diagonal(array, axis1=-2, axis2=-1), array.shape[-1] * np.finfo(float).eps
    smallest = np.array(-np.inf)
    if (var > 0).all():
        std = np.sqrt(var)
        correlation = array / std[..., :, None] / std[..., None, :]
        with contextlib.suppress(np.linalg.LinAlgError):
            np.linalg.cholesky(correlation - 1e-10 * np.eye(array.shape[-1]))
            return
        smallest = np.linalg.eigvalsh(correlation)[..., 0]
        if (smallest > eps).all():
            return
    if array.ndim > 2:
        for n, matrix_n in enumerate(array):
            _refuse_indefinite(matrix_n, f"{field}[{n}]")
        return
    if smallest > -eps:
        raise InputError(
            f"{field} is singular to double precision: smallest eigenvalue of its correlation matrix {smallest:.3g};"
            " a covariance must be positive definite"
        )
    smallest = np.linalg.eigvalsh(array)[0]
    raise InputError(f"{field} is not positive definite: smallest eigenvalue {smallest:.6g}; all must be > 0")


def _refuse_other_than_numbers(value: Any, field: str, wanted: str, index: tuple[int, ...] = ()) -> None:
    """Walks nested lists, since NumPy would turn booleans into numbers and numbers into strings."""
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            if type(item) is not float:
                _refuse_other_than_numbers(item, field, wanted, (*index, i))
    elif isinstance(value, (str, bytes, bool, np.bool_)) or value is None:
        raise InputError(f"{_entry(field, index)} is {shown(value)}: expected a number ({wanted})")


def _entry(field: str, index: Sequence[int]) -> str:
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
