"""The effective sample size: how it grows with K, collapses with the dimension, and spreads over real images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import toyiwae
from analysis import measures, report, style
from analysis.closed_limits import ClosedLimits
from analysis.sampling import SampleSettings, paper_problem, sample, with_engine
from analysis.settings import Settings
from analysis.studies._ess_claims import verdicts
from analysis.studies._narrow_proposals import narrow
from analysis.study import Study, Table
from analysis.sweep import cells
from analysis.sweep.experiment import Experiment, Row, seed_of
from analysis.sweep.moments import sums, together
from toyiwae import stats
from toyiwae.problems.idx import find_idx

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def sampled_ess(settings: SampleSettings, block: int) -> Row:
    """Moments of the effective sample size over a block of replicates."""
    seed = seed_of(settings.sample_seed, block)
    found = sample(
        paper_problem(settings),
        K=settings.K,
        replicates=settings.replicates,
        seed=seed,
        engine=settings.engine,
    )
    return sums({"ess": found.ess})


def mean_ess(rows: Sequence[Row]) -> Row:
    """The mean over all replicates, and its standard error."""
    found = together(rows)["ess"]
    return {"mean": float(found.mean), "mean_se": float(found.mean_se), "replicates": found.count}


SAMPLES = Experiment("ess_samples", 1, SampleSettings, sampled_ess, with_engine, mean_ess)


class EssSettings(Settings):
    """The dimensions and counts of the toy problem, the widths of narrow proposals, images, and the sample's size."""

    dimensions: tuple[int, ...] = (1, 5, 20, 50, 100, 200)
    largest_k: int = 1_000_000
    per_decade: int = 2
    fixed_k: tuple[int, ...] = (64, 1000, 1_000_000)
    betas: tuple[float, ...] = (0.2, -0.3, -0.65, -0.75, -0.85)
    tail_k: int = 10**12
    images: int = 100
    latents: int = 10
    data_dir: str = ""
    mnist_images: int = 100
    image_k: tuple[int, ...] = (8, 64, 1024)
    seed: int = 0
    sampled_dimensions: tuple[int, ...] = (5, 20, 100)
    sampled_k: tuple[int, ...] = (4, 64)
    replicates: int = 2000
    blocks: int = 1
    sample_seed: int = 33

    def reads(self) -> tuple[Path, ...]:
        """MNIST's images, where their folder is given.

        Raises:
            InputError: a folder without them.
        """
        return tuple(find_idx(self.data_dir, split) for split in ("train", "t10k")) if self.data_dir else ()


def compute(settings: EssSettings) -> Table:
    """Exact sizes against K and dimension, with limits; for narrow proposals; per image; and sampled ones."""
    grid = sorted(
        {*measures.counts(settings.largest_k, settings.per_decade), *settings.fixed_k, *settings.sampled_k}
    )
    parts, limits = [], []
    for dimension in settings.dimensions:
        problem = toyiwae.paper_problem(dimension, 1, 0.0, settings.seed)
        parts.append(_sizes(problem, grid).assign(dimension=dimension))
        limits.append((dimension, 1 / (1 + float(ClosedLimits(problem).weight_variance()[0]))))
    curve = pd.concat(parts, ignore_index=True)
    far = sorted({*measures.counts(settings.tail_k, 2), settings.tail_k * 9 // 10})
    tails = [_sizes(narrow(beta), far).assign(beta=beta) for beta in settings.betas]
    return {
        "curve": curve,
        "limits": pd.DataFrame(limits, columns=["dimension", "fraction"]),
        "tails": pd.concat(tails, ignore_index=True),
        "images": _images(settings),
        "samples": _samples(settings, curve),
        "facts": pd.DataFrame([{"fixed": list(settings.fixed_k)}]).explode("fixed"),
    }


def _sizes(problem: toyiwae.Problem, counts: Sequence[int]) -> pd.DataFrame:
    truth = toyiwae.exact(problem, K=counts, parameters=[])
    rows = [(cell.K, cell.ess, cell.ess_error) for cell in truth.results]
    return pd.DataFrame(rows, columns=["K", "ess", "ess_error"])


def _images(settings: EssSettings) -> pd.DataFrame:
    """Gap and size of every image: of scikit-learn's digits, and of MNIST where its files are given."""
    problems = {"digits": toyiwae.digits_problem(settings.latents, settings.images)}
    if settings.data_dir:
        problems["MNIST"] = toyiwae.mnist_problem(
            settings.data_dir, n_images=settings.mnist_images, n_encoder_images=300, proposal_var_factor=1.25
        )
    parts = []
    for name, problem in problems.items():
        for cell in toyiwae.exact(problem, K=settings.image_k, parameters=[]).results:
            rows = cell.per_row or {}
            labels = {"images": name, "image": np.arange(len(rows["ess"])), "K": cell.K}
            parts.append(pd.DataFrame(labels | {"gap": rows["gap"], "ess": rows["ess"]}))
    return pd.concat(parts, ignore_index=True)


def _samples(settings: EssSettings, curve: pd.DataFrame) -> pd.DataFrame:
    """Sampled sizes beside the exact ones."""
    shared = {"rows": 1, "perturbation_std": 0.0, "seed": settings.seed}
    shared |= {"replicates": settings.replicates, "sample_seed": settings.sample_seed}
    dimensions = [one for one in settings.sampled_dimensions if one in settings.dimensions]
    chosen = [SampleSettings(**shared, dimension=one, K=k) for one in dimensions for k in settings.sampled_k]
    found = cells.rows(
        SAMPLES, chosen, lambda cell: f"sampling D = {cell.dimension}, K = {cell.K}", blocks=settings.blocks
    )
    known = curve.set_index(["dimension", "K"]).ess
    rows = []
    for cell, row in zip(chosen, found, strict=True):
        z = stats.z_score(row["mean"], known[cell.dimension, cell.K], row["mean_se"])
        rows.append((cell.dimension, cell.K, row["mean"], row["mean_se"], float(z), row["replicates"]))
    return pd.DataFrame(rows, columns=["dimension", "K", "ess", "se", "z", "replicates"])


def draw(table: Table) -> Figure:
    """Against K, against the dimension, without a variance, and over images."""
    figure, ((left, right), (tails, images)) = style.panels(2, 2, aspect=0.76)
    _against_k(left, table)
    _against_dimension(right, table)
    _without_variance(tails, table["tails"])
    _spread(images, table["images"])
    style.label_ends((left, right, tails), fontsize="x-small", gap=4.0)
    return figure


def _against_k(axes: Axes, table: Table) -> None:
    curve, limits, samples = table["curve"], table["limits"].set_index("dimension").fraction, table["samples"]
    dimensions = list(dict.fromkeys(curve.dimension))
    for place, dimension in enumerate(dimensions):
        color, part = style.ordinal(place, len(dimensions)), curve[curve.dimension == dimension]
        axes.plot(part.K, part.ess / part.K, color=color, linewidth=1.1, label=f"$D={dimension}$")
        axes.axhline(limits[dimension], color=color, linewidth=0.7, linestyle=style.DASHES[1])
        points = samples[samples.dimension == dimension]
        axes.errorbar(points.K, points.ess / points.K, points.se / points.K, color=color, **style.SAMPLED)
    axes.set(
        xscale="log", yscale="log", xlabel="particles $K$", ylabel=r"$\mathrm{E}[\mathrm{ESS}]\,/\,K$",
        ylim=(limits.min() / 3, None),
    )  # fmt: skip
    axes.text(0.03, 0.04, "dashed: $Z^2/\\mathrm{E}[w^2]$", transform=axes.transAxes, fontsize="small")
    style.label_panel(axes, "a", "Against $K$")


def _against_dimension(axes: Axes, table: Table) -> None:
    curve, fixed = table["curve"], [int(k) for k in table["facts"].fixed]
    limits = table["limits"]
    for place, k in enumerate(fixed):
        color, part = style.ordinal(place, len(fixed)), curve[curve.K == k]
        label = f"$K={report.in_prose(k).strip('$')}$"
        axes.plot(part.dimension, part.ess, "o-", color=color, linewidth=1.1, markersize=3, label=label)
        axes.plot(
            limits.dimension,
            k * limits.fraction,
            color=color,
            linewidth=0.7,
            linestyle=style.DASHES[1],
            label="_",
        )
    axes.set(yscale="log", xlabel="dimension $D$", ylabel=r"$\mathrm{E}[\mathrm{ESS}]$", ylim=(0.1, None))
    axes.text(0.03, 0.04, "dashed: $KZ^2/\\mathrm{E}[w^2]$", transform=axes.transAxes, fontsize="small")
    style.label_panel(axes, "b", "Against the dimension")


def _without_variance(axes: Axes, tails: pd.DataFrame) -> None:
    betas = list(dict.fromkeys(tails.beta))
    for place, beta in enumerate(betas):
        part = tails[tails.beta == beta].sort_values("K")
        color = style.ordinal(place, len(betas))
        axes.plot(part.K, part.ess, color=color, linewidth=1.1, label=rf"$\beta={beta:g}$")
        if beta < -0.5:
            far = part[part.K >= part.K.max() ** 0.5]
            law = far.ess.iloc[-1] * (far.K / far.K.iloc[-1]) ** (2 + 2 * beta)
            axes.plot(far.K, 2.5 * law, label="_", **style.GUIDE)
    axes.set(xscale="log", yscale="log", xlabel="particles $K$", ylabel=r"$\mathrm{E}[\mathrm{ESS}]$")
    axes.text(
        0.03,
        0.93,
        "dashed: slope $2-2|\\beta|$",
        transform=axes.transAxes,
        fontsize="small",
        va="top",
    )
    style.label_panel(axes, "c", "Proposals narrower than the posterior")


def _spread(axes: Axes, images: pd.DataFrame) -> None:
    sets, counts = list(dict.fromkeys(images.images)), list(dict.fromkeys(images.K))
    groups = [(name, k) for name in sets for k in counts]
    fractions = [np.log10(images[(images.images == name) & (images.K == k)].ess / k) for name, k in groups]
    style.violins(axes, fractions, [style.BLUE] * len(groups))
    axes.set_xticks(range(len(groups)), [f"{k}" for _, k in groups])
    low = int(np.floor(min(one.min() for one in fractions)))
    axes.set(xlabel="particles $K$", ylabel=r"$\mathrm{E}[\mathrm{ESS}]\,/\,K$", ylim=(low, 0.25))
    style.log_ticks(axes, low, 0)
    for place, name in enumerate(sets):
        middle = len(counts) * place + (len(counts) - 1) / 2
        axes.text(
            middle, 0.97, name, ha="center", va="top", transform=axes.get_xaxis_transform(), fontsize="small"
        )
    style.label_panel(axes, "d", "Every image")


def caption(table: Table) -> str:
    """What the figure shows."""
    samples, images = table["samples"], table["images"]
    shown = " and ".join(
        f"{part.image.nunique():,} images of {name}" for name, part in images.groupby("images", sort=False)
    )
    tried = f" Circles: Monte Carlo, {samples.replicates.iloc[0]:,} replicates." if len(samples) else ""
    return (
        "The expected effective sample size $\\mathrm{E}[(\\sum_k w_k)^2/\\sum_k w_k^2]$, exact. (a) As a "
        "fraction of $K$ on "
        f"the toy problem at its optimum, with its limit.{tried} (b) The same against the dimension, for fixed "
        f"$K$: it "
        "leaves its limit for 1, where one weight dominates. (c) Two latents, the proposal's covariance "
        "$1+\\beta$ times the "
        "posterior's in one direction: below $\\beta=-\\frac{1}{2}$ the weight has no variance, and the size "
        "grows slower than "
        f"$K$. (d) Violins over {shown} under a linear-Gaussian model with a mean-field encoder that saw other "
        f"images; "
        "quartiles (bar) and median (dot)."
    )


STUDY = Study(
    name="ess",
    order=33,
    title="The effective sample size",
    question="How many of $K$ particles count, in which dimension, and for which image?",
    settings=EssSettings,
    quick={
        "dimensions": (1, 5, 20),
        "images": 12,
        "latents": 3,
        "betas": (-0.3, -0.75),
        "sampled_dimensions": (5,),
        "replicates": 500,
    },
    full={"images": 1000, "replicates": 20_000, "blocks": 20, "sampled_k": (4, 64, 1024)},
    experiments=(SAMPLES,),
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="$1/\\sum w^2=\\int e^{-t\\sum w^2}dt$ makes the mean an integral over the Laplace transform of "
    "$w^2$, whose "
    "moments are closed Gaussian integrals. With `data_dir` MNIST's images are shown beside the digits.",
)
