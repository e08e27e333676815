"""Training a linear decoder on digits, measured in exact nats below the maximum of the likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure

from analysis import style
from analysis.settings import Settings
from analysis.studies import _trained
from analysis.study import Claim, Study, Table, track
from toyiwae import plot
from toyiwae.networks.data.images import images_named
from toyiwae.networks.evaluation.bounds import image_bounds
from toyiwae.networks.noise import Noise
from toyiwae.networks.runs.run import Run
from toyiwae.oracle.closed_form.gaussian import condition
from toyiwae.problems.factor_analysis import probabilistic_pca


class LikelihoodSettings(Settings):
    """Sizes of the model, how long it is trained, and where it is looked at."""

    latents: int = 2
    particles: int = 4
    epochs: int = 80
    batch: int = 50
    images: int = 200
    learning_rate: float = 0.02
    checkpoints: int = 4
    narrow: int = 1
    bound_images: int = 50


AFFINE, NARROW = "affine encoder", "narrow encoder"
WITHIN = 0.1
"""Nats per image that count as the maximum."""


def compute(settings: LikelihoodSettings) -> Table:
    """Exact log-likelihoods, and the bounds of some images, at checkpoints of two stacks."""
    rows = []
    for encoder, hidden in ((AFFINE, []), (NARROW, [settings.narrow])):
        model = {"kind": "linear_gaussian", "latents": settings.latents, "hidden": hidden}
        training = {"epochs": settings.epochs, "batch": settings.batch, "seeds": [1], "schedule": "stages"}
        training["learning_rates"] = [settings.learning_rate]
        members = _members(settings.particles)
        tables = _trained.settings(model, members, training, data={"train": settings.images})
        per_epoch = -(-settings.images // settings.batch)
        with _trained.kept(tables, per_epoch) as kept:
            chosen = np.unique(np.geomspace(1, len(kept.steps), settings.checkpoints).round().astype(int)) - 1
            for step in track([kept.steps[i] for i in chosen], lambda step: f"after step {step}"):
                rows += _exact(kept.at(step), encoder, step / per_epoch, settings)
    facts = {**settings.model_dump(), **_maximum(settings)}
    return {"likelihood": pd.DataFrame(rows), "facts": pd.DataFrame([facts])}


def _members(particles: int) -> list[dict[str, Any]]:
    """The same particles as one sample each, in groups, and in one group; and DReG for the encoder."""
    root = round(particles**0.5)
    return [
        {"estimator": "elbo", "M": particles, "K": 1},
        {"estimator": "iwae", "M": root, "K": root},
        {"estimator": "iwae", "K": particles},
        {"model": "iwae", "proposal": "dreg", "K": particles},
    ]


def _exact(run: Run, encoder: str, epoch: float, settings: LikelihoodSettings) -> list[dict[str, Any]]:
    """What each member's decoder and encoder lose, in nats: below the maximum, and between log p(x) and the bound."""
    x = run.images.train.astype(np.float64)
    best, rows = _maximum(settings, x)["maximum"], []
    few = torch.as_tensor(run.images.train[: settings.bound_images], dtype=run.noise.dtype)
    for e, member in enumerate(run.members):
        problem = run.model.problem(x, e)
        log_p = condition(problem.model, problem.data.x).log_evidence
        noise = Noise((2**63 + member.seed,), dtype=run.noise.dtype)
        found = image_bounds(run.model.at(e), few[None], noise, [member.K, 32 * member.K])
        gap, se = log_p[: len(few)] - found.bound[0, 0], found.bound_se[0, 0]
        names = {"model": member.model, "proposal": member.proposal, "M": member.M, "K": member.K}
        numbers = {
            "below": best - log_p.mean(),
            "gap": gap.mean(),
            "gap_se": np.sqrt((se**2).sum()) / len(few),
        }
        rows.append({"encoder": encoder, "epoch": epoch, **names, **numbers})
    return rows


def _maximum(settings: LikelihoodSettings, x: Any = None) -> dict[str, float]:
    """The largest mean log-likelihood of any decoder, in closed form.

    References:
        tipping1999probabilistic
    """
    if x is None:
        x = images_named("digits").train[: settings.images].astype(np.float64)
    cov = np.cov(x.T, bias=True)
    loading, noise_var = probabilistic_pca(cov, settings.latents)
    total = loading @ loading.T + noise_var * np.eye(len(cov))
    log_det = np.linalg.slogdet(2.0 * np.pi * total)[1]
    return {"maximum": float(-0.5 * (log_det + np.trace(np.linalg.solve(total, cov))))}


def draw(table: Table) -> Figure:
    """What decoder and encoder lose during training, for two encoders."""
    figure, panels = style.panels(2, 2, aspect=0.8, sharex=True, sharey="row")
    likelihood = table["likelihood"]
    for column, encoder in enumerate((AFFINE, NARROW)):
        for (model, proposal, groups, count), own in _by_member(likelihood[likelihood.encoder == encoder]):
            look = plot.look(proposal, groups) | {"markersize": 3.2, "linewidth": 1.0}
            name = plot.label(model, groups, count) + (" with DReG" if proposal != model else "")
            seen = own[own.epoch > 0]
            panels[0, column].plot(seen.epoch, seen.below, label=name, **look)
            panels[1, column].plot(seen.epoch, seen.gap, label=name, **look)
        panels[1, column].set_xlabel("epochs")
        style.label_panel(panels[0, column], "ab"[column], f"{encoder.capitalize()}: the decoder")
        style.label_panel(panels[1, column], "cd"[column], f"{encoder.capitalize()}: the bound")
    for axes in panels.flat:
        axes.set(xscale="log", yscale="log")
        style.count_ticks(axes, style.round_counts(likelihood.epoch.max()))
    panels[0, 0].axhline(WITHIN, **style.GUIDE)
    panels[0, 1].axhline(WITHIN, **style.GUIDE)
    panels[0, 0].set_ylabel("nats below the maximum of $\\log p$")
    panels[1, 0].set_ylabel(r"$\log p-L_K$ (nats)")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize="small")
    return figure


def _by_member(frame: pd.DataFrame) -> Any:
    return frame.groupby(["model", "proposal", "M", "K"], sort=False)


def verdicts(table: Table) -> list[Claim]:
    """Training reaches the maximum where the encoder can be the posterior; where not, more particles come nearer."""
    likelihood, facts = table["likelihood"], table["facts"].iloc[0]
    last = likelihood[likelihood.epoch == likelihood.epoch.max()]
    affine, narrow = (last[last.encoder == encoder] for encoder in (AFFINE, NARROW))
    iwae = affine[(affine.proposal == "iwae") & (affine.M == 1)].below.iloc[0]
    one, many = narrow[narrow.model == "elbo"].below.iloc[0], narrow[narrow.proposal == "iwae"].below.iloc[-1]
    return [
        Claim(
            "IWAE training of a linear decoder reaches the maximum of the exact likelihood.",
            r"\max_\theta\log p_\theta(x)-\log p_{\hat\theta}(x)",
            float(iwae),
            low=0.0,
            high=WITHIN,
            note=f"Nats per image below the closed form of probabilistic PCA ({facts.maximum:.3f}), after "
            f"{int(facts.epochs)} epochs with an affine encoder, $K$ = {int(facts.particles)}. The mean-field "
            "posterior is exact in one rotation of the latents, and training finds it.",
            source="slide: VAE optimum; burda2016iwae",
            condition="the family of proposals holds the posterior",
        ),
        Claim(
            "No decoder is above the maximum.",
            r"\log p_{\hat\theta}(x)\le\max_\theta\log p_\theta(x)",
            float(likelihood.below.min()),
            low=0.0,
            note="The smallest distance, over both encoders, all members and all checkpoints; both sides are exact.",
            source="tipping1999probabilistic",
        ),
        Claim(
            "Where the encoder cannot be the posterior, the ELBO's decoder is worse than IWAE's.",
            r"\log p_{\theta_\mathrm{VAE}}(x)<\log p_{\theta_\mathrm{IWAE}}(x)",
            float(one - many),
            low=0.0,
            note=f"With {int(facts.narrow)} hidden units between image and proposal the ELBO's decoder is {one:.3f} "
            f"nats below the maximum, IWAE's {many:.3f}. Both numbers are exact, of one run each.",
            source="slide: inference or likelihood; burda2016iwae",
            condition="the family of proposals does not hold the posterior",
        ),
    ]


def caption(table: Table) -> str:
    """What the figure shows."""
    facts = table["facts"].iloc[0]
    return (
        f"Probabilistic PCA with {int(facts.latents)} latents trained on {int(facts.images):,} grey digits with "
        f"{int(facts.particles)} particles, the learning rate in stages. (a, b) Exact mean log-likelihood of the "
        "training images, in nats below its maximum; dashed: 0.1. (c, d) What the bound loses, the mean of "
        f"$\\log p(x)-L_K$ over the first {int(facts.bound_images)} images, each method with its own $K$. The affine "
        f"encoder can be the posterior; the narrow one has {int(facts.narrow)} hidden units and cannot."
    )


STUDY = Study(
    name="likelihood",
    order=7,
    title="Training against the exact likelihood",
    question="Does training on a bound find the maximum of the likelihood?",
    settings=LikelihoodSettings,
    full={
        "latents": 8,
        "particles": 16,
        "images": 1500,
        "batch": 100,
        "epochs": 121,
        "learning_rate": 5e-3,
        "checkpoints": 14,
        "narrow": 2,
        "bound_images": 200,
    },
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="The decoder is linear, so its log-likelihood is exact at each checkpoint (the bound is sampled); the "
    "maximum is Tipping and Bishop's closed form.",
)
