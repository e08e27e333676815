"""The signal-to-noise ratio of an encoder's weights while it is trained, and against K."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import gradients, measures, style
from analysis.settings import Settings
from analysis.studies import _trained
from analysis.study import Claim, Study, Table, track
from toyiwae import plot, stats
from toyiwae.networks.members import Member

COMPARED_AT = ("iwae", 1, 64)
"""The member at whose parameters estimators are compared."""

STACK = (("elbo", 64, 1), ("iwae", 8, 8), COMPARED_AT, ("dreg", 1, 64))
"""Estimator, M and K of the members: from the ELBO to one group, and the repair."""

COMPARED = ("iwae", "dreg")


class EncoderSnrSettings(Settings):
    """The model, how long it is trained, where it is looked at, and the replicates of the gradient."""

    latents: int = 8
    hidden: int = 32
    epochs: int = 6
    batch: int = 100
    checkpoints: int = 3
    images: int = 10
    replicates: int = 200
    compared_k: tuple[int, ...] = (1, 8, 64)


def compute(settings: EncoderSnrSettings) -> Table:
    """Ratios of every member at its own parameters along the training, and of IWAE and DReG against K at the end."""
    model = {"kind": "bernoulli_vae", "latents": settings.latents, "hidden": [settings.hidden]}
    members = [{"estimator": name, "M": groups, "K": count} for name, groups, count in STACK]
    training = {"epochs": settings.epochs, "batch": settings.batch, "learning_rates": [3e-3], "seeds": [2]}
    tables = _trained.settings(model, members, training)
    sizes = {"images": settings.images, "replicates": settings.replicates}
    with _trained.kept(tables, 15) as kept:
        chosen = np.geomspace(1, len(kept.steps), settings.checkpoints).round().astype(int) - 1
        along = []
        for step in track([kept.steps[i] for i in np.unique(chosen)], lambda step: f"after step {step}"):
            run = kept.at(step)
            for e, member in enumerate(run.members):
                found = gradients.encoder_snr(run, e, [member], **sizes)
                names = {"estimator": member.model, "M": member.M, "particles": member.K}
                along.append({"step": step, **names, **_numbers(found, 0)})
        last = kept.at(kept.steps[-1])
        place = [(one.model, one.M, one.K) for one in last.members].index(COMPARED_AT)
        against = []
        for K in track(settings.compared_k, lambda K: f"K = {K}"):
            rules = [Member(name, name, 1, K, 0) for name in COMPARED]
            found = gradients.encoder_snr(last, place, rules, seed=K, **sizes)
            against += [{"estimator": name, "K": K, **_numbers(found, i)} for i, name in enumerate(COMPARED)]
    facts = {**settings.model_dump(exclude={"compared_k"}), "per_epoch": kept.steps[1]}
    return {
        "training": pd.DataFrame(along),
        "against_k": pd.DataFrame(against),
        "facts": pd.DataFrame([facts]),
    }


def _numbers(found: gradients.SnrEstimate, index: int) -> dict[str, float]:
    return {name: float(getattr(found, name)[index]) for name in ("snr", "log_snr", "log_snr_se")}


def draw(table: Table) -> Figure:
    """The ratios of each member during training, and of two estimators against K at the end."""
    figure, (left, right) = style.panels(1, 2, aspect=0.85, sharey=True)
    training, per_epoch = table["training"], table["facts"].per_epoch.iloc[0]
    for (name, groups, count), own in training.groupby(["estimator", "M", "particles"], sort=False):
        text, look = plot.label(name, groups, count), plot.look(name, groups)
        _line(left, own.step / per_epoch, own, text, look)
    left.set(xscale="symlog", yscale="log", xlabel="epochs", ylabel="SNR of the encoder's weights")
    left.set_xlim(0, None)
    style.count_ticks(left, [0, *style.round_counts(training.step.max() / per_epoch)])
    style.label_panel(left, "a", "During training")
    for name, own in table["against_k"].groupby("estimator", sort=False):
        _line(right, own.K, own, plot.short(str(name)), plot.look(str(name)))
    right.set(xscale="log", yscale="log", xlabel="particles $K$ ($M=1$)")
    style.count_ticks(right, table["against_k"].K)
    style.label_panel(right, "b", "Same parameters, IWAE's")
    right.legend(fontsize="small", loc="upper right")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _line(axes: Any, x: Any, own: pd.DataFrame, label: str, look: Any) -> None:
    """A line with standard errors; where no signal stands out of the noise it is interrupted."""
    seen = own.snr.where(own.log_snr_se < 0.5)
    axes.errorbar(x, seen, seen * own.log_snr_se, label=label, linewidth=1.0, markersize=4, capsize=2, **look)


def verdicts(table: Table) -> list[Claim]:
    """More particles in a group lower IWAE's ratio, and DReG loses less of its own."""
    against = table["against_k"].set_index(["estimator", "K"])
    few, many = against.index.get_level_values("K").min(), against.index.get_level_values("K").max()
    change, var = {}, {}
    for name in COMPARED:
        first, last = against.loc[(name, few)], against.loc[(name, many)]
        change[name] = last.log_snr - first.log_snr
        var[name] = last.log_snr_se**2 + first.log_snr_se**2
    se = np.sqrt(var["iwae"]), np.sqrt(sum(var.values()))
    threshold = stats.family_threshold(2, measures.FAMILY_RATE, gradients.GROUPS - 1)
    chance = (
        f"Standard errors are the jackknife's over {gradients.GROUPS} groups of replicates; so many are reached by "
        f"chance with a family-wise rate of {measures.RATE_TEXT}, by Student's law."
    )
    return [
        Claim(
            "More particles lower the signal-to-noise ratio of IWAE's encoder.",
            rf"\mathrm{{SNR}}_{{{many}}}(\phi)<\mathrm{{SNR}}_{{{few}}}(\phi)",
            -change["iwae"] / se[0],
            low=threshold,
            note=f"From {against.snr[('iwae', few)]:.3f} at $K$ = {few} to {against.snr[('iwae', many)]:.3f} at "
            f"{many}, on the scale of logarithms {change['iwae']:.2f} ± {se[0]:.2f}. {chance}",
            source="slide: SNR; rainforth2018tighter",
        ),
        Claim(
            "DReG keeps more of its own.",
            r"\mathrm{SNR}_\mathrm{DReG}(\phi)",
            (change["dreg"] - change["iwae"]) / se[1],
            low=threshold,
            note=f"From {against.snr[('dreg', few)]:.3f} at $K$ = {few} to {against.snr[('dreg', many)]:.3f} at "
            f"{many}. The number compares both changes of the logarithm.",
            source="tucker2019dreg",
        ),
    ]


def caption(table: Table) -> str:
    """What the figure shows."""
    facts = table["facts"].iloc[0]
    return (
        "Signal-to-noise ratio of the gradient of one batch by the weights of the encoder: the root mean square over "
        f"all weights whose gradient is not always 0, from {facts.replicates} replicates with the first "
        f"{facts.images} training images; ± jackknife standard errors. A Bernoulli VAE "
        f"(64-{facts.hidden}-{facts.latents} and its mirror) on binarised digits. (a) Four members of one stack with "
        "64 particles, each at its own parameters with its own estimator. (b) Two estimators with the same "
        "parameters, those of IWAE after the last epoch."
    )


STUDY = Study(
    name="encoder_snr",
    order=6,
    title="Signal-to-noise ratios in training",
    question="How much signal is in the encoder's gradient while it is trained?",
    settings=EncoderSnrSettings,
    quick={"checkpoints": 2, "compared_k": (4, 64)},
    full={"epochs": 100, "checkpoints": 6, "images": 20, "replicates": 400, "compared_k": (1, 4, 16, 64)},
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="The squared ratio of a weight is estimated without the bias $1/R$ that $R$ replicates would add, so that "
    "a ratio of 0 is seen as 0.",
    cost=12.0,
)
