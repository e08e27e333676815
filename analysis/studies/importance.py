"""Simple Monte Carlo from the prior beside importance sampling: variance, bound, and the divergence that is the gap."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import toyiwae
from analysis import measures, style
from analysis.closed_limits import ClosedLimits
from analysis.settings import Settings
from analysis.studies._importance_claims import IMPORTANCE, POSTERIOR, SIMPLE, verdicts
from analysis.study import Study, Table
from toyiwae import Problem, Proposal

LOOKS = {
    SIMPLE: {"color": style.RED, "linestyle": style.DASHES[1]},
    IMPORTANCE: {"color": style.BLUE, "linestyle": style.DASHES[0]},
}
MODEL = {
    "prior_mean": [0.4], "prior_cov": [[1.7]], "loading": [[1.1], [-0.6]], "offset": [0.2, -0.1],
    "noise_cov": [[0.5, 0.1], [0.1, 0.3]],
}  # fmt: skip
"""One latent, so that the divergence can be integrated over every particle."""


class ImportanceSettings(Settings):
    """The range of K, the size of the sample, the quadrature, and the problem of many dimensions."""

    shift: float = 0.35
    width: float = 1.4
    largest_k: int = 1_000_000
    sampled_k: tuple[int, ...] = (1, 4, 16, 64)
    replicates: int = 20_000
    seed: int = 3
    divergence_k: tuple[int, ...] = (1, 2, 3)
    nodes: int = 320
    dimension: int = 20
    rows: int = 64


def problems(settings: ImportanceSettings) -> dict[str, Problem]:
    """One model and observation with two proposals: the prior, and one near the posterior."""
    data = {"x": [1.3, -0.2]}
    prior = Problem.from_dict(
        {"model": MODEL, "proposal": {"mean": MODEL["prior_mean"], "cov": MODEL["prior_cov"]}, "data": data}
    )
    limits = ClosedLimits(prior)
    std = float(np.sqrt(limits.cov[0, 0]))
    near = Proposal(settings.width * limits.cov, mean=limits.mean[0] + settings.shift * std)
    return {SIMPLE: prior, IMPORTANCE: dataclasses.replace(prior, proposal=near)}


def compute(settings: ImportanceSettings) -> Table:
    """Exact variances and gaps, what a sample of them says, the divergence by quadrature, and checks."""
    found = problems(settings)
    grid = measures.counts(settings.largest_k, 4)
    asked = sorted({*grid, *(k + 1 for k in grid), *settings.divergence_k})
    curves, samples, divergences = [], [], []
    for name, problem in found.items():
        var = float(toyiwae.ClosedForms(problem).variance[0])
        cells = toyiwae.exact(problem, K=asked, parameters=[]).results
        curves += [(name, cell.K, cell.gap, np.sqrt(var / cell.K), cell.K in grid) for cell in cells]
        samples += [(name, *row) for row in _sampled(problem, settings)]
        for k in settings.divergence_k:
            gap = next(cell.gap for cell in cells if cell.K == k)
            divergences.append((name, k, gap, *_divergence(problem, k, settings.nodes)))
    columns = ["way", "K", "gap", "relative_std", "drawn"]
    sampled = ["way", "K", "replicates", "relative_std", "relative_std_se", "z_mean", "z_var"]
    return {
        "curves": pd.DataFrame(curves, columns=columns),
        "samples": pd.DataFrame(samples, columns=sampled),
        "divergence": pd.DataFrame(divergences, columns=["way", "K", "gap", "divergence", "coarser"]),
        "variance": _variances(settings),
    }


def _sampled(problem: Problem, settings: ImportanceSettings) -> list[tuple[float, ...]]:
    """Mean and variance of Ẑ/Z over replicates, in exact standard errors; from densities written by hand."""
    limits, rng = ClosedLimits(problem), np.random.default_rng(settings.seed)
    second, third, fourth = (float(limits.tilted(s).mass[0]) for s in (2, 3, 4))
    var = second - 1
    kurt = fourth - 4 * third + 6 * second - 3 - 3 * var**2  # the fourth cumulant of one weight
    rows, count = [], settings.replicates
    for k in settings.sampled_k:
        noise = rng.standard_normal((count, k))
        z = limits.proposal_mean[0, 0] + np.sqrt(problem.proposal.cov[0, 0]) * noise
        estimate = np.exp(_log_ratio(problem, z)).mean(axis=1)
        sample_var = float(estimate.var(ddof=1))
        var_se = np.sqrt((kurt / k**3 + 2 * (var / k) ** 2) / count)
        z_mean = (estimate.mean() - 1) / np.sqrt(var / k / count)
        std = np.sqrt(sample_var)
        rows.append(
            (k, count, std, var_se / (2 * std), float(z_mean), float((sample_var - var / k) / var_se))
        )
    return rows


def _log_ratio(problem: Problem, z: np.ndarray) -> np.ndarray:
    """Log p(z|x)/q(z) of one latent, from two normal densities."""
    limits, (q_var,) = ClosedLimits(problem), problem.proposal.cov[0]
    mean, var = limits.mean[0, 0], limits.cov[0, 0]
    to_posterior = -0.5 * ((z - mean) ** 2 / var + np.log(var))
    return to_posterior + 0.5 * ((z - limits.proposal_mean[0, 0]) ** 2 / q_var + np.log(q_var))


def _divergence(problem: Problem, k: int, nodes: int) -> tuple[float, float]:
    """KL(Q‖P) over all K particles by the trapezoidal rule in their noise, and with three quarters of the nodes."""
    found = []
    for count in (nodes, 3 * nodes // 4):
        noise, step = np.linspace(-8.5, 8.5, count, retstep=True)
        mass = step * np.exp(-0.5 * noise**2) / np.sqrt(2 * np.pi)
        z = problem.rows().proposal_mean[0, 0] + np.sqrt(problem.proposal.cov[0, 0]) * noise
        ratio, others, weight = np.exp(_log_ratio(problem, z)), np.zeros(1), np.ones(1)
        for _ in range(k - 1):  # sums of the weights of all particles but the first, and their masses
            others = np.add.outer(others, ratio).ravel()
            weight = np.multiply.outer(weight, mass).ravel()
        parts = [-one * (weight @ np.log((others + own) / k)) for own, one in zip(ratio, mass, strict=True)]
        found.append(float(sum(parts)))
    return found[0], found[1]


def _variances(settings: ImportanceSettings) -> pd.DataFrame:
    """Var[w]/Z² of every observation of the toy problem: from the prior, from its proposal, from its posterior."""
    toy = toyiwae.paper_problem(settings.dimension, settings.rows, 0.01, 0)
    limits = ClosedLimits(toy)
    weight = limits.cov @ toy.model.loading.T @ np.linalg.inv(toy.model.noise_cov)
    offset = limits.cov @ limits.prior_precision @ toy.model.prior_mean - weight @ toy.model.offset
    every = {
        SIMPLE: Proposal(toy.model.prior_cov, mean=toy.model.prior_mean),
        IMPORTANCE: toy.proposal,
        POSTERIOR: Proposal(limits.cov, weight=weight, offset=offset),
    }
    parts = []
    for name, proposal in every.items():
        problem = dataclasses.replace(toy, proposal=proposal)
        own, other = toyiwae.ClosedForms(problem).variance, ClosedLimits(problem).weight_variance()
        parts.append(pd.DataFrame({"way": name, "row": range(len(own)), "variance": own, "check": other}))
    return pd.concat(parts, ignore_index=True)


def draw(table: Table) -> Figure:
    """The relative standard deviation of the evidence estimate, and the gap with the divergences on it."""
    curves, samples, found = table["curves"], table["samples"], table["divergence"]
    figure, (left, right) = style.panels(1, 2, aspect=0.8)
    for name, look in LOOKS.items():
        own = curves[(curves.way == name) & curves.drawn]
        left.loglog(own.K, own.relative_std, label=name, **look)
        right.loglog(own.K, own.gap, label=name, **look)
        seen = samples[samples.way == name]
        left.errorbar(seen.K, seen.relative_std, seen.relative_std_se, color=look["color"], **style.SAMPLED)
        at = found[found.way == name]
        right.plot(at.K, at.divergence, "D", markersize=4, markerfacecolor="none", color=look["color"])
    left.errorbar([], [], [], color=style.GREY, label="sampled, ± 1 s.e.", **style.SAMPLED)
    right.plot(
        [],
        [],
        "D",
        markersize=4,
        markerfacecolor="none",
        color=style.GREY,
        label=r"KL$(Q\,\Vert\,P)$ by quadrature",
    )
    left.set(xlabel="particles $K$", ylabel=r"std$[\hat Z]\,/\,Z$")
    right.set(xlabel="particles $K$", ylabel=r"gap $\log Z-L_K$ (nats)")
    for axes, letter, title in (
        (left, "a", "The estimate of $Z$"),
        (right, "b", "The bound on its logarithm"),
    ):
        axes.legend(loc="lower left")
        style.label_panel(axes, letter, title)
    return figure


def caption(table: Table) -> str:
    """What the figure shows."""
    samples, found = table["samples"], table["divergence"]
    return (
        "One latent and two observed coordinates; particles from the prior (simple Monte Carlo, dashed) and from a "
        "proposal near the posterior (importance sampling, solid). (a) Standard deviation of the mean "
        "weight in units of "
        f"the evidence: exact, and from {samples.replicates.iloc[0]:,} replicates. (b) The exact gap of the "
        f"bound, and the "
        "divergence between the law of the particles and that in which one of them, drawn at random, comes from the "
        f"posterior, by quadrature over all particles ($K$ = {', '.join(str(k) for k in found.K.unique())})."
    )


STUDY = Study(
    name="importance",
    order=10,
    title="From simple Monte Carlo to the bound",
    question="What does a proposal buy, and what is the gap of the bound?",
    settings=ImportanceSettings,
    quick={"largest_k": 1000, "replicates": 4000, "divergence_k": (1, 2), "rows": 4, "dimension": 5},
    full={"replicates": 400_000, "rows": 1024},
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="$P_\\mathrm{IS}$ is the law of $K$ particles of which one, chosen at random, is drawn from the "
    "posterior and "
    "the others from the proposal, $Q_\\mathrm{IS}$ that of $K$ from the proposal.",
    cost=3.0,
)
