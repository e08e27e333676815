"""The figure of the study of signal-to-noise ratios."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D

from analysis import style
from analysis.study import Table
from toyiwae import plot

GENERATIVE, INFERENCE = ("prior_mean",), ("proposal_offset", "proposal_weight")
NETWORKS = {INFERENCE: r"inference $\phi$", GENERATIVE: r"generative $\theta$"}
COLORS = {INFERENCE: style.BLUE, GENERATIVE: style.RED}
SAMPLED, COMPARED = ("prior_mean", "proposal_offset"), "proposal_offset"
KINDS = {"total": "Total derivative", "path": "Path alone", "score": "Score alone"}
EVERY = 4  # point of a curve has a marker
BAND, LINES = (0.1, 0.5, 0.9), (0.5, 0.75, 1.0)


def caption(table: Table) -> str:
    """What the figure shows."""
    samples, curves, missing = table["samples"], table["estimators"], table["missing"]
    return (
        "Exact signal-to-noise ratios $|\\mathrm{E}[\\Delta]|/\\mathrm{std}[\\Delta]$ per coordinate on the toy "
        "problem. (a, b) IWAE: median (thick) and the band from the 10 % to the 90 % quantile over coordinates; "
        "three single coordinates of prior mean and offset (thin), those whose ratio at the left end is the median, "
        "the 75 % quantile and the largest, and for these Monte Carlo estimates from "
        f"{samples.replicates.iloc[0]:,} replicates. (c–e) All registered estimators whose variance is known exactly, "
        "by what their gradient in φ is made of: the median over the coordinates of the offset, on the first "
        f"{table['compared'].rows.iloc[0]} observations (two of the estimators need a double integral for each "
        f"coordinate of each observation), $M$ = {curves.M.iloc[0]}. Solid: the ratio. Dashed, where it differs: the "
        "size of the gradient that the estimator is meant to follow (that of $L_K$ where it has no target of its own) "
        f"over its root-mean-square error, which falls where there is a bias. {_absent(curves, missing)}"
    )


def _absent(curves: pd.DataFrame, missing: pd.DataFrame) -> str:
    """Which estimators are not in the figure, or not everywhere, and why."""
    first, sentences = curves.K.min(), []
    for name, part in missing.groupby("estimator", sort=False):
        reason = str(part.reason.iloc[0]).removeprefix("no closed form: ")
        where = f"from $K$ = {part.K.min():,} on" if part.K.min() > first else "at any $K$"
        sentences.append(f"{plot.short(name)} {where}, since {reason}")
    return f"Not shown: {'; '.join(sentences)}." if sentences else ""


def along(frame: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The rows computed along one axis, K or M."""
    return frame[frame.axis == axis]


def draw(table: Table) -> Figure:
    """SNR of both networks against K and M, and of all estimators against K, with what it is worth."""
    width = style.panels(1, 1)[0].get_size_inches()[0]
    figure = Figure(figsize=(width, 1.05 * width), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.35))
    left, right = upper.subplots(1, 2)
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
    left.set_ylim(top=1e7)
    left.legend(handles=handles, loc="upper left")
    _compare(lower, table["estimators"], table["missing"])
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


def _compare(figure: SubFigure, curves: pd.DataFrame, missing: pd.DataFrame) -> None:
    """One panel for each kind of estimator on common axes, each with its own legend from top to bottom."""
    panels = figure.subplots(1, len(KINDS), sharey=True)
    for axes, letter, (kind, title) in zip(panels, "cde", KINDS.items(), strict=True):
        _lines(axes, curves[curves.kind == kind])
        axes.set_xlabel(f"particles $K$ ($M={curves.M.iloc[0]}$)")
        style.label_panel(axes, letter, title)
    top = curves.snr.max()
    panels[0].set(ylabel=r"median over $\phi$", ylim=(1e-7, 10 ** np.ceil(np.log10(top) + 0.3)))
    handles = [
        Line2D([], [], color=style.INK, label="SNR"),
        Line2D(
            [], [], color=style.INK, linestyle=style.DASHES[1], label=r"$|\nabla\,\mathrm{target}|\,/\,$RMSE"
        ),
    ]
    absent = [name for name in dict.fromkeys(missing.estimator) if name not in set(curves.estimator)]
    if absent:
        label = f"no exact variance: {', '.join(map(plot.short, absent))}"
        handles.append(Line2D([], [], linestyle="none", label=label))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")


def _lines(axes: Axes, curves: pd.DataFrame) -> None:
    """One line per estimator; those that are equal share a line and a legend entry. The legend has the lines' order."""
    columns = ["K", "snr", "target_over_rmse"]  # with K: not every estimator is known at every K
    values = {name: part[columns].to_numpy() for name, part in curves.groupby("estimator", sort=False)}
    drawn: list[list[str]] = []
    for name, known in values.items():
        for group in drawn:
            other = values[group[0]]
            if known.shape == other.shape and np.allclose(known, other, rtol=1e-9):
                group.append(str(name))
                break
        else:
            drawn.append([str(name)])
    handles, groups = {}, int(curves.M.iloc[0])
    for group in drawn:
        k, snr, against = values[group[0]].T
        look = plot.look(group[0]) | {"linestyle": "solid"}  # of one panel they are all of one kind
        mark = {"markersize": 3.2, "markevery": (len(handles) % EVERY, EVERY), "linewidth": 1.1}
        (line,) = axes.loglog(
            k, snr, label=", ".join(plot.short(name, groups) for name in group), **mark, **look
        )
        if not np.allclose(snr, against, rtol=1e-2):
            axes.loglog(k, against, **mark, **look | {"linestyle": style.DASHES[1]})
        handles[line] = np.log(snr[-1]) + np.log(curves.K.max() / k[-1])
    order = sorted(handles, key=lambda line: handles[line], reverse=True)
    axes.legend(
        handles=order, loc="upper left", bbox_to_anchor=(-0.05, -0.24), fontsize="small", labelspacing=0.25
    )
