"""What the inference network's gradient tends to: K·E[Δ(φ)] against −∇φVar[w]/(2Z²)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import toyiwae
from analysis import measures, report, style
from analysis.closed_limits import ClosedLimits
from analysis.settings import Settings
from analysis.study import Claim, Study, Table, track
from toyiwae import estimators
from toyiwae.oracle.enclosure import enclose
from toyiwae.problems.linear_gaussian import Data

INFERENCE = ("proposal_offset", "proposal_weight")


class LimitSettings(Settings):
    """The toy problem, the range of K, and the values of K whose coordinates are drawn."""

    dimension: int = 20
    rows: int = 1024
    perturbation_std: float = 0.01
    seed: int = 0
    largest_k: int = 10**9
    per_decade: int = 2
    shown_k: tuple[int, ...] = (1, 4, 16, 64)
    checked_rows: int = 2
    checked_k: tuple[int, ...] = (4, 1000, 1_000_000)


def compute(settings: LimitSettings) -> Table:
    """K·E[Δ] and its limit, coordinate by coordinate where shown, and their distance for every K."""
    problem = toyiwae.paper_problem(
        settings.dimension, settings.rows, settings.perturbation_std, settings.seed
    )
    limits = ClosedLimits(problem)
    drift = limits.inference_drift()
    limit = {name: limits.average(drift, name).ravel() for name in INFERENCE}
    grid = measures.counts(settings.largest_k, settings.per_decade)
    truth = toyiwae.exact(
        problem, K=sorted({*grid, *settings.shown_k}), estimators="iwae", parameters=INFERENCE
    )
    distances, shown = [], []
    for cell in track(truth.results, lambda cell: f"K = {cell.K}"):
        for name in INFERENCE:
            moments = cell.gradients["iwae"].parameters[name]
            scaled, error = cell.K * np.ravel(moments.mean), cell.K * np.ravel(moments.mean_error)
            size = np.linalg.norm(limit[name])
            distances.append(
                {
                    "K": cell.K,
                    "parameter": name,
                    "error": np.linalg.norm(scaled - limit[name]) / size,
                    "along": scaled @ limit[name] / size**2,
                    "stated_error": np.linalg.norm(error) / size,
                }
            )
            if cell.K in settings.shown_k:
                columns = {"index": np.arange(len(scaled)), "scaled_mean": scaled, "limit": limit[name]}
                shown.append(pd.DataFrame({"K": cell.K, "parameter": name} | columns))
    return {
        "distances": pd.DataFrame(distances),
        "coordinates": pd.concat(shown, ignore_index=True),
        "check": _check(problem, settings),
    }


def _check(problem: toyiwae.Problem, settings: LimitSettings) -> pd.DataFrame:
    """Some coordinates of the mean over the first rows beside the multiprecision integrals, right to thirty digits."""
    few = dataclasses.replace(problem, data=Data(problem.data.x[: settings.checked_rows]))
    truth = toyiwae.exact(few, K=settings.checked_k, estimators="iwae", parameters=INFERENCE)
    form, last = estimators.get("iwae").form, problem.dim_z - 1
    assert form is not None
    jobs = {"proposal_offset": [(0,), (last,)], "proposal_weight": [(0, last), (last // 2, 1)]}
    asked = {name: (form, name, places) for name, places in jobs.items()}
    right = enclose.gradients(few, asked, settings.checked_k, digits=30)
    rows = []
    for index, cell in enumerate(truth.results):
        for name, places in jobs.items():
            mean = np.asarray(cell.gradients["iwae"].parameters[name].mean)
            for column, place in enumerate(places):
                known = float(right[name].mean[index, column].mid())
                where = ",".join(map(str, place))
                rows.append((cell.K, name, where, mean[place], float(abs((mean[place] - known) / known))))
    return pd.DataFrame(rows, columns=["K", "parameter", "index", "mean", "relative_error"])


def draw(table: Table) -> Figure:
    """Each coordinate against its limit for a few K, and the relative distance of all of them for every K."""
    coordinates, distances = table["coordinates"], table["distances"]
    figure, (left, right) = style.panels(1, 2, aspect=0.85)
    reach = 1.08 * coordinates[["scaled_mean", "limit"]].abs().to_numpy().max()
    left.plot([-reach, reach], [-reach, reach], **style.GUIDE, zorder=1)
    shown = coordinates.K.unique()
    for index, k in enumerate(shown):
        part = coordinates[coordinates.K == k]
        left.plot(
            part.limit, part.scaled_mean, ".", markersize=2.6, markeredgewidth=0, alpha=0.8,
            color=style.ordinal(index, len(shown)), label=f"$K={k}$", rasterized=True,
        )  # fmt: skip
    left.set(
        xlabel=r"$-\nabla_\phi\mathrm{Var}[w]\,/\,(2Z^2)$",
        ylabel=r"$K\,\mathrm{E}[\Delta_K(\phi)]$",
        xlim=(-reach, reach),
        ylim=(-reach, reach),
    )
    left.legend(loc="upper left", markerscale=3, handletextpad=0.1)
    style.label_panel(left, "a", "Each coordinate against its limit")
    for name, look in _LOOKS.items():
        part = distances[distances.parameter == name]
        right.loglog(part.K, part.error, markersize=3.4, markeredgewidth=0.8, **look)
    k = distances.K.unique()
    last = distances.error.iloc[-1]
    right.loglog(k, 3 * last * k[-1] / k, label="slope −1", **style.GUIDE)
    right.set(xlabel="particles $K$", ylabel="relative distance from the limit")
    right.legend(loc="lower left")
    style.label_panel(right, "b", "All coordinates together")
    return figure


_LOOKS: dict[str, dict[str, Any]] = {
    "proposal_offset": {"label": "offset $b$", "color": style.BLUE, "marker": "o", "linewidth": 1.0},
    "proposal_weight": {
        "label": "weight $A$", "color": style.RED, "marker": "D", "linestyle": "none", "markerfacecolor": "none",
    },
}  # fmt: skip


def verdicts(table: Table) -> list[Claim]:
    """The limit is reached, with a remainder that falls like 1/K."""
    distances = table["distances"]
    last = distances[distances.K == distances.K.max()]
    largest, along = int(last.K.iloc[0]), measures.farthest(last.along, 1.0)
    tail = distances[(distances.K >= largest**0.5) & (distances.K <= largest)]
    check, stated = table["check"], float(distances.stated_error.max())
    slope = np.concatenate([measures.slopes(part.K, part.error) for _, part in tail.groupby("parameter")])
    return [
        Claim.near(
            "The inference network's mean gradient, times $K$, tends to minus the slope of Var[w]/(2Z²).",
            r"K\,\mathrm{E}[\Delta_K(\phi)]\to-\frac{\nabla_\phi\mathrm{Var}[w]}{2Z^2}",
            along,
            expected=1.0,
            within=1 / largest,
            note=f"The exact mean at $K$ = {largest:,}, projected on the limit and divided by it (the worse of both "
            "parameters); the limit comes from closed Gaussian integrals that share no code with the oracle. The "
            "tolerance is $1/K$.",
            source="slide: inference gradient; rainforth2018tighter",
            condition=r"$\mathrm{Var}[w]<\infty$ and $\nabla_\phi\mathrm{Var}[w]\ne 0$",
        ),
        Claim.near(
            "The distance from that limit falls like $1/K$.",
            r"\mathrm{E}[\Delta_K(\phi)]=-\frac{\nabla_\phi\mathrm{Var}[w]}{2KZ^2}+O(K^{-2})",
            measures.farthest(slope, -1.0),
            expected=-1.0,
            within=0.02,
            note=f"The local slope of panel (b) farthest from −1 for $K\\ge$ {tail.K.min():,}.",
            source="rainforth2018tighter",
            condition=r"$\mathrm{E}[w^3]<\infty$",
        ),
        Claim(
            "The mean gradients are right to twelve digits.",
            r"\mathrm{E}[\Delta_K(\phi)]",
            float(check.relative_error.max()),
            high=1e-12,
            note="The largest relative difference from integrals evaluated in multiprecision arithmetic, right to "
            f"thirty digits: {len(check)} means of the gradient for a few observations, up to $K$ = "
            f"{check.K.max():,}. The oracle states errors of at most {report.in_prose(stated)} of the limit.",
        ),
    ]


def caption(table: Table) -> str:
    """What the figure shows."""
    shown = ", ".join(str(k) for k in table["coordinates"].K.unique())
    return (
        "The exact mean gradient of IWAE in the proposal's parameters on the toy problem, averaged over the data. "
        f"(a) $K$ times each coordinate for $K$ = {shown}, against its limit; the dashed line is equality. "
        "(b) The distance from the limit in Euclidean norm, relative to the limit's own, and a line of slope −1."
    )


STUDY = Study(
    name="limit",
    order=3,
    title="What the inference network learns from",
    question="Which direction does the gradient of the inference network follow when $K$ is large?",
    settings=LimitSettings,
    quick={"dimension": 5, "rows": 8, "per_decade": 2},
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="The means at finite $K$ are the oracle's integrals over Laplace transforms. The limit is a closed form of "
    "the two Gaussians: $\\mathrm{E}[w^2]/Z^2$ is the mass of $p(z\\mid x)^2/q(z)$.",
    cost=12.0,
)
