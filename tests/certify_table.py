"""What certification has found, added up: stated over true errors, by quantity.

A run keeps its values in results/certification.jsonl, which no other machine sees. Their tally is small, grows from run
to run and is committed beside the table: docs/certification.json has the seeds whose parts are done, and of each
quantity counts and a histogram of the ratio of stated to true errors, twenty bins to a decade.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from toyiwae.files import write_atomic

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / "results" / "certification.jsonl"
TALLY = ROOT / "docs" / "certification.json"
TABLE = ROOT / "docs" / "certification.txt"
VERSION = 1
"""Raise it when what is certified changes: numbers of the oracle, their stated errors, or the problems drawn."""
BINS = 20  # to a decade
_HEAD = ("quantity", "problems", "values", "beyond", "refused", "above 1e-8", "least", "median", "largest")

Tally = dict[str, Any]


def kept() -> Iterator[dict[str, Any]]:
    """The lines of this version that are there, one for each part of a seed's problem.

    A line that a killed process left unfinished counts as none.
    """
    if KEPT.exists():
        for text in KEPT.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:
                continue
            if line.get("version") == VERSION:
                yield line


def total() -> Tally:
    """The tally of all runs: the committed one, and the lines kept here that are not in it."""
    tally: Tally = {"version": VERSION, "commits": [], "done": {}, "refused": {}, "quantities": {}}
    if TALLY.exists():
        found = json.loads(TALLY.read_text(encoding="utf-8"))
        if found["version"] == VERSION:
            tally = found | {"done": {part: _seeds(ranges) for part, ranges in found["done"].items()}}
    for line in kept():
        if line["seed"] not in tally["done"].get(line["part"], ()):
            add(tally, line)
    return tally


def done(tally: Tally, seed: int, part: str) -> bool:
    """Whether a part of a seed's problem has been certified."""
    return seed in tally["done"].get(part, ())


def add(tally: Tally, line: dict[str, Any]) -> None:
    """Counts one line."""
    tally["done"].setdefault(line["part"], set()).add(line["seed"])
    if line["commit"] not in tally["commits"]:
        tally["commits"].append(line["commit"])
    if line["refused"]:
        tally["refused"].setdefault(line["part"], {})[str(line["seed"])] = line["refused"]
    for name, some in line["values"].items():
        value, stated, true = np.array(some).reshape(-1, 3).T
        counted = (true > 0) & (stated > 0)
        ratio = stated[counted] / true[counted]
        empty = dict.fromkeys(("problems", "values", "beyond", "above"), 0)
        row = tally["quantities"].setdefault(name, empty | {"least": None, "largest": None, "histogram": {}})
        row["problems"] += 1
        row["values"] += len(value)
        row["beyond"] += int((true > stated).sum())
        row["above"] += int((true > 1e-8 * np.abs(value)).sum())
        for key, best, extreme in (("least", min, ratio.min), ("largest", max, ratio.max)):
            if ratio.size:
                row[key] = float(extreme()) if row[key] is None else best(row[key], float(extreme()))
        for place in np.floor(BINS * np.log10(ratio)).astype(int):
            row["histogram"][str(place)] = row["histogram"].get(str(place), 0) + 1


def median(row: dict[str, Any]) -> float:
    """Of the ratios, to the width of a bin; NaN if there are none."""
    places = sorted((int(place), count) for place, count in row["histogram"].items())
    if not places:
        return math.nan
    below = np.cumsum([count for _, count in places])
    return 10 ** ((places[bisect.bisect_left(below, below[-1] / 2)][0] + 0.5) / BINS)


def table(tally: Tally) -> tuple[str, int, float]:
    """The text, the number of values beyond their stated error, and the share of problems refused."""
    seeds = set().union(*tally["done"].values())
    rows: list[tuple[str, ...]] = [_HEAD]
    beyond = 0
    for name in [
        *tally["quantities"],
        *(name for name in tally["refused"] if name not in tally["quantities"]),
    ]:
        row = tally["quantities"].get(name)
        refused = str(len(tally["refused"].get(name, ())))
        if row is None:
            rows.append((name, "0", "0", "0", refused, "0", *["–"] * 3))
            continue
        counts = (row["problems"], row["values"], row["beyond"], refused, row["above"])
        ratios = (math.nan if row[key] is None else row[key] for key in ("least", "largest"))
        least, largest = (f"{ratio:.3g}" for ratio in ratios)
        rows.append((name, *map(str, counts), least, f"{median(row):.2g}", largest))
        beyond += row["beyond"]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    text = [
        f"Certification of {len(seeds)} random problems, {datetime.now(UTC):%Y-%m-%d}, by `make certify`, "
        f"commits {', '.join(tally['commits'])}.",
        "Written by python -m tests.certify. Stated over true error by quantity; a value is beyond if its true error",
        "exceeds the stated one. Refused: parts of a problem for which the enclosure or double precision raised an",
        "error, or over two minutes passed.",
        "",
    ]
    for row in rows:
        text.append("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip())
    share = len({seed for seeds in tally["refused"].values() for seed in seeds}) / max(len(seeds), 1)
    return "\n".join(text) + "\n", beyond, share


def publish(tally: Tally) -> tuple[str, int, float]:
    """Writes the tally and the table, and returns what `table` does."""
    found = tally | {"done": {part: _ranges(seeds) for part, seeds in tally["done"].items()}}
    write_atomic(
        TALLY, (json.dumps(found, indent=None, separators=(",", ":"), sort_keys=True) + "\n").encode()
    )
    text, beyond, share = table(tally)
    write_atomic(TABLE, text.encode())
    return text, beyond, share


def _ranges(seeds: Iterable[int]) -> list[list[int]]:
    """Whole numbers as [first, last] of each run."""
    found: list[list[int]] = []
    for seed in sorted(seeds):
        if found and found[-1][1] == seed - 1:
            found[-1][1] = seed
        else:
            found.append([seed, seed])
    return found


def _seeds(ranges: Iterable[list[int]]) -> set[int]:
    return {seed for first, last in ranges for seed in range(first, last + 1)}
