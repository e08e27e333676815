"""Methods with the same particles on handwritten digits: what they train, and how good their proposals are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

import toyiwae
from analysis import measures, style
from analysis.settings import Settings
from analysis.studies import _trained
from analysis.study import Claim, Study, Table
from toyiwae import plot, stats

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class TrainingSettings(Settings):
    """The model, how long it is trained, and the particles of the evaluation."""

    latents: int = 8
    hidden: int = 32
    epochs: int = 10
    batch: int = 100
    seeds: tuple[int, ...] = (1, 2)
    learning_rate: float = 3e-3
    largest_k: int = 500


METHOD = ["model", "M", "K"]


def compute(settings: TrainingSettings) -> Table:
    """One stack of all methods and seeds: its training bounds, and its evaluation on the test images."""
    model = {"kind": "bernoulli_vae", "latents": settings.latents, "hidden": [settings.hidden]}
    training = {"epochs": settings.epochs, "batch": settings.batch, "seeds": list(settings.seeds)}
    training["learning_rates"] = [settings.learning_rate]
    tables = _trained.settings(model, _trained.methods(), training, output={"metrics_every": 15})
    run = toyiwae.train(tables, show_progress=False)
    found = toyiwae.evaluate(run, K=(_trained.PARTICLES, settings.largest_k))
    images = found.to_dataframe()
    images = images[[*METHOD, "seed", "image", "particles", "bound_estimate", "ess"]]
    wide = images.pivot(index=[*METHOD, "seed", "image"], columns="particles", values="bound_estimate")
    wide = wide.rename(columns={_trained.PARTICLES: "bound_64", settings.largest_k: "log_p"}).reset_index()
    order = {(one.model, one.M, one.K): place for place, one in enumerate(run.members)}
    places = [order[one] for one in wide[METHOD].itertuples(index=False, name=None)]
    wide = wide.iloc[np.argsort(places, kind="stable")]  # pandas sorts by name
    small = images[images.particles == _trained.PARTICLES]
    wide = wide.merge(small[[*METHOD, "seed", "image", "ess"]], on=[*METHOD, "seed", "image"])
    runs = wide.assign(minus_kl=wide.bound_64 - wide.log_p)
    runs = runs.groupby([*METHOD, "seed"], sort=False)[["log_p", "bound_64", "minus_kl", "ess"]].mean()
    curves = run.to_dataframe()[[*METHOD, "seed", "epoch", "bound", "ess"]]
    facts = {"test": wide.image.nunique(), "largest_k": settings.largest_k, "epochs": settings.epochs}
    facts |= {"latents": settings.latents, "hidden": settings.hidden, "batch": settings.batch}
    return {
        "curves": curves,
        "images": wide,
        "runs": runs.reset_index(),
        "results": _over_seeds(runs.reset_index()),
        "facts": pd.DataFrame([facts]),
    }


def _over_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard error over seeds of every measure, by method."""
    groups = runs.groupby(METHOD, sort=False)[["log_p", "bound_64", "minus_kl", "ess"]]
    se = groups.std(ddof=1) / np.sqrt(runs.seed.nunique())
    return groups.mean().join(se.add_suffix("_se")).reset_index()


def draw(table: Table) -> Figure:
    """Training bounds, the results' table as points with standard errors, and effective sample sizes."""
    width = style.panels(1, 1)[0].get_size_inches()[0]
    figure = Figure(figsize=(width, 0.95 * width), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    left, right = upper.subplots(1, 2)
    _curves(left, table["curves"])
    _violins(right, table["images"])
    _points(lower.subplots(1, 3), table)
    handles = [
        Line2D([], [], label=plot.label(*method), markersize=4, **plot.look(method[0], method[1]))
        for method in _methods(table["results"])
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize="small")
    return figure


def _methods(frame: pd.DataFrame) -> list[tuple[str, int, int]]:
    found = frame[METHOD].drop_duplicates().itertuples(index=False)
    return [(str(one.model), int(one.M), int(one.K)) for one in found]


def _of(frame: pd.DataFrame, method: tuple[str, int, int]) -> pd.DataFrame:
    name, groups, particles = method
    return frame[(frame.model == name) & (frame.M == groups) & (frame.K == particles)]


def _curves(axes: Axes, curves: pd.DataFrame) -> None:
    for method in _methods(curves):
        own = _of(curves, method).groupby("epoch").bound.mean()
        look = {key: value for key, value in plot.look(method[0], method[1]).items() if "marker" not in key}
        axes.plot(own.index, own, linewidth=1.1, **look)
    late = curves[curves.epoch >= 0.15 * curves.epoch.max()].bound
    axes.set(xlabel="epochs", ylabel="own bound, training images (nats)", xscale="log")
    axes.set_ylim(late.min() - 0.5, curves.bound.max() + 0.7)
    style.label_panel(axes, "a", "What each method ascends")


def _violins(axes: Axes, images: pd.DataFrame) -> None:
    names = _methods(images)
    sizes = [_of(images, method).groupby("image").ess.mean() for method in names]
    style.violins(axes, sizes, [plot.look(method[0], method[1])["color"] for method in names])
    axes.set_xticks(range(len(names)), [plot.short(m[0], m[1]) for m in names], fontsize="small")
    axes.set(ylabel="effective sample size", ylim=(0, None))
    style.label_panel(axes, "b", f"Of {_trained.PARTICLES} particles, test images")


def _points(panels: Any, table: Table) -> None:
    """The measures of every seed, and their means with standard errors."""
    largest = int(table["facts"].largest_k.iloc[0])
    what = {
        "log_p": rf"$\log\hat p(x)$, $K={largest}$ (nats)",
        "bound_64": r"$L_{64}$ (nats)",
        "minus_kl": r"$-\mathrm{KL}(Q\Vert P)$ (nats)",
    }
    for axes, letter, (name, text) in zip(panels, "cde", what.items(), strict=True):
        methods = _methods(table["results"])
        for position, method in enumerate(methods):
            own, mean = _of(table["runs"], method)[name], _of(table["results"], method).iloc[0]
            look = {k: v for k, v in plot.look(method[0], method[1]).items() if k != "linestyle"}
            axes.plot(np.full(len(own), position - 0.2), own, ".", color=look["color"], markersize=2.5)
            axes.errorbar(position + 0.1, mean[name], mean[f"{name}_se"], capsize=2, markersize=4.5, **look)
        axes.set(xticks=[], xlim=(-0.6, len(methods) - 0.4), xlabel="method", ylabel=text)
        style.label_panel(axes, letter, {"c": "Model", "d": "Bound", "e": "Proposal"}[letter])


def verdicts(table: Table) -> list[Claim]:
    """The orderings of the proposals, over images, and of the bounds that one set of particles gives."""
    images = table["images"]
    names = _methods(table["results"])
    by = {
        method: _of(images, method).groupby("image")[["ess", "bound_64", "log_p"]].mean() for method in names
    }
    vae, iwae = by["elbo", _trained.PARTICLES, 1], by["iwae", 1, _trained.PARTICLES]
    kl = (vae.bound_64 - vae.log_p) - (iwae.bound_64 - iwae.log_p)
    comparisons = {
        "The ELBO trains a proposal with more effective samples than IWAE with 64 particles does.": (
            vae.ess - iwae.ess,
            r"\mathrm{ESS}_\mathrm{VAE}>\mathrm{ESS}_\mathrm{IWAE}",
            f"of {_trained.PARTICLES} particles",
        ),
        "Its proposal is also nearer to the posterior, by the divergence that 64 particles leave.": (
            kl,
            r"\mathrm{KL}(Q_\mathrm{VAE}\Vert P)<\mathrm{KL}(Q_\mathrm{IWAE}\Vert P)",
            "nats",
        ),
    }
    claims = []
    for text, (difference, formula, unit) in comparisons.items():
        se = difference.std(ddof=1) / np.sqrt(len(difference))
        threshold = stats.family_threshold(len(comparisons), measures.FAMILY_RATE, len(difference) - 1)
        claims.append(
            Claim(
                text,
                formula,
                float(difference.mean() / se),
                low=threshold,
                note=f"Mean difference {difference.mean():.3f} ± {se:.3f} {unit}, over {len(difference)} test images "
                f"(each the mean over {images.seed.nunique()} seeds), in standard errors. At most so many are reached "
                f"by chance with a family-wise rate of {measures.RATE_TEXT}.",
                source="slide: MNIST; rainforth2018tighter",
            )
        )
    return claims


def caption(table: Table) -> str:
    """What the figure shows."""
    facts, runs = table["facts"].iloc[0], table["runs"]
    return (
        f"A Bernoulli VAE (64-{facts.hidden}-{facts.latents} and its mirror) on 1,500 digits of 8 × 8 pixels, "
        f"binarised anew for each batch of {facts.batch}; 64 particles in every method, {runs.seed.nunique()} seeds, "
        f"{facts.epochs} epochs, all in one stack. (a) Bound of the training batches, mean over seeds. (b) Effective "
        f"sample sizes of {facts.test} test images, mean over seeds; quartiles (bar) and median (dot). (c–e) On the "
        "test images, each seed (points), and mean ± standard error over seeds: the estimate of log p(x), the bound "
        "with 64 particles, and the difference of the two."
    )


STUDY = Study(
    name="training",
    order=5,
    title="Training on digits",
    question="Which of the methods trains the better model, and which the better proposal?",
    settings=TrainingSettings,
    full={"epochs": 100, "seeds": (1, 2, 3, 4), "largest_k": 5000},
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="All methods and seeds are members of one stack, trained by the registry's estimators; the test images are "
    "binarised once, the same for all. Which method ends with the best $\\log p_\\theta(x)$ depends on how long is "
    "trained, so the table states it with its standard error and no claim is made.",
    cost=20.0,
)
