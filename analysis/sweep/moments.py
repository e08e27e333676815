"""Moments of replicates in rows: what a block found, and what all blocks of a cell found together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from analysis.sweep.experiment import Row
from toyiwae.stats import Moments

SUMS = ("mean", "sum2", "sum3", "sum4")


def sums(moments: dict[str, Moments]) -> dict[str, Any]:
    """Named moments of one block as columns of its row; they have one count."""
    (count,) = {found.count for found in moments.values()}
    columns = {f"{key}.{name}": getattr(one, key) for name, one in moments.items() for key in SUMS}
    return {"replicates": count} | columns


def together(rows: Sequence[Row]) -> dict[str, Moments]:
    """The moments by name, from the rows that `sums` gave."""
    names = [key.removeprefix("sum2.") for key in rows[0] if key.startswith("sum2.")]
    return {
        name: reduce(
            Moments.merge,
            (Moments(row["replicates"], *(np.array(row[f"{key}.{name}"]) for key in SUMS)) for row in rows),
        )
        for name in names
    }
