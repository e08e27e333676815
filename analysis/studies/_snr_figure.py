"""The figure of the study of signal-to-noise ratios."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import style
from analysis.study import Table

GENERATIVE, INFERENCE = ("prior_mean",), ("proposal_offset", "proposal_weight")
NETWORKS = {INFERENCE: r"inference $\phi$", GENERATIVE: r"generative $\theta$"}
COLORS = {INFERENCE: style.BLUE, GENERATIVE: style.RED}
SAMPLED = ("prior_mean", "proposal_offset")
BAND, LINES = (0.1, 0.5, 0.9), (0.5, 0.75, 1.0)


def caption(table: Table) -> str:
    """What the figure shows."""
    samples = table["samples"]
    return (
        "Exact signal-to-noise ratios $|\\mathrm{E}[\\Delta]|/\\mathrm{std}[\\Delta]$ per coordinate on the toy "
        "problem. (a, b) IWAE: median (thick) and the band from the 10 % to the 90 % quantile over coordinates; "
        "three single coordinates of prior mean and offset (thin), those whose ratio at the left end is the median, "
        "the 75 % quantile and the largest, and for these Monte Carlo estimates from "
        f"{samples.replicates[0]:,} replicates. (c) The median over the coordinates of φ for every registered "
        "estimator whose variance is known exactly. (d) The same for the size of the gradient that the estimator is "
        "meant to follow (that of $L_K$ where it has no target of its own) over its root-mean-square error: equal "
        "to (c) where there is no bias, and falling where there is."
    )


def along(frame: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The rows computed along one axis, K or M."""
    return frame[frame.axis == axis]


def draw(table: Table) -> Figure:
    """SNR of both networks against K and M, and of all estimators against K, with their honest counterpart."""
    figure, ((left, right), (all_snr, all_honest)) = style.panels(2, 2, aspect=0.82)
    for axes, axis, letter in ((left, "K", "a"), (right, "M", "b")):
        exact, samples = (along(table[name], axis) for name in ("iwae", "samples"))
        for network, label in NETWORKS.items():
            _bands(axes, exact, samples, axis, network, label)
        axes.set(xscale="log", yscale="log", ylabel="SNR per coordinate")
        style.label_panel(axes, letter, f"IWAE against ${axis}$")
    fixed = along(table["iwae"], "M").K.iloc[0]
    left.set_xlabel("particles $K$ ($M=1$)")
    right.set_xlabel(f"groups $M$ ($K={fixed}$)")
    handles = [Line2D([], [], color=COLORS[network], label=label) for network, label in NETWORKS.items()]
    handles.append(Line2D([], [], color=style.GREY, label="sampled, ± 1 s.e.", **_marker()))
    left.set_ylim(top=3e4)
    left.legend(handles=handles, loc="upper left")
    curves = table["estimators"]
    groups = curves.M.iloc[0]
    _all_estimators(all_snr, curves, "snr")
    _all_estimators(all_honest, curves, "target_over_rmse")
    for axes in (all_snr, all_honest):
        axes.set_xlabel(f"particles $K$ ($M={groups}$)")
    all_snr.set_ylabel(r"median SNR, inference $\phi$")
    all_honest.set_ylabel(r"median $|\nabla\,\mathrm{target}|\,/\,\mathrm{RMSE}$")
    style.label_panel(all_snr, "c", "All estimators: signal to noise")
    style.label_panel(all_honest, "d", "All estimators: target to error")
    handles, labels = all_snr.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def _marker() -> dict[str, Any]:
    names = ("linestyle", "marker", "markersize", "markeredgewidth", "markerfacecolor")
    return {name: style.SAMPLED[name] for name in names}


def _bands(
    axes: Axes, exact: pd.DataFrame, samples: pd.DataFrame, axis: str, network: tuple[str, ...], label: str
) -> None:
    """The band and the median over coordinates, and three coordinates with their sampled points."""
    color = COLORS[network]
    wide = exact[exact.parameter.isin(network)].pivot(
        index=axis, columns=["parameter", "index"], values="snr"
    )
    low, middle, high = wide.quantile(BAND, axis=1).to_numpy()
    axes.fill_between(wide.index, low, high, color=color, alpha=0.15, linewidth=0)
    axes.plot(wide.index, middle, color=color, linewidth=1.6, label=label)
    (name,) = [parameter for parameter in network if parameter in SAMPLED]
    part = wide[name]
    order = part.iloc[0].sort_values(kind="stable").index
    for quantile in LINES:
        index = order[round(quantile * (len(order) - 1))]
        axes.plot(part.index, part[index], color=color, linewidth=0.5)
        points = samples[(samples.parameter == name) & (samples["index"] == index)]
        axes.errorbar(points[axis], points.snr, points.snr_se, color=color, **style.SAMPLED)


def _all_estimators(axes: Axes, curves: pd.DataFrame, column: str) -> None:
    """One line per estimator; those that are equal in every column share a line and a legend entry."""
    names = list(dict.fromkeys(curves.estimator))
    shapes = {name: curves[curves.estimator == name] for name in names}
    columns = ["K", "snr", "target_over_rmse"]  # with K: not every estimator is defined at every K
    drawn: list[list[str]] = []
    for name in names:
        values = shapes[name][columns].to_numpy()
        for group in drawn:
            known = shapes[group[0]][columns].to_numpy()
            if values.shape == known.shape and np.allclose(values, known, rtol=1e-9):
                group.append(name)
                break
        else:
            drawn.append([name])
    for position, group in enumerate(drawn):
        part = shapes[group[0]]
        axes.loglog(part.K, part[column], label=", ".join(group), **style.line_of(position))
