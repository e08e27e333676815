"""Bounds from below and above at equal numbers of particles: how far from log p(x), and how noisy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import toyiwae
from analysis import example, measures, style
from analysis.closed_limits import ClosedLimits
from analysis.settings import Settings
from analysis.studies._gallery_claims import CUBO, verdicts
from analysis.study import Study, Table
from toyiwae import Problem, estimators, plot, stats
from toyiwae.forms import Bound
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.truth import averages, fourth_moments


class GallerySettings(Settings):
    """The range of K, how many particles each subset has, and the size of the sample."""

    largest_k: int = 10_000
    per_decade: int = 4
    subset: int = 8
    tail_k: int = 1_000_000
    jackknife_k: tuple[int, ...] = (256, 512)
    sampled_k: tuple[int, ...] = (16,)
    replicates: int = 4000
    seed: int = 4

    def reads(self) -> tuple[Path, ...]:
        """The problem of the documentation."""
        return (example.FILE,)


def members(subset: int) -> list[str]:
    """One estimator for each bound that the registry knows, and those of further orders of its families."""
    found: dict[Bound, str] = {}
    for one in estimators.all():
        name = f"{one.family}:{subset}" if one.parameter_name == "size" else one.name
        found.setdefault(estimators.get(name).value(16, 1), name)
    return [*found.values(), "jackknife:2", CUBO]


def compute(settings: GallerySettings) -> Table:
    """Exact expectations and standard deviations of every estimate, limits by other code, and a sample."""
    problem = example.problem()
    grid = sorted({*measures.counts(settings.largest_k, settings.per_decade), *settings.sampled_k})
    rows = []
    for name in members(settings.subset):
        one = estimators.get(name)
        extra = (*settings.jackknife_k, settings.tail_k)
        counts = [k for k in (*grid, *extra) if k >= one.min_particles]
        for k, value in zip(counts, _values(problem, [one.value(k, 1) for k in counts]), strict=True):
            rows.append((name, k, value, _std(problem, one.value(k, 1), k), k in grid))
    exact = pd.DataFrame(rows, columns=["estimator", "K", "value", "std", "drawn"])
    forms = toyiwae.ClosedForms(problem)
    facts = {
        "log_evidence": forms.log_evidence[0], "elbo": forms.elbo[0], "eubo": forms.eubo[0],
        "cubo": forms.cubo(2.0)[0],
        "vr": forms.vr_bound(0.5)[0], **_limits(problem),
    }  # fmt: skip
    return {"exact": exact, "samples": _sampled(problem, exact, settings), "facts": pd.DataFrame([facts])}


def _values(problem: Problem, bounds: list[Bound]) -> list[float]:
    """The bounds in nats above log p(x): sums of `(log E[w^e] − gap)/e` in units of the evidence."""
    counts = sorted({count for bound in bounds for count, _ in bound.exact})
    known = {}
    for exponent in {bound.exponent for bound in bounds}:
        found = averages.bounds(Whitened(problem), counts, exponent)
        values = (found.log_mean.value[0] - found.gap.value[0]) / exponent
        known[exponent] = dict(zip(counts, values, strict=True))
    return [sum(float(weight) * known[b.exponent][count] for count, weight in b.exact) for b in bounds]


def _std(problem: Problem, bound: Bound, k: int) -> float:
    """The standard deviation of the estimate from K particles, where it is that of a logarithm or of log-weights."""
    ((count, _),) = bound.exact if len(bound.exact) == 1 else ((0, 0),)
    if count not in (1, k):
        return np.nan
    var = fourth_moments.value(Whitened(problem), count, bound.exponent if count > 1 else 1.0).var.value
    return float(np.sqrt(np.ravel(var)[0] / (k // count)))


def _limits(problem: Problem) -> dict[str, float]:
    """Constants of the large-K laws from the two normal densities alone."""
    limits = ClosedLimits(problem)
    mass = {s: float(limits.tilted(s).mass[0]) for s in (0.5, 1.0, 2.0, 4.0)}
    relative = {e: mass[2 * e] / mass[e] ** 2 - 1 for e in (0.5, 1.0, 2.0)}
    return {
        "variance": relative[1.0],
        "vr_limit": np.log(mass[0.5]) / 0.5,
        "vr_constant": relative[0.5] / 2 / 0.5,
        "cubo_limit": np.log(mass[2.0]) / 2,
    }


def _sampled(problem: Problem, exact: pd.DataFrame, settings: GallerySettings) -> pd.DataFrame:
    """Mean and variance of every estimate over replicates, from densities written by hand."""
    limits, rng, rows = ClosedLimits(problem), np.random.default_rng(settings.seed), []
    chol = np.linalg.cholesky(problem.proposal.cov)
    halves = [np.linalg.slogdet(cov)[1] / 2 for cov in (limits.cov, problem.proposal.cov)]
    for k in settings.sampled_k:
        noise = rng.standard_normal((settings.replicates, k, problem.dim_z))
        apart = limits.proposal_mean[0] + noise @ chol.T - limits.mean[0]
        far = ((apart @ limits.precision) * apart).sum(-1)
        log_w = 0.5 * ((noise**2).sum(-1) - far) + halves[1] - halves[0]
        for name in exact.estimator.unique():
            value = estimators.get(name).value_of(log_w[:, None, :])
            truth = exact[(exact.estimator == name) & (exact.K == k)].iloc[0]
            found = stats.Moments.of(value)
            z = stats.z_score(found.mean, truth.value, found.mean_se)
            z_var = np.nan
            if np.isfinite(truth["std"]):
                z_var = float((found.var - truth["std"] ** 2) / found.var_se)
            rows.append((name, k, len(value), float(found.mean), float(found.mean_se), float(z), z_var))
    return pd.DataFrame(rows, columns=["estimator", "K", "replicates", "mean", "se", "z", "z_var"])


def draw(table: Table) -> Figure:
    """Expectations against K, distances from log p(x), standard deviations, and both together."""
    exact, facts = table["exact"], table["facts"].iloc[0]
    shown = exact[exact.drawn]
    names = list(shown.estimator.unique())
    figure, panels = style.panels(2, 2, aspect=0.78, sharex=True)
    (values, bias), (noise, error) = panels
    looks = dict(zip(names, plot.looks(names), strict=True))
    for name in names:
        own, look = shown[shown.estimator == name], looks[name] | {"linewidth": 1.1, "markersize": 3.2}
        look |= {"markevery": 4}
        values.plot(own.K, own.value, label=_label(name), **look)
        bias.plot(own.K, own.value.abs(), **look)
        noise.plot(own.K, own["std"], **look)
        error.plot(own.K, np.hypot(own.value, own["std"]), **look)
    for level, text in ((facts.eubo - facts.log_evidence, "EUBO"), (facts.cubo - facts.log_evidence, "CUBO")):
        values.axhline(level, **style.GUIDE)
        values.annotate(
            text, (1, level), (2, 2), textcoords="offset points", fontsize="small", color=style.GREY
        )
    values.axhline(0, color=style.INK, linewidth=0.8)
    values.set(xscale="log", ylabel=r"expectation $-\log p(x)$ (nats)", ylim=(None, 1.0))
    bias.set(yscale="log", ylabel="absolute bias (nats)", ylim=(1e-8, 3))
    noise.set(yscale="log", ylabel="standard deviation (nats)", xlabel="particles $K$")
    error.set(yscale="log", ylabel="root-mean-square error (nats)", xlabel="particles $K$")
    titles = ("Expectation", "Distance from the evidence", "Noise of one estimate", "Both together")
    for axes, letter, title in zip(panels.flat, "abcd", titles, strict=True):
        style.label_panel(axes, letter, title)
    handles, labels = values.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize="small")
    return figure


def _label(name: str) -> str:
    one = estimators.get(name)
    if name == CUBO:
        return "CUBO, estimated"
    parameter = f" ({one.parameter:g})" if one.parameter is not None else ""
    return f"{plot.short(name)}{parameter}"


def caption(table: Table) -> str:
    """What the figure shows."""
    return (
        "Two latents, three observed coordinates, one observation; every bound whose estimate the registry "
        "has, from $K$ "
        "particles. (a) Exact expectation of each estimate, less the evidence; dashed: the upper bounds, "
        "EUBO and CUBO. (b) Its absolute value: the bias as an "
        "estimate of "
        "$\\log p(x)$; where CUBO's estimate crosses the evidence, it dips. (c) Exact standard deviation of "
        "one estimate, "
        "where it is that of a logarithm or of a mean of log-weights, and (d) with the bias the "
        "root-mean-square error: "
        "for the ELBO more particles lower the noise alone, for IWAE both. Jackknife, U-statistic and "
        "linear combinations "
        "have no exact standard deviation here."
    )


STUDY = Study(
    name="gallery",
    order=11,
    title="A gallery of bounds",
    question="With more particles, is it better to tighten the bound or to lower the variance of its estimate?",
    settings=GallerySettings,
    quick={"largest_k": 100, "per_decade": 3, "replicates": 2000},
    full={"replicates": 40_000, "sampled_k": (16, 64), "largest_k": 1_000_000, "per_decade": 8},
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="Expectations are integrals over the Laplace transform of powers of the weight, variances of "
    "logarithms come "
    "from moments of the mean weight on a circle of complex orders.",
    cost=6.0,
)
