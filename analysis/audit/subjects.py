"""What the audit runs, as `subjects.toml` says, and what of it is installed."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
DIVERGENCE = "divergence:"
FULL: dict[str, dict[str, Any]] = {"suite": {"shift": 0.05}, DIVERGENCE: {"K": 1, "M": 2, "shift": 0.05}}
LIGHT: dict[str, dict[str, Any]] = {
    "suite": {"K": 3, "M": [1, 2], "shift": 0.12},
    DIVERGENCE: {"K": 1, "M": 2, "shift": 0.12},
}


@dataclass(frozen=True)
class Library:
    """A library that is audited.

    Attributes:
        name: what the page calls it.
        adapter: the file in `adapters/`, without its ending.
        distributions: what must be installed, the library itself first.
        how: how its code is driven, and what of it is compared.
    """

    name: str
    adapter: str
    distributions: tuple[str, ...]
    how: str

    @property
    def file(self) -> Path:
        """The adapter."""
        return HERE / "adapters" / f"{self.adapter}.py"

    @property
    def versions(self) -> dict[str, str | None]:
        """Distribution -> version, None where it is not installed."""
        return {name: _version(name) for name in self.distributions}

    @property
    def missing(self) -> list[str]:
        """What is not installed."""
        return [name for name, version in self.versions.items() if version is None]


@dataclass(frozen=True)
class Subject:
    """One objective of a library, driven by one function of its adapter.

    Attributes:
        library: whose it is.
        function: the function in the adapter.
        objective: what of the library it runs.
        target: what it is judged as.
        fails: the columns that fail, "raises" for an exception.
        how: what is compared, where that is not what the library's line says.
        reading: what the library's source says about a failure.
        full: arguments of the check in the audit.
        light: the same in the tests.
    """

    library: Library
    function: str
    objective: str
    target: str
    fails: frozenset[str] = frozenset()
    how: str = ""
    reading: str = ""
    full: Mapping[str, Any] = field(default_factory=dict)
    light: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """FILE:FUNCTION, by which the command line asks for it."""
        return f"{self.library.adapter}:{self.function}"

    def options(self, light: bool = False) -> dict[str, Any]:
        """Arguments of the check."""
        kind = DIVERGENCE if self.target.startswith(DIVERGENCE) else "suite"
        return {**(LIGHT if light else FULL)[kind], **(self.light if light else self.full)}


@cache
def subjects() -> tuple[Subject, ...]:
    """All subjects, library by library."""
    table = tomllib.loads((HERE / "subjects.toml").read_text(encoding="utf-8"))
    libraries = {
        entry["adapter"]: Library(**{**entry, "distributions": tuple(entry["distributions"])})
        for entry in table["library"]
    }
    made = []
    for entry in table["subject"]:
        rest = {key: value for key, value in entry.items() if key not in ("adapter", "fails")}
        made.append(Subject(libraries[entry["adapter"]], fails=frozenset(entry.get("fails", ())), **rest))
    return tuple(made)


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
