"""A ranking of estimators and splits as a table for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
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
}


def show(console: Console, document: Mapping[str, Any], every: bool) -> None:
    """Prints the document of `Comparison.to_dict`: its first lines, or all."""
    counts = [entry["K"] for ranking in document["parts"].values() for entry in ranking["entries"]]
    names, splits = document["provenance"]["arguments"]["estimators"], sorted(set(counts))
    head = f"M·K = {whole(document['budget'])} particles: {len(names)} estimators at {len(splits)} splits"
    console.print(head, end="\n\n")
    for part, ranking in document["parts"].items():
        notes = Footnotes()
        console.print(
            Text(part, style="bold"), Text(f"gradient by {', '.join(ranking['parameters'])}"), sep="   "
        )
        console.print(f"ranked by {BY[ranking['by']]}")
        lines = _together(ranking["entries"])
        print_table(console, _table(part, ranking["by"], lines, splits, notes, every))
        if not every and len(lines) > SHOWN:
            console.print(f"{len(lines) - SHOWN} lines more with --all")
        unknown = _unknown(ranking["entries"])
        for line in unknown:
            console.print(line)
        notes.show(console)
        if unknown or len(lines) > SHOWN:
            console.print()


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


def _table(
    part: str,
    by: str,
    lines: Sequence[Sequence[Mapping[str, Any]]],
    splits: Sequence[int],
    notes: Footnotes,
    every: bool,
) -> Table:
    left = "rmse_evidence" if part == "model" else "relative_rmse"
    columns = dict.fromkeys([by, left, "rmse", "bias", "snr"])
    table = table_of("", "estimator", "K", "M", *(COLUMNS[key] for key in columns))
    table.columns[1].justify, table.columns[1].no_wrap = "left", False
    for line in lines if every else lines[:SHOWN]:
        first = line[0]
        names = list(dict.fromkeys(entry["estimator"] for entry in line))
        if len(names) > MOST_NAMES and not every:
            names = [", ".join(names[: MOST_NAMES - 1]) + f" and {len(names) - MOST_NAMES + 1} more"]
        numbers = [notes.number(_beyond_error(first, key), 4, first.get("reason")) for key in columns]
        table.add_row(str(first["rank"]), ", ".join(names), *_split(line, splits), *numbers)
    return table


def _beyond_error(entry: Mapping[str, Any], key: str) -> float | None:
    """A number; 0 for a bias that is no larger than its error."""
    value, error = entry[key], entry[f"{key}_error"]
    return 0.0 if key == "bias" and value is not None and value <= error else value


def _split(line: Sequence[Mapping[str, Any]], splits: Sequence[int]) -> tuple[str, str]:
    """K and M of a line: "any" if it is of every split."""
    pairs = {entry["K"]: entry["M"] for entry in line}
    if len(pairs) == len(splits) > 1:
        return "any", "any"
    return ", ".join(map(whole, pairs)), ", ".join(map(whole, pairs.values()))


def _unknown(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is not known, and why: a line for each reason."""
    found: dict[str, dict[str, list[int]]] = {}
    for entry in entries:
        if entry["rank"] is None:
            reason = (entry.get("reason") or "no value").replace(f" of {entry['estimator']} ", " ")
            of = found.setdefault(reason, {})
            of.setdefault(entry["estimator"], []).append(entry["K"])
    lines = []
    for reason, names in found.items():
        shown = [_counts(counts) for counts in names.values()]
        same = len(set(shown)) == 1
        where = [name if same else f"{name} (K = {at})" for name, at in zip(names, shown, strict=True)]
        lines.append(f"Not known{f' at K = {shown[0]}' if same else ''}: {', '.join(where)}: {reason}")
    return lines


def _counts(counts: Sequence[int]) -> str:
    """Values of K, from first to last if they are many."""
    shown = [whole(count) for count in counts]
    return ", ".join(shown) if len(shown) < 4 else f"{shown[0]} to {shown[-1]}"
