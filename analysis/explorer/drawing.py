"""The figures of the page as SVG: axes that stay, and curves that a script may move; the script draws alike."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from matplotlib.markers import MarkerStyle
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from analysis.explorer.gradients import PARTS, computed, quantity
from toyiwae import plot

WIDTH, HEIGHT = 432, 304
LEFT, RIGHT, TOP, BOTTOM = 44, 102, 26, 38  # around the axes
LARGEST_K = 6  # log10 of the last K
PEAK = 0.8  # of a density, as a fraction of the height
SLOTS = 7  # for ticks that move
APART = 15  # between labels
LONGEST = 16  # characters of a label
STROKE = 2.25  # width of a curve
SIZE = 9.0  # of a marker
CURVE = tuple(sorted({round(10 ** (j / 8)) for j in range(8 * LARGEST_K + 1)}))
"""The K at which curves are computed."""


@dataclass(frozen=True)
class Curve:
    """One curve of a panel: the quantity, the word beside its end, and the estimator it belongs to, if to one."""

    quantity: str
    label: str
    estimator: str = ""


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
        """Heights of labels beside curves that end at these values, moved apart; None without an end.

        Where there are too many for all to be read, there is none: the table says how each curve looks.
        """
        if len(ends) * APART > HEIGHT - BOTTOM - TOP:
            return [None] * len(ends)
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


SIZES = (
    Panel("gap", "Gap", "nats", -7, 2, (Curve("gap", "exact"),)),
    Panel("ess", "Effective sample size", "particles that count", 0, 6, (Curve("ess", "exact"),)),
)


def panels() -> tuple[Panel, ...]:
    """The figures: sizes, and the gradients' ratios with a curve for each estimator that the script computes."""
    names = [one.name for one in computed()]
    ratios = (
        Panel(
            part,
            f"Signal-to-noise ratio, {part}",
            "|mean| / std. dev.",
            -4,
            5,
            tuple(Curve(quantity(name, part), label(name), name) for name in names),
        )
        for part in PARTS
    )
    return (*SIZES, *ratios)


def label(name: str) -> str:
    """An estimator's name beside a curve."""
    return word(name, LONGEST)


def word(name: str, *longest: int) -> str:
    """An estimator's name in a sentence, or cut after so many characters."""
    return plot.short(name, 1, *longest).replace(r"\$", "$")


def strokes(name: str) -> str:
    """How an estimator's line is dashed, as SVG has it; nothing where it is solid, as without a name."""
    style = plot.look(name)["linestyle"] if name else "solid"
    return "" if style == "solid" else " ".join(f"{STROKE * length:.3g}" for length in style[1])


def symbol(name: str) -> str:
    """An estimator's marker around the origin, as the `d` of a path; without a name a disc."""
    return _outline(plot.look(name)["marker"] if name else "o")


@cache
def _outline(marker: str) -> str:
    if marker == "o":  # which matplotlib makes of many splines
        half = f"a{SIZE / 2},{SIZE / 2} 0 1 1 "
        return f"M{-SIZE / 2},0{half}{SIZE},0{half}{-SIZE},0Z"
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform() + Affine2D().scale(SIZE, -SIZE))
    letters = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}
    pieces = path.iter_segments(simplify=False)
    return "".join(
        letters[code] + ("" if letters[code] == "Z" else ",".join(f"{value:.3g}" for value in points))
        for points, code in pieces
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


def geometry(shown: Sequence[Panel]) -> dict[str, Any]:
    """What the script needs to draw these panels alike."""
    return {
        "left": LEFT, "right": WIDTH - RIGHT, "top": TOP, "bottom": HEIGHT - BOTTOM, "apart": APART,
        "largest": LARGEST_K, "curve": CURVE, "peak": PEAK, "slots": SLOTS,
        "panels": [
            {
                "name": p.name, "low": p.low, "high": p.high,
                "labels": {curve.quantity: curve.label for curve in p.curves if not curve.estimator},
            }
            for p in shown
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
        curves: quantity -> values at `CURVE`, of those that are drawn.
        laws: quantity -> values at `CURVE` to first order, where there are any.
    """
    drawn = [curve for curve in panel.curves if curve.quantity in curves]
    heights = panel.labels([curves[curve.quantity][-1] for curve in drawn])
    return {
        "panel": panel,
        "x": panel.x(K),
        "missing": "",  # of a default state that has all curves
        "curves": [
            {
                **vars(curve),
                "d": panel.path(curves[curve.quantity]),
                "law": panel.path(laws[curve.quantity]),
                "y": height,
                "point": panel.y(now[curve.quantity]),
                "strokes": strokes(curve.estimator),
                "symbol": symbol(curve.estimator),
            }
            for curve, height in zip(drawn, heights, strict=True)
        ],
    }
