"""The figures of the runs on MNIST."""

from __future__ import annotations

from typing import Any

import matplotlib.image
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import style
from analysis.mnist.run import PARTICLES, Deep, Linear
from toyiwae import plot
from toyiwae.networks.members import Member


def linear(found: Linear) -> Figure:
    """Exact gaps and sample sizes of all images at every K, and how the gaps spread over log p(x)."""
    figure, (left, middle, right) = style.panels(1, 3, aspect=1.05)
    names = [f"{k:,}" for k in found.K]
    _violins(left, np.log10(found.gap), names, [style.BLUE] * len(names))
    low, high = int(np.floor(np.log10(found.gap.min()))), int(np.ceil(np.log10(found.gap.max())))
    style.log_ticks(left, low, high)
    left.set(xlabel="particles $K$", ylabel=r"$\log p(x)-L_K$ (nats)")
    style.label_panel(left, "a", "Exact gap")
    _violins(middle, found.ess[1:], names[1:], [style.BLUE] * len(names))
    middle.set(xlabel="particles $K$", ylabel="E[ESS] (particles)", ylim=(0, None))
    style.label_panel(middle, "b", "Sample size")
    right.plot(found.log_p, found.gap[1], ".", color=style.BLUE, markersize=1.2, alpha=0.4, rasterized=True)
    right.set(
        xlabel=r"exact $\log p(x)$ (nats)", ylabel=rf"$\log p(x)-L_{{{found.K[1]}}}$ (nats)", yscale="log"
    )
    style.label_panel(right, "c", f"At $K={found.K[1]}$")
    return figure


def curves(found: Deep) -> Figure:
    """Training bounds, bounds of test images, and effective sample sizes of the evaluation."""
    figure, (left, middle, right) = style.panels(1, 3, aspect=1.15)
    members = found.run.members
    for member in members:
        look = plot.look(member.model, member.M)
        own = _of(found.curves, member)
        smooth = own.bound.rolling(5, min_periods=1).mean()
        left.plot(own.epoch, smooth, linewidth=0.9, color=look["color"], linestyle=look["linestyle"])
        tested = _of(found.test_curves, member)
        middle.plot(tested.step / found.per_epoch, tested.bound, linewidth=0.9, markersize=3.2, **look)
    left.set(xlabel="epochs", ylabel="own bound, training (nats)")
    _settled(left, found.curves.epoch, found.curves.bound)
    middle.set(xlabel="epochs", ylabel=r"$L_{64}$, test (nats)")
    _settled(middle, found.test_curves.step, found.test_curves.bound)
    small = found.images[found.images.particles == PARTICLES]
    sizes = [_of(small, member).ess.to_numpy() for member in members]
    names = [plot.short(member.model, member.M) for member in members]
    _violins(right, sizes, names, [plot.look(member.model, member.M)["color"] for member in members])
    right.tick_params(axis="x", labelrotation=45)
    right.set(ylabel=f"ESS of {PARTICLES}, test", ylim=(0, None))
    for axes, letter, title in zip(
        (left, middle, right), "abc", ("Training", "Evaluation", "Proposals"), strict=True
    ):
        style.label_panel(axes, letter, title)
    handles = [
        Line2D([], [], label=name(member), markersize=4, **plot.look(member.model, member.M))
        for member in members
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    return figure


def samples(found: Deep) -> Figure:
    """Samples of every member's prior."""
    members = found.run.members
    figure, panels = style.panels(1, len(members), aspect=1.15)
    for axes, member, path in zip(panels, members, found.pictures["samples"], strict=True):
        axes.imshow(matplotlib.image.imread(path), cmap="gray", interpolation="nearest")
        axes.set_axis_off()
        axes.set_title(plot.short(member.model, member.M), loc="center", fontsize="small")
    return figure


def _settled(axes: Any, time: pd.Series, values: pd.Series) -> None:
    """Limits the vertical axis to what the values do after the first steps."""
    late = values[time > 0.12 * time.max()]
    if len(late):
        axes.set_ylim(late.min() - 1.0, late.max() + 1.0)


def name(member: Member) -> str:
    """What a table and a legend call a member."""
    return plot.label(member.model, member.M, member.K)


def _of(frame: pd.DataFrame, member: Member) -> Any:
    return frame[(frame.model == member.model) & (frame.M == member.M) & (frame.K == member.K)]


def _violins(axes: Any, samples: Any, names: list[str], colors: list[str]) -> None:
    """One violin a sample with its quartiles."""
    for position, (sample, color) in enumerate(zip(samples, colors, strict=False)):
        (body,) = axes.violinplot([sample], [position], widths=0.8, showextrema=False, points=200)["bodies"]
        body.set(facecolor=color, edgecolor=color, alpha=0.4, linewidth=0.6)
        first, median, third = np.quantile(sample, [0.25, 0.5, 0.75])
        axes.vlines(position, first, third, color=style.INK, linewidth=2.0)
        axes.plot(position, median, "o", color="white", markeredgecolor=style.INK, markersize=3.4)
    axes.set_xticks(range(len(names)), names)
