"""Do the laws of the toy problem hold for trained networks? Each image's weights, gradients and predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

import toyiwae
from analysis import gradients, measures, particles
from analysis.settings import Settings
from analysis.studies import _trained
from analysis.studies._transfer_figure import DEEP, LINEAR, PREDICTED, caption, draw
from analysis.study import Claim, Study, Table, track
from toyiwae import estimators, stats, truth, weights


class TransferSettings(Settings):
    """How long both networks are trained, how many images are looked at, and the particles of each."""

    deep_epochs: int = 12
    linear_epochs: int = 40
    images: int = 40
    particles: int = 2**13
    exact_images: int = 2
    compared_images: int = 3
    compared_particles: int = 2**12
    seed: int = 5


FEW, MANY = 4, 64


def compute(settings: TransferSettings) -> Table:
    """Squared SNRs of every image and K, what its moments predict, and exact values of the linear decoder."""
    networks = {LINEAR: _linear(settings), DEEP: _deep(settings)}
    squares, images, compared = [], [], []
    for network, run in networks.items():
        x = gradients.seen(run, run.images.test[: settings.images])
        pools = particles.pools(run.model, x, settings.particles, settings.seed)
        variances = run.model.encode(x).stats[0, :, run.model.dim_z :].mul(2.0).exp().min(1).values
        for n in track(range(x.shape[1]), lambda n: f"image {n + 1}"):
            pool = next(pools)
            images.append({"network": network, "image": n, "least_var": float(variances[n]), **_weight(pool)})
            squares += _squares(pool, PREDICTED, network, n)
            if network == DEEP and n < settings.compared_images:
                few = particles.Pool(*(part[: settings.compared_particles] for part in vars(pool).values()))
                compared += _squares(few, [one.name for one in estimators.all()], network, n)
    return {
        "squares": pd.DataFrame(squares),
        "images": pd.DataFrame(images),
        "compared": pd.DataFrame(compared),
        "exact": _exact(networks[LINEAR], settings),
        "facts": pd.DataFrame([settings.model_dump()]),
    }


def _linear(settings: TransferSettings) -> Any:
    """Probabilistic PCA with an encoder that is no posterior."""
    model = {"kind": "linear_gaussian", "latents": 6, "hidden": [12]}
    training = {"epochs": settings.linear_epochs, "batch": 100, "learning_rates": [1e-2], "seeds": [2]}
    tables = _trained.settings(model, [{"estimator": "iwae", "K": 16}], training)
    return toyiwae.train(tables, show_progress=False)


def _deep(settings: TransferSettings) -> Any:
    """The Bernoulli VAE of the study of training, by IWAE."""
    model = {"kind": "bernoulli_vae", "latents": 8, "hidden": [32]}
    training = {"epochs": settings.deep_epochs, "batch": 100, "learning_rates": [3e-3], "seeds": [2]}
    tables = _trained.settings(model, [{"estimator": "iwae", "K": _trained.PARTICLES}], training)
    return toyiwae.train(tables, show_progress=False)


def _weight(pool: particles.Pool) -> dict[str, float]:
    """Measures of one image's weights."""
    found = particles.asymptotes(pool)
    return {**vars(found), "pareto_k": float(weights.pareto_k(pool.log_w))}


def _squares(pool: particles.Pool, rules: Any, network: str, image: int) -> list[dict[str, Any]]:
    """Squared SNRs of estimators at every fourth power of K."""
    rows = []
    for rule in rules:
        least = estimators.get(rule).min_particles
        for K in [k for k in particles.whole_numbers(len(pool.log_w))[::2] if k >= least]:
            found = particles.snr_at(pool, rule, K)
            numbers = {"squared": float(found.squared), "se": float(found.squared_se)}
            rows.append({"network": network, "image": image, "estimator": rule, "K": K, **numbers})
    return rows


def _exact(run: Any, settings: TransferSettings) -> pd.DataFrame:
    """Exact squared SNRs of the first images under the linear decoder, at more K than can be sampled."""
    x = gradients.seen(run, run.images.test[: settings.exact_images])[0]
    counts = [4**power for power in range(9)]
    answer = truth.exact(run.model.problem(x), K=counts, estimators=PREDICTED, parameters=["proposal_mean"])
    rows = []
    for cell in answer.results:
        for rule in PREDICTED:
            snr = cell.gradients[rule].parameters["proposal_mean"].snr
            values = np.full(len(x), np.nan) if snr is None else (np.asarray(snr) ** 2).mean(-1)
            rows += [
                {"image": n, "estimator": rule, "K": cell.K, "squared": value}
                for n, value in enumerate(values)
            ]
    return pd.DataFrame(rows)


def growth(squares: pd.DataFrame, network: str, rule: str) -> tuple[float, float, int]:
    """Slope of log SNR in log K between 4 and 64 (root mean square over images), standard error, images."""
    own = squares[(squares.network == network) & (squares.estimator == rule)]
    wide = own.pivot(index="image", columns="K", values="squared")[[FEW, MANY]].to_numpy()
    ratio = np.log(MANY / FEW)

    def slope(sums: np.ndarray) -> np.ndarray:
        return 0.5 * np.log(sums[..., 1] / sums[..., 0]) / ratio

    without = slope(wide.sum(0) - wide)
    count = len(wide)
    se = np.sqrt((count - 1) / count * ((without - without.mean()) ** 2).sum())
    return float(slope(wide.sum(0))), float(se), count


def verdicts(table: Table) -> list[Claim]:
    """Agreement with the exact ratios; growth with K on both networks; why the second law fails on the deep one."""
    squares, images = table["squares"], table["images"]
    claims = [_agreement(squares, table["exact"])]
    what = [
        (
            LINEAR,
            "iwae",
            0.0,
            -1,
            "With the linear decoder IWAE's ratio falls as particles are added.",
            "K^{-1/2}",
        ),
        (LINEAR, "dreg", 0.0, 1, "DReG's grows there, as in the toy problem.", r"\sqrt{K}"),
        (DEEP, "iwae", 0.0, -1, "IWAE's ratio falls on the deep network, too.", "K^{-1/2}"),
        (
            DEEP,
            "dreg",
            0.5,
            -1,
            "DReG's does not yet grow like that on the deep network, at the $K$ of training.",
            r"\sqrt{K}",
        ),
    ]
    for network, rule, against, sign, text, law in what:
        slope, se, count = growth(squares, network, rule)
        threshold = stats.family_threshold(len(what), measures.FAMILY_RATE, count - 1)
        claims.append(
            Claim(
                text,
                rf"\mathrm{{SNR}}(\phi)\propto {law}",
                sign * (slope - against) / se,
                low=threshold,
                note=f"Slope of $\\log$ SNR against $\\log K$ between {FEW} and {MANY}: {slope:.3f} ± {se:.3f} over "
                f"{count} images (jackknife). The number is its distance from {against:g} in standard errors, "
                f"signed; so many are reached by chance with a family-wise rate of {measures.RATE_TEXT}.",
                source="slide: SNR; rainforth2018tighter" if rule == "iwae" else "tucker2019dreg",
            )
        )
    deep = images[images.network == DEEP]
    claims.append(
        Claim(
            "DReG's law needs a fourth moment of the weight, which on the deep network is infinite for every image.",
            r"\mathrm{E}\,w^m=\infty\;\text{if}\;\min_i\sigma_i^2\le 1-\frac{1}{m}",
            float(deep.least_var.max()),
            high=0.75,
            note="The largest, over images, of the least posterior variance. The decoder's hidden units are bounded, "
            "so $p(x\\mid z)$ is bounded away from 0 for all $z$, and $\\mathrm{E}_q w^m\\ge c\\int p(z)^m "
            "q(z)^{1-m}dz$, which is infinite unless every $\\sigma_i^2$ is above $1-1/m$. "
            f"{(deep.least_var <= 0.5).mean():.0%} of the images have weights of infinite variance.",
            source="tucker2019dreg",
            condition="the decoder's hidden units are bounded",
        )
    )
    return claims


def _agreement(squares: pd.DataFrame, exact: pd.DataFrame) -> Claim:
    own = squares[squares.network == LINEAR].merge(
        exact, on=["image", "estimator", "K"], suffixes=("", "_exact")
    )
    own = own[own.squared_exact.notna()]
    z = np.abs((own.squared - own.squared_exact) / own.se)
    threshold = stats.family_threshold(max(len(own), 1), measures.FAMILY_RATE, gradients.GROUPS - 1)
    seen = (threshold + stats.family_threshold(1, 2e-3)) * own.se / own.squared_exact
    return Claim(
        "With the linear decoder the measured ratios are the exact ones, image by image.",
        r"\mathrm{SNR}_K(\phi)",
        float(z.max()) if len(own) else float("nan"),
        high=threshold,
        note=f"The largest distance of {len(own)} squared ratios ({own.image.nunique()} images, "
        f"{' and '.join(dict.fromkeys(own.estimator))}, $K$ up to {own.K.max():,}) in jackknife standard errors, "
        f"with a family-wise rate of {measures.RATE_TEXT} by Student's law. Half of them would have been found "
        f"wrong by {seen.median():.0%}.",
    )


STUDY = Study(
    name="transfer",
    order=8,
    title="From the toy problem to networks",
    question="Does the theory of the toy problem explain the gradients of a trained network?",
    settings=TransferSettings,
    full={
        "deep_epochs": 60,
        "images": 60,
        "particles": 2**17,
        "exact_images": 8,
        "compared_images": 12,
        "compared_particles": 2**15,
    },
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="Gradients are those by the mean of each image's own proposal. From one pool of particles of an image come "
    "replicates at every $K$, the moments of its weight $w$, and with them the constants that the theory predicts: for "
    "IWAE $\\sqrt{K}\\,\\mathrm{SNR}\\to|\\mathrm{E}[w^2t]|/\\sqrt{\\mathrm{E}[w^2t^2]}$ with "
    "$t=\\partial\\log w/\\partial\\mu$, for DReG $\\mathrm{SNR}/\\sqrt{K}\\to|A|/\\sqrt{\\mathrm{Var}[w^2g-2Aw]}$ "
    "with the path derivative $g$ and $A=\\mathrm{E}[w^2g]$ ($w$ in units of its mean).",
    cost=25.0,
)
