"""Gradients without a path derivative, on Gaussian and on binary latents: which baseline keeps the signal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import toyiwae
from analysis import measures, style
from analysis.settings import Settings
from analysis.studies import _narrow_proposals as narrow
from analysis.studies import _score_truth as truth
from analysis.studies._sampled_gradients import SAMPLES, samples
from analysis.studies._score_claims import verdicts
from analysis.study import Study, Table
from toyiwae import estimators, plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class DiscreteSettings(Settings):
    """The Gaussian problem, the ranges of K, what is summed over tuples, and the size of the sample."""

    dimension: int = 2
    rows: int = 2
    perturbation_std: float = 0.1
    seed: int = 0
    largest_k: int = 1_000_000
    per_decade: int = 1
    enumerated_k: tuple[int, ...] = (2, 3, 8, 32, 128, 512, 1024)
    betas: tuple[float, ...] = (-0.8, -0.65, -0.4, -0.3, 0.2)
    tail_k: int = 10**9
    sampled_k: tuple[int, ...] = (4, 64, 1024)
    replicates: int = 4000
    blocks: int = 1
    sample_seed: int = 30


def compute(settings: DiscreteSettings) -> Table:
    """Exact moments on either latents, sums over tuples, limits, sampled moments where no exact ones are known."""
    gaussian = toyiwae.paper_problem(
        settings.dimension, settings.rows, settings.perturbation_std, settings.seed
    )
    binary = truth.binary_problem()
    grid = sorted({2, *measures.counts(settings.largest_k, settings.per_decade)} - {1})
    grids = {
        "gaussian": (gaussian, truth.GAUSSIAN, sorted({*grid, *settings.sampled_k})),
        "binary": (binary, truth.BINARY, sorted({*grid, *settings.enumerated_k})),
    }
    known, absent = [], []
    for latents, (problem, parameter, counts) in grids.items():
        found, missing = truth.moments(problem, counts, parameter)
        known.append(found.assign(latents=latents))
        absent.append(missing.assign(latents=latents))
    exact, missing = pd.concat(known, ignore_index=True), pd.concat(absent, ignore_index=True)
    unknown = missing[(missing.latents == "gaussian") & (missing.K > 2)].estimator
    tuples = truth.enumerated(binary, settings.enumerated_k)
    places = {(1, k): tuple(dict.fromkeys(unknown)) for k in settings.sampled_k}
    sampled = samples(settings, places, (truth.GAUSSIAN,))
    limits = [truth.gaussian_limits(gaussian).assign(latents="gaussian")]
    limits.append(truth.binary_limits(binary).assign(latents="binary"))
    return {
        "exact": exact,
        "missing": missing,
        "enumerated": tuples,
        "samples": sampled,
        "ratios": truth.ratios(exact, tuples, sampled),
        "limits": pd.concat(limits, ignore_index=True),
        "bound": truth.bounds(binary, grid),
        "printed": truth.printed(binary, min(settings.enumerated_k, key=lambda k: abs(k - 3))),
        "tails": narrow.tails(settings.betas, settings.tail_k),
        "identity": truth.identities(gaussian, exact[exact.latents == "gaussian"]),
    }


def draw(table: Table) -> Figure:
    """The ratios on either latents, what they are worth, and the power of K against the tail of the weights."""
    figure, panels = style.panels(2, 2, aspect=0.72)
    (left, right), (worth, powers) = panels
    ratios, limits = table["ratios"], table["limits"]
    top = 10 ** np.ceil(np.log10(ratios.snr.max()))
    for axes, latents, letter, title in (
        (left, "gaussian", "a", "Gaussian latents"), (right, "binary", "b", "A binary latent"),
    ):  # fmt: skip
        _curves(axes, ratios[ratios.latents == latents], "snr")
        _law(axes, limits[limits.latents == latents])
        axes.set_ylabel(r"SNR of the gradient in $\phi$")
        style.label_panel(axes, letter, title)
    _curves(worth, ratios[(ratios.latents == "gaussian") & (ratios.origin == "exact")], "worth")
    worth.set_ylabel(r"$\|\nabla_\phi\,$target$\|\,/\,$RMSE")
    style.label_panel(worth, "c", "What they are worth")
    for axes in (left, right, worth):
        axes.set(xscale="log", yscale="log", ylim=(1e-5, top), xlabel="particles $K$")
    _powers(powers, table["tails"])
    entries = {}
    for axes in (left, right):
        handles, labels = axes.get_legend_handles_labels()
        entries = dict(zip(labels, handles, strict=True)) | entries
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=3, fontsize="small",
        columnspacing=1.2, handlelength=1.8,
    )  # fmt: skip
    return figure


def _groups(frame: pd.DataFrame) -> list[list[str]]:
    """The estimators whose curves are one, together."""
    found: list[list[str]] = []
    curves = {name: part.set_index("K").snr for name, part in frame.groupby("estimator", sort=False)}
    for name, curve in curves.items():
        for group in found:
            other = curves[group[0]]
            if curve.index.equals(other.index) and np.allclose(curve, other, rtol=1e-9):
                group.append(name)
                break
        else:
            found.append([name])
    return found


def _curves(axes: Axes, frame: pd.DataFrame, column: str) -> None:
    """Lines where the variance is exact, squares from sums over tuples, circles from samples.

    All are of one kind, so that lines are solid, or dashed with a white marker for another member of a family.
    """
    families = set()
    for place, group in enumerate(_groups(frame)):
        one, part = estimators.get(group[0]), frame[frame.estimator == group[0]].sort_values("K")
        look = plot.look(one) | {"linestyle": "solid", "markersize": 3.4, "markevery": (place % 2, 2)}
        if one.family in families:
            look |= {"linestyle": style.DASHES[1], "markerfacecolor": "white"}
        families |= {estimators.get(name).family for name in group}
        label, exact = " = ".join(map(truth.called, group)), part[part.origin == "exact"]
        if len(exact) > 1:
            axes.plot(exact.K, exact[column], label=label, linewidth=1.0, **look)
            continue
        if len(part) == 1:  # of a single K no curve
            continue
        axes.plot(part.K, part[column], linewidth=0.5, **look | {"marker": ""})
        for origin, marker in (("all tuples", "s"), ("sampled", "o")):
            some = part[part.origin == origin]
            if len(some):
                points = style.SAMPLED | {
                    "marker": marker,
                    "color": look["color"],
                    "label": f"{label}, {origin}",
                }
                axes.errorbar(some.K, some[column], some.snr_se, **points)


def _law(axes: Axes, limits: pd.DataFrame) -> None:
    """What the ratio with VIMCO's geometric baseline tends to."""
    constant = np.linalg.norm(limits.drift) / np.sqrt(limits.geometric.sum())
    k = np.array([100.0, 1e6])
    axes.plot(k, constant / np.sqrt(k), label=f"law of {truth.called('vimco_geometric')}", **style.GUIDE)


def _powers(axes: Axes, tails: pd.DataFrame) -> None:
    """The power of K in the ratio against the least β: law (lines) and exact local slopes (markers)."""
    beta = np.linspace(-0.95, max(0.3, tails.beta.max()), 400)
    places = {True: (-0.2, -0.47, "bottom"), False: (-0.2, 0.45, "top")}
    for name in dict.fromkeys(tails.estimator):
        look, part = plot.look(name), tails[tails.estimator == name]
        axes.plot(beta, [narrow.exponent(one, name) for one in beta], linewidth=1.0, color=look["color"])
        axes.plot(part.beta, part.slope, markersize=3.8, **look | {"linestyle": "none"})
        x, y, side = places[name == narrow.BASELINE]
        axes.text(x, y, truth.called(name), color=look["color"], fontsize="small", va=side)
    for edge, order, height in ((-0.5, 2, 0.3), (-0.25, 4, 0.0)):
        axes.axvline(edge, **style.GUIDE)
        text = rf"$\mathrm{{E}}[w^{order}]<\infty$"
        axes.text(edge + 0.015, height, text, fontsize="small", rotation=90, ha="left", va="center")
    axes.set(xlabel=r"least $\beta$ of the proposal", ylabel="power of $K$ in the SNR", ylim=(-0.6, 0.6))
    style.label_panel(axes, "d", "What the weights' tail allows")


def caption(table: Table) -> str:
    """What the figure shows."""
    samples, tails = table["samples"], table["tails"]
    sampled, points = [truth.called(name) for name in dict.fromkeys(samples.estimator)], ""
    if sampled:
        points = (
            f" The variance of {', '.join(sampled)} on Gaussian latents is not known beyond two particles: circles are "
            f"{samples.replicates.iloc[0]:,} replicates with the exact mean (bars: one standard error); squares are "
            "sums over all tuples of binary states."
        )
    return (
        "Estimators without a path derivative, $M$ = 1. (a, b) Exact signal-to-noise ratio of the gradient in φ, "
        "$\\Vert\\mathrm{E}[\\Delta]\\Vert$ over the root of the covariance's trace, on the toy problem with Gaussian "
        f"latents and on a problem with a binary one.{points} (c) The size of the gradient that each is meant to "
        "follow (that of $L_K$ where it has no target of its own) over its root-mean-square error: a high ratio in (a) "
        "with a bias is worth little. (d) The power of $K$ in the ratio when the proposal gets narrower than the "
        f"posterior in one direction, law (lines) and exact local slope at $K$ = {tails.K.iloc[0]:,} (markers)."
    )


STUDY = Study(
    name="discrete",
    order=30,
    title="Gradients without reparameterisation",
    question="Which baseline lets a score-function gradient gain from more particles?",
    settings=DiscreteSettings,
    quick={
        "dimension": 2,
        "rows": 1,
        "enumerated_k": (2, 3, 128, 256),
        "sampled_k": (4, 16),
        "replicates": 1000,
        "betas": (-0.35, 0.2),
    },
    full={"enumerated_k": (2, 3, 8, 32, 128, 512, 1024, 2048), "replicates": 20_000, "blocks": 20},
    experiments=(SAMPLES,),
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="On Gaussian latents mean and variance are integrals over the Laplace transform of the weight. On binary "
    "latents the same integrals are over a law with four values; for a few particles every tuple of states is summed "
    "over as well, with the estimators' own functions.",
)
