"""Some replicates of one cell: what every engine gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some replicates of one cell, for all its estimators, from the same noise; float64 arrays.

    Attributes:
        values: log Ẑ, averaged over groups and rows `[R]`: unbiased for the bound L_K.
        ess: (Σw)²/Σw², averaged over groups and rows `[R]`.
        gradients: estimator -> parameter -> gradients of the average over rows `[R, *shape]`.
    """

    values: np.ndarray
    ess: np.ndarray
    gradients: dict[str, dict[str, np.ndarray]]

    @classmethod
    def join(cls, chunks: Sequence[Chunk]) -> Chunk:
        """One chunk after the other."""
        if len(chunks) == 1:
            return chunks[0]
        gradients = {
            name: {key: np.concatenate([chunk.gradients[name][key] for chunk in chunks]) for key in parts}
            for name, parts in chunks[0].gradients.items()
        }
        values, ess = (
            np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("values", "ess")
        )
        return cls(values, ess, gradients)
