"""Batches of observations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from toyiwae.oracle.laws.gaussian import GaussianLaw

_BATCH_BYTES = 48_000_000  # of one intermediate array


def row_batches(law: GaussianLaw, width: int, most: int = 64) -> Iterator[np.ndarray]:
    """Indices of rows that share their contours well, and whose transforms of `width` coordinates fit into memory.

    Rows are taken in the order of the spread of their log-weights: a contour that serves a row near the posterior is
    useless for one far from it.
    """
    size = max(1, min(most, _BATCH_BYTES // (16 * 400 * max(width, 1))))
    spread = law.spreads
    order = np.argsort(spread, kind="stable")
    start = 0
    while start < len(order):
        limit = 1.25 * spread[order[start]] + 0.25
        stop = min(start + size, int(np.searchsorted(spread[order], limit, side="right")))
        yield order[start:stop]
        start = stop
