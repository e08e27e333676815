"""The different polynomials among the coordinates of parameters."""

from __future__ import annotations

from collections.abc import Sequence

from flint import arb

from toyiwae.forms import Form
from toyiwae.oracle.enclosure.laws import BallLaw
from toyiwae.oracle.enclosure.moments import Components
from toyiwae.oracle.enclosure.rows import SCORE, Index, Row
from toyiwae.problems.parameter import Parameter

Coordinate = tuple[Parameter, Index]


def of_row(row: Row, entry: Coordinate) -> bool:
    """Whether an observation moves a coordinate."""
    parameter, index = entry
    return not parameter.own or index[0] == row.n


class Base:
    """The different polynomials among some coordinates of one observation.

    Attributes:
        parts: those polynomials, centred. scales: their scales, as of `enclose`.
        which: number of each coordinate's. factors: what each coordinate multiplies them by.
    """

    def __init__(self, row: Row, law: BallLaw, form: Form, entries: Sequence[Coordinate]):
        """Finds them."""
        self.parts: list[Components] = []
        self.scales: list[arb] = []
        self.which: list[int] = []
        known: dict[tuple, int] = {}
        for parameter, index in entries:
            within = index[1:] if parameter.own else index
            key = (parameter.kind, within[0], within[1] if parameter.kind in ("chol", "loading") else None)
            if key not in known:
                known[key] = len(self.parts)
                self.parts.append(Components.of(law, row.components(form, parameter, index)))
                score = Components.of(law, row.components(SCORE, parameter, index))
                self.scales.append(self.parts[-1].scale + score.scale)
            self.which.append(known[key])
        self.factors = [row.factor(parameter, index) for parameter, index in entries]
