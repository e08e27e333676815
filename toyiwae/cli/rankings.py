"""A ranking of estimators and splits as a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from toyiwae.cli.layout import print_table, table_of, whole
from toyiwae.cli.tables import Footnotes

SHOWN = 8
"""Lines of a ranking that are printed, unless all are asked for."""

MOST_NAMES = 3
"""Estimators that such a line names."""

COLUMNS = {
    "rmse_evidence": "to ∇log p(x)",
    "relative_rmse": "RMSE/‖target‖",
    "rmse": "to target",
    "bias": "bias",
    "snr": "SNR",
}
"""Number -> how its column is headed."""

BY = {
    "rmse_evidence": "root-mean-square error to ∇log p(x)",
    "relative_rmse": "root-mean-square error to the estimator's own target, over that gradient's norm",
    "snr": "‖mean‖ over the root of the covariance's trace",
    "rmse": "root-mean-square error to the estimator's own target",
}

NAME_WIDTH = 20
"""Characters of a name that are not broken, however narrow the terminal is."""

UNBOUNDED = 10_000
"""Characters of a line that nothing bounds."""


def show(console: Console, document: Mapping[str, Any], every: bool) -> None:
    """Prints the document of `Comparison.to_dict`: its first lines, or all."""
    counts = [entry["K"] for ranking in document["parts"].values() for entry in ranking["entries"]]
    names, splits = document["provenance"]["arguments"]["estimators"], sorted(set(counts))
    counted = (document["budget"], "particle"), (len(names), "estimator"), (len(splits), "split")
    particles, those, at = (_several(*pair) for pair in counted)
    console.print(f"M·K = {particles}: {those} at {at}", end="\n\n")
    for part, ranking in document["parts"].items():
        console.print(
            Text(part, style="bold"), Text(f"gradient by {', '.join(ranking['parameters'])}"), sep="   "
        )
        lines = _together(ranking["entries"])
        by, why = _decides(ranking["by"], lines)
        console.print(f"ranked by {BY[by]}{why}")
        table, notes, dropped = _fitting(console, part, by, lines if every else lines[:SHOWN], splits, every)
        print_table(console, table)
        if dropped:
            console.print(f"too narrow for {', '.join(COLUMNS[key] for key in dropped)}: --json has all")
        if not every and len(lines) > SHOWN:
            console.print(f"{_several(len(lines) - SHOWN, 'line')} more with --all")
        unknown = _unknown(ranking["entries"], splits)
        for line in unknown:
            console.print(line)
        notes.show(console)
        if unknown or dropped or len(lines) > SHOWN:
            console.print()


def _several(count: int, word: str) -> str:
    """A number of things."""
    return f"{whole(count)} {word}{'' if count == 1 else 's'}"


def _decides(by: str, lines: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[str, str]:
    """The number that ranks, and why it is not the one asked for: where no line has that, the error does."""
    if not lines or any(line[0][by] is not None for line in lines):
        return by, ""
    return "rmse", f", since no line has {COLUMNS[by]}"


def _together(entries: Iterable[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The known entries by rank; those of one rank and one split, or the same splits, whose numbers agree, together."""
    by_estimator: dict[tuple[int, str], list[Mapping[str, Any]]] = {}
    for entry in entries:
        if entry["rank"] is not None:
            by_estimator.setdefault((entry["rank"], entry["estimator"]), []).append(entry)
    lines: list[list[Mapping[str, Any]]] = []
    for (rank, _), found in by_estimator.items():
        counts = [entry["K"] for entry in found]
        for line in lines:
            same = line[0]["rank"] == rank and _alike(line[0], found[0])
            if same and [e["K"] for e in line if e["estimator"] == line[0]["estimator"]] == counts:
                line += found
                break
        else:
            lines.append(list(found))
    return lines


def _alike(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether no number of two entries is told apart."""
    return all(
        a[key] == b[key]
        or (None not in (a[key], b[key]) and abs(a[key] - b[key]) <= a[f"{key}_error"] + b[f"{key}_error"])
        for key in COLUMNS
    )


def _fitting(
    console: Console,
    part: str,
    by: str,
    lines: Sequence[Sequence[Mapping[str, Any]]],
    splits: Sequence[int],
    every: bool,
) -> tuple[Table, Footnotes, list[str]]:
    """The table, its footnotes, and the columns it lacks: heads are broken, then columns dropped until it fits.

    The names and the number that ranks always stay.
    """
    left = "rmse_evidence" if part == "model" else "relative_rmse"
    columns, dropped = list(dict.fromkeys([by, left, "rmse", "bias", "snr"])), []
    spare = [key for key in ("bias", "rmse", left, "snr") if key in columns and key != by]
    table, notes = _table(columns, lines, splits, False, every)
    if _needs(console, table) > console.width:
        table, notes = _table(columns, lines, splits, True, every)
    while spare and _needs(console, table) > console.width:
        dropped.append(spare.pop(0))
        columns.remove(dropped[-1])
        table, notes = _table(columns, lines, splits, True, every)
    return table, notes, dropped


def _needs(console: Console, table: Table) -> int:
    """Characters of the narrowest line that breaks no number, and no name before it must."""
    name = table.columns[1]
    name.width = name.min_width
    found = Measurement.get(console, console.options.update(width=UNBOUNDED), table).maximum
    name.width = None
    return found


def _table(
    columns: Sequence[str],
    lines: Sequence[Sequence[Mapping[str, Any]]],
    splits: Sequence[int],
    broken: bool,
    every: bool,
) -> tuple[Table, Footnotes]:
    notes = Footnotes()
    heads = [
        COLUMNS[key].replace(" ", "\n", 1).replace("/", "/\n") if broken else COLUMNS[key] for key in columns
    ]
    table = table_of("", "estimator", "K", "M", *heads)
    if broken:
        table.padding = (0, 1, 0, 0)
    name = table.columns[1]
    name.justify, name.no_wrap, name.overflow = "left", False, "fold"
    for line in lines:
        first = line[0]
        names = list(dict.fromkeys(entry["estimator"] for entry in line))
        name.min_width = max(
            name.min_width or len("estimator"), min(NAME_WIDTH, max(map(len, names)) + (len(names) > 1))
        )
        if len(names) > MOST_NAMES and not every:
            names = [", ".join(names[: MOST_NAMES - 1]) + f" and {len(names) - MOST_NAMES + 1} more"]
        numbers = [notes.number(_beyond_error(first, key), 4, first.get("reason")) for key in columns]
        table.add_row(str(first["rank"]), ", ".join(names), *_split(line, splits), *numbers)
    return table, notes


def _beyond_error(entry: Mapping[str, Any], key: str) -> float | None:
    """A number; 0 for one that is no larger than its error."""
    value, error = entry[key], entry[f"{key}_error"]
    return 0.0 if None not in (value, error) and value <= error else value


def _split(line: Sequence[Mapping[str, Any]], splits: Sequence[int]) -> tuple[str, str]:
    """K and M of a line: "any" if it is of every split."""
    pairs = {entry["K"]: entry["M"] for entry in line}
    if len(pairs) == len(splits) > 1:
        return "any", "any"
    total = max(splits)
    return _counts(list(pairs), splits), _counts(list(pairs.values()), [total // k for k in splits])


def _unknown(entries: Iterable[Mapping[str, Any]], splits: Sequence[int]) -> list[str]:
    """What is not known, and why: a line for each reason."""
    found: dict[str, dict[str, list[int]]] = {}
    for entry in entries:
        if entry["rank"] is None:
            name = entry["estimator"]
            reason = (entry.get("reason") or "no value").replace(f" of {name} ", " ")
            of = found.setdefault(reason.replace(f"estimator '{name}' ", ""), {})
            of.setdefault(name, []).append(entry["K"])
    lines = []
    for reason, names in found.items():
        at: dict[str, list[str]] = {}
        for name, counts in names.items():
            at.setdefault(_counts(counts, splits), []).append(name)
        if len(at) == 1:
            where = "".join(f" at K = {counts}: {', '.join(those)}" for counts, those in at.items())
        else:
            where = ": " + "; ".join(f"{', '.join(those)} at K = {counts}" for counts, those in at.items())
        lines.append(f"Not known{where}: {reason}")
    return lines


def _counts(counts: Sequence[int], splits: Sequence[int]) -> str:
    """Values of K or M; from first to last where they are many.

    Args:
        counts: the values, in the order of the splits.
        splits: all of them.
    """
    shown = [whole(count) for count in counts]
    if len(shown) < 4:
        return ", ".join(shown)
    gaps = splits.index(counts[-1]) - splits.index(counts[0]) + 1 > len(counts)
    return f"{f'{len(counts)} from ' if gaps else ''}{shown[0]} to {shown[-1]}"
