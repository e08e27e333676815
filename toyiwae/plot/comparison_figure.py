"""The figure of a comparison: error and signal-to-noise ratio of every estimator at every split of a budget."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np

from toyiwae.errors import InputError
from toyiwae.plot.curves import alike, label_ends, together
from toyiwae.plot.exact_figure import GREY, called, looks_of, span_of
from toyiwae.plot.saving import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {
    "rmse_evidence": r"error to $\nabla\log p(x)$ (RMSE)",
    "relative_rmse": r"error to own target (RMSE / $\|\nabla\|$)",
    "snr": "SNR",
}
COLUMNS = {"model": ("rmse_evidence", "snr"), "proposal": ("relative_rmse", "snr")}
WIDTH, HEIGHT = 7.2, 3.4
MOST_TICKS, TICK_LENGTH = 8, 40
"""Ticks of an axis, and characters that have room below it."""
LINE_LENGTH, BELOW = 50, -32.0
"""Of what stands below a panel: characters, and points from the axis."""


def comparison_figure(result: Any) -> Figure:
    """For either part, the number that errors are ranked by and the SNR of every estimator against K at M·K = T.

    Estimators whose numbers are equal at every split share a line and a label. Where there are three splits or more, an
    estimator that is known at a single one makes no curve and is left out. One that is known at none is named below.

    Args:
        result: of `toyiwae.compare`.

    Raises:
        InputError: a budget with a single split.
        MissingExtraError: if matplotlib is not installed.
    """
    if result.budget == 1:
        raise InputError("there is nothing to draw for a budget of 1: expected one with several splits")
    with style():
        from matplotlib.figure import Figure

        made = Figure(figsize=(WIDTH, HEIGHT * len(result.parts)), layout="constrained")
        panels = made.subplots(len(result.parts), 2, squeeze=False)
        budget = f"{result.budget:,}".replace(",", "{,}")  # without mathtext's space after a comma
        for row, (part, ranking) in zip(panels, result.parts.items(), strict=True):
            names = ", ".join(name.replace("_", " ") for name in ranking.parameters)
            row[0].set_title(f"gradient by {names}")
            for axes, column in zip(row, COLUMNS[part], strict=True):
                _panel(axes, ranking, column)
                axes.set(ylabel=TITLES[column], xlabel=f"particles $K$, $M = {budget}/K$ groups")
        for axes in made.axes:
            label_ends(axes, fontsize=6.5, gap=6.0)
        return made


def _panel(axes: Axes, ranking: Any, column: str) -> None:
    """One number of every estimator against K."""
    from matplotlib.ticker import NullLocator

    counts = sorted({entry.K for entry in ranking.entries})
    curves: dict[tuple[str, int], dict[int, float]] = {}
    for entry in sorted(ranking.entries, key=lambda entry: entry.K):
        curve, value = curves.setdefault((entry.estimator, 1), {}), getattr(entry, column)
        error = getattr(entry, f"{column}_error") or 0.0
        if value is not None and np.isfinite(value) and value > error:  # else it is not told from 0
            curve[entry.K] = value
    shown, names = looks_of(list(curves)), called(list(curves))
    absent = [names[key] for key, curve in curves.items() if not curve]
    if absent:
        axes.annotate(
            textwrap.fill(f"not known, 0 or infinite: {', '.join(absent)}", LINE_LENGTH), (0.0, 0.0), (0.0, BELOW),
            "axes fraction", "offset points", va="top", fontsize=6.5, color=GREY, annotation_clip=False,
        )  # fmt: skip
    for group in alike({key: curve for key, curve in curves.items() if len(curve) > 1 or len(counts) < 3}):
        curve = curves[group[0]]
        label = together([names[key] for key in group])
        axes.plot(list(curve), list(curve.values()), label=label, **shown[group[0]])
    axes.set(xscale="log", yscale="log")
    span_of(axes, counts)
    axes.xaxis.set_minor_locator(NullLocator())
    most = min(MOST_TICKS, max(1, TICK_LENGTH // (len(f"{counts[-1]:,}") + 1)))
    ticks = counts[:: 1 + (len(counts) - 1) // most]
    axes.set_xticks(ticks, [f"{k:,}" for k in ticks])
