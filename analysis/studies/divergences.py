"""The sweep of the α-divergence: which Gaussian each order asks for, in three conventions, still and animated."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import style
from analysis.settings import Settings
from analysis.studies import _alpha_checks as checks
from analysis.studies import _divergence_claims as claims
from analysis.studies._alpha_fit import Mixture, fits, log_normal, pair_variance
from analysis.studies._alpha_movie import animate
from analysis.study import Study, Table
from toyiwae.oracle.closed_form import alpha
from toyiwae.oracle.closed_form.gaussian import Ratio

TARGET = Mixture((0.6, 0.4), (-1.6, 1.9), (0.55, 0.9))
TICKS = (-10, -3, -1, 0, 1, 2, 4, 10)
SHOWN = (-1, 0, 1, 10)


class DivergenceSettings(Settings):
    """The steps of the sweep from α = 0 to 1 and beyond, and the correlation of the pair."""

    steps: int = 12
    beyond: float = 4.0
    correlation: float = 0.7


def compute(settings: DivergenceSettings) -> Table:
    """The fits to both targets for every order, values in all conventions, and the checks."""
    order = orders(settings)
    found = fits(TARGET, order)
    sweep = pd.DataFrame(found, columns=["mean", "std", "divergence"])
    sweep.insert(0, "alpha", order)
    sweep["pair_variance"] = [pair_variance(one, settings.correlation) for one in order]
    ratio = Ratio.between(checks.P_MEAN, 1 / checks.P_STD, checks.Q_MEAN, checks.Q_STD)
    exists = [one for one in order if ratio.exists(one)]
    values = [(a, float(a * alpha.per_order(ratio, a)), float(alpha.minka(ratio, a))) for a in exists]
    return {
        "sweep": sweep,
        "values": pd.DataFrame(values, columns=["alpha", "renyi", "minka"]),
        "conventions": checks.conventions(ratio),
        "limits": checks.limits(ratio),
        "ends": checks.ends(TARGET, sweep),
        "pair": checks.pair(settings.correlation),
        "facts": pd.DataFrame([{"correlation": settings.correlation, "mode_std": TARGET.stds[0]}]),
    }


def orders(settings: DivergenceSettings) -> np.ndarray:
    """α = ½ + sinh(u)/(2 sinh 1) for evenly spaced u, among them α = 0 and 1 (u = ∓1)."""
    half = settings.steps // 2
    count = round(settings.beyond * half)
    place = np.arange(-count, count + 1)
    found = 0.5 + 0.5 * np.sinh(place / half) / math.sinh(1)
    found[np.abs(place) == half] = (0.0, 1.0)
    return found


def draw(table: Table) -> Figure:
    """Fits to the mixture, their moments, the pair's variance, and what the conventions say of two Gaussians."""
    sweep, values = table["sweep"], table["values"]
    rho = float(table["facts"].correlation[0])
    figure, ((first, second), (third, fourth)) = style.panels(2, 2, aspect=0.78)
    _fits(first, sweep)
    style.label_panel(first, "a", "A mixture and its fits")
    second.plot(sweep.alpha, sweep["std"], color=style.BLUE, marker="o", markersize=2.2)
    second.plot(sweep.alpha, sweep["mean"], color=style.RED, marker="s", markersize=2.2)
    second.text(-9, 0.72, "std. deviation", color=style.BLUE)
    second.text(2.2, -0.95, "mean", color=style.RED)
    second.set(ylabel="of the fit to the mixture", ylim=(-1.9, 2.2))
    style.label_panel(second, "b", "Its moments")
    third.plot(sweep.alpha, sweep.pair_variance, **style.EXACT)
    for value, text, place in ((1 - rho, r"$1-\rho$", 5), (1 + rho, r"$1+\rho$", -9)):
        third.axhline(value, **style.GUIDE)
        third.text(place, value, text, color=style.GREY, va="bottom")
    words = {0.0: "$K=1$", 2.0: r"$K\to\infty$"}
    for order, word in words.items():
        at = (order, pair_variance(order, rho))
        third.plot(*at, marker="D", color=style.RED, markersize=3.5)
        third.annotate(word, at, (5, -9), textcoords="offset points", color=style.RED)
    third.set(ylabel="variance / marginal", ylim=(0, 1.15 * (1 + rho)))
    style.label_panel(third, "c", rf"Mean-field fit, $\rho={rho:g}$")
    fourth.plot(values.alpha, values.renyi, color=style.RED, linestyle=style.DASHES[1], label="Rényi")
    fourth.plot(values.alpha, values.minka, color=style.BLUE, label="Minka, Amari")
    fourth.axhline(0, **style.GUIDE)
    fourth.set(ylabel="divergence of two Gaussians", ylim=(-1, 3))
    fourth.legend(loc="lower left", bbox_to_anchor=(0.45, 0.5))
    style.label_panel(fourth, "d", "One pair, three conventions")
    for axes in (second, third, fourth):
        _order_axis(axes)
    return figure


def _fits(axes: Axes, sweep: pd.DataFrame) -> None:
    """The mixture, and its fits at a few orders."""
    z = np.linspace(-5, 6, 400)
    axes.fill_between(
        z, np.exp(np.interp(z, TARGET.grid, TARGET.log_p)), color=style.GREY, alpha=0.3, linewidth=0
    )
    for index, order in enumerate(SHOWN):
        row = sweep.iloc[int((sweep.alpha - order).abs().argmin())]
        text = f"{row.alpha:.2g}".replace("-", "−")
        axes.plot(
            z, np.exp(log_normal(z, row["mean"], row["std"])), label=text, linewidth=1.1,
            color=style.ordinal(index, len(SHOWN)), linestyle=style.DASHES[index],
        )  # fmt: skip
    axes.set(xlabel="$z$", ylabel="density", ylim=(0, 0.78), xlim=(z[0], z[-1]))
    axes.legend(title=r"$\alpha$", loc="upper right", fontsize="small")


def _order_axis(axes: Axes) -> None:
    """Rényi's and Minka's order below, Amari's above."""
    axes.set_xscale("asinh", linear_width=1.0)
    axes.set_xticks(TICKS, [f"{tick}".replace("-", "−") for tick in TICKS])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(r"$\alpha$ (Amari: $a=2\alpha-1$)")
    for order in (0, 1):
        axes.axvline(order, color=style.GREY, linewidth=0.5, alpha=0.6, zorder=0)


def caption(table: Table) -> str:
    """What the figure shows."""
    sweep = table["sweep"]
    low, high = (f"{value:.1f}".replace("-", "−") for value in (sweep.alpha.min(), sweep.alpha.max()))
    return (
        "(a) A mixture of two Gaussians (grey) and the Gaussians of least $\\alpha$-divergence from it. (b) Mean and "
        f"standard deviation of such fits for $\\alpha$ from {low} to {high}; the best fit jumps from one mode to "
        "both. (c) The variance of the mean-field Gaussian nearest to a pair with correlation; at $\\alpha=0$ it is "
        "what the bound asks for at $K=1$, at $\\alpha=2$ what it asks for as $K\\to\\infty$. (d) The values of all "
        "three conventions for two Gaussians, where they exist. Thin lines: $\\mathrm{KL}(q\\Vert p)$ at 0 and "
        "$\\mathrm{KL}(p\\Vert q)$ at 1."
    )


def movie(table: Table) -> bytes:
    """The sweep as a GIF."""
    return animate(table["sweep"], TARGET, float(table["facts"].correlation[0]))


STUDY = Study(
    name="divergences",
    order=23,
    title="The sweep of the α-divergence",
    question="Which Gaussian does each $\\alpha$-divergence ask for, from seeking one mode to covering all?",
    settings=DivergenceSettings,
    quick={"steps": 2, "beyond": 3.0},
    full={"steps": 40, "beyond": 6.0},
    compute=compute,
    draw=draw,
    verdicts=claims.verdicts,
    caption=caption,
    animate=movie,
    method="Rényi's divergence of order $\\alpha$ of $p$ from $q$ is "
    "$\\log\\int p^\\alpha q^{1-\\alpha}dz/(\\alpha-1)$, Minka's "
    "$(1-\\int p^\\alpha q^{1-\\alpha}dz)/(\\alpha(1-\\alpha))$, and Amari's is Minka's at $\\alpha=(1+a)/2$. "
    "All have the same minimum in $q$; for negative $\\alpha$, where Rényi's is negative, that of Rényi's over "
    "$\\alpha$. Integrals over the mixture are sums over a grid, the pair's is a closed form.",
)
