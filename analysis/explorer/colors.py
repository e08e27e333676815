"""An estimator's colour as text on the page: darker on white and lighter on black until it can be read.

How an estimator looks is said in `toyiwae.plot`, for lines on white. As text, small and on two backgrounds, a colour
must have a contrast of 4.5 (WCAG 2, AA). So its lightness in Oklab moves toward the end that is farther from the
background, in steps of a hundredth, hue and chroma kept as far as the screen can show them, until it has.
"""

from __future__ import annotations

import numpy as np

CONTRAST = 4.5
LIGHT, DARK = "#ffffff", "#16171a"
"""The page's backgrounds."""

_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def readable(color: str, background: str) -> str:
    """The nearest lightness of a colour that is legible on a background.

    Args:
        color: #rrggbb.
        background: #rrggbb.
    """
    lab, step = _oklab(color), 0.01 if luminance(background) < 0.18 else -0.01
    while contrast(color, background) < CONTRAST and 0.0 < lab[0] + step < 1.0:
        lab[0] += step
        color = _shown(lab)
    return color


def contrast(one: str, other: str) -> float:
    """The contrast ratio of two colours, from 1 to 21."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def luminance(color: str) -> float:
    """Relative luminance, of black 0 and of white 1."""
    return float(_linear(color) @ [0.2126, 0.7152, 0.0722])


def _linear(color: str) -> np.ndarray:
    channels = np.array([int(color[place : place + 2], 16) for place in (1, 3, 5)]) / 255.0
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def _oklab(color: str) -> np.ndarray:
    return _LAB @ np.cbrt(_LMS @ _linear(color))


def _shown(lab: np.ndarray) -> str:
    """The colour with the largest share of its chroma that a screen can show."""
    for share in np.linspace(1.0, 0.0, 51):
        linear = np.linalg.solve(_LMS, np.linalg.solve(_LAB, lab * [1.0, share, share]) ** 3)
        if share == 0.0 or ((linear >= -1e-4) & (linear <= 1.0 + 1e-4)).all():
            break
    linear = np.clip(linear, 0.0, 1.0)
    channels = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in channels)
