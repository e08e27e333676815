"""The claims of the study of importance sampling."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis import measures, report
from analysis.study import Claim, Table
from toyiwae import stats

SIMPLE, IMPORTANCE, POSTERIOR = "simple Monte Carlo", "importance sampling", "posterior"


def verdicts(table: Table) -> list[Claim]:
    """Unbiased, of known variance, monotone, and the gap is a divergence."""
    curves, samples, variance = table["curves"], table["samples"], table["variance"]
    return [
        *_estimate(samples),
        _closed(variance),
        *_proposals(variance),
        _monotone(curves),
        *_gap(table["divergence"]),
    ]


def _estimate(samples: pd.DataFrame) -> list[Claim]:
    count, tests = int(samples.replicates.iloc[0]), 2 * len(samples)
    limit = stats.family_threshold(tests, measures.FAMILY_RATE)
    shift = measures.detectable((samples.relative_std / np.sqrt(count)).max(), tests)
    note = (
        f"The largest $|z|$ of {len(samples)} sampled values from {count:,} replicates, $K$ = "
        f"{', '.join(str(k) for k in samples.K.unique())}, both proposals; the standard errors are exact, by the "
        f"weight's first four moments. Together with the other test the family-wise error rate is "
        f"{measures.RATE_TEXT}."
    )
    return [
        Claim(
            "The mean of the weights is an unbiased estimate of the evidence, from the prior and from any proposal.",
            r"\mathrm{E}\,\frac{1}{K}\sum_k w_k=Z",
            measures.worst(samples.z_mean),
            high=limit,
            note=f"{note} A bias of {shift:.1%} of $Z$ would have been found in every case.",
            source="slide: simplest estimator; slide: importance sampling; barber2012bayesian",
            condition="$q$ is positive wherever the posterior is",
        ),
        Claim(
            "Its variance is the weight's over $K$.",
            r"\mathrm{Var}[\hat Z]=\frac{1}{K}\mathrm{Var}[w]",
            measures.worst(samples.z_var),
            high=limit,
            note=note,
            source="slide: importance sampling; barber2012bayesian",
            condition=r"$\mathrm{Var}[w]<\infty$",
        ),
    ]


def _closed(variance: pd.DataFrame) -> Claim:
    own = variance[variance.way != POSTERIOR]
    return Claim(
        "The variance of simple Monte Carlo and of importance sampling is known exactly.",
        r"\frac{\mathrm{Var}[w]}{Z^2}=\int\frac{p(z\mid x)^2}{q(z\mid x)}dz-1",
        float((own.variance / own.check - 1).abs().max()),
        high=1e-10,
        note=f"The largest relative difference of two closed forms, one from the eigenvalues of the "
        f"whitened problem, one "
        f"from the densities, over {own.row.nunique()} observations in the toy problem of the report's dimension.",
        source="slide: importance sampling",
        condition=r"$\mathrm{Var}[w]<\infty$",
    )


def _proposals(variance: pd.DataFrame) -> list[Claim]:
    wide = variance.pivot(index="row", columns="way", values="variance")
    ratio = wide[SIMPLE] / wide[IMPORTANCE]
    needed = report.in_prose(float(np.median(wide[SIMPLE])) * 1e4)
    return [
        Claim(
            "Near the posterior a proposal needs far fewer particles than the prior.",
            r"\mathrm{Var}_{p(z)}[w]>\mathrm{Var}_{q(z\mid x)}[w]",
            float(ratio.min()),
            low=1.0,
            note=f"The smallest ratio of the two variances over {len(wide)} observations of the toy "
            f"problem; the median is "
            f"{report.in_prose(float(ratio.median()))}. For an error of one per cent simple Monte Carlo "
            f"needs a median of "
            f"{needed} particles, importance sampling {report.in_prose(float(np.median(wide[IMPORTANCE])) * 1e4)}.",
            source="slide: importance sampling; burda2016iwae",
            condition="$q$ is near the posterior",
        ),
        Claim(
            "With the posterior as the proposal one particle is enough: the weight does not vary.",
            r"\mathrm{Var}_{p(z\mid x)}[w]=0",
            float(wide[POSTERIOR].abs().max()),
            high=1e-12,
            note=f"The largest variance in units of $Z^2$, over {len(wide)} observations.",
            source="slide: importance sampling; barber2012bayesian",
        ),
    ]


def _monotone(curves: pd.DataFrame) -> Claim:
    steps = []
    for _, own in curves.groupby("way", sort=False):
        gap = own.set_index("K").gap
        k = own.K[own.drawn].to_numpy()
        steps.append(k * (gap[k].to_numpy() - gap[k + 1].to_numpy()) / gap[k].to_numpy())
    return Claim(
        "The bound tightens with every particle, whatever the proposal.",
        r"L_K\le L_{K+1}\le\log Z",
        float(np.concatenate(steps).min()),
        low=0.0,
        note=f"The smallest relative step $K(L_{{K+1}}-L_K)/(\\log Z-L_K)$, from the prior and from the "
        f"proposal, up to "
        f"$K$ = {curves.K[curves.drawn].max():,}.",
        source="slide: IWAE 1; burda2016iwae",
    )


def _gap(found: pd.DataFrame) -> list[Claim]:
    apart, coarse = (found.divergence / found.gap - 1).abs(), (found.coarser / found.divergence - 1).abs()
    counts = ", ".join(str(k) for k in found.K.unique())
    return [
        Claim(
            "The gap is the divergence between the particles' law and the one that has a particle of the "
            "posterior in it.",
            r"\log Z-L_K=\mathrm{KL}(Q_\mathrm{IS}\Vert P_\mathrm{IS})",
            float(apart.max()),
            high=1e-10,
            note=f"The largest relative difference between the exact gap and the divergence, integrated "
            f"over all particles "
            f"at once from densities written by hand: $K$ = {counts}, both proposals. Three quarters of the "
            f"nodes change "
            f"the integrals by {report.in_prose(float(coarse.max()))} at most.",
            source="slide: P_IS; cremer2017reinterpreting; domke2018importance",
        ),
    ]
