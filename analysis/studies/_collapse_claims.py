"""What the study of the collapse claims."""

from __future__ import annotations

import numpy as np

from analysis import measures, report
from analysis.study import Claim, Table, unsampled

LARGE = 100
"""Boundaries of fewer particles are no boundaries: the gap at K = 1 is of the order of the first term there."""


def verdicts(table: Table) -> list[Claim]:
    """The first term's excess, the boundary in both families, and what becomes of the gradients."""
    return [
        *_one_variance(table["check"]),
        *_boundary(table["boundary"]),
        *_gradients(table["snr"]),
        _sampled(table),
    ]


def _one_variance(check) -> list[Claim]:
    early, late = check.iloc[0], check.iloc[1]
    return [
        Claim.near(
            "With log-normal weights of $\\mathrm{Var}[\\log w]=9$ the first term is seven times the gap at $K=e^9$.",
            r"\frac{\mathrm{Var}[w]}{2KZ^2}\approx 7(\log Z-L_K)",
            float(early.excess),
            expected=7.0,
            within=0.5,
            note=f"The first term over the exact gap at $K$ = {report.in_prose(early.K, 8)}.",
        ),
        Claim.near(
            "It is still 8 % too large at $K=e^{18}$.",
            r"\frac{\mathrm{Var}[w]}{2KZ^2}\approx 1.08(\log Z-L_K)",
            float(late.excess),
            expected=1.08,
            within=0.005,
            note=f"The same at $K$ = {report.in_prose(late.K, 8)}.",
        ),
        Claim(
            "Both ratios are right to ten digits.",
            r"\log Z-L_K",
            float((check.excess / check.by_sums - 1).abs().max()),
            high=1e-10,
            note="The larger relative difference from sums over one dimension of noise and over $\\log t$, by code "
            "that shares nothing with the oracle, which works in nine dimensions.",
        ),
    ]


def _boundary(boundary) -> list[Claim]:
    there = boundary[(boundary.K >= LARGE) & boundary.ratio.notna()]
    normal = boundary[boundary.family == boundary.family.iloc[0]]
    same = (normal.divergence / (2 * normal.log_weight_variance) - 1).abs().max()
    last = normal.sort_values("dimension").iloc[-1]
    other = boundary[boundary.family != boundary.family.iloc[0]].sort_values("dimension").iloc[-1]
    return [
        Claim.near(
            "On the boundary, with $r\\propto p(z\\mid x)^2/q(z)$, the first term is right up to a fifth.",
            r"K=\exp(\mathrm{KL}(r\Vert q))",
            measures.farthest(there.ratio, 1.0),
            expected=1.0,
            within=0.2,
            note=f"The exact gap over the first term that is farthest from 1, of {len(there)} proposals of both "
            f"families with a boundary between {LARGE} and {report.in_prose(int(there.K.max()))}, and a variance of "
            f"$w$ from {report.in_prose(there.weight_variance.min())} to "
            f"{report.in_prose(there.weight_variance.max())}.",
            condition=r"$\mathrm{Var}[w]<\infty$",
        ),
        Claim(
            "At the square root of the boundary it is several times too large.",
            r"K=\exp(\mathrm{KL}(r\Vert q)/2)",
            float(last.root_ratio),
            high=0.25,
            note=f"The exact gap over the first term in {last.dimension} dimensions, of the log-normal family; "
            f"in the "
            f"other it is {other.root_ratio:.3f} in {other.dimension}.",
        ),
        Claim(
            "For log-normal weights the boundary is $K=e^{2\\mathrm{Var}[\\log w]}$.",
            r"\mathrm{KL}(r\Vert q)=2\mathrm{Var}[\log w]",
            float(same),
            high=1e-12,
            note="The largest relative difference of both sides, closed forms. For proposals that are wider than the "
            f"posterior it is not: in {other.dimension} dimensions they are {other.divergence:.1f} and "
            f"{2 * other.log_weight_variance:.1f}.",
            condition="$q$ has the posterior's covariance",
        ),
    ]


def _gradients(snr) -> list[Claim]:
    lines = snr.pivot(index="dimension", columns=["estimator", "parameter"], values="snr")
    iwae, model, dreg = (
        np.log(lines[key].to_numpy())
        for key in (("iwae", "proposal_mean"), ("iwae", "prior_mean"), ("dreg", "proposal_mean"))
    )
    few, many = lines.index[0], lines.index[-1]
    sizes = snr.groupby("dimension").ess.first()
    return [
        Claim(
            "At fixed $K$, the model's SNR falls as the dimension grows, and the proposal's rises.",
            r"\mathrm{SNR}_{2D}(\theta)<\mathrm{SNR}_D(\theta),\quad\mathrm{SNR}_{2D}(\phi)>\mathrm{SNR}_D(\phi)",
            float(min(np.diff(iwae).min(), -np.diff(model).max())),
            low=0.0,
            note=f"The smallest step of the logarithm, from {few} to {many} dimensions; the expected sample "
            f"size falls "
            f"from {sizes.iloc[0]:.0f} to {sizes.iloc[-1]:.1f}: what is left of the particles is hardly more "
            f"than one.",
        ),
        Claim(
            "DReG's advantage in the proposal shrinks with the dimension.",
            r"\frac{\mathrm{SNR}_{\mathrm{DReG}}(\phi)}{\mathrm{SNR}_{\mathrm{IWAE}}(\phi)}",
            float(-np.diff(dreg - iwae).max()),
            low=0.0,
            note=f"The smallest step of the logarithm; the ratio is {np.exp(dreg - iwae)[0]:.0f} in {few} and "
            f"{np.exp(dreg - iwae)[-1]:.1f} in {many} dimensions.",
        ),
    ]


def _sampled(table: Table) -> Claim:
    samples, formula = table["samples"], r"\mathrm{E}[\Delta_K]"
    text = "Monte Carlo agrees with the exact means of these gradients."
    if samples.empty:
        return unsampled(text, formula)
    z, limit, tests = measures.agreement(samples.z, samples.replicates[0])
    return Claim(
        text,
        formula,
        z,
        high=limit,
        note=f"The largest $|z|$ of {tests} tests with a family-wise error rate of {measures.RATE_TEXT}, from "
        f"{samples.replicates[0]:,} replicates.",
    )
