"""Problem files: TOML with the sections model, proposal and data, whose keys say which kind of problem it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from toyiwae.errors import InputError
from toyiwae.files import read_toml, toml_text, write_atomic
from toyiwae.problems.binary import DiscreteProblem
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.problems.record import Sections

KINDS: dict[type[Problem] | type[DiscreteProblem], str] = {
    Problem: "a linear-Gaussian problem",
    DiscreteProblem: "a problem with binary latents",
}
"""The kinds of problem that a file may hold; the first one where a file's keys are those of several."""


def load(path: str | os.PathLike[str]) -> Problem | DiscreteProblem:
    """Reads a problem file (TOML with the sections model, proposal and data).

    The keys say which kind of problem it is: `prior_logit` and `logit` are those of binary latents.

    Raises:
        InputError: naming the file and what is wrong with it, or the field and what is wrong with that; also the
            kind of problem that it was taken for, unless its keys are those of a linear-Gaussian one alone.
    """
    tables = read_toml(path)
    if not tables:
        raise InputError(f"{str(path)!r} is empty: expected the sections [model], [proposal] and [data]")
    given = _keys(tables)
    kind = max(KINDS, key=lambda kind: len(given & _known(kind)) - len(_required(kind) - given))
    try:
        return kind.from_dict(tables, os.path.basename(path))
    except InputError as error:
        all_keys = set().union(*map(_known, KINDS))
        if kind is Problem and not given & (all_keys - _known(kind)):
            raise
        own = sorted(key for _, key in given & _only(kind))
        since = f", since it has {', '.join(own)}" if own else ""
        raise InputError(f"{error} (the file was taken for {KINDS[kind]}{since})") from error


def dump(problem: Problem | DiscreteProblem, path: str | os.PathLike[str]) -> None:
    """Writes a problem file, all or nothing; `load` gives back an equal problem, to the last bit.

    Raises:
        InputError: if `path` is a directory.
        OSError: if the file cannot be written; an old one is then untouched.
    """
    write_atomic(path, toml_text(problem.tables()))


def _keys(tables: Mapping[str, Any]) -> set[tuple[str, str]]:
    """All pairs (section, key) of a file."""
    return {(name, key) for name, table in tables.items() if isinstance(table, Mapping) for key in table}


def _known(kind: type[Sections]) -> set[tuple[str, str]]:
    """All pairs (section, key) of a kind of problem."""
    parts = kind.sections.items()
    return {(name, field.name) for name, part in parts for field in fields(part)}


def _required(kind: type[Sections]) -> set[tuple[str, str]]:
    """The pairs that a file of a kind of problem must have."""
    optional = {(name, key) for name, part in kind.sections.items() for key in getattr(part, "optional", ())}
    return _known(kind) - optional


def _only(kind: type[Sections]) -> set[tuple[str, str]]:
    """The pairs that no other kind has."""
    return _known(kind).difference(*(_known(other) for other in KINDS if other is not kind))
