"""The claims of the study of a fixed budget."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis import measures
from analysis.studies._budget_truth import MODEL, PROPOSAL
from analysis.studies._sampled_gradients import KEYS, agreement
from analysis.study import Claim, Table, unsampled
from toyiwae import estimators

GROUPED, MIXED, PARTIAL = "iwae", "ciwae", "piwae"
"""Whom the claims name; SUBSETS, too: of others with the same properties they say nothing."""
SUBSETS = "u_statistic"
SLIDES = "slide: {}; rainforth2018tighter"


def verdicts(table: Table) -> list[Claim]:
    """Subsets against groups, the best split of either network, and what PIWAE and CIWAE make of it."""
    together = table["together"]
    return [
        *_subsets(table),
        *_splits(together, table["each"]),
        _partial(table["exact"], together),
        *_mixed(table, together),
        _front(together),
        _sampled(table["samples"], table["exact"]),
    ]


def _subsets(table: Table) -> list[Claim]:
    """The U-statistic of m of T particles beside MIWAE with T/m groups of m."""
    exact, bounds = table["exact"], table["bounds"]
    sizes = {name: estimators.get(name).subsets for name in exact[exact.family == SUBSETS].estimator.unique()}
    subsets = exact[exact.family == SUBSETS].assign(K=lambda frame: frame.estimator.map(sizes))
    keys = ["K", "parameter", "index"]
    both = subsets.merge(exact[exact.family == GROUPED], on=keys, suffixes=("", "_groups"))
    values = bounds[bounds.family == SUBSETS].assign(K=lambda frame: frame.estimator.map(sizes))
    values = values.merge(bounds[bounds.family == GROUPED], on="K", suffixes=("", "_groups"))
    means = ((both["mean"] - both.mean_groups).abs() / np.sqrt(both.var_groups)).max()
    apart = max((values.bound - values.bound_groups).abs().max(), means)
    ratio = (both["var"] / both.var_groups).groupby([both.K, both.parameter]).max()
    size = ratio.index.get_level_values("K")
    inner = ratio[(size > 1) & (size < size.max())]
    ends = both[both.K.isin([1, size.max()])]
    same = (ends["var"] / ends.var_groups - 1).abs().max()
    least = "; ".join(
        f"{float(inner.xs(k, level='K')[MODEL]):.1%} for the model and "
        f"{float(inner.xs(k, level='K')[PROPOSAL]):.1%} for "
        f"the proposal at $m$ = {k}"
        for k in inner.index.get_level_values("K").unique()
    )
    return [
        Claim(
            "The U-statistic of subsets of $m$ has the bound and the mean gradients of MIWAE with groups of $m$.",
            r"\mathrm{E}[\Delta]=\nabla L_m",
            float(apart),
            high=1e-9,
            note=f"The largest difference of the bounds in nats, and of the means in standard deviations, $m$ = "
            f"{', '.join(map(str, sorted(set(both.K))))}.",
            source="burroni2023ustatistics",
        ),
        Claim(
            "The U-statistic of subsets of $m$ has less variance than MIWAE with groups of $m$.",
            r"\mathrm{Var}[\Delta_U]\le\mathrm{Var}[\Delta_{T/m,m}]",
            float(inner.max()),
            high=1.0,
            note=f"The largest ratio of the exact variances of any coordinate for $1<m<T$; the largest by "
            f"network: {least}. "
            f"At $m$ = 1 and $m=T$ both are one estimator, and their variances agree to {same:.0e}.",
            source="hoeffding1948statistics; burroni2023ustatistics",
        ),
    ]


def _splits(together: pd.DataFrame, each: pd.DataFrame) -> list[Claim]:
    grouped = together[together.family == GROUPED].set_index("K").sort_index()
    budget = int(grouped.index.max())
    falls = (grouped.proposal_snr.iloc[1:].to_numpy() / grouped.proposal_snr.iloc[:-1].to_numpy()).max()
    alone = each.pivot(index="row", columns="K", values="model_rmse")
    alone = alone.div(alone[budget], axis=0)  # in units of IWAE's with all particles
    best, inner = alone.idxmin(axis=1), alone.drop(columns=[1, budget]).min(axis=1)
    where = "; ".join(f"$K$ = {k} for {count}" for k, count in best.value_counts().sort_index().items())
    return [
        Claim(
            "For the proposal fewer particles in each logarithm are better, down to one.",
            r"\mathrm{SNR}_{M,K}(\phi)=\Theta(\sqrt{M/K}),\;MK=T",
            float(falls),
            high=1.0,
            note=f"The largest factor of the exact ratio from one $K$ to the next, MIWAE, $T$ = {budget}: it "
            f"falls from "
            f"{grouped.proposal_snr.iloc[0]:.3g} at $K$ = 1 to {grouped.proposal_snr.iloc[-1]:.3g} at $K$ = "
            f"{budget}.",
            source=SLIDES.format("MIWAE"),
        ),
        Claim(
            "For an observation's gradient of the model the best split is mostly neither one particle in each "
            "logarithm nor all in one.",
            r"\mathrm{RMSE}_{M,K}(\theta)",
            float((inner / alone[[1, budget]].min(axis=1)).median()),
            high=1.0 - 1e-9,
            note="The RMSE of MIWAE to $\\nabla_\\theta\\log Z$ of one observation at its best split between, over "
            f"that of the better end, one particle or all {budget}: the median of {len(alone)}, best at {where}. At "
            f"$K$ = 1 it is at least {alone[1].min():.2f} times IWAE's. Averaging over observations takes variance "
            f"away and leaves the bias: the average's gradient has its least error at $K$ = "
            f"{int(grouped.model_rmse.idxmin())}, its largest signal-to-noise ratio at $K$ = "
            f"{int(grouped.model_snr.idxmax())}.",
            source=SLIDES.format("MIWAE"),
            condition="the weights vary so much that $T$ particles in one group still have more variance than bias",
        ),
    ]


def _partial(exact: pd.DataFrame, together: pd.DataFrame) -> Claim:
    """PIWAE's networks beside IWAE with the whole budget and MIWAE."""
    keys = ["parameter", "index", "K", "M"]
    part = exact[exact.family == PARTIAL].set_index(keys)["var"]
    grouped = exact[exact.family == GROUPED].set_index(keys)["var"]
    budget = together.K.max()
    whole = grouped.xs((budget, 1), level=("K", "M"))
    apart = [(part[PROPOSAL] / grouped[PROPOSAL].reindex(part[PROPOSAL].index) - 1).abs().max()]
    for _, one in part[MODEL].groupby(level=["K", "M"]):
        apart.append((one.droplevel(["K", "M"]) / whole[MODEL] - 1).abs().max())
    return Claim(
        "PIWAE gives the model the one logarithm and the proposal the groups.",
        r"\Delta_{M,K}(\theta)=\Delta^\mathrm{IWAE}_{MK}(\theta),\;\Delta_{M,K}(\phi)=\Delta^\mathrm{MIWAE}_{M,K}(\phi)",
        float(max(apart)),
        high=1e-12,
        note="The largest relative difference of its variances from those of IWAE with all particles (θ) and "
        "of MIWAE with "
        f"the same groups (φ), at {part[PROPOSAL].groupby(level='K').ngroups} splits.",
        source=SLIDES.format("PIWAE"),
    )


def _mixed(table: Table, together: pd.DataFrame) -> list[Claim]:
    bounds = table["bounds"]
    mixed = together[together.family == MIXED]
    beta = mixed.estimator.map(lambda name: estimators.get(name).parameter).to_numpy()
    order = np.argsort(beta)
    snr = mixed.proposal_snr.to_numpy()[order]
    values = bounds[bounds.family == MIXED].set_index("parameter_value").bound
    line = values[0.0] + (values[1.0] - values[0.0]) * values.index.to_numpy()
    error = mixed.model_rmse.to_numpy()[order]
    best = int(error.argmin())
    return [
        Claim(
            "CIWAE's bound is the line between IWAE's and the ELBO.",
            r"\beta L_1+(1-\beta)L_T",
            float(np.abs(values.to_numpy() - line).max()),
            high=1e-10,
            note=f"The largest distance in nats, {len(values)} values of β.",
            source=SLIDES.format("CIWAE"),
        ),
        Claim(
            "The more ELBO CIWAE has, the better for the proposal.",
            r"\mathrm{SNR}_\beta(\phi)\le\mathrm{SNR}_{\beta'}(\phi),\;\beta\le\beta'",
            float((snr[:-1] / snr[1:]).max()),
            high=1.0,
            note=f"The largest ratio of one β to the next; from {snr[0]:.3g} at β = {beta[order][0]:g} over "
            f"{snr[1]:.3g} at β = {beta[order][1]:g} to {snr[-1]:.3g} at β = {beta[order][-1]:g}. The model's "
            f"error is least "
            f"at β = {beta[order][best]:g}, {error[best] / error[0]:.1%} of IWAE's.",
            source=SLIDES.format("CIWAE"),
        ),
    ]


def _front(together: pd.DataFrame) -> Claim:
    """Whether the combinations of IWAE and the ELBO are beaten by an estimator without the score."""
    families = {GROUPED, SUBSETS, MIXED, PARTIAL}
    named = together[together.family.isin(families)]
    partial = named[(named.family == PARTIAL) & (named.K == 1)].iloc[0]
    rivals = named[(named.proposal_worth >= partial.proposal_worth * (1 - 1e-9)) & (named.family != PARTIAL)]
    return Claim(
        "Of IWAE, its groups, subsets and mixtures only PIWAE serves both networks: none has its proposal's "
        "signal with less error for the "
        "model.",
        r"\mathrm{RMSE}(\theta)\;\text{where}\;\mathrm{SNR}(\phi)\ge\mathrm{SNR}_{T,1}(\phi)",
        float(partial.model_rmse / rivals.model_rmse.min()),
        high=1.0,
        note="The RMSE for the model of PIWAE with one particle in each group, over the least of IWAE, MIWAE, "
        "CIWAE and the "
        "U-statistics whose signal for the proposal is as large.",
        source=SLIDES.format("PIWAE"),
    )


def _sampled(found: pd.DataFrame, exact: pd.DataFrame) -> Claim:
    text = "Monte Carlo agrees with the exact means and variances."
    formula = r"\mathrm{E}[\Delta],\;\mathrm{Var}[\Delta]"
    if found.empty:
        return unsampled(text, formula)
    worst, limit, tests, replicates, factor = agreement(found, exact, KEYS)
    split = found.iloc[0]
    return Claim(
        text,
        formula,
        worst,
        high=limit,
        note=f"The largest $|z|$ of {tests} tests with a family-wise error rate of {measures.RATE_TEXT}, from "
        f"{replicates:,} replicates: of all estimators at $M$ = {split.M}, $K$ = {split.K}, and with one group of "
        f"{', '.join(found[found.M == 1].estimator.unique())}. A variance {factor:.1f} times as large would "
        f"have been found "
        f"with probability {measures.POWER}.",
    )
