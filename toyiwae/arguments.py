"""Arguments that `exact`, `estimate` and the command line share: particle counts, replicates, names.

A list is written in Python as a sequence and on the command line as text with commas; both come through here,
so both accept the same and refuse it in the same words. Whole numbers may be written `1000000`, `1_000_000`
or `1e6`, in Python also as a float with a whole value; never rounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from toyiwae.checks import nearest, shown
from toyiwae.errors import InputError

LARGEST = 10**15
"""Largest whole number taken; all up to here are exact in float64."""

_WHOLE = re.compile(r"[+-]?\d+(_\d+)*(\.0*)?([eE]\+?\d{1,3})?", re.ASCII)


def whole_number(value: Any, field: str, *, minimum: int = 1, maximum: int = LARGEST) -> int:
    """One whole number.

    Args:
        value: a number or text.
        field: its name in messages, e.g. ``"replicates"``.
        minimum: the smallest allowed.
        maximum: the largest allowed.

    Raises:
        InputError: unless it is whole, at least `minimum` and at most `maximum`.
    """
    number = _whole(value)
    if number is None or number < minimum:
        raise InputError(f"{field} is {shown(value)}: expected a whole number of at least {minimum}")
    if number > maximum:
        most = f"{LARGEST:.0e}" if maximum == LARGEST else maximum
        raise InputError(f"{field} is {shown(value)}: expected at most {most}")
    return number


def whole_numbers(value: Any, field: str, *, minimum: int = 1) -> tuple[int, ...]:
    """One or more whole numbers in the order given, each once.

    Args:
        value: a number, a sequence of them, or text such as ``"1,16,1e6"``.
        field: its name in messages, e.g. ``"K"``.
        minimum: the smallest allowed.

    Raises:
        InputError: if there is none, and as `whole_number` does.
    """
    items = _items(value, field, "a whole number, or several")
    if any(isinstance(item, str) and not item.strip() for item in items):
        raise InputError(f"{field} is {shown(value)}: expected whole numbers of at least {minimum}")
    return tuple(dict.fromkeys(whole_number(item, field, minimum=minimum) for item in items))


def names(value: Any, field: str) -> tuple[Any, ...]:
    """One or more names in the order given, each once; an item that is not text is passed on as it is.

    Args:
        value: text such as ``"iwae,ciwae:0.5"``, or a sequence of names or other items.
        field: its name in messages, e.g. ``"estimators"``.

    Raises:
        InputError: if there is none, or an empty one.
    """
    items = _items(value, field, "a name, or several")
    stripped = [item.strip() if isinstance(item, str) else item for item in items]
    if "" in stripped:
        raise InputError(f"{field} is {shown(value)}: expected a name between the commas")
    return tuple(dict.fromkeys(stripped))


def parameter_names(value: Any, known: Mapping[str, Any], default: Iterable[str]) -> tuple[str, ...]:
    """Parameters whose gradients are asked for.

    Args:
        value: ``None`` for the default, ``"all"``, ``"none"``, text with commas, or a sequence (empty: none).
        known: the problem's parameters, `Problem.parameters`.
        default: the names that ``None`` stands for, `Problem.mean_parameters`.

    Raises:
        InputError: for a name that the problem does not have, with the nearest one it has.
    """
    if value is None:
        return tuple(default)
    if (isinstance(value, (list, tuple)) and not value) or (
        isinstance(value, str) and value.strip() == "none"
    ):
        return ()
    chosen = names(value, "parameters")
    if "all" in chosen:
        return tuple(known)
    for name in chosen:
        if name not in known:
            hint = nearest(str(name), [*known, "all"])
            raise InputError(f"parameters contains {shown(name)}, which this problem does not have: {hint}")
    return chosen


def _whole(value: Any) -> int | None:
    """The whole number that `value` writes, or None."""
    if isinstance(value, str):
        return int(Decimal(value.strip())) if _WHOLE.fullmatch(value.strip()) else None
    if isinstance(value, bool):
        return None
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        number = float(value)
        return int(number) if number.is_integer() else None
    return None


def _items(value: Any, field: str, wanted: str) -> Sequence[Any]:
    if isinstance(value, str):
        return value.split(",")
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray)):
        items = list(value)
        if not items:
            raise InputError(f"{field} is empty: expected {wanted}")
        return items
    return [value]
