"""The density of the log-weight, for the page's first figure: the script draws alike."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from analysis.explorer.drawing import BOTTOM, HEIGHT, LEFT, PEAK, RIGHT, SLOTS, TOP, WIDTH
from analysis.explorer.settings import Setting
from toyiwae.oracle.laws.spectrum import Spectrum

POINTS = 121
MARKS = {"evidence": "log p(x)", "bound": "L", "elbo": "ELBO"}
"""What is marked on the axis, from the right; the bound has its K as a subscript."""


def axis_range(setting: Setting) -> tuple[float, float]:
    """The part of the axis, in nats from log p(x), that holds the density and 0. The weights must differ."""
    beta, square = setting.width**2 - 1.0, (setting.width * setting.shift) ** 2
    spread = math.sqrt(0.5 * setting.D * beta**2 + square)
    mean = 0.5 * (setting.D * (math.log1p(beta) - beta) - setting.shift**2)
    low, high = mean - 4.0 * spread, mean + 4.0 * spread
    if beta:  # log w is bounded on one side by its value at the stationary point of its quadratic form
        edge = setting.D * math.log(setting.width) - 0.5 * setting.shift**2 + square / (2.0 * beta)
        low, high = (max(low, edge), high) if beta < 0 else (low, min(high, edge))
    low, high = min(0.0, low), max(0.0, high)
    pad = 0.04 * (high - low)
    return low - pad, high + pad


def density(setting: Setting, low: float, high: float) -> np.ndarray:
    """The density of log w - log p(x) at `POINTS` equidistant points, blurred by 1/150 of the range.

    f(l) = (1/π) ∫_0^∞ Re E[w^{iy}] e^{-iyl} dy, with the oracle's moments.
    """
    step, blur = math.pi / (1.5 * (high - low)), (high - low) / 150.0
    y = np.arange(0.5, 6.5 / blur / step) * step
    beta = np.full(setting.D, setting.width**2 - 1.0)
    h = np.zeros((1, setting.D))
    h[0, 0] = setting.width * setting.shift
    log_moment = Spectrum(beta).log_moment(1j * y, h)[0]
    phases = np.exp(log_moment - 0.5 * (y * blur) ** 2 - 1j * np.multiply.outer(_points(low, high), y))
    return phases.real.sum(axis=1) * step / math.pi


def ticks(low: float, high: float) -> list[float]:
    """Round numbers on an axis, five or six at most."""
    rough = (high - low) / 5.0
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(lead for lead in (1, 2, 5, 10) if lead * power >= rough * (1 - 1e-9))
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def figure(setting: Setting, places: dict[str, float]) -> dict[str, Any]:
    """What the template draws.

    Args:
        setting: of the sliders.
        places: where the `MARKS` stand, in nats from log p(x).
    """
    low, high = axis_range(setting)

    def x(place: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * (place - low) / (high - low)

    values = density(setting, low, high)
    heights = np.maximum(values, 0.0) / values.max()
    bottom = HEIGHT - BOTTOM
    points = [
        f"L{x(place):.1f},{bottom - PEAK * (bottom - TOP) * height:.1f}"
        for place, height in zip(_points(low, high), heights, strict=True)
    ]
    shown = ticks(low, high)
    texts = [tick_text(tick) for tick in shown] + [""] * (SLOTS - len(shown))
    return {
        "d": f"M{LEFT:.1f},{bottom:.1f}{''.join(points)}L{WIDTH - RIGHT:.1f},{bottom:.1f}Z",
        "ticks": [
            (x(tick), text) for tick, text in zip([*shown, *[low] * (SLOTS - len(shown))], texts, strict=True)
        ],
        "marks": [
            {"name": name, "text": text, "x": x(places[name]), "row": row}
            for row, (name, text) in enumerate(MARKS.items())
        ],
    }


def tick_text(value: float) -> str:
    """A tick's text: −40, 0, 0.05."""
    return f"{value + 0.0:.6g}".replace("-", "−")


def _points(low: float, high: float) -> np.ndarray:
    return low + (high - low) * np.arange(POINTS) / (POINTS - 1)
