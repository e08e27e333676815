"""An experiment: what one cell of a sweep computes, and how messages and rows call it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from analysis.settings import Settings, validated
from toyiwae.errors import InputError

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
        estimators: settings that name an estimator, perhaps of a user's own file, "FILE.py:NAME": that file is treated
            like a path, and its content is put into other settings by `check`.
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
    estimators: tuple[str, ...] = ()

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
