"""Slips of the source deck: what each printed formula gives, and what the right one does."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis import report, style
from analysis.settings import Settings
from analysis.studies._slips_truth import extras, slips
from analysis.study import Claim, Study, Table

WRONG, RIGHT = 0.02, 1e-9
"""Relative errors: at least so large where a formula counts as wrong, at most so large where it counts as right."""


class SlipSettings(Settings):
    """The particles of the enumerations, and the K that stands for large."""

    particles: int = 5
    large_k: int = 10**12


def compute(settings: SlipSettings) -> Table:
    """Relative errors of every printed and every right formula."""
    found = [dataclasses.asdict(slip) for slip in slips(settings.particles, settings.large_k)]
    more = extras(settings.particles, settings.large_k)
    return {"slips": pd.DataFrame(found), "extras": pd.DataFrame([more])}


def draw(table: Table) -> Figure:
    """Errors of printed and right formulas, one row for each slip."""
    found = table["slips"]
    floor = 1e-17
    figure, axes = style.panels(1, 1, aspect=0.48)
    rows = np.arange(len(found))[::-1]
    axes.hlines(rows, floor, 1e12, color=style.GREY, linewidth=0.4, alpha=0.5)
    axes.plot(found.right_error.clip(lower=floor), rows, "o", color=style.BLUE, label="right form")
    axes.plot(found.printed_error, rows, "X", color=style.RED, markersize=7, label="printed form")
    axes.axvspan(floor, RIGHT, color=style.BLUE, alpha=0.06, linewidth=0)
    numbers = found.groupby("slide").cumcount() + 1
    several = found.groupby("slide").slide.transform("count") > 1
    names = [f"{s} ({n})" if m else s for s, n, m in zip(found.slide, numbers, several, strict=True)]
    axes.set_yticks(rows, names)
    axes.set(xscale="log", xlabel="relative error", xlim=(floor / 2, 10 * found.printed_error.max()))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.legend(loc="upper center", ncols=2, bbox_to_anchor=(0.5, 1.12))
    return figure


def verdicts(table: Table) -> list[Claim]:
    """Two rows for every slip: the printed form is wrong, the right one is right."""
    claims = []
    for slip in table["slips"].itertuples():
        source = f"slide: {slip.slide}"
        note = f"The relative error of {slip.what}."
        claims += [
            Claim(
                f"Slide “{slip.slide}”: the printed form misses the number.",
                str(slip.printed),
                float(slip.printed_error),  # pyright: ignore[reportArgumentType]
                low=WRONG,
                note=note,
                source=source,
            ),
            Claim(
                f"Slide “{slip.slide}”: the right form gives it.",
                str(slip.right),
                float(slip.right_error),  # pyright: ignore[reportArgumentType]
                high=RIGHT,
                note=note,
                source=source,
            ),
        ]
    return [*claims, *_extras(table["extras"].iloc[0])]


def _extras(found: pd.Series) -> list[Claim]:
    return [
        Claim(
            "VIMCO as printed is unbiased all the same: its baseline does not depend on the particle it serves.",
            r"\mathrm{E}[\Delta(\phi)]=\nabla_\phi L_K",
            float(found.vimco_bias),
            high=RIGHT,
            note="The largest difference between its mean, by enumeration, and the slope of the exact "
            "bound, relative to the "
            "largest slope. So only a test of the variance sees the slip.",
            source="slide: VIMCO; mnih2016vimco",
        ),
        Claim.near(
            "Where the evidence has no slope in θ the generative network's ratio falls, too.",
            r"\mathrm{SNR}(\theta)=\Theta(\sqrt{M/K})",
            float(found.flat_slope),
            expected=-0.5,
            within=1e-4,
            note="The exact local slope of the ratio in $K$ farthest from −1/2, for an observation that the "
            "model expects: "
            "the condition on the slide's law is needed.",
            source="slide: SNR; rainforth2018tighter",
            condition=r"$\partial_\theta\log Z=0$",
        ),
    ]


def caption(table: Table) -> str:
    """What the figure shows."""
    return (
        f"{len(table['slips'])} formulas of the source deck as printed (crosses) and as they should be "
        f"(dots), by the "
        f"relative error of a number that each implies; what is below {report.in_prose(RIGHT)} (shaded) is "
        f"rounding, and 0 "
        "is drawn at the left end. The table of claims names the number compared. Slips of notation are "
        "left out: a letter "
        "that counts and indexes, ELBO_AVE for ELBO_VAE, $p_\\theta(x)$ for $p_\\theta(x,z)$."
    )


STUDY = Study(
    name="slips",
    order=13,
    title="Slips of the slides",
    question="Which formulas of the deck are misprinted, and how much does it matter?",
    settings=SlipSettings,
    quick={"particles": 3},
    full={"particles": 8},
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="Every expectation is exact: a sum over all tuples of a latent with three states, quadrature "
    "over one Gaussian "
    "latent, a closed form, or an integral of the oracle; each is compared with a number that another way gives.",
    cost=3.0,
)
