"""What `--digits` adds to the tables: the numbers with their proven digits, and how far from each the truth may lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import ROUND_CEILING, Context, Decimal
from typing import Any

from rich.console import Console

_SHOWN = 3  # coordinates of a parameter
_EXACTLY = Context(prec=2000)
_UP = Context(prec=2, rounding=ROUND_CEILING)


def show(console: Console, document: Mapping[str, Any]) -> None:
    """Prints the decimals of a document of `ExactResult.to_dict`, one number on a line; none where it has none.

    What is 0 by definition or by a theorem, such as the bias of an estimator that has none, is left out.
    """
    if "decimals" not in document:
        return
    console.print("proven digits: the truth lies within ± of each number")
    _print(console, _entries(document))
    for cell in document["results"]:
        where = f"K = {cell['K']}, M = {cell['M']}"
        _print(console, _entries(cell), where)
        for name, truth in cell["gradients"].items():
            _print(console, _entries(truth), f"{where}, {name}")
            for parameter, moments in truth.items():
                if isinstance(moments, Mapping) and "mean" in moments:
                    _print(console, _entries(moments), f"{where}, {name} by {parameter}")
    console.print()


def _entries(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(name, number ± bound) of a record's decimals; the first coordinates of arrays."""
    for name, value in (record.get("decimals") or {}).items():
        ends = record["enclosures"][name]
        if isinstance(value, Mapping):
            for part, one in value.items():
                yield from _numbers(f"{name} {part}", one, ends["lower"][part], ends["upper"][part])
        else:
            yield from _numbers(name, value, ends["lower"], ends["upper"])


def _numbers(name: str, *found: Any) -> Iterator[tuple[str, str]]:
    flat = [_flat(part, "") for part in found]
    there = [
        (index, text, lower, upper)
        for (index, text), (_, lower), (_, upper) in zip(*flat, strict=True)
        if text is not None and (lower, upper) != ("0", "0")
    ]
    for index, text, lower, upper in there[:_SHOWN]:
        yield f"{name}{index and f'[{index}]'}", f"{text} ± {_radius(text, lower, upper)}"
    if len(there) > _SHOWN:
        yield name, f"… {len(there)} in all, with --json"


def _flat(value: Any, index: str) -> list[tuple[str, Any]]:
    if isinstance(value, list):
        return [
            entry for i, one in enumerate(value) for entry in _flat(one, f"{index}, {i}" if index else f"{i}")
        ]
    return [(index, value)]


def _radius(text: str, lower: str, upper: str) -> str:
    middle, *ends = map(Decimal, (text, lower, upper))
    size = _UP.plus(max(abs(_EXACTLY.subtract(middle, end)) for end in ends))
    return "0" if size == 0 else f"{size:.1e}"


def _print(console: Console, entries: Iterator[tuple[str, str]], heading: str = "") -> None:
    known = list(entries)
    if heading and known:
        console.print(heading, highlight=False, soft_wrap=True)
    for name, number in known:
        console.print(
            f"{'  ' * bool(heading)}{name}  {number}", highlight=False, markup=False, soft_wrap=True
        )
