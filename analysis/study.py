"""What a study is: a question, a computation, a figure, and claims that hold or fail.

A study is one file in `analysis/studies/` that defines `STUDY`; nothing else lists it. To add one:

1. a subclass of `Settings` with the report's values as defaults (and `reads`, where they name files), and `quick`
   overrides (for seconds);
2. `compute(settings) -> Table`: every number, and nothing drawn;
3. `draw(table) -> Figure`: from the table alone, so nothing random;
4. `verdicts(table) -> list[Claim]`: from the table alone, each a number with the range it must lie in, with its
   `source` and the `condition` under which it holds: the rows of the ledger;
5. `STUDY = Study(...)` with its place in the report, and `animate` if it has an animation too.
"""

from __future__ import annotations

import difflib
import importlib
import math
import pkgutil
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from analysis.settings import Settings, validated
from analysis.sweep.experiment import Experiment
from toyiwae.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


Item = TypeVar("Item")
Table = Mapping[str, "pd.DataFrame"]
"""What a study computes: named data frames. The name becomes part of the CSV's name."""


@dataclass(frozen=True)
class Claim:
    """One statement of the theory, the number that measures it, and the range the number must lie in.

    Args:
        text: the statement, one sentence.
        formula: the statement as the slides write it, in the TeX subset of `analysis.mathml`.
        number: what was measured.
        low: the least value that passes.
        high: the largest value that passes.
        expected: the value the theory gives, if it gives one.
        note: what a reader needs to judge the number: how it was measured, what it would have seen.
        source: who states it: slides and keys of docs/references.bib, as `analysis.sources` reads them,
            `"slide: SNR; rainforth2018tighter"`; empty for a check of our own.
        condition: when it holds, what follows an "if", formulas between dollars: `"$w$ has a finite variance"`.
    """

    text: str
    formula: str
    number: float
    low: float = -math.inf
    high: float = math.inf
    note: str = ""
    expected: float | None = None
    source: str = ""
    condition: str = ""

    @classmethod
    def near(
        cls, text: str, formula: str, number: float, *, expected: float, within: float, note: str = "",
        source: str = "", condition: str = "",
    ) -> Claim:  # fmt: skip
        """A claim that `number` is `expected` up to `within`."""
        low, high = expected - within, expected + within
        return cls(text, formula, number, low, high, note, expected, source, condition)

    @property
    def passed(self) -> bool:
        """Whether the number lies in its range; a number that does not exist fails."""
        return bool(self.low <= self.number <= self.high)


def unsampled(text: str, formula: str) -> Claim:
    """A claim about samples where settings leave none: it fails."""
    return Claim(text, formula, math.nan, high=0.0, note="Nothing was sampled, so nothing agrees.")


@dataclass(frozen=True)
class Study:
    """One question of the theory and the three functions that answer it.

    Args:
        name: how the command line asks for it.
        order: its place in the report.
        title: the section's heading.
        question: what is asked, one sentence.
        settings: the model of its settings; its defaults are those of the report.
        quick: overrides for `--quick`.
        full: overrides for `--full`: hours rather than minutes, to be run as a sweep.
        experiments: what of it runs in cells (see `analysis.sweep.cells`).
        compute: settings -> table.
        draw: table -> figure, within the house style.
        verdicts: table -> claims.
        caption: table -> what the figure shows.
        method: how the numbers were obtained, in a few sentences.
        cost: about how many seconds it takes; the report starts the longest first.
        animate: table -> an animated GIF, within the house style, if there is one.
    """

    name: str
    order: int
    title: str
    question: str
    settings: type[Settings]
    compute: Callable[[Any], Table]
    draw: Callable[[Table], Figure]
    verdicts: Callable[[Table], list[Claim]]
    caption: Callable[[Table], str]
    quick: Mapping[str, Any] = field(default_factory=dict)
    full: Mapping[str, Any] = field(default_factory=dict)
    experiments: tuple[Experiment, ...] = ()
    method: str = ""
    cost: float = 5.0
    animate: Callable[[Table], bytes] | None = None


def discover(package: str = "analysis.studies") -> tuple[Study, ...]:
    """All studies of a package, in their declared order; a file whose name starts with an underscore is part of one.

    Raises:
        InputError: if a file defines no `STUDY`, or two studies share a name or a place.
    """
    home = importlib.import_module(package)
    studies = []
    for found in pkgutil.iter_modules(home.__path__):
        if found.name.startswith("_"):
            continue
        study = getattr(importlib.import_module(f"{package}.{found.name}"), "STUDY", None)
        if not isinstance(study, Study):
            raise InputError(f"{package}.{found.name} defines no STUDY; every file there is one study")
        studies.append(study)
    for what in ("name", "order"):
        values = [getattr(study, what) for study in studies]
        twice = sorted({value for value in values if values.count(value) > 1})
        if twice:
            raise InputError(f"two studies in {package} have the same {what}: {twice[0]!r}")
    return tuple(sorted(studies, key=lambda study: study.order))


Watcher = Callable[[int], Callable[[str], None]]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


def track(cells: Collection[Item], label: Callable[[Item], str] = str) -> Iterator[Item]:
    """Iterates over the cells of a computation and tells whoever watches which one is under way."""
    watcher = _watcher.get()
    announce = watcher(len(cells)) if watcher else None
    for cell in cells:
        if announce:
            announce(label(cell))
        yield cell


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Within the block, `track` calls `watcher(number of cells)`, then what that returns with each label."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def settings_of(
    study: Study, *overrides: Mapping[str, Mapping[str, Any]], quick: bool = False, full: bool = False
) -> Settings:
    """The checked settings of a study.

    Args:
        study: whose settings.
        overrides: {study: {key: value}}, later ones win.
        quick: whether to start from the study's quick settings.
        full: whether to start from its full ones.

    Raises:
        InputError: both of them; one line that names the study, the key, the value and what would be right.
    """
    if quick and full:
        raise InputError("--quick and --full are given: expected one of them")
    values: dict[str, Any] = dict(study.quick) if quick else dict(study.full) if full else {}
    for override in overrides:
        values |= override.get(study.name, {})

    found = validated(study.settings, values, f"settings of {study.name}")
    _check_counts(study, found)
    return found


def _check_counts(study: Study, found: Settings) -> None:
    """Refuses whole numbers below 1, but for seeds and where 0 is the default: they count something."""
    for name, declared in study.settings.model_fields.items():
        value = getattr(found, name)
        least = 0 if name.endswith("seed") or declared.default == 0 else 1
        for one in value if isinstance(value, tuple) else (value,):
            if type(one) is int and one < least:
                raise InputError(f"settings of {study.name}: {name} is {one}: expected at least {least}")


def check_names(studies: Iterable[Study], *overrides: Mapping[str, Any]) -> None:
    """Refuses settings for a study that does not exist.

    Raises:
        InputError: that names the nearest study.
    """
    known = [study.name for study in studies]
    for name in [name for override in overrides for name in override]:
        if name not in known:
            raise InputError(unknown_study(name, known))


def unknown_study(name: str, known: Iterable[str]) -> str:
    """The message for a study that does not exist."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"no study {name!r}; " + (f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}")
