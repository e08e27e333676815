"""The sweep of the α-divergence as an animation: both targets, their fits, and the order in all three conventions."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis import output, style
from analysis.studies._alpha_fit import Mixture, log_normal

FRAME, END = 120, 900
"""Milliseconds of a frame, and of the first, the last and those at α = 0 and 1."""


def animate(sweep: pd.DataFrame, target: Mixture, correlation: float) -> bytes:
    """A GIF with one frame for each order, from the lowest to the highest."""
    with mpl.rc_context({"font.size": 11, "axes.labelsize": 11, "axes.titlesize": 12}):
        figure = Figure(figsize=(7.2, 3.9), dpi=90, layout="none")
        canvas = FigureCanvasAgg(figure)
        left = figure.add_axes((0.02, 0.34, 0.55, 0.58))
        right = figure.add_axes((0.62, 0.34, 0.36, 0.58))
        below = figure.add_axes((0.06, 0.2, 0.88, 0.02))
        z = np.linspace(-5, 6, 400)
        p = np.exp(np.interp(z, target.grid, target.log_p))
        left.fill_between(z, p, color=style.GREY, alpha=0.3, linewidth=0)
        (density,) = left.plot(z, p, color=style.BLUE, linewidth=1.8)
        left.set(
            ylim=(0, 0.75), xlim=(z[0], z[-1]), yticks=[], xlabel="$z$", title="mixture (grey), best Gaussian"
        )
        circle = np.stack([np.cos(angle := np.linspace(0, 2 * np.pi, 200)), np.sin(angle)])
        root = np.linalg.cholesky([[1.0, correlation], [correlation, 1.0]])
        right.fill(*(root @ circle), color=style.GREY, alpha=0.3, linewidth=0)
        (ellipse,) = right.plot(*circle, color=style.BLUE, linewidth=1.8)
        right.set(
            xlim=(-1.6, 1.6),
            ylim=(-1.6, 1.6),
            aspect="equal",
            xticks=[],
            yticks=[],
            title="pair, best mean-field",
        )
        marker = _track(below, sweep.alpha.to_numpy())
        words = figure.text(0.5, 0.04, "", ha="center", family="DejaVu Sans Mono", fontsize=9)
        frames, times = [], []
        for index, row in enumerate(sweep.itertuples()):
            density.set_ydata(np.exp(log_normal(z, row.mean, row.std)))
            ellipse.set_data(*(np.sqrt(row.pair_variance) * circle))
            marker.set_xdata([index])
            words.set_text(_words(row.alpha))
            canvas.draw()
            frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
            times.append(END if index in (0, len(sweep) - 1) or row.alpha in (0, 1) else FRAME)
    return output.animation_bytes(frames, times)


def _track(axes, alpha: np.ndarray):
    """An axis of all orders, labelled where they are round, and the marker that runs along it."""
    axes.set(xlim=(-0.5, len(alpha) - 0.5), ylim=(-1, 1), yticks=[])
    for side in ("left", "right", "top"):
        axes.spines[side].set_visible(False)
    shown = {0: "0: KL$(q\\,\\Vert\\,p)$", 1: "1: KL$(p\\,\\Vert\\,q)$"}
    ticks = {int(np.argmin(np.abs(alpha - value))): word for value, word in shown.items()}
    ticks |= {0: f"{alpha[0]:.0f}".replace("-", "−"), len(alpha) - 1: f"{alpha[-1]:.0f}"}
    axes.set_xticks(list(ticks), list(ticks.values()))
    (marker,) = axes.plot([0], [0], marker="v", color=style.RED, markersize=9, clip_on=False)
    return marker


def _words(alpha: float) -> str:
    """The order in all three conventions."""
    minus = f"Rényi α = {alpha:6.2f}      Minka α = {alpha:6.2f}      Amari a = {2 * alpha - 1:6.2f}"
    return minus.replace("-", "−")
