"""The figures of the page as SVG: axes that stay, and curves that a script may move; the script draws alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 400, 304
LEFT, RIGHT, TOP, BOTTOM = 44, 70, 26, 38  # around the axes
LARGEST_K = 6  # log10 of the last K
PEAK = 0.8  # of a density, as a fraction of the height
SLOTS = 7  # for ticks that move
APART = 15  # between labels
CURVE = tuple(sorted({round(10 ** (j / 8)) for j in range(8 * LARGEST_K + 1)}))
"""The K at which curves are computed."""


@dataclass(frozen=True)
class Curve:
    """One curve of a panel: the quantity, and the word beside its end."""

    quantity: str
    label: str


@dataclass(frozen=True)
class Panel:
    """One figure: a quantity against K on logarithmic axes from 10^low to 10^high."""

    name: str
    title: str
    axis: str
    low: int
    high: int
    curves: tuple[Curve, ...]

    def x(self, K: float) -> float:
        """The horizontal position of K."""
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log10(K) / LARGEST_K

    def y(self, value: float) -> float:
        """The vertical position of a value, at most half the panel's height outside."""
        place = (self.high - math.log10(value)) / (self.high - self.low)
        return TOP + (HEIGHT - TOP - BOTTOM) * min(max(place, -0.5), 1.5)

    def path(self, values: Sequence[float]) -> str:
        """The `d` of a path through the values at `CURVE`; a gap where there is none on a logarithmic axis."""
        pieces, pen = [], "M"
        for K, value in zip(CURVE, values, strict=True):
            if 0.0 < value < math.inf:
                pieces.append(f"{pen}{self.x(K):.1f},{self.y(value):.1f}")
                pen = "L"
            else:
                pen = "M"
        return "".join(pieces)

    def labels(self, ends: Sequence[float]) -> list[float | None]:
        """Heights of labels beside curves that end at these values, moved apart; None without an end."""
        inside = [self._clamped(self.y(end)) if 0.0 < end < math.inf else None for end in ends]
        order = sorted((y, i) for i, y in enumerate(inside) if y is not None)
        places: list[float | None] = list(inside)
        last = -math.inf
        for y, i in order:
            last = max(y, last + APART)
            places[i] = last
        excess = max(0.0, last - (HEIGHT - BOTTOM))
        for _, i in reversed(order):  # push back up what was pushed out below
            place = places[i]
            assert place is not None
            if excess <= 0.0:
                break
            places[i] = place - excess
        return places

    @staticmethod
    def _clamped(y: float) -> float:
        return min(max(y, TOP + 4.0), HEIGHT - BOTTOM - 1.0)

    def ticks(self) -> list[tuple[float, str]]:
        """Positions and texts of the vertical axis's ticks; every third is labelled."""
        powers = range(self.low, self.high + 1)
        return [(self.y(10.0**power), power_of_ten(power) if power % 3 == 0 else "") for power in powers]

    def columns(self) -> list[tuple[float, str]]:
        """The same of the horizontal axis."""
        powers = range(LARGEST_K + 1)
        return [(self.x(10.0**power), power_of_ten(power) if power % 2 == 0 else "") for power in powers]


PANELS = (
    Panel("gap", "Gap", "nats", -7, 2, (Curve("gap", "exact"),)),
    Panel("ess", "Effective sample size", "particles that count", 0, 6, (Curve("ess", "exact"),)),
    Panel(
        "snr",
        "Signal-to-noise ratio",
        "|mean| / std. dev.",
        -4,
        5,
        (
            Curve("snr_model", "model"),
            Curve("snr_dreg", "DReG"),
            Curve("snr_proposal", "IWAE"),
        ),
    ),
)

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def power_of_ten(power: int) -> str:
    """1, 10, 10², 10⁻³."""
    return {0: "1", 1: "10"}.get(power, "10" + str(power).translate(_SUPERSCRIPTS))


def number(value: float, digits: int = 6) -> str:
    """A number with so many significant digits, without zeros at their end.

    >>> number(0.00952856325), number(64.0), number(6.098106e-07), number(float("nan")), number(1234.5, 2)
    ('0.00952856', '64', '6.09811×10⁻⁷', '0/0', '1234')
    """
    if math.isnan(value):
        return "0/0"
    if math.isinf(value):
        return "∞"
    if value == 0.0:
        return "0"
    if 1e-3 <= abs(value) < 999999.5:
        text = f"{value:#.{digits}g}" if abs(value) < 10.0**digits else f"{value:.0f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
        text = f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return text.replace("-", "−")


def geometry() -> dict[str, Any]:
    """What the script needs to draw alike."""
    return {
        "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM, "apart": APART,
        "largest": LARGEST_K, "curve": CURVE, "peak": PEAK, "slots": SLOTS,
        "panels": [
            {
                "name": p.name, "low": p.low, "high": p.high,
                "curves": [curve.quantity for curve in p.curves], "labels": [curve.label for curve in p.curves],
            }
            for p in PANELS
        ],
    }  # fmt: skip


def figure(
    panel: Panel,
    K: int,
    now: Mapping[str, float],
    curves: Mapping[str, Sequence[float]],
    laws: Mapping[str, Any],
) -> dict[str, Any]:
    """What the template draws of a panel.

    Args:
        panel: the panel.
        K: the particles that are marked.
        now: quantity -> value there.
        curves: quantity -> values at `CURVE`.
        laws: quantity -> values at `CURVE` to first order, where there are any.
    """
    heights = panel.labels([curves[curve.quantity][-1] for curve in panel.curves])
    return {
        "panel": panel,
        "x": panel.x(K),
        "missing": "",  # of a default state that has all curves
        "curves": [
            {
                "quantity": curve.quantity,
                "label": curve.label,
                "d": panel.path(curves[curve.quantity]),
                "law": panel.path(laws[curve.quantity]) if curve.quantity in laws else "",
                "y": height,
                "point": panel.y(now[curve.quantity]) if 0.0 < now[curve.quantity] < math.inf else None,
            }
            for curve, height in zip(panel.curves, heights, strict=True)
        ],
    }
