"""What the study of α-divergences claims."""

from __future__ import annotations

import math

import numpy as np

from analysis import measures, report
from analysis.studies._alpha_fit import pair_variance
from analysis.study import Claim, Table

FAR = 1e6
JUMP = 10.0
"""A step of the fit is a jump if it is at least so many times as large as both of its neighbours."""


def verdicts(table: Table) -> list[Claim]:
    """Conventions, their limits, and the fits: at 0 and 1, at both ends, and between."""
    return [*_values(table), *_mixture(table), *_pair(table)]


def _values(table: Table) -> list[Claim]:
    conventions, limits = table["conventions"], table["limits"]
    own, dual = conventions[conventions.convention != "dual"], conventions[conventions.convention == "dual"]
    there = limits[limits.alpha.isin((0, 1))]
    near = limits[~limits.alpha.isin((0, 1))]
    return [
        Claim(
            "The three conventions are one family, with orders that map onto each other.",
            r"a=2\alpha-1",
            float((own.value / own.definition - 1).abs().max()),
            high=1e-12,
            note=f"The largest relative difference between the closed forms and each convention's own definition, by "
            f"sums over a grid, at {own.alpha.nunique()} orders from {own.alpha.min():g} to "
            f"{own.alpha.max():g}.".replace("-", "−"),
            source="slide: alpha divergence; li2016renyi; minka2005divergence; cichocki2010families",
        ),
        Claim(
            "Exchanging both densities exchanges $\\alpha$ and $1-\\alpha$.",
            r"D_\alpha(p\Vert q)=D_{1-\alpha}(q\Vert p)",
            float((dual.value / dual.definition - 1).abs().max()),
            high=1e-12,
            note="The largest relative difference, of Minka's values.",
            source="minka2005divergence",
        ),
        Claim(
            "At 0 and 1 stand the two Kullback–Leibler divergences.",
            r"D_0=\mathrm{KL}(q\Vert p),\quad D_1=\mathrm{KL}(p\Vert q)",
            float((there.value / there.right - 1).abs().max()),
            high=1e-12,
            note="The larger relative difference from their integrals by sums over a grid.",
            source="slide: alpha divergence; minka2005divergence",
        ),
        Claim(
            "Near 0 and 1 no digits are lost.",
            r"\alpha\to 0,\quad\alpha\to 1",
            float((near.value / near.right - 1).abs().max()),
            high=1e-14,
            note=f"The largest relative difference from 60-digit arithmetic at {len(near)} orders that are "
            "$10^{-3}$ to $10^{-12}$ away from 0 or 1. The definition, evaluated as it stands, keeps four digits at "
            "worst.",
        ),
    ]


def _mixture(table: Table) -> list[Claim]:
    sweep, at = table["sweep"], table["ends"].set_index("alpha")
    first, second = (
        float(max(abs(row["mean"] - row.other_mean), abs(row["std"] - row.other_std)))
        for row in (at.loc[1.0], at.loc[0.0])
    )
    low, high, steps = sweep.iloc[0], sweep.iloc[-1], np.diff(sweep["std"])
    jump = int(np.argmax(steps))
    beside = np.abs([steps[place] for place in (jump - 1, jump + 1) if 0 <= place < len(steps)])
    return [
        Claim(
            "At $\\alpha=1$ the fit has the target's moments.",
            r"\mathrm{E}_q[z]=\mathrm{E}_p[z],\quad\mathrm{Var}_q[z]=\mathrm{Var}_p[z]",
            first,
            high=1e-7,
            note="The larger difference of mean and standard deviation from the closed form of the mixture's.",
            source="slide: alpha divergence; minka2005divergence",
        ),
        Claim(
            "At $\\alpha=0$ it is the fit of variational inference.",
            r"\mathrm{argmin}_q\mathrm{KL}(q\Vert p)",
            second,
            high=1e-6,
            note="The larger difference of mean and standard deviation from the minimum of a divergence integrated "
            "by Gauss–Hermite quadrature, found by a search without slopes.",
            source="slide: alpha divergence",
        ),
        Claim(
            "Between them the best fit jumps from one mode to both.",
            r"0<\alpha<1",
            float(sweep.alpha.iloc[[jump, jump + 1]].mean()),
            low=0.0,
            high=1.0,
            note=f"The middle of the step of $\\alpha$ at which the standard deviation grows most, from "
            f"{sweep['std'].iloc[jump]:.2f} to {sweep['std'].iloc[jump + 1]:.2f}.",
            condition="the modes lie as far apart as here",
        ),
        Claim(
            "It is a jump and no steep slope.",
            r"0<\alpha<1",
            float(steps[jump] / beside.max()),
            low=JUMP,
            note="That step of the standard deviation over the larger of its two neighbours, which are about as wide "
            "in $\\alpha$.",
            condition="the modes lie as far apart as here",
        ),
        Claim(
            "The more negative $\\alpha$ is, the narrower the fit, and the larger, the wider.",
            r"\alpha<\alpha'\quad\to\quad\sigma_\alpha<\sigma_{\alpha'}",
            float(steps.min()),
            low=0.0,
            note=f"The smallest step of the standard deviation along the sweep of {len(sweep)} orders; from "
            f"{low['std']:.3f} on one mode, whose own is {table['facts'].mode_std[0]:g}, to {high['std']:.3f}, more "
            "than the target's.",
            source="slide: alpha divergence; minka2005divergence",
        ),
    ]


def _pair(table: Table) -> list[Claim]:
    pair, rho = table["pair"], float(table["facts"].correlation[0])
    away = max(abs(pair_variance(sign * FAR, rho) - (1 + sign * rho)) for sign in (-1, 1))
    c = 4 / (1 - rho**2)
    least = 8 / (3 * c - math.sqrt(9 * c**2 - 32 * c))
    return [
        Claim(
            "For a Gaussian target the fit is a closed form.",
            r"\frac{1-\alpha}{s^2}+\frac{(2\alpha-1)c}{s}=\alpha c,\quad c=\frac{1}{1-\rho^2}",
            float((pair.minimum / pair.closed_form - 1).abs().max()),
            high=1e-6,
            note=f"The largest relative difference of variances from searches without slopes over both "
            f"coordinates of "
            f"different scale, for $\\alpha$ from {pair.alpha.min():g} to {pair.alpha.max():g}; a minimum is "
            f"known to "
            "half the digits of its value.".replace("-", "−"),
            condition="the target is a pair of Gaussians with correlation $\\rho$ and $q$ is mean-field",
        ),
        Claim(
            "Its variance goes from the narrow direction's to the wide one's.",
            r"s\to 1-\rho,\quad s\to 1+\rho",
            float(away),
            high=10 / FAR,
            note=f"The larger distance from the limits at $\\alpha=\\pm$ {report.in_prose(FAR)}, in units of the "
            "marginal variance; it falls like $1/\\alpha$.",
            source="slide: alpha divergence",
        ),
        Claim(
            "What the bound asks for at $K=1$ and as $K\\to\\infty$ are two members, $\\alpha=0$ and $\\alpha=2$.",
            r"s_0=1-\rho^2,\quad s_2=\mathrm{argmin}_s\mathrm{Var}[w]",
            measures.worst([pair_variance(0, rho) - (1 - rho**2), pair_variance(2, rho) - least]),
            high=1e-14,
            note=f"The larger difference from the limits of the study of optimal proposals, {1 - rho**2:.4f} and "
            f"{least:.4f}.",
            source="slide: inference or likelihood; daudel2023alphadivergence",
        ),
    ]
