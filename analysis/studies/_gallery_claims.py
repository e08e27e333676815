"""The claims of the gallery of bounds."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis import measures
from analysis.study import Claim, Table
from toyiwae import estimators

VR, CUBO = "vr_iwae", "vr_iwae:-1"
"""VR-IWAE of order 1/2, the default; and half the logarithm of the mean squared weight, whose limit is the χ upper
bound of order 2."""


def verdicts(table: Table) -> list[Claim]:
    """The order of the bounds, how fast they move, and Monte Carlo."""
    return [*_orders(table), *_rates(table), *_agreement(table["samples"])]


def _of(exact: pd.DataFrame, name: str) -> pd.DataFrame:
    return exact[exact.estimator == name].drop_duplicates("K").set_index("K").sort_index()


def _orders(table: Table) -> list[Claim]:
    exact, facts = table["exact"], table["facts"].iloc[0]
    elbo, vr, iwae = (_of(exact[exact.K > 1], name).value for name in ("elbo", VR, "iwae"))
    cubo, steps = _of(exact, CUBO).value, [vr - elbo, iwae - vr, -iwae]
    above = [facts.eubo - facts.log_evidence, facts.cubo - facts.log_evidence]
    return [
        Claim(
            "From below the bounds have one order at every $K$: ELBO, VR-IWAE, IWAE, evidence.",
            r"L_1\le L_K^{(\alpha)}\le L_K\le\log Z",
            float(min(step.min() for step in steps)),
            low=0.0,
            note=f"The smallest of the exact differences, $K$ from 2 to {exact.K.max():,}, α = 0.5.",
            source="slide: tightening or variance; daudel2023alphadivergence",
            condition=r"$0\le\alpha\le 1$",
        ),
        Claim(
            "EUBO and CUBO bound the evidence from above.",
            r"\log Z\le\mathrm{E}_{p(z\mid x)}\log w,\quad\log Z\le\frac{1}{2}\log\mathrm{E}_q[w^2]",
            float(min(above)),
            low=0.0,
            note="The smaller distance of the two from the evidence, in nats, by closed forms.",
            source="slide: tightening or variance; li2016renyi",
            condition=r"$\mathrm{E}[w^2]<\infty$ (CUBO)",
        ),
        Claim(
            "CUBO's estimate from few particles is no upper bound: with one it is the ELBO.",
            r"\mathrm{E}\,\frac{1}{2}\log\frac{1}{K}\sum_k w_k^2\le\log Z",
            float(cubo.iloc[0]),
            high=0.0,
            note=f"Its exact expectation at $K$ = {cubo.index[0]}, in nats from the evidence; it is above "
            f"the evidence from "
            f"$K$ = {cubo.index[(cubo > 0).argmax()]:,} of the values shown on.",
            source="slide: tightening or variance",
        ),
    ]


def _rates(table: Table) -> list[Claim]:
    exact, facts = table["exact"], table["facts"].iloc[0]
    largest = int(exact.K.max())
    vr, iwae, cubo = _of(exact, VR), _of(exact, "iwae"), _of(exact, CUBO)
    law = largest * (facts.vr_limit - vr.value[largest]) / facts.vr_constant
    claims = [
        Claim.near(
            "VR-IWAE tends to the variational Rényi bound, its distance like that of IWAE with the powers "
            "of the weights.",
            r"L_\infty^{(\alpha)}-L_K^{(\alpha)}\approx\frac{\mathrm{Var}[w^{1-\alpha}]}"
            r"{2(1-\alpha)K\,\mathrm{E}[w^{1-\alpha}]^2}",
            float(law),
            expected=1.0,
            within=10 / largest,
            note=f"The ratio of both sides at $K$ = {largest:,}, α = 0.5; limit and constant are closed "
            f"integrals by code "
            "that shares nothing with the oracle. The tolerance is ten times the order of the next term, $1/K$.",
            source="daudel2023alphadivergence",
            condition=r"$\mathrm{E}[w^{2(1-\alpha)}]<\infty$",
        ),
        Claim.near(
            "The noise of IWAE's estimate of the evidence falls like that of the mean weight.",
            r"K\,\mathrm{Var}[\log\hat Z]\to\frac{\mathrm{Var}[w]}{Z^2}",
            float(largest * iwae["std"][largest] ** 2 / facts.variance),
            expected=1.0,
            within=10 / largest,
            note=f"The ratio of both sides at $K$ = {largest:,}: a contour integral over one from two "
            f"normal densities.",
            source="slide: tightening or variance; rainforth2018tighter",
            condition=r"$\mathrm{Var}[w]<\infty$",
        ),
        Claim.near(
            "CUBO's estimate tends to CUBO.",
            r"\frac{1}{2}\log\frac{1}{K}\sum_k w_k^2\to\frac{1}{2}\log\mathrm{E}_q[w^2]",
            float(cubo.value[largest] - facts.cubo_limit),
            expected=0.0,
            within=100 / largest,
            note=f"The difference at $K$ = {largest:,}; the limit is a closed integral by other code.",
            source="slide: tightening or variance",
            condition=r"$\mathrm{E}[w^4]<\infty$",
        ),
    ]
    for name in (name for name in exact.estimator.unique() if estimators.get(name).family == "jackknife"):
        found, order = _of(exact, name).value, int(estimators.get(name).parameter or 0)
        few, many = sorted(k for k in found.index if not exact[exact.K == k].drawn.any() and k < largest)
        slope = np.log(found[many] / found[few]) / np.log(many / few)
        claims.append(
            Claim(
                f"The jackknife of order {order} takes {order} power{'s' * (order > 1)} of $1/K$ off the bias.",
                rf"\mathrm{{E}}[B]-\log Z=O(K^{{-{order + 1}}})",
                float(slope),
                high=-order - 0.95,
                note=f"The local slope of the exact bias between $K$ = {few} and {many}: the bias falls at "
                f"least as fast "
                "as stated; the next power of $1/K$ makes it steeper.",
                source="nowozin2018jvi",
                condition=rf"$\mathrm{{E}}[w^{order + 2}]<\infty$",
            )
        )
    return claims


def _agreement(samples: pd.DataFrame) -> list[Claim]:
    z = np.concatenate([samples.z, samples.z_var.dropna()])
    worst, limit, tests = measures.agreement(z, int(samples.replicates.iloc[0]))
    return [
        Claim(
            "Monte Carlo agrees with the exact expectations and variances of all of them.",
            r"\mathrm{E}[B],\;\mathrm{Var}[B]",
            worst,
            high=limit,
            note=f"The largest $|z|$ of {tests} tests, {samples.replicates.iloc[0]:,} replicates at $K$ = "
            f"{' and '.join(str(k) for k in samples.K.unique())}, with a family-wise error rate of "
            f"{measures.RATE_TEXT}; "
            "the log-weights are those of normal densities written by hand, the estimates the registry's own.",
        )
    ]
