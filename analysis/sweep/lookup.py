"""The experiments there are: the ready ones, those of the studies, and users' own in files."""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path
from typing import Any

from analysis.study import discover
from analysis.sweep.experiment import Experiment
from toyiwae.checks import nearest, shown
from toyiwae.errors import InputError
from toyiwae.estimators import usercode


def ready() -> tuple[str, ...]:
    """The names of the experiments in `analysis.sweep.experiments`, each that of its module."""
    home = importlib.import_module("analysis.sweep.experiments")
    return tuple(found.name for found in pkgutil.iter_modules(home.__path__) if found.name[0] != "_")


def of_studies() -> dict[str, Experiment]:
    """The experiments of studies by name; one that several studies share is one.

    Raises:
        InputError: two have the same name, or one that of a ready experiment.
    """
    every = [experiment for study in discover() for experiment in study.experiments]
    found = list({id(experiment): experiment for experiment in every}.values())  # studies may share one
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
