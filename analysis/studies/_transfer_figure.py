"""The figure of the study that carries the theory from the toy problem to networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import report, style
from analysis.study import Table
from toyiwae import plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LINEAR, DEEP = "linear decoder", "deep network"
PREDICTED = ("iwae", "dreg")
NETWORKS = {LINEAR: style.BLUE, DEEP: style.YELLOW}  # which the estimators of the panels above do not have
POWER = {"iwae": -0.5, "dreg": 0.5}


def caption(table: Table) -> str:
    """What the figure shows."""
    facts, images = table["facts"].iloc[0], table["images"]
    tails = {network: part.pareto_k for network, part in images.groupby("network")}
    late = np.exp(np.median(2.0 * images.log_w_var - 2.0 * np.log(images.second_moment)))
    above = {network: (values > 0.25).mean() for network, values in tails.items()}
    return (
        f"Signal-to-noise ratios of gradients by the mean of each image's proposal, $M$ = 1, from {facts.particles:,} "
        f"particles of each of {facts.images} test digits. (a, b) Root mean square over latents and images, ± standard "
        "error over images; points without a visible signal are left out. Dashed: the limit laws, with constants from "
        "the measured moments of each image's $w$ (where a moment is infinite its estimate grows with the number of "
        f"particles). Solid: exact; (a) is over the {table['exact'].image.nunique()} images whose exact ratios were "
        "computed. (c) IWAE's ratio over its limit law, image by image, against $K$ in units of "
        f"$(\\mathrm{{E}}\\,w^2/Z^2)^2$; within a factor of 2 of 1 the median is {_at_one(table):.2f}. For "
        "log-normal weights this is the $\\exp(\\mathrm{KL}(r\\Vert q))$ with $r\\propto p(z\\mid x)^2/q(z)$ where "
        "the asymptotic regime begins, "
        "and $\\exp(2\\,\\mathrm{Var}\\log w)$; but $\\log w$ is skewed, and the latter is "
        f"larger by a factor of {report.in_prose(float(late))} (median over images). (d) Pareto $\\hat k$ of the "
        f"images' weights: above 1/4, where DReG's law does not apply, are {above[LINEAR]:.0%} of them with the "
        f"linear decoder, {above[DEEP]:.0%} on the deep network. (e) All registered estimators on the deep network, "
        f"{table['compared'].image.nunique()} images."
    )


def _at_one(table: Table) -> float:
    """IWAE's ratio over its limit law where K is near the square of E[w²]/Z², median over images and K."""
    merged = table["squares"].merge(table["images"], on=["network", "image"])
    near = np.abs(np.log2(merged.K / merged.second_moment**2)) <= 1.0
    own = merged[near & (merged.estimator == "iwae") & (merged.squared > 0) & (merged.iwae > 0)]
    return float(np.median(np.sqrt(own.squared * own.K) / own.iwae)) if len(own) else float("nan")


def draw(table: Table) -> Figure:
    """Ratios against K on both networks with their limits, the collapse, the tails, and all estimators."""
    width = style.panels(1, 1)[0].get_size_inches()[0]
    figure = Figure(figsize=(width, 1.3 * width), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.7, 1))
    panels = top.subplots(2, 2)
    panels[0, 1].sharey(panels[0, 0])
    for axes, letter, network in zip(panels[0], "ab", (LINEAR, DEEP), strict=True):
        _laws(axes, table, network)
        style.label_panel(axes, letter, network.capitalize())
    panels[0, 0].legend(handles=_handles(), fontsize="small", loc="lower left")
    low, high = panels[0, 0].get_ylim()
    panels[0, 0].set_ylim(low / 8, high * 1.5)
    _collapse(panels[1, 0], table)
    _tails(panels[1, 1], table["images"])
    _all(bottom, table["compared"])
    return figure


def rms(squares: pd.DataFrame) -> pd.DataFrame:
    """Root mean square over images at every K, and its standard error over images; where a signal is seen."""
    groups = squares.groupby("K").squared
    mean, se = groups.mean(), groups.std(ddof=1) / np.sqrt(groups.count())
    seen = mean > 2.0 * se
    root = np.sqrt(mean[seen])
    return pd.DataFrame({"snr": root, "se": 0.5 * se[seen] / root})


def _laws(axes: Axes, table: Table, network: str) -> None:
    squares, images, exact = table["squares"], table["images"], table["exact"]
    if network == LINEAR:  # where exact values are shown, everything is over their images
        squares, images = (frame[frame.image < exact.image.nunique()] for frame in (squares, images))
    own = images[images.network == network]
    for rule in PREDICTED:
        look = {key: value for key, value in plot.look(rule).items() if key != "linestyle"}
        found = rms(squares[(squares.network == network) & (squares.estimator == rule)])
        axes.errorbar(
            found.index, found.snr, found.se, linestyle="none", markersize=3.5, elinewidth=0.8, **look
        )
        k = np.geomspace(1, squares.K.max(), 30)
        constant = np.sqrt((own[rule] ** 2).mean())
        axes.plot(
            k, constant * k ** POWER[rule], color=look["color"], linewidth=0.9, linestyle=style.DASHES[1]
        )
        if network == LINEAR:
            line = np.sqrt(exact[exact.estimator == rule].groupby("K").squared.mean())
            line = line[line.index <= squares.K.max()]
            axes.plot(line.index, line, color=look["color"], linewidth=1.0)
    axes.set(xscale="log", yscale="log", xlabel="particles $K$", ylabel=r"SNR of the gradient by $\mu_q$")
    style.count_ticks(axes, squares.K)


def _handles() -> list[Line2D]:
    found = []
    for rule in PREDICTED:
        look = plot.look(rule) | {"linestyle": "none"}
        found.append(Line2D([], [], label=plot.short(rule), markersize=3.5, **look))
    found.append(Line2D([], [], color=style.INK, linewidth=1.0, label="exact"))
    found.append(Line2D([], [], color=style.INK, linewidth=0.9, linestyle=style.DASHES[1], label="limit law"))
    return found


def _collapse(axes: Axes, table: Table) -> None:
    """IWAE's ratio over its law against K in units of where the regime should begin."""
    merged = table["squares"].merge(table["images"], on=["network", "image"])
    merged = merged[(merged.estimator == "iwae") & (merged.squared > 4.0 * merged.se) & (merged.iwae > 0)]
    for network, color in NETWORKS.items():
        for _, image in merged[merged.network == network].groupby("image"):
            ratio = np.sqrt(image.squared * image.K) / image.iwae
            axes.plot(image.K / image.second_moment**2, ratio, color=color, linewidth=0.5, alpha=0.6)
        axes.plot([], [], color=color, linewidth=1.2, label=network)
    axes.axhline(1.0, **style.GUIDE)
    axes.axvline(1.0, **style.GUIDE)
    axes.set(
        xscale="log", yscale="log", xlabel=r"$K\,/\,(\mathrm{E}\,w^2/Z^2)^2$", ylabel="IWAE: SNR / limit law"
    )
    axes.set_ylim(0.05, 5)
    axes.legend(fontsize="small", loc="lower right")
    style.label_panel(axes, "c", "Where the regime begins")


def _tails(axes: Axes, images: pd.DataFrame) -> None:
    for network, color in NETWORKS.items():
        values = np.sort(images[images.network == network].pareto_k)
        axes.step(
            values, np.arange(1, len(values) + 1) / len(values), where="post", color=color, label=network
        )
    for k, text in ((0.25, r"$\mathrm{E}\,w^4$"), (0.5, r"$\mathrm{E}\,w^2$")):
        axes.axvline(k, **style.GUIDE)
        axes.annotate(
            text + " infinite", (k + 0.01, 0.03), rotation=90, fontsize="small", va="bottom", color=style.GREY
        )
    axes.set(xlabel=r"Pareto $\hat k$ of an image's weights", ylabel="share of images", ylim=(0, 1.03))
    axes.legend(fontsize="small", loc="upper left")
    style.label_panel(axes, "d", "Tails of the weights")


def _all(figure: Any, compared: pd.DataFrame) -> None:
    axes = figure.subplots(1, 1)
    last = {}
    for rule, own in compared.groupby("estimator", sort=False):
        found = rms(own)
        look = plot.look(str(rule))
        axes.errorbar(
            found.index,
            found.snr,
            found.se,
            linewidth=0.9,
            markersize=3.2,
            elinewidth=0.6,
            label=plot.short(str(rule)),
            **look,
        )
        last[plot.short(str(rule))] = found.snr.iloc[-1] if len(found) else 0.0
    axes.set(
        xscale="log", yscale="log", xlabel="particles $K$ ($M=1$)", ylabel=r"SNR of the gradient by $\mu_q$"
    )
    style.count_ticks(axes, compared.K)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: -last[labels[i]])
    axes.legend(
        [handles[i] for i in order], [labels[i] for i in order],
        loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small", labelspacing=0.3,
    )  # fmt: skip
    style.label_panel(axes, "e", "Deep network: all registered estimators")
