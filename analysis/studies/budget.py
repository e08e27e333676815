"""A fixed number of particles: how many groups, of how many particles, for which network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

import toyiwae
from analysis import style
from analysis.closed_limits import ClosedLimits
from analysis.settings import Settings
from analysis.studies import _budget_truth as truth
from analysis.studies._budget_claims import GROUPED, verdicts
from analysis.studies._sampled_gradients import SAMPLES, samples
from analysis.study import Study, Table
from toyiwae import estimators, plot
from toyiwae.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis


class BudgetSettings(Settings):
    """The toy problem, the budget T, and the values of β and of subsets' sizes that are compared at it."""

    dimension: int = 5
    rows: int = 2
    perturbation_std: float = 0.2
    seed: int = 0
    budget: int = 64
    betas: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.85, 1.0)
    sizes: tuple[int, ...] = (1, 4, 32, 64)
    sampled_k: int = 8
    replicates: int = 300
    blocks: int = 1
    sample_seed: int = 32


def compute(settings: BudgetSettings) -> Table:
    """Exact moments of all reparameterised estimators at every split of the budget."""
    if settings.sampled_k > settings.budget:
        raise InputError(
            f"settings of budget: sampled_k is {settings.sampled_k}: expected at most budget, {settings.budget}"
        )
    if not {0.0, 1.0} <= set(settings.betas):
        raise InputError(
            f"settings of budget: betas is {list(settings.betas)}: expected 0.0 and 1.0 among them"
        )
    problem = toyiwae.paper_problem(
        settings.dimension, settings.rows, settings.perturbation_std, settings.seed
    )
    sizes = [size for size in settings.sizes if size <= settings.budget]
    asked = truth.asked(settings.budget, settings.betas, sizes)
    exact, bounds, missing = truth.moments(problem, asked)
    together = truth.together(exact)
    found = samples(settings, truth.sampled_at(asked, settings.sampled_k), (truth.MODEL, truth.PROPOSAL))
    closed = ClosedLimits(problem)
    slope = closed.average(closed.evidence_slope(), truth.MODEL)
    return {
        "exact": exact,
        "bounds": bounds,
        "missing": missing,
        "together": together,
        "each": truth.each(problem, settings.budget, GROUPED),
        "samples": found,
        "sampled": truth.sampled(found, slope),
    }


def draw(table: Table) -> Figure:
    """Both networks against the particles in a logarithm, and one against the other."""
    figure, panels = style.panels(2, 2, aspect=0.74)
    frame = table["together"].copy()
    frame["inside"] = [_inside(name, k) for name, k in zip(frame.estimator, frame.K, strict=True)]
    total = frame[[plot.kind(name) == "total" for name in frame.estimator]]
    counts = sorted(set(frame.inside.dropna()))
    for axes, column, label, letter, title in (
        (panels[0, 0], "proposal_snr", r"SNR of the gradient in $\phi$", "a", "Signal of the proposal"),
        (panels[0, 1], "model_rmse", r"RMSE to $\nabla_\theta\log Z$", "b", "Error of the model"),
    ):
        for family, part in total.dropna(subset="inside").groupby("family", sort=False):
            part = part.sort_values("inside")
            axes.plot(part.inside, part[column], **_look(str(family)))
        _circles(axes, table["sampled"], column)
        axes.set(xscale="log", yscale="log", xlabel="particles inside the logarithm", ylabel=label)
        style.count_ticks(axes, [int(k) for k in counts])
        _plain_ticks(axes.yaxis, ERROR if column == "model_rmse" else RATIO)
        style.label_panel(axes, letter, title)
    _plane(panels[1, 0], total)
    style.label_panel(panels[1, 0], "c", "One network against the other")
    _plane(panels[1, 1], frame, lines=False)
    style.label_panel(panels[1, 1], "d", "All with a path derivative")
    handles = {}
    for axes in panels.ravel():
        found, labels = axes.get_legend_handles_labels()
        handles = dict(zip(labels, found, strict=True)) | handles
    figure.legend(
        list(handles.values()), list(handles), loc="outside lower center", ncols=4, fontsize="small"
    )
    return figure


def _inside(name: str, k: int) -> float:
    """Particles inside a logarithm: K, or the size of the subsets; none where β mixes two bounds."""
    one = estimators.get(name)
    if one.subsets is not None:
        return float(one.subsets)
    return float("nan") if one.parameter_name == "beta" else float(k)


def _circles(axes: Axes, found: pd.DataFrame, column: str) -> None:
    """What a sample found of those that panels (a) and (b) show."""
    shown = found[[plot.kind(name) == "total" for name in found.estimator]]
    inside = [_inside(name, k) for name, k in zip(shown.estimator, shown.K, strict=True)]
    axes.plot(inside, shown[column], color=style.INK, label="sampled", **CIRCLE)


CIRCLE = {
    "linestyle": "none", "marker": "o", "markersize": 7, "markerfacecolor": "none", "markeredgewidth": 0.6,
    "markeredgecolor": style.GREY,
}  # fmt: skip


def _look(family: str) -> dict:
    """An estimator's line with markers and label."""
    look = plot.look(family)
    return look | {"label": _called(family), "linewidth": 1.0, "markersize": 3.8}


def _called(family: str) -> str:
    """The name of a family that has groups."""
    return plot.short(family, 2)


def _plane(axes: Axes, frame: pd.DataFrame, *, lines: bool = True) -> None:
    """Error of the model against worth of the proposal's gradient: down and to the right is better."""
    for family, part in frame.groupby("family", sort=False):
        look = _look(str(family)) | ({} if lines else {"linestyle": "none"})
        part = part.sort_values("inside") if part.inside.notna().all() else part
        axes.plot(part.proposal_worth, part.model_rmse, **look)
        if lines and family in ("iwae", "ciwae"):
            _ends(axes, str(family), part, look["color"])
    if not lines:
        front = frame[frame.best].sort_values("model_rmse")
        axes.plot(front.proposal_worth, front.model_rmse, "s", **RING)
        axes.step(front.proposal_worth, front.model_rmse, where="post", zorder=0, **style.GUIDE)
    axes.set(
        xscale="log", yscale="log", ylabel=r"RMSE to $\nabla_\theta\log Z$",
        xlabel=r"$\|\nabla_\phi\,$target$\|\,/\,$RMSE",
    )  # fmt: skip
    axes.margins(
        *((0.14, 0.18) if lines else (0.05, 0.1))
    )  # room for the names of ends, and for whole markers
    _plain_ticks(axes.yaxis, ERROR)
    _plain_ticks(axes.xaxis, RATIO if lines else WIDE)


def _plain_ticks(axis: Axis, subs: tuple[float, ...]) -> None:
    """Plain numbers on a logarithmic axis of a decade or two."""
    axis.set_major_locator(LogLocator(subs=subs))
    axis.set_major_formatter(FormatStrFormatter("%g"))
    axis.set_minor_formatter(NullFormatter())


ERROR, RATIO, WIDE = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0), (1.0, 2.0, 5.0), (1.0,)
"""What is labelled in a decade of an error, of a ratio, and of one over several decades."""

RING = {
    "markersize": 8, "markerfacecolor": "none", "markeredgecolor": style.INK, "markeredgewidth": 0.6,
    "label": "no rival better in both",
}  # fmt: skip


def _ends(axes: Axes, family: str, part: pd.DataFrame, color: str) -> None:
    """Writes at the ends of a path where it begins and ends."""
    letter = "K" if family == "iwae" else r"\beta"
    below = family == "ciwae"
    for row, other in ((part.iloc[0], part.iloc[-1]), (part.iloc[-1], part.iloc[0])):
        value = row.K if family == "iwae" else estimators.get(row.estimator).parameter
        right = row.proposal_worth > other.proposal_worth
        axes.annotate(
            f"${letter}={value:g}$", (row.proposal_worth, row.model_rmse), fontsize="x-small", color=color,
            xytext=(6 if right else 0, (-8 if below else 4) if right else (-14 if below else 8)),
            textcoords="offset points", ha="left" if right else "center",
        )  # fmt: skip


def caption(table: Table) -> str:
    """What the figure shows."""
    frame, missing = table["together"], table["missing"]
    budget = int((frame.M * frame.K).max())
    front = frame[frame.best].sort_values("model_rmse")
    ends = [plot.label(row.estimator, row.M, row.K) for row in front.iloc[[0, -1]].itertuples(index=False)]
    best = f"those that no other beats in both, from {ends[0]} to {ends[1]}"
    absent, replicates = "", table["samples"].replicates.iloc[0]
    if len(missing):
        reasons = {row.estimator: row.reason for row in missing.itertuples(index=False)}
        absent = (
            " Not shown: "
            + "; ".join(
                f"{plot.short(name)}, {str(reason).removeprefix('no closed form: ')}"
                for name, reason in reasons.items()
            )
            + "."
        )
    return (
        f"A budget of $T$ = {budget} particles on the toy problem, $M$ groups of $K=T/M$. (a) Exact "
        f"signal-to-noise ratio of "
        "the proposal's gradient and (b) root-mean-square error of the model's to $\\nabla_\\theta\\log Z$, "
        "against the "
        "particles inside a logarithm; a U-statistic averages over all subsets of that size, CIWAE mixes the "
        "ends by β. "
        "(c) Both networks at once, from $K$ or β at one end to the other: down and to the right is better. "
        "The horizontal "
        "axis is the size of the gradient that the proposal is meant to follow over its error, the "
        "signal-to-noise ratio "
        f"where there is no bias. (d) The same for all estimators with a path derivative at every split; "
        f"squares: {best}. Circles in (a, b): {replicates:,} replicates.{absent}"
    )


STUDY = Study(
    name="budget",
    order=32,
    title="A fixed budget of particles",
    question="How should a fixed number of particles be split into groups, for the model and for the proposal?",
    settings=BudgetSettings,
    quick={"betas": (0.0, 0.1, 0.5, 1.0), "sizes": (1, 2, 64)},
    full={"rows": 8, "sizes": (1, 2, 4, 8, 16, 32, 64), "replicates": 1000, "blocks": 20},
    experiments=(SAMPLES,),
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="Means and variances are exact integrals over the Laplace transform of the weight; those of "
    "U-statistics are "
    "sums over the sizes of the overlap of two subsets.",
)
