"""Inference against maximum likelihood: the exact best proposal for each K where the family lacks the posterior."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar

import toyiwae
from analysis import report, style
from analysis.settings import Settings
from analysis.studies import _optimum_claims as claims
from analysis.studies._targets import problem_with
from analysis.study import Study, Table
from toyiwae import ClosedForms, Problem, optimal_proposals


class OptimumSettings(Settings):
    """The correlation of the posterior, the values of K, and those that are drawn and sought a second time."""

    correlation: float = 0.7
    k: tuple[int, ...] = (1, 3, 10, 64, 1000, 100_000)
    shown_k: tuple[int, ...] = (1, 3)
    checked_k: tuple[int, ...] = (64,)


def compute(settings: OptimumSettings) -> Table:
    """The path of optimal mean-field proposals, what each costs, its limits, and independent minima."""
    rho = settings.correlation
    problem = _posterior(rho)
    grid = sorted({*settings.k, *settings.shown_k, *settings.checked_k})
    optima = optimal_proposals(problem, [*grid, math.inf])
    marginal = np.diag(ClosedForms(problem).posterior.cov)
    path = pd.DataFrame([_described(one, marginal) for one in optima])
    first, last = optima[0].problem, optima[-1].problem
    for name, fixed in (("first", first), ("last", last)):
        gaps = toyiwae.exact(fixed, K=grid, parameters=[]).results
        path[f"{name}_gap"] = [cell.gap for cell in gaps] + [math.nan]
    checked = [(k, _best_variance(rho, k)) for k in settings.checked_k]
    return {
        "path": path,
        "limits": pd.DataFrame([{"correlation": rho, "first": 1 - rho**2, "last": _least_variance(rho)}]),
        "checked": pd.DataFrame(checked, columns=["K", "variance"]),
        "threshold": pd.DataFrame([{"correlation": _threshold()}]),
        "posterior": _ellipse_data(problem, optima, settings),
    }


def _posterior(correlation: float) -> Problem:
    """A posterior in two dimensions; the proposal it comes with plays no part."""
    std = np.array([1.1, 0.8])
    cov = np.outer(std, std) * np.array([[1.0, correlation], [correlation, 1.0]])
    return problem_with([0.5, -0.3], cov, [0.0, 0.0], np.diag(np.diag(cov)))


def _described(one: Any, marginal: np.ndarray) -> dict[str, float]:
    forms = ClosedForms(one.problem)
    variance = np.diag(one.problem.proposal.cov) / marginal
    return {
        "K": one.particles,
        "variance_1": variance[0],
        "variance_2": variance[1],
        "gap": one.gap,
        "kl": float(forms.kl_to_posterior[0]),
        "tail_index": forms.ratio.tail_index,
        "slope": one.slope,
    }


def _ellipse_data(problem: Problem, optima: Any, settings: OptimumSettings) -> pd.DataFrame:
    """Mean and covariance of the posterior and of the proposals that are drawn."""
    posterior = ClosedForms(problem).posterior
    found = [("posterior", posterior.mean[0], posterior.cov)]
    for one in optima:
        if one.particles in settings.shown_k or math.isinf(one.particles):
            mean = np.ravel(one.problem.proposal.mean)
            found.append((f"{one.particles:g}", mean, one.problem.proposal.cov))
    rows = [(name, *mean, cov[0, 0], cov[0, 1], cov[1, 1]) for name, mean, cov in found]
    return pd.DataFrame(rows, columns=["what", "mean_1", "mean_2", "cov_11", "cov_12", "cov_22"])


def _least_variance(correlation: float) -> float:
    """The variance that makes E[w²] least, in units of the marginal one, for two latents with this correlation.

    At the optimum the density ∝ p²/q has q's variances: with c = 4/(1 − ρ²), its inverse x solves
    `4x² − 3cx + 2c = 0`.
    """
    c = 4 / (1 - correlation**2)
    return 8 / (3 * c - math.sqrt(9 * c**2 - 32 * c))


def _best_variance(correlation: float, particles: int) -> float:
    """The variance of least gap, by a search over gaps from sums over a grid of the noise."""
    noise = np.arange(0.05, 9.0, 0.1)
    mass = 2 * 0.1 * np.exp(-(noise**2) / 2) / math.sqrt(2 * math.pi)
    log_t = np.arange(-30.0, 40.0, 0.2)
    t = np.exp(log_t)
    both = np.outer(mass, mass).ravel()

    def gap(log_variance: float) -> float:
        width = math.exp(log_variance) / np.array([1 - correlation, 1 + correlation])
        log_w = [np.log(one) / 2 - (one - 1) * noise**2 / 2 for one in width]
        w = np.exp(np.add.outer(*log_w).ravel())
        transform = np.exp(-np.outer(t / particles, w)) @ both
        return float(np.sum(transform**particles - np.exp(-t))) * 0.2

    found = minimize_scalar(gap, bracket=(-0.5, 0.0), method="brent", options={"xtol": 1e-7})
    return math.exp(found.x)


def _threshold() -> float:
    """The correlation at which Var[w] becomes infinite for the optimum of KL(q‖p), by bisection."""
    low, high = 0.1, 0.9
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        (optimum,) = optimal_proposals(_posterior(middle), [1])
        if ClosedForms(optimum.problem).ratio.exists(2.0):
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def draw(table: Table) -> Figure:
    """The posterior and its proposals, their variance against K, what each K trades, and what a fixed one costs."""
    path = table["path"]
    finite = path[np.isfinite(path.K)]
    figure, ((first, second), (third, fourth)) = style.panels(2, 2, aspect=0.78)
    _ellipses(first, table["posterior"])
    style.label_panel(first, "a", "The best proposals")
    _variances(second, finite, table["limits"].iloc[0])
    style.label_panel(second, "b", "Their variance")
    for name, text, color, marker, place in (
        ("gap", r"$\log Z-L_K$", style.BLUE, "o", (0.45, 0.62)),
        ("kl", r"$\mathrm{KL}(q\,\Vert\,p)$", style.RED, "s", (0.62, 0.83)),
    ):
        third.loglog(finite.K, finite[name], color=color, marker=marker, markersize=3)
        third.text(*place, text, color=color, transform=third.transAxes)
    third.set(xlabel="particles $K$", ylabel="nats, at the best $q$ for $K$")
    style.label_panel(third, "c", "Likelihood gains, inference loses")
    for name, text, color, marker, place in (
        ("first", "best for $K=1$", style.RED, "s", (0.12, 0.62)),
        ("last", r"best for $K\to\infty$", style.BLUE, "o", (0.45, 0.12)),
    ):
        fourth.loglog(finite.K, finite[f"{name}_gap"] / finite.gap, color=color, marker=marker, markersize=3)
        fourth.text(*place, text, color=color, transform=fourth.transAxes)
    fourth.set(xlabel="particles $K$", ylabel="gap over the least gap")
    style.label_panel(fourth, "d", "What a fixed proposal costs")
    return figure


def _ellipses(axes: Axes, posterior: pd.DataFrame) -> None:
    """One standard deviation of the posterior and of the proposals."""
    angle = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angle), np.sin(angle)])
    shown = posterior[posterior.what != "posterior"]
    for index, row in enumerate(posterior.itertuples()):
        root = np.linalg.cholesky([[row.cov_11, row.cov_12], [row.cov_12, row.cov_22]])
        x, y = np.array([[row.mean_1], [row.mean_2]]) + root @ circle
        if row.what == "posterior":
            axes.fill(x, y, facecolor=style.GREY, alpha=0.25)
            axes.plot(x, y, color=style.GREY, linewidth=0.8, label="posterior")
            continue
        word = r"$K\to\infty$" if row.what == "inf" else f"$K={row.what}$"
        axes.plot(
            x,
            y,
            color=style.ordinal(index - 1, len(shown)),
            linestyle=style.DASHES[(index - 1) % 4],
            label=word,
        )
    axes.set(xlabel="$z_1$", ylabel="$z_2$", aspect="equal")
    axes.set_box_aspect(0.78)
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(
        loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize="small", handlelength=1.2, borderaxespad=0
    )


def _variances(axes: Axes, finite: pd.DataFrame, limits: pd.Series) -> None:
    """The variance between its limits."""
    axes.semilogx(finite.K, finite.variance_1, marker="o", markersize=3, **style.EXACT)
    lines = (
        (limits["first"], r"least $\mathrm{KL}(q\,\Vert\,p)$"),
        (1.0, "posterior's marginal"),
        (limits["last"], r"least $\mathrm{Var}[w]$"),
    )
    for value, text in lines:
        axes.axhline(value, **style.GUIDE)
        axes.text(finite.K.iloc[-1], value, text, ha="right", va="bottom", color=style.GREY, fontsize="small")
    top = float(limits["last"])
    axes.set(
        xlabel="particles $K$",
        ylabel="variance of $q$ / marginal",
        ylim=(0.4 * float(limits["first"]), 1.15 * top),
    )


def caption(table: Table) -> str:
    """What the figure shows."""
    rho, path = float(table["limits"].correlation[0]), table["path"]
    return (
        f"The best mean-field proposal for each $K$, for a posterior of two latents with correlation {rho:g}. (a) One "
        "standard deviation of both. (b) The variance of $q$ in units of the posterior's marginal one. (c) What the "
        "objective gains and what inference loses. (d) The gap of two fixed proposals over the least one. All values "
        f"are exact; the largest $K$ is {report.in_prose(float(path[np.isfinite(path.K)].K.max()))}."
    )


STUDY = Study(
    name="optimum",
    order=22,
    title="Inference against maximum likelihood",
    question="Which proposal does each $K$ ask for, where the family does not hold the posterior?",
    settings=OptimumSettings,
    quick={"k": (1, 64), "shown_k": (1,)},
    full={"k": tuple(2**power for power in range(31)), "checked_k": (2, 8, 64, 512)},
    compute=compute,
    draw=draw,
    verdicts=claims.verdicts,
    caption=caption,
    method="The optimum is followed through $K$ by quasi-Newton steps on the exact gap and its exact gradient. "
    "Rescaling a coordinate rescales the optimum, so that variances are in units of the marginal ones.",
)
