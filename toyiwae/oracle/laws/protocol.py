"""What the integrals at finite K ask of a law, and of the functions of the noise in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.laws.grid import Grid, Smoothness, Transform


@runtime_checkable
class Function(Protocol):
    """A function `g` of the noise, by observation and coordinate; `base` [N, F] is its posterior mean, exactly."""

    base: np.ndarray

    @property
    def centred(self) -> Any:
        """The function less its posterior mean."""
        ...

    def less(self, constant: np.ndarray) -> Any:
        """The function minus a constant per observation and coordinate."""
        ...


@runtime_checkable
class Law(Protocol):
    """The law of the weight, in units in which E[w] = 1, for N observations."""

    @property
    def max_power(self) -> float:
        """E[w^s] exists for s below this power."""
        ...

    def __len__(self) -> int:
        """Number of observations."""
        ...

    def log_moment(self, s: float | np.ndarray) -> np.ndarray:
        """Log E[w^s]: [N, S]."""
        ...

    def moment(self, power: float, factors: tuple[Any, ...] = ()) -> Bounded:
        """E[w^power Π g]: [N, F]; raises MissingMomentError where it does not exist."""
        ...

    def moment_less_one(self, power: int) -> Bounded:
        """E[w^power] - 1 for a power of 2 or more, to a relative accuracy of its own where it can be had: [N, 1]."""
        ...

    def upper_log_t(self, decay: float, p: float = 1.0) -> float:
        """Log t beyond which E[e^{-t w^p}] < e^-decay for every observation."""
        ...

    def smoothness(self, p: float = 1.0) -> Smoothness | None:
        """How smooth the transforms of w^p are at large t; None where they may not be."""
        ...

    def deviation(self, power: int, grid: Grid) -> Bounded:
        """`t^a (E[w^a e^{-tw}] - e^{-t})` for a = 0 or 1, the deviation from w = 1: [N, T]."""
        ...

    def transform(
        self, power: float, requests: Sequence[tuple[Any, ...]], grid: Grid, p: float = 1.0
    ) -> list[Transform]:
        """`t^{a/p} E[w^a Π g e^{-t w^p}]` for each tuple of functions."""
        ...
