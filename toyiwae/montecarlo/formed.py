"""From a Form to the sums of its coefficients: linear combinations of sums of powers of the normalised weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae.forms import PARTS, Form
from toyiwae.montecarlo.whitened import Sums, Weighted

LOG_EVIDENCE = -1
"""Stands for a power: the group's `log Ẑ` of the exponent, the same for each of its particles."""


@dataclass(frozen=True)
class Power:
    """One coefficient `w̃^power / M` of the exponent; `1/(MK)` at power 0, without 1/M where pooled."""

    exponent: float
    power: int
    pooled: bool = False


def linear(form: Form) -> bool:
    """Whether the sums of its coefficients are linear in those of powers, with `log Ẑ` as one more."""
    leave_one_out = form.leave_one_out or form.leave_one_out_geometric
    return not leave_one_out and not (form.log_evidence and form.exponent == 0.0)


def part_of(form: Form, name: str, particles: int) -> dict[Power, float]:
    """The factors of one of its three coefficients."""
    found: dict[Power, float] = {}

    def add(power: Power, factor: float) -> None:
        found[power] = found.get(power, 0.0) + factor

    for power, factor in getattr(form, name).items():
        pooled = name in form.pooled and power > 0
        add(Power(form.exponent if power else 1.0, power, pooled), factor)
    if name == "score" and form.log_evidence:
        add(Power(form.exponent, LOG_EVIDENCE), form.log_evidence)
    if name == "score" and form.constant:
        add(Power(1.0, 0), form.constant * particles * math.log1p(-1.0 / particles))
    return found


class Terms:
    """The powers that some Forms need for some of their coefficients.

    Args:
        forms: of the estimators.
        needed: "model", "path", "score" -> whether Σ c ηηᵀ is needed too, for those that are needed.
        particles: K.

    Attributes:
        exponents: the first is 1, for the bound.
        powers: all that are needed.
        second: which of them with Σ c ηηᵀ.
    """

    def __init__(self, forms: Sequence[Form], needed: Mapping[str, bool], particles: int):
        """Collects them."""
        self._parts = [{name: part_of(form, name, particles) for name in needed} for form in forms]
        second: dict[Power, bool] = {}
        for parts in self._parts:
            for name, factors in parts.items():
                for power in factors:
                    second[power] = second.get(power, False) or needed[name]
        self.powers, self.second = tuple(second), tuple(second.values())
        self.exponents = tuple(dict.fromkeys((1.0, *(power.exponent for power in self.powers))))

    def arrays(self) -> tuple[Any, ...]:
        """What the kernel takes.

        The exponents; each power's exponent, power and whether Σ c ηηᵀ is wanted; and, of each exponent, which power is
        the first, or a number from P on where none is.
        """
        pairs = [(power.exponent, power.power) for power in self.powers]
        rows = [
            pairs.index((exponent, 1)) if (exponent, 1) in pairs else len(pairs) + index
            for index, exponent in enumerate(self.exponents)
        ]
        return (
            np.array(self.exponents),
            np.array([self.exponents.index(power.exponent) for power in self.powers], dtype=np.int64),
            np.array([power.power for power in self.powers], dtype=np.int64),
            np.array(self.second, dtype=bool),
            np.array(rows, dtype=np.int64),
        )

    def pooled(self) -> np.ndarray:
        """Which powers normalise over all groups."""
        return np.array([power.pooled for power in self.powers], dtype=bool)

    def factors(self, index: int, name: str) -> np.ndarray:
        """Of the powers in one coefficient of one estimator `[P]`; zeros where it is not needed."""
        own = self._parts[index].get(name, {})
        return np.array([own.get(power, 0.0) for power in self.powers])

    def sums(self, first: np.ndarray, second: np.ndarray | None) -> Iterator[Weighted]:
        """Every estimator's sums from those of the powers, `[R, n, P, 1 + D]` and `[R, (n,) P, D, D]`."""
        own = [
            Sums(first[:, :, p, 0], first[:, :, p, 1:], second[..., p, :, :] if second is not None else None)
            for p in range(len(self.powers))
        ]
        for parts in self._parts:
            found = {name: self._combined(own, factors) for name, factors in parts.items()}
            if found.get("path", 0) is None and found.get("score", 0) is None:
                found["score"] = _zero(first, second)
            if "model" in found and found["model"] is None:
                found["model"] = _zero(first, second)
            yield Weighted(*(found.get(name) for name in ("model", "path", "score")))

    def _combined(self, own: Sequence[Sums], factors: Mapping[Power, float]) -> Sums | None:
        return total(own[self.powers.index(power)] * factor for power, factor in factors.items() if factor)


class Called:
    """The coefficients of one estimator that is called, where `Terms` has powers.

    Args:
        needed: which of "model", "path" and "score".
    """

    def __init__(self, needed: Iterable[str]):
        """Keeps their names."""
        self.powers = tuple(needed)

    def factors(self, index: int, name: str) -> np.ndarray:
        """1 for the coefficient of this name, 0 for the others."""
        return np.array([float(own == name) for own in self.powers])

    def sums(self, first: np.ndarray, second: np.ndarray | None) -> Iterator[Weighted]:
        """Its sums from `[R, n, P, 1 + D]` and `[R, (n,) P, D, D]`."""
        found = {
            name: Sums(
                first[:, :, p, 0], first[:, :, p, 1:], None if second is None else second[..., p, :, :]
            )
            for p, name in enumerate(self.powers)
        }
        yield Weighted(*(found.get(name) for name in PARTS))


def total(parts: Iterable[Sums]) -> Sums | None:
    """The sum of some, None of none."""
    found = None
    for part in parts:
        found = part if found is None else found + part
    return found


def _zero(first: np.ndarray, second: np.ndarray | None) -> Sums:
    zeros = np.zeros(first.shape[:2] + first.shape[3:])
    pairs = None if second is None else np.zeros(second.shape[:-3] + second.shape[-2:])
    return Sums(zeros[..., 0], zeros[..., 1:], pairs)
