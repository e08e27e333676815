"""Histograms of one coordinate of each network's gradient, with particles outside (VAE) and inside the logarithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import toyiwae
from analysis import measures, style
from analysis.settings import Settings
from analysis.study import Claim, Study, Table, track
from toyiwae import Problem, montecarlo, plot, stats

NETWORKS = {"prior_mean": r"generative network $\theta$", "proposal_offset": r"inference network $\phi$"}
WAYS = {"elbo": "M", "iwae": "K"}
"""Estimator -> what grows: the groups outside the logarithm, or the particles inside."""
REACH, BINS = 4.5, 45


class HistogramSettings(Settings):
    """The toy problem, how many particles, and the size of the sample."""

    dimension: int = 5
    rows: int = 16
    perturbation_std: float = 0.05
    seed: int = 0
    counts: tuple[int, ...] = (1, 10, 100, 1000)
    replicates: int = 600
    sample_seed: int = 5


def compute(settings: HistogramSettings) -> Table:
    """Exact moments of the coordinate with the median ratio, histograms of replicates, and how well both agree."""
    problem = toyiwae.paper_problem(
        settings.dimension, settings.rows, settings.perturbation_std, settings.seed
    )
    exact = {
        (way, count): toyiwae.exact(
            problem, **_sizes(letter, count), estimators=way, parameters=tuple(NETWORKS)
        )
        for way, letter in WAYS.items()
        for count in settings.counts
    }
    first = exact["iwae", settings.counts[0]].results[0].gradients["iwae"].parameters
    place = {name: _middle(first[name].snr) for name in NETWORKS}
    summaries, histograms = [], []
    for (way, count), truth in track(list(exact.items()), lambda one: f"{one[0][0]}, {one[0][1]} particles"):
        values = _replicates(problem, way, count, settings)
        for name in NETWORKS:
            moments, at = truth.results[0].gradients[way].parameters[name], place[name]
            mean, std = float(moments.mean[at]), float(np.sqrt(moments.var[at]))
            found = stats.Moments.of(values[name][:, at])
            keys = {"estimator": way, "count": count, "parameter": name}
            z = (found.mean - mean) / (std / np.sqrt(found.count))
            z_var = (found.var - std**2) / found.var_se
            numbers = {"mean": mean, "std": std, "replicates": found.count, "z": z, "z_var": z_var}
            summaries.append(keys | {"index": at} | {key: float(value) for key, value in numbers.items()})
            scaled = np.sign(mean) * values[name][:, at] / std
            edges = abs(mean) / std + np.linspace(-REACH, REACH, BINS + 1)
            density, _ = np.histogram(scaled, edges)
            columns = {
                "left": edges[:-1],
                "right": edges[1:],
                "density": density / found.count / np.diff(edges),
            }
            histograms.append(pd.DataFrame(keys | columns))
    return {"summaries": pd.DataFrame(summaries), "histograms": pd.concat(histograms, ignore_index=True)}


def _sizes(letter: str, count: int) -> dict[str, int]:
    return {"K": 1, "M": count} if letter == "M" else {"K": count, "M": 1}


def _middle(snr: Any) -> int:
    """The coordinate whose ratio is the median, by rank."""
    return int(np.argsort(np.asarray(snr), kind="stable")[len(snr) // 2])


def _replicates(problem: Problem, way: str, count: int, settings: HistogramSettings) -> dict[str, np.ndarray]:
    """Gradients `[R, D]` by parameter."""
    chunks = list(
        montecarlo.replicates(
            problem, way, **_sizes(WAYS[way], count), replicates=settings.replicates, seed=settings.sample_seed,
            parameters=tuple(NETWORKS), threads=1,
        )
    )  # fmt: skip
    return {name: np.concatenate([np.asarray(c.gradients[way][name]) for c in chunks]) for name in NETWORKS}


def draw(table: Table) -> Figure:
    """A strip for each number of particles; rows of panels are networks, columns the two ways of spending particles."""
    summaries, histograms = table["summaries"], table["histograms"]
    counts = sorted(summaries["count"].unique())
    figure, panels = style.panels(2, 2, aspect=0.62, sharex=True)
    for row, (name, network) in enumerate(NETWORKS.items()):
        for column, (way, letter) in enumerate(WAYS.items()):
            axes, color = panels[row, column], plot.look(way)["color"]
            for height, count in enumerate(reversed(counts)):
                keys = {"estimator": way, "count": count, "parameter": name}
                part, facts = _at(histograms, keys), _at(summaries, keys).iloc[0]
                edges = np.append(part.left, part.right.iloc[-1])
                axes.stairs(
                    height + 1.6 * part.density, edges, baseline=height, fill=True, alpha=0.35, color=color
                )
                axes.stairs(height + 1.6 * part.density, edges, baseline=height, color=color, linewidth=0.6)
                center = abs(facts["mean"]) / facts["std"]
                axes.plot(
                    [center - 1, center + 1], [height, height], color=style.INK, linewidth=2.2, zorder=3
                )
                axes.plot(center, height, "|", color=style.INK, markersize=9, markeredgewidth=1.4, zorder=4)
            axes.axvline(0, **style.GUIDE, zorder=0)
            axes.set_yticks(range(len(counts)), [f"${letter}={count}$" for count in reversed(counts)])
            axes.set_ylim(-0.35, len(counts))
            axes.spines["left"].set_visible(False)
            axes.tick_params(axis="y", length=0, labelleft=True)
            style.label_panel(axes, "abcd"[2 * row + column], f"{plot.short(way)}: {network}")
    for axes in panels[1]:
        axes.set_xlabel(r"gradient over its exact standard deviation")
    return figure


def _at(frame: pd.DataFrame, keys: dict[str, Any]) -> pd.DataFrame:
    return frame[np.logical_and.reduce([frame[key] == value for key, value in keys.items()])]


def verdicts(table: Table) -> list[Claim]:
    """What the histograms show, in exact numbers, and that the sample has the exact moments."""
    summaries = table["summaries"]
    ratio = summaries.assign(snr=summaries["mean"].abs() / summaries["std"]).pivot(
        index="count", columns=["estimator", "parameter"], values="snr"
    )
    few, many = ratio.index.min(), ratio.index.max()
    growth = np.log(ratio.loc[many] / ratio.loc[few]) / np.log(many / few)
    where = f"the exact ratio from {few} to {many:,} particles"
    theta, phi = NETWORKS
    return [
        Claim.near(
            "Averages of the ELBO's gradient separate from zero for both networks alike.",
            r"\mathrm{SNR}_{M,1}=\sqrt{M}\,\mathrm{SNR}_{1,1}",
            measures.farthest(growth["elbo"], 0.5),
            expected=0.5,
            within=1e-12,
            note=f"The exponent of {where}, the worse of both networks.",
            source="slide: gradient histograms; rainforth2018tighter",
        ),
        Claim(
            "With more particles in the logarithm the generative network's gradient separates from zero.",
            r"\mathrm{SNR}_{1,K}(\theta)\to\infty",
            float(growth["iwae"][theta]),
            low=0.0,
            note=f"The exponent of {where}: from {ratio['iwae'][theta][few]:.3f} to "
            f"{ratio['iwae'][theta][many]:.3f}.",
            source="slide: gradient histograms; rainforth2018tighter",
            condition=r"$\partial_\theta\log Z\ne 0$",
        ),
        Claim(
            "The inference network's gradient sinks into its noise.",
            r"\mathrm{SNR}_{1,K}(\phi)\to 0",
            float(growth["iwae"][phi]),
            high=-0.4,
            note=f"The exponent of {where}: from {ratio['iwae'][phi][few]:.3f} to "
            f"{ratio['iwae'][phi][many]:.4f}; its limit "
            "is −1/2.",
            source="slide: gradient histograms; rainforth2018tighter",
            condition=r"$\mathrm{Var}[w]<\infty$",
        ),
        _agreement(summaries),
    ]


def _agreement(summaries: pd.DataFrame) -> Claim:
    count = int(summaries.replicates.iloc[0])
    z, limit, tests = measures.agreement(np.concatenate([summaries.z, summaries.z_var]), count)
    shift = measures.detectable(1 / np.sqrt(count), tests)
    return Claim(
        "The histograms have the exact means and variances.",
        r"\mathrm{E}[\Delta],\;\mathrm{Var}[\Delta]",
        z,
        high=limit,
        note=f"The largest $|z|$ of {tests} tests, mean and variance of every histogram, {count:,} "
        f"replicates, with a "
        f"family-wise error rate of {measures.RATE_TEXT}. A mean off by {shift:.2f} standard deviations "
        f"would have been "
        f"found with probability {measures.POWER}.",
    )


def caption(table: Table) -> str:
    """What the figure shows."""
    summaries = table["summaries"]
    return (
        f"{int(summaries.replicates.iloc[0]):,} replicates of one coordinate of the gradient on the toy "
        f"problem (the one "
        "whose ratio is the median with one particle), in units of its exact standard deviation, with the "
        "sign that makes "
        "its mean positive: the distance of a histogram from zero (dashed) is its signal-to-noise ratio. "
        "Bars: exact mean "
        "(tick) ± one exact standard deviation. Left: means of $M$ gradients of the ELBO. Right: IWAE with "
        "$K$ particles "
        "in the logarithm."
    )


STUDY = Study(
    name="histograms",
    order=12,
    title="Histograms of gradients",
    question="What do the gradients of both networks look like as particles are added?",
    settings=HistogramSettings,
    quick={"dimension": 3, "rows": 4, "counts": (1, 10, 100), "replicates": 400},
    full={"replicates": 20_000},
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="The histograms are sampled; means and standard deviations are exact.",
    cost=8.0,
)
