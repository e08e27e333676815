"""The whole audit: every subject judged, and a script run for each that fails; one process for each library."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from analysis.audit import scripts
from analysis.audit.judge import MISSING, Result, judge
from analysis.audit.scripts import Script
from analysis.audit.subjects import Subject, subjects
from toyiwae.checks import nearest
from toyiwae.errors import InputError


@dataclass(frozen=True)
class Outcome:
    """What came of one subject.

    Attributes:
        result: of the suite.
        script: what shows the failure; None where nothing failed.
        seconds: how long the suite took.
    """

    result: Result
    script: Script | None
    seconds: float


def chosen(keys: Sequence[str]) -> tuple[Subject, ...]:
    """The subjects asked for: by `adapter:function`, or by `adapter` for all of it; all of them by default.

    Raises:
        InputError: a key that names none.
    """
    known = [name for s in subjects() for name in (s.key, s.library.adapter)]
    for key in keys:
        if key not in known:
            raise InputError(f"no objective {key!r}: {nearest(key, list(dict.fromkeys(known)))}")
    return tuple(s for s in subjects() if not keys or s.key in keys or s.library.adapter in keys)


def audit(
    wanted: Sequence[Subject], *, light: bool, jobs: int, done: Callable[[Outcome], None] = lambda _: None
) -> list[Outcome]:
    """Judges subjects, library by library, `jobs` libraries at a time.

    Args:
        wanted: the subjects.
        light: with the settings of the tests.
        jobs: processes.
        done: called with each outcome of a library that has finished.
    """
    groups: dict[str, list[str]] = {}
    for subject in wanted:
        groups.setdefault(subject.library.adapter, []).append(subject.key)
    context = multiprocessing.get_context(
        "spawn"
    )  # JAX and TensorFlow have threads, which do not survive a fork
    outcomes: list[Outcome] = []
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        for found in pool.map(_library, groups.values(), [light] * len(groups)):
            outcomes += found
            for outcome in found:
                done(outcome)
    return outcomes


def _library(keys: Iterable[str], light: bool) -> list[Outcome]:
    """All subjects of a library, in a process of its own."""
    return [one(subject, light=light) for subject in chosen(list(keys))]


def one(subject: Subject, *, light: bool) -> Outcome:
    """One subject, and the script of its failure."""
    started = time.perf_counter()
    result = judge(subject, light=light)
    seconds = time.perf_counter() - started
    if not result.fails or result.verdict == MISSING:
        return Outcome(result, None, seconds)
    text = scripts.script(result)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{subject.function}.py"
        file.write_text(text, encoding="utf-8")
        return Outcome(result, scripts.run(text, file), seconds)
