"""How many blocks of replicates a cell needs: a number, or as many as a standard error takes.

Blocks are run in rounds. How many a round has follows from the rows of the rounds before and from nothing else, so a
cell has the same blocks whoever runs them, in whatever order they end, however often the sweep was interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toyiwae import checks
from toyiwae.arguments import whole_number
from toyiwae.errors import InputError

if TYPE_CHECKING:
    from analysis.sweep.experiment import Experiment, Row

SPARE = 1.05
"""Blocks in relation to those that the variance so far asks for, so that the target is not just missed."""


@dataclass(frozen=True)
class Replicates:
    """How many blocks.

    Attributes:
        blocks: as many, or with a target at least as many.
        quantity: of the row, whose standard error `{quantity}_se` is to be reached.
        target_se: the standard error to be reached; None for no target.
        at_most: blocks at which a cell ends although it misses the target.
    """

    blocks: int = 1
    quantity: str | None = None
    target_se: float | None = None
    at_most: int = 1024

    @classmethod
    def read(cls, table: Mapping[str, Any]) -> Replicates:
        """The rule that a table of a grid's file writes.

        Raises:
            InputError: unknown keys, values out of range.
        """
        checks.keys(table, "[replicates]", [], ["blocks", "quantity", "target_se", "at_most"])
        return cls(**table)

    def check(self, experiment: Experiment) -> None:
        """Refuses what makes no sense.

        Raises:
            InputError: values out of range; half a target; several blocks of an experiment that has one.
        """
        whole_number(self.blocks, "replicates.blocks")
        whole_number(self.at_most, "replicates.at_most", minimum=self.blocks)
        if (self.quantity is None) != (self.target_se is None):
            raise InputError("[replicates] has half a target: expected both quantity and target_se")
        if self.target_se is not None:
            checks.real(self.target_se, "replicates.target_se", 0.0, above=True)
        if experiment.merge is None and (self.blocks > 1 or self.target_se is not None):
            raise InputError(f"[replicates]: a cell of {experiment.name!r} is one block: expected none")
        if self.quantity is not None and self.quantity not in experiment.quantities:
            hint = checks.nearest(str(self.quantity), experiment.quantities)
            raise InputError(f"replicates.quantity is {checks.shown(self.quantity)}: {hint}")

    def wanted(self, row: Callable[[int], Row], stored: int) -> int:
        """The blocks of the round that comes next, or of the last one: those from 0 up to this number.

        Args:
            row: of the first so many blocks together.
            stored: blocks 0, 1, … of which all rows are there.
        """
        total = self.blocks
        if self.quantity is None or self.target_se is None:
            return total
        while total <= stored and total < self.at_most:
            error = row(total)[f"{self.quantity}_se"]
            if error is not None and error <= self.target_se:
                return total
            ratio = math.inf if error is None else (error / self.target_se) ** 2
            enough = math.ceil(min(2.0 * total, SPARE * total * ratio))
            total = min(self.at_most, max(total + 1, enough))
        return total


def merged(experiment: Experiment, rows: Sequence[Row]) -> Row:
    """The row of a cell from those of its blocks."""
    return rows[0] if experiment.merge is None else experiment.merge(rows)
