"""The claims of the study of effective sample sizes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis import measures
from analysis.study import Claim, Table, unsampled

SOURCE = "slide: effective sample size"


def verdicts(table: Table) -> list[Claim]:
    """Limits, collapse, the law without a variance, images, and the agreement of Monte Carlo."""
    curve, limits = table["curve"], table["limits"].set_index("dimension").fraction
    return [
        *_against_k(curve, limits),
        *_dimension(curve, limits),
        _tails(table["tails"]),
        _images(table["images"]),
        *_sampled(table["samples"]),
    ]


def _against_k(curve: pd.DataFrame, limits: pd.Series) -> list[Claim]:
    margin = np.minimum(curve.ess - 1, curve.K - curve.ess)[curve.K > 1]
    last = int(curve.K.max())
    fraction = curve.assign(fraction=curve.ess / curve.K).pivot(
        index="K", columns="dimension", values="fraction"
    )
    near = limits[limits * last > 1e5].index  # where many particles count at the largest K
    away = fraction[near] / limits[near] - 1
    far = away[away.index >= last**0.5]
    steps = fraction.diff().iloc[1:].max().max()
    slope = measures.slopes(far.index, far.to_numpy())[-3:]
    return [
        Claim(
            "The expected effective sample size lies between 1 and $K$.",
            r"1\le\mathrm{E}\frac{(\sum_k w_k)^2}{\sum_k w_k^2}\le K",
            float(margin.min()),
            low=0.0,
            note=f"The smallest distance from either end, over {curve.dimension.nunique()} dimensions up to "
            f"{curve.dimension.max()} and $K$ up to {last:,}.",
            source=SOURCE,
        ),
        Claim.near(
            "As a fraction of $K$ the expected effective sample size tends to a limit.",
            r"\frac{\mathrm{E}[\mathrm{ESS}]}{K}\to\frac{Z^2}{\mathrm{E}[w^2]}",
            measures.farthest(away.loc[last], 0.0),
            expected=0.0,
            within=1e-3,
            note=f"The exact fraction at $K$ = {last:,} over the limit, a closed Gaussian integral by other "
            f"code, less 1; "
            f"the farthest from 0 for $D$ = {_listed(near)}.",
            source=SOURCE,
            condition="$w$ has a finite variance ($\\beta_\\min>-\\frac{1}{2}$)",
        ),
        Claim.near(
            "The distance of that fraction from its limit is of order $1/K$.",
            r"\frac{\mathrm{E}[\mathrm{ESS}]}{K}-\frac{Z^2}{\mathrm{E}[w^2]}\propto K^{-1}",
            measures.farthest(slope, -1.0),
            expected=-1.0,
            within=0.05,
            note=f"The local slope of that distance farthest from −1 over the last steps in $K$, $D$ = "
            f"{_listed(near)}.",
            condition="$w$ has a fourth moment",
        ),
        Claim(
            "The fraction falls with $K$.",
            r"\frac{\mathrm{E}[\mathrm{ESS}_K]}{K}\ge\frac{\mathrm{E}[\mathrm{ESS}_{K'}]}{K'},\;K\le K'",
            float(steps),
            high=0.0,
            note="The largest change of the fraction from one $K$ to the next, over all dimensions.",
        ),
    ]


def _listed(values: pd.Index) -> str:
    return ", ".join(str(value) for value in values)


def _dimension(curve: pd.DataFrame, limits: pd.Series) -> list[Claim]:
    """The limit falls exponentially in the dimension, the size to 1 at fixed K."""
    wide = curve.pivot(index="dimension", columns="K", values="ess")
    wide = wide.loc[:, wide.columns > 1]
    rates = np.log(limits.to_numpy()) / limits.index.to_numpy()
    first, last = wide.index.min(), wide.index.max()
    k = 64 if 64 in wide.columns else int(wide.columns[-1])
    return [
        Claim(
            "With the dimension the limit of the fraction falls exponentially.",
            r"\frac{Z^2}{\mathrm{E}[w^2]}=\frac{Z_1^{2D}}{\mathrm{E}[w_1^2]^D}",
            float(np.ptp(rates / rates[0])),
            high=1e-10,
            note=f"The spread of the rate per dimension over $D$ = {_listed(limits.index)}, relative: a factor of "
            f"{np.exp(-rates[0]):.4f} per dimension.",
            condition="the coordinates are independent and alike, as in the toy problem at its optimum",
        ),
        Claim(
            "At fixed $K$ the expected effective sample size falls with the dimension, towards 1.",
            r"\mathrm{E}[\mathrm{ESS}_{D+1}]\le\mathrm{E}[\mathrm{ESS}_D]",
            float((wide.diff().iloc[1:] / wide.iloc[1:]).max().max()),
            high=0.0,
            note=f"The largest relative change from one dimension to the next, over all $K>1$. Of {k} particles "
            f"{wide.loc[first, k]:.1f} count at $D$ = {first}, {wide.loc[last, k]:.1f} at $D$ = {last}, where "
            f"the limit "
            f"would leave {k * limits[last]:.2g}.",
        ),
    ]


def _tails(tails: pd.DataFrame) -> Claim:
    narrow = tails[tails.beta < -0.5]
    last = int(narrow.K.max())
    left = []
    for beta, part in narrow.groupby("beta"):
        near, far = part.sort_values("K").iloc[-2:].itertuples(index=False)
        slope = np.log(far.ess / near.ess) / np.log(far.K / near.K)
        left.append(slope - (2 + 2 * float(beta)) + float(beta) / np.log(last))
    return Claim.near(
        "Where the weights have no variance the expected effective sample size grows slower than $K$.",
        r"\mathrm{E}[\mathrm{ESS}]\propto K^{2-2|\beta_\min|},\;\beta_\min<-\frac{1}{2}",
        measures.farthest(left, 0.0),
        expected=0.0,
        within=float(np.log(last) ** -1.5),
        note=f"The exact local slope at $K$ = {last:,} less that power and less $|\\beta|/\\log K$, what the "
        f"slowly varying "
        "factor of a Gaussian tail adds, the farthest from 0 for β = "
        f"{', '.join(f'{beta:g}' for beta in narrow.beta.unique())}. The tolerance is the size of the term after it, "
        "$(\\log K)^{-3/2}$.",
        condition="the direction of $\\beta_\\min$ is centred",
    )


def _images(images: pd.DataFrame) -> Claim:
    found, texts = [], []
    for (name, k), part in images.groupby(["images", "K"], sort=False):
        rank = part[["gap", "ess"]].rank().corr().iloc[0, 1]
        found.append(float(rank))
        low, high = part.ess.min(), part.ess.max()
        texts.append(f"{name}, $K$ = {k:,}: {low:.1f} to {high:.1f}")
    return Claim(
        "The effective sample size differs from image to image, and its ranks fall as those of the gap rise.",
        r"\mathrm{E}[\mathrm{ESS}(x)]",
        max(found),
        high=-0.5,
        note=f"The rank correlation of exact size and exact gap over the images, the weakest; −1 is a perfect order. "
        f"Expected sizes, {'; '.join(texts)}.",
        source=SOURCE,
    )


def _sampled(samples: pd.DataFrame) -> list[Claim]:
    text, formula = "Monte Carlo agrees with the exact sizes.", r"\mathrm{E}[\mathrm{ESS}]"
    if samples.empty:
        return [unsampled(text, formula)]
    z, limit, tests = measures.agreement(samples.z, int(samples.replicates.iloc[0]))
    shift = (measures.detectable(samples.se, tests) / samples.ess).max()
    return [
        Claim(
            text,
            formula,
            z,
            high=limit,
            note=f"The largest $|z|$ of {tests} tests with a family-wise error rate of {measures.RATE_TEXT}. A "
            f"shift by "
            f"{shift:.1%} would have been found in each with probability {measures.POWER}.",
        )
    ]
