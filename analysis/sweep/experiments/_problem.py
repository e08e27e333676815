"""The problem of a cell: the paper's at a dimension, a number of rows, a mismatch and a seed, or one from a file."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import Field

import toyiwae
from analysis.settings import Settings
from toyiwae import arguments, estimators, files
from toyiwae.errors import InputError

Count = Annotated[int, Field(ge=1, le=10**15)]
Seed = Annotated[int, Field(ge=0, le=10**15)]

PATHS = {"problem": ("paper",)}
"""What is a file, unless it is one of these."""

PAPER = ("D", "N", "mismatch", "problem_seed")


class ProblemSettings(Settings):
    """Problem, estimator, K and M of a cell.

    Attributes:
        problem: "paper", or a problem's TOML file, which becomes part of the settings.
        D, N, mismatch, problem_seed: dimension, observations, standard deviation of the perturbation and seed of
            `toyiwae.paper_problem`; not with a file.
        tables: of the file; not to be set.
        estimator: a registered one.
        K, M: particles and groups.
        parameters: whose gradients; by default those of prior's and proposal's mean.
    """

    problem: str = "paper"
    D: Annotated[int, Field(ge=1, le=10_000)] | None = None
    N: Count | None = None
    mismatch: Annotated[float, Field(ge=0)] | None = None
    problem_seed: Seed | None = None
    tables: dict[str, Any] | None = None
    estimator: str = "iwae"
    K: Count
    M: Count = 1
    parameters: tuple[str, ...] | None = None


Found = TypeVar("Found", bound=ProblemSettings)

DEFAULTS = {"D": 20, "N": 1024, "mismatch": 0.01, "problem_seed": 0}


def check(settings: Found) -> Found:
    """Settings with the problem's defaults, or its tables.

    Raises:
        InputError: an unknown estimator or parameter, K below its minimum, an estimator of a file (its content would
            not be part of what identifies the cell), a bad problem.
    """
    if ".py:" in settings.estimator:
        raise InputError(
            f"estimator is {settings.estimator!r}: expected a registered one; for your own, write an experiment"
        )
    estimators.get(settings.estimator).check_particles(settings.K)
    given = [name for name in PAPER if getattr(settings, name) is not None]
    if settings.problem == "paper":
        if settings.parameters is not None:  # whose names are the same at every size
            _known_parameters(settings, toyiwae.paper_problem(1, 1))
        return settings.model_copy(update={key: DEFAULTS[key] for key in PAPER if key not in given})
    if given:
        raise InputError(f"{given[0]} belongs to problem 'paper', not to a file: expected one of them")
    tables = files.read_toml(settings.problem)
    _known_parameters(settings, toyiwae.Problem.from_dict(tables))
    return settings.model_copy(update={"tables": tables})


def _known_parameters(settings: ProblemSettings, problem: toyiwae.Problem) -> None:
    arguments.parameter_names(settings.parameters, problem.parameters, problem.mean_parameters)


def problem_of(settings: Any) -> toyiwae.Problem:
    """The problem of a cell under way."""
    if settings.tables is not None:
        return toyiwae.Problem.from_dict(settings.tables)
    return toyiwae.paper_problem(settings.D, settings.N, settings.mismatch, settings.problem_seed)
