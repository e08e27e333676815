"""An experiment for tests of sweeps: quick, deterministic, and in trouble where its settings say so."""

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from analysis.settings import Settings
from analysis.sweep import export
from analysis.sweep.experiment import Experiment, seed_of
from analysis.sweep.grid import Grid
from analysis.sweep.moments import sums, together
from analysis.sweep.store import reading
from toyiwae.stats import Moments

PAUSE = [0.0]
"""Seconds that a cell waits; no part of its settings, nor of its row."""


class ToySettings(Settings):
    """A cell; `trouble` is what happens in it, `once` a file that keeps it from happening again."""

    x: float = 1.0
    n: int = 1
    kind: str = "sin"
    seed: int = 0
    trouble: str = ""
    once: str = ""


def toy(settings: Any, block: int) -> dict[str, Any]:
    """Some numbers, a list, and one that does not exist at n = 3."""
    time.sleep(PAUSE[0])
    if settings.trouble and not (settings.once and os.path.exists(settings.once)):
        if settings.once:
            Path(settings.once).touch()
        if settings.trouble == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if settings.trouble == "exit":
            raise SystemExit(3)
        raise ArithmeticError(f"{settings.trouble} at x = {settings.x}")
    draws = np.random.default_rng(seed_of(settings.seed, block)).normal(size=50) * settings.x
    found = Moments.of(draws + settings.n)
    value = getattr(math, settings.kind)(settings.x * settings.n)
    logs = math.inf if settings.n == 3 else value
    return {"value": value, "log": logs, "list": [value, block], **sums({"draw": found})}


def of_all(rows: Sequence[Any]) -> dict[str, Any]:
    """Mean of the draws of all blocks."""
    found = together(rows)["draw"]
    first = {name: rows[0].get(name) for name in ("value", "log", "list")}
    return first | {"draw": float(found.mean), "draw_se": float(found.mean_se), "blocks": len(rows)}


TOY = Experiment(
    "toy", 1, ToySettings, toy, merge=of_all, quantities=("draw",), elsewhere=frozenset({"once"})
)


def grid(**changes: Any) -> Grid:
    """Twelve cells, unless told otherwise."""
    axes = [{"kind": ["sin", "cos"], "x": [0.25, 1.5, 2.0], "n": [1, 4]}]
    return Grid(**({"name": "toy", "experiment": TOY, "axes": axes} | changes))


def exported(path: Path, experiment: Experiment = TOY) -> tuple[bytes, bytes]:
    """The CSV file of a store, and its provenance."""
    out = path.with_suffix(".csv")
    with reading(path) as store:
        export.to_csv(store, experiment, out)
    return out.read_bytes(), Path(f"{out}.json").read_bytes()


@contextlib.contextmanager
def pausing(seconds: float) -> Iterator[None]:
    """Cells take so long within the block."""
    before, PAUSE[0] = PAUSE[0], seconds
    try:
        yield
    finally:
        PAUSE[0] = before


def forked(call: Callable[[], Any]) -> int:
    """Calls a function in a process of its own; its number."""
    child = os.fork()
    if not child:
        code = 1
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
            call()
            code = 0
        finally:
            os._exit(code)
    return child
