"""The bias-variance trade-off of VR-IWAE: which order α is best at each number of particles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import toyiwae
from analysis import report, style
from analysis.closed_limits import ClosedLimits
from analysis.settings import Settings
from analysis.studies import _alpha_truth as truth
from analysis.studies._alpha_claims import verdicts
from analysis.studies._sampled_gradients import SAMPLES, samples
from analysis.study import Study, Table
from toyiwae import plot
from toyiwae.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class AlphaSettings(Settings):
    """The toy problem, the numbers of particles, and how many values of α are computed."""

    dimension: int = 5
    rows: int = 2
    perturbation_std: float = 0.2
    seed: int = 0
    k: tuple[int, ...] = (2, 8, 32, 128, 512, 4096, 32_768, 1_000_000)
    points: int = 11
    between: float = 0.371
    near: float = 1e-6
    sampled_k: tuple[int, ...] = (2, 32)
    replicates: int = 1000
    blocks: int = 1
    sample_seed: int = 31


def compute(settings: AlphaSettings) -> Table:
    """Exact moments at the points, polynomials through them, the best α of each K, limits and checks."""
    if len(set(settings.k)) < 2:
        raise InputError(
            f"settings of alpha: k is {list(settings.k)}: expected two values or more, for slopes in K"
        )
    problem = toyiwae.paper_problem(
        settings.dimension, settings.rows, settings.perturbation_std, settings.seed
    )
    closed, alphas = ClosedLimits(problem), truth.points(settings.points)
    exact, bounds = truth.moments(problem, alphas, settings.k)
    slope = closed.average(closed.evidence_slope(), truth.MODEL)
    shown = [float(one) for one in np.linspace(0.0, 1.0, 101)]
    lines, best = truth.curves(exact, slope, shown)
    counts = [k for k in settings.sampled_k if k in settings.k] or settings.k[:1]
    places = {(1, k): [f"{truth.families()[0].family}:{one!r}" for one in alphas[::4]] for k in counts}
    sampled = samples(settings, places, (truth.MODEL, truth.PROPOSAL))
    return {
        "exact": exact,
        "bounds": bounds,
        "lines": lines,
        "best": best,
        "limits": truth.limits(problem, alphas),
        "facts": pd.DataFrame([{"best_constant": truth.best_constant(problem), "points": settings.points}]),
        "between": truth.checked(exact, problem, settings.between),
        "samples": sampled,
        "sampled": truth.sampled(sampled, exact, slope),
        "ends": truth.near_the_ends(problem, settings.k[:2], settings.near),
    }


def draw(table: Table) -> Figure:
    """Error and ratio against α for several K, and the best α against K."""
    figure, panels = style.panels(2, 2, aspect=0.74)
    lines, best = table["lines"], table["best"]
    shown = list(dict.fromkeys(lines.K))[::2]
    names = list(dict.fromkeys(lines.estimator))
    for axes, measure, letter, title, label in (
        (panels[0, 0], "model_rmse", "a", "Error of the model's gradient", r"RMSE to $\nabla_\theta\log Z$"),
        (panels[0, 1], "proposal_rmse", "b", "Error of the proposal's gradient", r"RMSE to $\nabla_\phi L_K$ / norm"),
        (panels[1, 0], "proposal_snr", "c", "Signal of the proposal's gradient", r"SNR of the gradient in $\phi$"),
    ):  # fmt: skip
        _against_alpha(axes, lines, best, measure, shown, names)
        _circles(axes, table, measure, shown)
        axes.set(xlabel=r"order $\alpha$", ylabel=label, yscale="log")
        style.label_panel(axes, letter, title)
    _best(panels[1, 1], table)
    handles = [
        Line2D([], [], color=style.INK, linestyle=DASHES[n], label=plot.short(name))
        for n, name in enumerate(names)
    ]
    handles.append(Line2D([], [], color=style.INK, label=r"best $\alpha$", **BEST))
    handles.append(Line2D([], [], color=style.INK, label="sampled", **CIRCLE))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    style.label_ends(panels.ravel()[:3], fontsize="x-small", gap=4.0)
    return figure


DASHES = style.DASHES
BEST: dict[str, Any] = {"linestyle": "none", "marker": "*", "markersize": 6, "markeredgewidth": 0.3}


def _against_alpha(
    axes: Axes, lines: pd.DataFrame, best: pd.DataFrame, measure: str, shown: list[int], names: list[str]
) -> None:
    """A line for each K and estimator, those that are equal once, and a star at the best α."""
    for place, k in enumerate(shown):
        color, drawn = style.ordinal(place, len(shown)), []
        for dashes, name in zip(DASHES, names, strict=False):
            part = lines[(lines.K == k) & (lines.estimator == name)]
            scale = part.target.iloc[0] if measure == "proposal_rmse" else 1.0
            values = part[measure].to_numpy() / scale
            if any(np.allclose(values, other, rtol=1e-6) for other in drawn):
                continue
            label = f"$K={report.in_prose(k).strip('$')}$" if not drawn else "_"
            drawn.append(values)
            axes.plot(part.alpha, values, color=color, linestyle=dashes, linewidth=1.0, label=label)
            star = best[(best.K == k) & (best.estimator == name) & (best.measure == measure)]
            axes.plot(star.alpha, star.value / scale, color=color, **BEST)


def _circles(axes: Axes, table: Table, measure: str, shown: list[int]) -> None:
    """What a sample of the reparameterised gradient found."""
    lines, found = table["lines"], table["sampled"]
    for place, k in enumerate(shown):
        part = found[found.K == k]
        scale = lines[lines.K == k].target.iloc[0] if measure == "proposal_rmse" else 1.0
        axes.plot(part.alpha, part[measure] / scale, color=style.ordinal(place, len(shown)), **CIRCLE)


CIRCLE = {
    name: value for name, value in style.SAMPLED.items() if not name.startswith(("e", "cap"))
}  # of a size that hides the error bars


def _best(axes: Axes, table: Table) -> None:
    """The best α against K by each measure, and the law of the model's."""
    best, constant = table["best"], table["facts"].best_constant[0]
    first = best.estimator.iloc[0]
    looks = {
        "model_rmse": (r"RMSE to $\nabla_\theta\log Z$", style.BLUE, "o"),
        "proposal_rmse": (r"RMSE to $\nabla_\phi L_K$", style.RED, "s"),
        "proposal_snr": (r"SNR in $\phi$", style.GREEN, "^"),
    }
    for name, (label, color, marker) in looks.items():
        part = best[(best.measure == name) & (best.estimator == first) & (best.alpha > 0)]
        axes.plot(part.K, part.alpha, label=label, color=color, marker=marker, markersize=3.6, linewidth=1.0)
    model = best[(best.measure == "model_rmse") & (best.estimator == first)]
    k = model.K.to_numpy()
    far = k[k >= 4 * constant]
    axes.plot(far, constant / far, label=f"{report.in_prose(constant, 3)}$/K$", **style.GUIDE)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="particles $K$",
        ylabel=r"best $\alpha$",
        ylim=(model.alpha[model.alpha > 0].min() / 20 if model.alpha.any() else None, 2.0),
    )
    axes.legend(loc="lower left", fontsize="x-small")
    style.label_panel(axes, "d", rf"Best order ({plot.short(first)})")


def caption(table: Table) -> str:
    """What the figure shows."""
    return (
        "VR-IWAE on the toy problem. Exact root-mean-square error (the root of the mean squared error's trace) "
        "of (a) "
        "the model's gradient to $\\nabla_\\theta\\log Z$, (b) the proposal's to $\\nabla_\\phi L_K$ in units "
        "of its norm, and "
        "(c) signal-to-noise ratio of the proposal's, against the order α for several $K$: lines are "
        "polynomials through "
        f"exact values at {table['facts'].points[0]} orders. Dashed where it differs: doubly reparameterised. Stars: "
        f"best order; circles: {table['samples'].replicates.iloc[0]:,} replicates. (d) The best order against $K$ by "
        f"each measure, and its law for the model (dashed){_at_zero(table)}."
    )


def _at_zero(table: Table) -> str:
    """What a logarithmic axis does not show."""
    best = table["best"]
    none = best[
        (best.measure == "model_rmse") & (best.estimator == best.estimator.iloc[0]) & (best.alpha == 0)
    ]
    where = ", ".join(f"{k:,}" for k in sorted(none.K))
    return f"; the model's is 0 at $K$ = {where}" if where else ""


STUDY = Study(
    name="alpha",
    order=31,
    title="Between IWAE and the ELBO",
    question="Which order α of VR-IWAE is best at each number of particles?",
    settings=AlphaSettings,
    quick={"k": (2, 512, 32_768, 1_000_000), "points": 9},
    full={
        "k": (2, 8, 32, 128, 512, 4096, 32_768, 10**6, 10**9, 10**12),
        "points": 25,
        "rows": 8,
        "replicates": 5000,
        "blocks": 20,
    },
    experiments=(SAMPLES,),
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="Means, variances and bounds at each α and $K$ are integrals over the Laplace transform of "
    "$w^{1-\\alpha}$, at "
    "Chebyshev points of α; between these points the moments are polynomials in α.",
)
