"""The table that certification publishes: stated over true errors, by quantity."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "results" / "certification.jsonl"
TABLE = ROOT / "docs" / "certification.txt"
_HEAD = ("quantity", "problems", "values", "beyond", "refused", "above 1e-8", "least", "median", "largest")


def kept() -> Iterator[dict[str, Any]]:
    """The lines that are there, one for each part of a seed's problem."""
    if KEPT.exists():
        with KEPT.open(encoding="utf-8") as file:
            yield from map(json.loads, file)


def table(lines: Iterator[dict[str, Any]] | Sequence[dict[str, Any]]) -> tuple[str, int, float]:
    """The text, the number of values beyond their stated error, and the share of problems refused."""
    lines = list(lines)
    seeds = len({line["seed"] for line in lines})
    values: dict[str, list] = {}
    problems: dict[str, int] = {}
    refused: dict[str, int] = {}
    for line in lines:
        for name, some in line["values"].items():
            values.setdefault(name, []).extend(some)
            problems[name] = problems.get(name, 0) + 1
        if line["refused"]:
            refused[line["part"]] = refused.get(line["part"], 0) + 1
    rows: list[tuple[str, ...]] = [_HEAD]
    beyond = 0
    for name in [*values, *(name for name in refused if name not in values)]:
        value, stated, true = np.array(values.get(name, [])).reshape(-1, 3).T
        worse, some = int((true > stated).sum()), (true > 0) & (stated > 0)
        ratio = np.quantile(stated[some] / true[some], [0, 0.5, 1]) if some.any() else [np.nan] * 3
        share = int((true > 1e-8 * np.abs(value)).sum())
        numbers = (problems.get(name, 0), len(value), worse, refused.get(name, 0), share)
        rows.append((name, *map(str, numbers), *(f"{x:.3g}" for x in ratio)))
        beyond += worse
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [
        f"Certification of {seeds} random problems, {datetime.now(UTC):%Y-%m-%d}, by `make certify`.",
        "Stated over true error by quantity; a value is beyond if its true error exceeds the stated one. Refused:",
        "parts of a problem for which the enclosure or double precision raised an error, or over two minutes passed.",
        "",
    ]
    for row in rows:
        text.append("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip())
    share = len({line["seed"] for line in lines if line["refused"]}) / max(seeds, 1)
    return "\n".join(text) + "\n", beyond, share
