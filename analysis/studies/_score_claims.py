"""The claims of the study of score-function gradients."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis import measures
from analysis.studies._narrow_proposals import BASELINE, UNIFORM
from analysis.studies._sampled_gradients import agreement
from analysis.studies._score_truth import COORDINATES, called
from analysis.study import Claim, Table, unsampled

PLAIN, GEOMETRIC = "score_function", "vimco_geometric"
KEYS = ["latents", "index"]


def verdicts(table: Table) -> list[Claim]:
    """The two laws with their constants, what separates them, and the checks by tuples and by samples."""
    exact, limits = table["exact"], table["limits"].set_index(KEYS)
    return [
        *_law(
            exact, limits, BASELINE, "arithmetic", -0.5,
            "VIMCO's signal-to-noise ratio falls like 1/√K.",
            r"\mathrm{SNR}_\mathrm{VIMCO}(\phi)=\Theta(\sqrt{M/K})",
            r"\sqrt{K}\,\mathrm{SNR}\to\frac{|\partial_\phi\mathrm{Var}[w]|}{2Z^2\sqrt{\mathrm{E}[s^2]}}",
            r"$\partial_\phi\mathrm{Var}[w]\ne 0$ and $w$ has a finite variance ($\beta_\min>-\frac{1}{2}$)",
            "lievin2020ovis; daudel2026vimco",
        ),
        *_law(
            exact, limits, UNIFORM, "leave_one_out", 0.5,
            "The signal-to-noise ratio of OVIS(0), which is VIMCO-★(0), grows like √K.",
            r"\mathrm{SNR}_{\mathrm{OVIS}(0)}(\phi)=\Theta(\sqrt{MK})",
            r"\frac{\mathrm{SNR}}{\sqrt{K}}\to\frac{|a|}{\mathrm{std}[w^2s/Z^2-2aw/Z]},"
            r"\quad a=\frac{\mathrm{E}[w^2s]}{Z^2}",
            r"$\partial_\phi\mathrm{Var}[w]\ne 0$ and $w$ has a fourth moment ($\beta_\min>-\frac{1}{4}$)",
            "lievin2020ovis; daudel2026vimco",
        ),
        *_law(
            exact, limits, PLAIN, "evidence", -1.5,
            "Without any baseline the signal-to-noise ratio of the score function falls like K^(−3/2).",
            r"\mathrm{SNR}(\phi)=\Theta(\sqrt{M}K^{-3/2})",
            r"K^{3/2}\,\mathrm{SNR}\to\frac{|\partial_\phi\mathrm{Var}[w]|}{2Z^2|\log Z|\sqrt{\mathrm{E}[s^2]}}",
            r"$\partial_\phi\mathrm{Var}[w]\ne 0$, $\log Z\ne 0$ and $w$ has a finite variance",
        ),
        _constant_apart(exact, limits),
        *_slide(table),
        *_identities(table["identity"]),
        *_geometric(table),
        _tuples(exact, table["enumerated"]),
        _tails(table["tails"]),
    ]  # fmt: skip


def _law(
    exact: pd.DataFrame, limits: pd.DataFrame, name: str, column: str, power: float, text: str, law: str, constant: str,
    condition: str, source: str = "",
) -> list[Claim]:  # fmt: skip
    """The local slope of a ratio at the largest K, and its constant there."""
    part = exact[exact.estimator == name]
    snr = part.assign(snr=part["mean"].abs() / np.sqrt(part["var"])).pivot(
        index="K", columns=KEYS, values="snr"
    )
    (near, last), limit = snr.index[-2:], limits.drift.abs() / np.sqrt(limits[column])
    ratio = snr.loc[last] * float(last) ** -power / limit.reindex(snr.columns)
    return [
        Claim.near(
            text, law, measures.farthest(measures.slopes([near, last], snr.loc[[near, last]]), power),
            expected=power, within=1e-3,
            note=f"The exact local slope between $K$ = {near:,} and {last:,} that is farthest from {power:g}, over "
            f"{snr.shape[1]} coordinates of the proposal on Gaussian and on binary latents.",
            source=source, condition=condition,
        ),
        Claim.near(
            f"The ratio of {called(name)} has the constant that the theory gives.", constant,
            measures.farthest(ratio, 1.0),
            expected=1.0, within=100 / last,
            note=f"The exact ratio at $K$ = {last:,} over its limit, for $M$ = 1: a closed Gaussian integral, "
            f"or a sum "
            "over the binary states. Farthest from 1 over the same coordinates; the tolerance is $100/K$, since the "
            "next term is of order $1/K$. Here $s=\\partial_\\phi\\log q$.",
            source=source, condition=condition,
        ),
    ]  # fmt: skip


def _constant_apart(exact: pd.DataFrame, limits: pd.DataFrame) -> Claim:
    """Var[VIMCO] from Var[OVIS(0)] and its covariance with the sum of scores."""
    wide = exact.set_index([*KEYS, "K"])
    vimco, ovis = (wide[wide.estimator == name] for name in (BASELINE, UNIFORM))
    k = ovis.index.get_level_values("K").to_numpy(dtype=float)
    of_scores = k * limits.arithmetic.reindex(ovis.index.droplevel("K")).to_numpy()
    shift = np.log1p(-1 / k)
    implied = ovis["var"] + of_scores * shift * (shift - 2 * ovis.best_constant)
    apart = (implied / vimco["var"] - 1).abs()
    share = 1 - of_scores * ovis.best_constant**2 / ovis["var"]
    last = share[k == k.max()]
    return Claim(
        "One constant on every score is all that separates VIMCO from OVIS(0).",
        r"c^\mathrm{VIMCO}_k=c^{\mathrm{OVIS}(0)}_k+\log(1-1/K)",
        float(apart.max()),
        high=1e-9,
        note="The exact variance of VIMCO against that of OVIS(0) with the constant added, "
        "$\\mathrm{Var}[\\Delta]+2b\\,\\mathrm{Cov}[\\Delta,\\sum_k s_k]+b^2K\\mathrm{E}[s^2]$: the largest relative "
        f"difference over all $K$ and coordinates. The best constant of all would leave between {last.min():.0%} and "
        f"{last.max():.0%} of OVIS(0)'s variance at the largest $K$.",
    )


def _slide(table: Table) -> list[Claim]:
    """What the slides say of discrete latents, and the form in which they print VIMCO."""
    bound, printed = table["bound"], table["printed"]
    steps = np.diff(bound.bound) / bound.gap.to_numpy()[:-1]
    right, scaled = (printed[printed.scale == scale] for scale in (1.0, printed.scale.max()))
    off = (scaled.printed_mean - scaled["mean"]).abs() / np.sqrt(scaled.printed_var)
    factor = (scaled.printed_var / right.printed_var.to_numpy()).max()
    return [
        Claim(
            "On discrete latents only IWAE's reparameterised gradient does not exist; the bound tightens as ever.",
            r"L_K\le L_{K+1}\le\log Z",
            float(steps.min()),
            low=0.0,
            note=f"The least rise of the exact bound on binary latents from one $K$ to the next, over the gap; $K$ = "
            f"{bound.K.iloc[0]} to {bound.K.iloc[-1]:,}. The slide says that IWAE does not work there.",
            source="slide: discrete latents",
        ),
        Claim(
            "The VIMCO that the slide prints, its leave-one-out mean outside the logarithm, is unbiased too.",
            r"\hat L_{-k}=\log\frac{1}{K}\sum_{i\ne k}w_i+\hat w_{-k}",
            float(off.max()),
            high=1e-12,
            note="The largest difference of its mean from VIMCO's, in its standard deviations, summed over all "
            "tuples "
            f"on binary latents at $K$ = {scaled.K.iloc[0]}: the baseline does not depend on $z_k$.",
            source="slide: VIMCO",
        ),
        Claim(
            "The variance of the VIMCO that the slide prints depends on the scale of $p(x)$.",
            r"\mathrm{Var}[\Delta]",
            float(factor),
            low=10.0,
            note=f"The factor by which the variance of the printed form grows where $p(x)$ is "
            f"{scaled.scale.iloc[0]:g} "
            "times as large; VIMCO's does not change (to "
            f"{float((scaled['var'] / right['var'].to_numpy() - 1).abs().max()):.0e}).",
            source="slide: VIMCO",
        ),
    ]


def _identities(identity: pd.DataFrame) -> list[Claim]:
    coefficients, means = (identity[identity.what == what] for what in ("coefficients", "means"))
    return [
        Claim(
            "VIMCO-★ at α = 0 is OVIS at γ = 0.",
            r"-\log(1-\tilde w_k)-\tilde w_k",
            float(coefficients.apart.max()),
            high=1e-13,
            note="The largest difference of any two coefficients, over the largest one, on random log-weights with a "
            f"standard deviation of 3, $K$ = {_listed(coefficients.K)}.",
        ),
        Claim(
            "OVIS at γ = 1 has the mean of IWAE sticking the landing, and so its bias.",
            r"\mathrm{E}[\Delta_{\mathrm{OVIS}(1)}]=\nabla_\phi L_K+\mathrm{E}[\Delta_\text{wake}]",
            float(means.apart.max()),
            high=1e-10,
            note=f"The largest relative difference of the two means on Gaussian latents, $K$ = {_listed(means.K)}. "
            "Both come from the same integrals, so this checks how they are put together.",
        ),
    ]


def _listed(values: pd.Series) -> str:
    return ", ".join(f"{value:,}" for value in dict.fromkeys(values))


def _geometric(table: Table) -> list[Claim]:
    """The geometric baseline: equal to the arithmetic at K = 2, its constant on binary latents, sampled moments."""
    limits, tuples = table["limits"].set_index(KEYS), table["enumerated"]
    wide = tuples.pivot(index="K", columns=["estimator", "index"], values="var")
    claims = []
    if 2 in wide.index:
        claims.append(
            Claim(
                "With two particles VIMCO's two baselines are one.",
                r"\hat L_{-k}^\mathrm{geometric}=\hat L_{-k}^\mathrm{arithmetic},\;K=2",
                float((wide.loc[2, GEOMETRIC] / wide.loc[2, BASELINE] - 1).abs().max()),
                high=1e-12,
                note="The largest relative difference of their variances on binary latents, summed over all tuples.",
            )
        )
    near, last = wide.index[-2:]
    ratio = wide[GEOMETRIC].mul(wide.index, axis=0) / limits.geometric["binary"]
    extrapolated = (last * ratio.loc[last] - near * ratio.loc[near]) / (last - near)
    gain = (limits.arithmetic / limits.geometric).groupby("latents").min()
    claims.append(
        Claim.near(
            "VIMCO's geometric baseline keeps the power of $K$ and gains the exponential of the divergence.",
            r"K\,\mathrm{Var}[\Delta]\to e^{-2\mathrm{KL}(q\Vert p)}\,\mathrm{E}[s^2]",
            measures.farthest(extrapolated, 1.0),
            expected=1.0,
            within=10 / near**2,
            note=f"The variance on binary latents times $K$ over its limit, by sums over all tuples, "
            f"extrapolated from "
            f"$K$ = {near} and {last} to $1/K=0$. The tolerance is $10/{near}^2$: what is left is of "
            f"second order. The gain in variance is a factor of {gain['binary']:.3g} here and of "
            f"{gain['gaussian']:.3g} on the Gaussian latents. There its variance at finite $K$ is not known beyond "
            "two particles: it needs the joint law of $\\sum w$ and $\\sum\\log w$.",
            condition="$w$ has a finite variance",
        )
    )
    return [*claims, *_sampled(table, limits)]


def _sampled(table: Table, limits: pd.DataFrame) -> list[Claim]:
    """Sampled means against exact ones, for what has no exact variance on Gaussian latents."""
    exact, both = table["exact"][table["exact"].latents == "gaussian"], table["samples"]
    text = "Samples of what has no exact variance agree with its exact mean."
    formula = r"\mathrm{E}[\Delta]=\nabla_\phi L_K"
    if both.empty:
        return [unsampled(text, formula)]
    worst, limit, tests, replicates, _ = agreement(both, exact, COORDINATES)
    shift = measures.detectable(1 / np.sqrt(replicates), tests)
    last = both[(both.K == both.K.max()) & (both.estimator == GEOMETRIC)]
    law = limits.geometric["gaussian"].reindex(last["index"]).to_numpy() / last.K
    far = f"The sampled variance of VIMCO's geometric form at $K$ = {both.K.max():,} is "
    found, se = last["var"] / law, last.var_se / law
    far += ", ".join(f"{one:.2f} ± {error:.2f}" for one, error in zip(found, se, strict=True))
    return [
        Claim(
            text,
            formula,
            worst,
            high=limit,
            note=f"The largest $|z|$ of {tests} tests with a family-wise error rate of {measures.RATE_TEXT}. "
            f"A shift of a mean by {shift:.2f} standard deviations of a replicate would have been found with "
            f"probability {measures.POWER}. {far} times its law, coordinate by coordinate.",
            source="mnih2016vimco",
        )
    ]


def _tuples(exact: pd.DataFrame, tuples: pd.DataFrame) -> Claim:
    both = exact[exact.latents == "binary"].merge(tuples, on=COORDINATES, suffixes=("", "_tuples"))
    both = both.dropna(subset=["var"])
    means = (both["mean"] - both.mean_tuples).abs() / np.sqrt(both.var_tuples)
    variances = (both["var"] / both.var_tuples - 1).abs()
    return Claim(
        "On binary latents the integrals are the sums over all tuples of particles.",
        r"\mathrm{E}[\Delta]=\sum_{z_{1:K}}q(z_{1:K})\,\Delta",
        float(max(means.max(), variances.max())),
        high=1e-9,
        note=f"The largest difference of {len(both)} means, in standard deviations, and of as many variances, "
        f"relative, for {both.estimator.nunique()} estimators, $K$ = {_listed(both.K)}. The sums use the estimators' "
        "functions and no integral.",
    )


def _tails(tails: pd.DataFrame) -> Claim:
    left = tails.slope - tails.law - tails.slow_term
    log_k = np.log(tails.K.iloc[0])
    return Claim.near(
        "Where the fourth moment of the weights is missing OVIS(0) loses its law, where the second is, VIMCO too.",
        r"\mathrm{SNR}_{\mathrm{OVIS}(0)}\propto K^{(1/|\beta_\min|-3)/2},\;-\frac{1}{2}<\beta_\min<-\frac{1}{4}",
        measures.farthest(left, 0.0),
        expected=0.0,
        within=log_k**-1.5,
        note=f"The exact local slope at $K$ = {tails.K.iloc[0]:,} less the power of panel (d) and less the slope of "
        "the slowly varying factor of a Gaussian tail (a multiple of $1/(4\\log K)$), farthest from 0 over "
        f"$\\beta_\\min$ = {', '.join(f'{beta:g}' for beta in tails.beta.unique())} and both estimators. The "
        f"tolerance "
        "is the size of the term after it, $(\\log K)^{-3/2}$. Below $-1/2$ both have the power "
        "$(1-1/|\\beta_\\min|)/2$.",
        condition=r"the direction of $\beta_\min$ is centred, and the gradient is that of another",
    )
