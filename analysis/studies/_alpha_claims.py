"""The claims of the study of VR-IWAE's order."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis import measures
from analysis.studies import _alpha_truth as truth
from analysis.studies._sampled_gradients import agreement
from analysis.study import Claim, Table, unsampled

SOURCE = "daudel2023alphadivergence"
MOST_LEFT = 0.1
"""Of a limit: what terms of higher order may leave where it is looked at."""


def verdicts(table: Table) -> list[Claim]:
    """The ends, the order of the bounds, their limits, the powers of K in the ratio, and the best order."""
    return [
        *_ends(table["ends"]),
        *_bounds(table["bounds"], table["limits"]),
        *_ratio(table["exact"]),
        *_trade(table),
        _polynomials(table["between"], int(table["facts"].points[0])),
        _sampled(table["samples"], table["exact"]),
    ]


def _ends(ends: pd.DataFrame) -> list[Claim]:
    claims = []
    for (_, part), text, formula in zip(
        ends.groupby("end", sort=False),
        ("At α = 0 VR-IWAE is IWAE.", "At α = 1 VR-IWAE is the ELBO."),
        (r"\lim_{\alpha\to 0}L^{(\alpha)}_K=L_K", r"\lim_{\alpha\to 1}L^{(\alpha)}_K=L_1"),
        strict=True,
    ):
        at = part[part.alpha.isin([0.0, 1.0])].apart.max()
        distance = float((part.alpha - part.alpha.round()).abs().max())
        claims.append(
            Claim(
                text,
                formula,
                float(part.apart.max()),
                high=100 * distance,
                note=f"The largest distance of mean (in standard deviations) and variance (relative) of all "
                f"coordinates at "
                f"{distance:.0e} from that order; the tolerance is 100 times that distance. At the order "
                f"itself they are "
                f"the same to {at:.0e}.",
                source=SOURCE,
            )
        )
    return claims


def _bounds(bounds: pd.DataFrame, limits: pd.DataFrame) -> list[Claim]:
    first = bounds[bounds.estimator == bounds.estimator.iloc[0]]
    gaps = first.pivot(index="alpha", columns="K", values="gap")
    steps = gaps.diff().iloc[1:] / gaps.iloc[1:]
    inner = limits[limits.alpha > 0].set_index("alpha")
    errors = first.pivot(index="alpha", columns="K", values="error").reindex(inner.index)
    rounded = 8 * np.finfo(float).eps * (inner.gap.abs() + 1 / (1 - inner.index.to_numpy()))
    within = {int(k): (2 * inner.second.abs() / k + k * (errors[k] + rounded)) / inner.next for k in gaps}
    last = min(within, key=lambda k: within[k].max())
    apart = last * (gaps[last].reindex(inner.index) - inner.gap) / inner.next - 1
    return [
        Claim(
            "The VR-IWAE bound falls with α, from IWAE's to the ELBO.",
            r"L^{(\alpha)}_K\ge L^{(\alpha')}_K,\;\alpha\le\alpha'",
            float(steps.min().min()),
            low=0.0,
            note=f"The smallest relative rise of the gap from one of {len(gaps)} values of α in [0, 1] to the "
            f"next, over "
            f"{len(gaps.columns)} values of $K$ from {int(gaps.columns.min())} to {int(gaps.columns.max()):,}.",
            source=f"{SOURCE}; li2016renyi",
        ),
        Claim(
            "As $K$ grows the VR-IWAE bound tends to the variational Rényi bound, from below, with the "
            "variance of $w^{1-\\alpha}$.",
            r"L^{(\alpha)}_K=L^{(\alpha)}_\infty-\frac{\mathrm{Var}[w^{1-\alpha}]}{2(1-\alpha)K\,\mathrm{E}[w^{1-\alpha}]^2}"
            r"+o(K^{-1})",
            float((apart.abs() / within[last]).max()) if within[last].max() < MOST_LEFT else np.nan,
            high=1.0,
            note=f"$K(L^{{(\\alpha)}}_\\infty-L^{{(\\alpha)}}_K)$ at $K$ = {last:,} over its limit, closed Gaussian "
            f"integrals both, less 1: the farthest of {len(inner)} values of α is {apart.abs().max():.1g}. Measured in "
            "twice the term of order $1/K^2$, in closed form too, and what the bound states and rounding may add: "
            f"between {within[last].min():.1g} and {within[last].max():.1g}, the least at this $K$.",
            source=SOURCE,
            condition="$w^{1-\\alpha}$ has a finite variance; for the tolerance, a finite third moment",
        ),
    ]


def _ratio(exact: pd.DataFrame) -> list[Claim]:
    """Local slopes of the proposal's ratio at the largest K, coordinate by coordinate."""
    part = exact[exact.parameter == truth.PROPOSAL]
    snr = part.assign(snr=part["mean"].abs() / np.sqrt(part["var"]))
    wide = snr.pivot(index="K", columns=["estimator", "alpha", "index"], values="snr")
    near, last = wide.index[-2:]
    slope = pd.Series(measures.slopes([near, last], wide.loc[[near, last]])[0], wide.columns)
    names, alpha = slope.index.get_level_values("estimator"), slope.index.get_level_values("alpha")
    total = names == names[0]
    both, errors = (
        part.pivot(index=["K", "alpha", "index"], columns="estimator", values=value)
        for value in ("mean", "mean_error")
    )
    apart = both.max(axis=1, skipna=False) - both.min(axis=1, skipna=False)
    stated = float((apart / errors.sum(axis=1, skipna=False)).max(skipna=False))
    size = np.sqrt((both.max(axis=1) ** 2).groupby(["K", "alpha"]).transform("sum"))
    relative = float((apart / size).max(skipna=False))
    middle = (alpha > 0.1) & (alpha < 1)
    note = f"The exact local slope between $K$ = {near:,} and {last:,}, the farthest over the coordinates"
    return [
        Claim.near(
            "At α = 0 the signal-to-noise ratio of the proposal's reparameterised gradient falls like 1/√K.",
            r"\mathrm{SNR}(\phi)=\Theta(\sqrt{M/K}),\;\alpha=0",
            measures.farthest(slope[total & (alpha == 0)], -0.5),
            expected=-0.5,
            within=1e-2,
            note=f"{note}.",
            source=f"{SOURCE}; rainforth2018tighter",
            condition="$\\partial_\\phi\\mathrm{Var}[w]\\ne 0$ and $w$ has a finite variance",
        ),
        Claim.near(
            "For α between 0 and 1 it grows like √K.",
            r"\mathrm{SNR}(\phi)=\Theta(\sqrt{MK}),\;0<\alpha<1",
            measures.farthest(slope[total & middle], 0.5),
            expected=0.5,
            within=1e-2,
            note=f"{note} and {len(set(alpha[middle]))} values of α from {alpha[middle].min():.2f} on; nearer "
            f"to 0 the law "
            "needs more particles.",
            source=SOURCE,
            condition="$\\partial_\\phi L^{(\\alpha)}_\\infty\\ne 0$",
        ),
        Claim(
            "The doubly reparameterised VR-IWAE gradient has the mean of the reparameterised one.",
            r"\mathrm{E}[\Delta_\mathrm{DReG}]=\nabla_\phi L^{(\alpha)}_K",
            max(stated, relative / 1e-12),
            high=1.0,
            note=f"The largest difference of the means of {both.shape[1]} estimators over all α, $K$ and coordinates: "
            f"{stated:.2g} of the sum of their stated errors, and {relative:.1g} of the mean's norm, of which "
            "$10^{-12}$ would be too much; the larger share counts. They come from different integrals.",
            source=SOURCE,
        ),
    ]


def _trade(table: Table) -> list[Claim]:
    """Which order has the least error, and how it moves."""
    best, limits, constant = table["best"], table["limits"], float(table["facts"].best_constant[0])
    first = best[(best.estimator == best.estimator.iloc[0])]
    model, proposal, ratio = (
        first[first.measure == name].set_index("K").sort_index()
        for name in ("model_rmse", "proposal_rmse", "proposal_snr")
    )
    last = int(model.index.max())
    gain = (model.value / model[["at_0", "at_1"]].min(axis=1)).min()
    where = "; ".join(f"{alpha:.3g} at $K$ = {k:,}" for k, alpha in model.alpha.items())
    at_end = model.index[(model.alpha == 0) | (model.alpha == 1)]
    inside = model.index[model.index > at_end.max()] if len(at_end) else model.index
    errors = table["lines"]
    inner = limits[(limits.alpha > 0.2)]
    left = (
        errors[(errors.K == last) & (errors.estimator == best.estimator.iloc[0])]
        .set_index("alpha")
        .model_rmse
    )
    floor = np.interp(inner.alpha, left.index, left) / inner.model_bias
    return [
        Claim(
            "With enough particles the order of least error for the model lies strictly between IWAE and the ELBO.",
            r"0<\hat\alpha_K<1",
            float(inside.min()),
            high=float(model.index[-2]),
            note=f"The least $K$ from which on the order of least RMSE to $\\nabla_\\theta\\log Z$ is at neither "
            f"end, at the most the last but one: {where}. The RMSE there is at best {1 - gain:.1%} below that of "
            "the better end.",
            condition="$\\sum cd+\\frac{1}{2}\\sum v'<0$ for bias $\\alpha c+d/K$ and variance "
            "$(v+\\alpha v')/K$: the bias that α adds is less than the variance that it takes away",
        ),
        Claim.near(
            "The order of least error falls like $1/K$, with a constant that closed forms give.",
            r"K\hat\alpha_K\to-\frac{\sum cd+\frac{1}{2}\sum v'}{\sum c^2}",
            last * float(model.alpha[last]) / constant,
            expected=1.0,
            within=1e-2,
            note=f"$K\\hat\\alpha$ at $K$ = {last:,} over {constant:.4g}: with bias $\\alpha c+d/K$ and variance "
            "$(v+\\alpha v')/K$ of each coordinate, slopes of closed Gaussian integrals by other code. The "
            "tolerance is the "
            "size of the next term, of relative order $1/K$, and of the polynomials' error.",
            condition="$\\sum c^2\\ne 0$",
        ),
        Claim.near(
            "For a fixed α > 0 the error of the model's gradient does not vanish as $K$ grows.",
            r"\mathrm{RMSE}\to\Vert\nabla_\theta L^{(\alpha)}_\infty-\nabla_\theta\log Z\Vert",
            measures.farthest(floor, 1.0),
            expected=1.0,
            within=1e-2,
            note=f"The RMSE at $K$ = {last:,} over that limit, a closed form, the farthest from 1 of "
            f"{len(inner)} orders.",
            source=SOURCE,
        ),
        Claim(
            "The order with the best signal-to-noise ratio for the proposal is another: the ELBO's.",
            r"\max_\alpha\mathrm{SNR}(\phi)",
            float(ratio.alpha.min()),
            low=0.9,
            note="The smallest over $K$ of the order with the largest exact ratio. The order with the least RMSE to "
            f"$\\nabla_\\phi L_K$ goes from {proposal.alpha.iloc[0]:.2g} at $K$ = {proposal.index[0]:,} to "
            f"{proposal.alpha.iloc[-1]:.2g} at $K$ = {last:,}: a large ratio in the direction of another bound.",
        ),
    ]


def _polynomials(between: pd.DataFrame, count: int) -> Claim:
    return Claim(
        f"The lines through {count} exact values are right.",
        r"\mathrm{E}[\Delta],\;\mathrm{Var}[\Delta]",
        float(between[["mean_apart", "var_apart"]].to_numpy().max()),
        high=1e-3,
        note=f"The largest distance from exact moments at α = {between.alpha.iloc[0]:g}, between the points: "
        f"of means in norm, "
        "of variances in each coordinate; a thousandth is less than a line's width.",
    )


def _sampled(found: pd.DataFrame, exact: pd.DataFrame) -> Claim:
    text = "Monte Carlo agrees with the exact means and variances."
    formula = r"\mathrm{E}[\Delta],\;\mathrm{Var}[\Delta]"
    if found.empty:
        return unsampled(text, formula)
    names = [
        f"{family}:{alpha!r}"
        for family, alpha in zip(exact.estimator, exact.alpha.astype(float), strict=True)
    ]
    worst, limit, tests, replicates, factor = agreement(
        found, exact.assign(estimator=names), ["estimator", "K", "parameter", "index"]
    )
    return Claim(
        text,
        formula,
        worst,
        high=limit,
        note=f"The largest $|z|$ of {tests} tests with a family-wise error rate of {measures.RATE_TEXT}, from "
        f"{replicates:,} replicates. A variance {factor:.2f} times as large would have been found with probability "
        f"{measures.POWER}.",
    )
