"""Real handwritten digits: the exact gap and expected sample size of every image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure, SubFigure

import toyiwae
from analysis import measures, report, style
from analysis.closed_limits import ClosedLimits
from analysis.settings import Settings
from analysis.study import Claim, Study, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes


HEAVY = r"$-1<\beta_{\min}<-\frac{1}{2}$"


class DigitsSettings(Settings):
    """The size of the model, the images, and the values of K."""

    latents: int = 10
    images: int = 200
    encoder_images: int = 40
    k: tuple[int, ...] = (1, 8, 64)
    tail_k: int = 10**12
    examples: int = 6


def compute(settings: DigitsSettings) -> Table:
    """Gap and expected sample size per image and K, independent gaps at K = 1 and far out, and the extreme images."""
    problem = toyiwae.digits_problem(settings.latents, settings.images, settings.encoder_images)
    far = (settings.tail_k * 9 // 10, settings.tail_k)
    truth = toyiwae.exact(problem, K=(*settings.k, *far), estimators="elbo", parameters="prior_mean")
    limits = ClosedLimits(problem)
    parts = []
    for cell in truth.results[: len(settings.k)]:
        rows = cell.per_row or {}
        parts.append(pd.DataFrame({"image": np.arange(len(rows["gap"])), "K": cell.K, **rows}))
    images = pd.concat(parts, ignore_index=True)
    order = np.argsort(parts[-1].gap.to_numpy(), kind="stable")
    chosen = [*order[: settings.examples], *order[::-1][: settings.examples][::-1]]
    pixels = pd.DataFrame(problem.data.x[chosen], columns=[f"pixel_{i}" for i in range(problem.dim_x)])
    kinds = ["smallest"] * settings.examples + ["largest"] * settings.examples
    heads = pd.DataFrame({"image": chosen, "kind": kinds, "gap": parts[-1].gap.to_numpy()[chosen]})
    beta = limits.least_beta()
    tail = pd.DataFrame({"image": np.arange(len(order))})
    for k in far if beta < -0.5 else ():
        tail[f"gap_{k}"] = (truth.cell(k).per_row or {})["gap"]
        tail[f"law_{k}"] = limits.heavy_tail_gap(k)
    facts = {"least_beta": beta, "near_k": far[0], "tail_k": far[1]}
    return {
        "images": images,
        "examples": pd.concat([heads, pixels], axis=1),
        "first": pd.DataFrame({"image": np.arange(len(order)), "kl": limits.kl()}),
        "tail": tail.assign(shift=limits.tail_shift()),
        "facts": pd.DataFrame([facts]),
    }


def draw(table: Table) -> Figure:
    """Violins of gap and sample size, and the images with the smallest and the largest gaps."""
    images, examples = table["images"], table["examples"]
    width = style.panels(1, 1)[0].get_size_inches()[0]
    figure = Figure(figsize=(width, 0.66 * width), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(3.6, 1))
    left, right = upper.subplots(1, 2)
    counts = images.K.unique()
    _violins(left, [np.log10(images[images.K == k].gap) for k in counts], counts)
    low, high = np.floor(np.log10(images.gap.min())), np.ceil(np.log10(images.gap.max()))
    left.set(xlabel="particles $K$", ylabel=r"gap $\log Z-L_K$ (nats)", ylim=(low, high))
    style.log_ticks(left, int(low), int(high))
    style.label_panel(left, "a", "Exact gap of every image")
    _violins(right, [images[images.K == k].ess / k for k in counts], counts)
    right.set(xlabel="particles $K$", ylabel=r"$\mathrm{E}[\mathrm{ESS}]\,/\,K$", ylim=(0, 1.05))
    style.label_panel(right, "b", "Expected effective sample size")
    largest = int(counts.max())
    titles = {"smallest": f"(c) Smallest gaps at $K={largest}$ (nats)", "largest": "Largest gaps (nats)"}
    colors = {"smallest": style.BLUE, "largest": style.RED}
    for part, (kind, title) in zip(lower.subfigures(1, 2), titles.items(), strict=True):
        _pictures(part, examples[examples.kind == kind], title, colors[kind])
    return figure


def _violins(axes: Axes, samples: list[Any], counts: np.ndarray) -> None:
    """One violin per K."""
    style.violins(axes, samples, [style.BLUE] * len(samples))
    axes.set_xticks(range(len(counts)), [f"{k}" for k in counts])
    axes.set_xlim(-0.6, len(counts) - 0.4)


def _pictures(figure: SubFigure, examples: pd.DataFrame, title: str, color: str) -> None:
    """A row of images with their gaps below."""
    figure.suptitle(title, x=0.02, ha="left", fontsize="medium")
    pixels = examples.filter(like="pixel_").to_numpy()
    side = round(pixels.shape[1] ** 0.5)
    panels = np.atleast_1d(figure.subplots(1, len(examples)))
    for axes, image, gap in zip(panels, pixels, examples.gap, strict=True):
        axes.imshow(image.reshape(side, side), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_xlabel(f"{gap:.2g}" if gap < 1 else f"{gap:.2f}", fontsize="small", labelpad=2)
        for spine in axes.spines.values():
            spine.set(visible=True, color=color, linewidth=0.8)


def verdicts(table: Table) -> list[Claim]:
    """Every image's gap falls with K; the sample size has its bounds; K = 1 has an independent limits."""
    images, first, facts = table["images"], table["first"], table["facts"].iloc[0]
    gaps = images.pivot(index="image", columns="K", values="gap")
    sizes = images.pivot(index="image", columns="K", values="ess")
    counts = gaps.columns.to_numpy()
    falls = (gaps.to_numpy()[:, :-1] - gaps.to_numpy()[:, 1:]) / gaps.to_numpy()[:, :-1]
    fraction = sizes.to_numpy() / counts
    margin = (np.minimum(sizes.to_numpy() - 1, counts - sizes.to_numpy()) / counts)[:, counts > 1]
    values = [str(k) for k in counts]
    claims = [
        Claim(
            "More particles tighten the bound of every single image.",
            r"L_K(x)\le L_{K'}(x),\;K\le K'",
            float(falls.min()),
            low=0.0,
            note=f"The smallest relative fall of the gap from one $K$ to the next ({', '.join(values)}), over "
            f"{len(gaps):,} images.",
            source="slide: IWAE 1; burda2016iwae",
        ),
        Claim(
            "The effective sample size of every image lies between 1 and $K$.",
            r"1\le\mathrm{E}\frac{(\sum_k w_k)^2}{\sum_k w_k^2}\le K",
            float(margin.min()),
            low=0.0,
            note=f"The smallest distance from either end, as a fraction of $K$ (for $K>1$). At $K$ = {counts[-1]} the "
            f"fractions run from {fraction[:, -1].min():.1%} to {fraction[:, -1].max():.1%}.",
            source="slide: effective sample size",
        ),
    ]
    if counts[0] == 1:
        kl = first.kl.to_numpy()
        claims.append(
            Claim(
                "With one particle the gap is the divergence of the proposal from the posterior.",
                r"\log Z-L_1=\mathrm{KL}(q_\phi(z\mid x)\Vert p_\theta(z\mid x))",
                float(np.abs(gaps[1].to_numpy() / kl - 1).max()),
                high=1e-9,
                note="The largest relative difference from the closed form, over all images.",
                source="slide: VAE optimum; kingma2014vae",
            )
        )
    if facts.least_beta < -0.5:
        claims += _heavy(table["tail"], facts.least_beta, int(facts.near_k), int(facts.tail_k))
    return claims


def _heavy(tail: pd.DataFrame, beta: float, near: int, far: int) -> list[Claim]:
    """Where the weights have no variance: the law of the gap far out, and its power of K."""
    gaps, before, law, h = (
        tail[name].to_numpy() for name in (f"gap_{far}", f"gap_{near}", f"law_{far}", "shift")
    )
    ratio, slope = gaps / law, np.log(gaps / before) / np.log(far / near)
    log_k, at = np.log(far), f"$K$ = $10^{{{round(np.log10(far))}}}$"
    slow = np.abs(h) / (-beta * np.sqrt(-2 * beta * log_k)) - 1 / (2 * log_k)
    middle, largest = (
        report.in_prose(float(value)) for value in (np.median(np.abs(ratio - 1)), tail[f"gap_{far}"].max())
    )
    return [
        Claim.near(
            "The weights' variance is infinite, and the gap of every image follows the law of their heavy tail.",
            r"\mathrm{E}[w^s]=\infty\;\text{for}\;s\ge\frac{1}{|\beta_{\min}|}",
            measures.farthest(ratio, 1.0),
            expected=1.0,
            within=1e-4,
            note=f"The exact gap at {at} over $\\frac{{1}}{{2\\pi i}}\\int\\Gamma(s)\\Gamma(-s)K^{{1-s}}"
            f"(\\mathrm{{E}}[(w/Z)^s]-1)ds$, by code of its own: the farthest from 1 of {len(ratio)} images (the "
            f"median is off by {middle}). The law is of first order in the gap, which is {largest} at most.",
            condition=HEAVY,
        ),
        Claim.near(
            "Its power of $K$ comes from the direction in which the proposal is narrowest, and is not $-1$.",
            r"\frac{d\log(\log Z-L_K)}{d\log K}\to-(\frac{1}{|\beta_{\min}|}-1)",
            float(np.median(slope - slow)),
            expected=1 + 1 / beta,
            within=log_k**-1.5,
            note=f"$\\beta_{{\\min}}$ = {beta:.3f}. The local slope of the exact gap at {at}, median over the images, "
            "less the two slow terms that the law implies where the means differ by $h$ in that direction, "
            "$|h|/(|\\beta|\\sqrt{2|\\beta|\\log K})-1/(2\\log K)$. The tolerance is the size of the term after them, "
            "$(\\log K)^{-3/2}$; with a finite variance the slope would be $-1$.",
            condition=HEAVY,
        ),
    ]


def caption(table: Table) -> str:
    """What the figure shows."""
    images = table["images"]
    return (
        f"{images.image.nunique():,} handwritten digits of 8 × 8 pixels under a factor analysis with exact "
        "posterior, and a mean-field amortised proposal whose encoder saw other images. Violins over images, with "
        "quartiles (bar) and median (dot): (a) the gap, (b) the expected effective sample size as a fraction of "
        "$K$, which is 1 for one particle. (c) The images with the smallest (blue) and the largest gaps (red)."
    )


STUDY = Study(
    name="digits",
    order=4,
    title="Handwritten digits",
    question="How far from the truth is the bound on real images, and for which of them?",
    settings=DigitsSettings,
    quick={"images": 12, "latents": 3, "examples": 3},
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="The digits are those that scikit-learn ships. A linear-Gaussian decoder keeps $\\log p_\\theta(x)$ and the "
    "posterior exact, so the gap of each image is exact too.",
    cost=6.0,
)
