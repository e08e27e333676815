"""An experiment: what one cell of a sweep computes, and how messages and rows call it."""

from __future__ import annotations

import hashlib
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from analysis.settings import validated
from analysis.study import Settings, discover
from toyiwae.checks import nearest, shown
from toyiwae.errors import InputError
from toyiwae.estimators import usercode

Row = Mapping[str, Any]
"""What a cell gives: names -> numbers, texts, or nested lists of numbers."""

Cell = TypeVar("Cell", bound=Settings)


@dataclass(frozen=True)
class Experiment:
    """A pure function of a cell's settings and the number of a block of replicates.

    Args:
        name: how grids and stores call it.
        version: a whole number; raise it when results change, and cells run again.
        settings: the model of one cell's settings.
        run: (settings, block) -> row. It gets the settings as attributes, tables and lists inside them as plain dicts
            and lists, and takes all randomness from them and the block (see `seed_of`). It is sent to workers by value:
            what it uses of other modules must be importable there.
        check: refuses settings that do not go together, with InputError; may return them in another spelling.
        merge: rows of blocks 0, 1, … of one cell -> its row; None if a cell is one block.
        quantities: names in a merged row that may be run to a target standard error, which is in the row as `NAME_se`.
        elsewhere: settings that say where, not what; no part of what identifies a cell.
        paths: settings that are files or folders, names with dots as on axes, each with the texts that are none. In a
            grid's file they are relative to its folder. They say where, too: `check` puts what is there into other
            settings.
    """

    name: str
    version: int
    settings: type[Settings]
    run: Callable[[Any, int], Row]
    check: Callable[[Any], Settings | None] = lambda settings: None
    merge: Callable[[Sequence[Row]], Row] | None = None
    quantities: tuple[str, ...] = ()
    elsewhere: frozenset[str] = frozenset()
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def checked(self, values: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Settings of a cell as plain values, also those left at their defaults.

        Raises:
            InputError: one line that names the key, the value and what would be right.
        """
        found = validated(self.settings, values, where)
        try:
            found = self.check(found) or found
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        return found.model_dump(mode="json")


def seed_of(seed: int, block: int) -> int:
    """The seed of a block of replicates: `seed` itself for the first, unrelated ones below 2⁴⁹ for the others."""
    if block == 0:
        return seed
    digest = hashlib.sha256(f"{seed} {block}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 15


def ready() -> tuple[str, ...]:
    """The names of the experiments in `analysis.sweep.experiments`, each that of its module."""
    home = importlib.import_module("analysis.sweep.experiments")
    return tuple(found.name for found in pkgutil.iter_modules(home.__path__) if found.name[0] != "_")


def of_studies() -> dict[str, Experiment]:
    """The experiments of studies by name.

    Raises:
        InputError: two have the same name, or one that of a ready experiment.
    """
    found = [experiment for study in discover() for experiment in study.experiments]
    names = [*ready(), *(experiment.name for experiment in found)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"two experiments are called {twice[0]!r}")
    return {experiment.name: experiment for experiment in found}


def find(spec: Any, folder: Path = Path()) -> Experiment:
    """The experiment that a grid asks for.

    Args:
        spec: a name, or `"FILE.py:NAME"` for one of the user's own.
        folder: what FILE.py is relative to.

    Raises:
        InputError: no such experiment or file, or an error while the file is run.
    """
    if not isinstance(spec, str) or not spec:
        raise InputError(f"experiment is {shown(spec)}: expected a name such as 'exact', or 'FILE.py:NAME'")
    path, colon, name = spec.partition(".py:")
    if not colon:
        if spec in ready():  # no others are imported, some of which take seconds
            return importlib.import_module(f"analysis.sweep.experiments.{spec}").EXPERIMENT
        others = of_studies()
        if spec not in others:
            raise InputError(f"unknown experiment {spec!r}: {nearest(spec, [*ready(), *others])}")
        return others[spec]
    file = folder / f"{path}.py"
    if not file.is_file():
        raise InputError(f"experiment {spec!r}: there is no file {str(file)!r}")
    try:
        module = usercode.execute(file)
    except usercode.UserCodeError as error:
        raise InputError(f"experiment {spec!r}: running {str(file)!r} failed: {error}") from error.__cause__
    own = {key: value for key, value in vars(module).items() if isinstance(value, Experiment)}
    if name not in own:
        hint = nearest(name, own) if own else f"expected {name} = Experiment(...)"
        raise InputError(f"experiment {spec!r}: {str(file)!r} defines no experiment {name!r}: {hint}")
    return own[name]
