"""The expansion in 1/K, term by term: what is left after each, in as many digits as it takes, and where it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
import pandas as pd
from flint import ctx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pydantic import Field

import toyiwae
from analysis import measures, report, style
from analysis.settings import Settings
from analysis.studies import _expansion_estimators as of_every_estimator
from analysis.studies import _expansion_terms as terms
from analysis.studies._targets import problem_with
from analysis.study import Claim, Study, Table, track
from toyiwae import Problem, series
from toyiwae.oracle.enclosure import enclose

POSTERIOR = ([0.4, -0.3, 0.2], [[0.9, 0.3, -0.1], [0.3, 0.7, 0.2], [-0.1, 0.2, 0.6]])
PROPOSAL = ([0.1, 0.1, -0.1], [[1.3, 0.2, 0.1], [0.2, 1.1, 0.1], [0.1, 0.1, 0.9]])
COORDINATES = {"proposal_mean": [(0,), (2,)], "proposal_chol": [(1, 0)]}
BOUND, SHOWN = "bound", "proposal_mean[0]"
FLOAT = float(np.finfo(float).eps)
MARKERS = ("o", "^", "v", "s")
Numbers = tuple[pd.DataFrame, pd.DataFrame]


class ExpansionSettings(Settings):
    """How many terms are taken out, the range of K, the digits, and the mismatches whose expansion ends."""

    terms: int = 4
    largest_k: int = 10**8
    per_decade: int = 1
    digits: int = 60
    estimators_k: tuple[int, ...] = (10, 100, 1000)
    ending_beta: tuple[Annotated[float, Field(gt=-1, lt=0)], ...] = (-0.4, -0.3, -0.22)
    ending_largest_k: int = 10**18


def compute(settings: ExpansionSettings) -> Table:
    """Remainders of the bound and of gradients after each term, and of bounds whose expansion ends."""
    problem = problem_with(*POSTERIOR, *PROPOSAL)
    grid = measures.counts(settings.largest_k, settings.per_decade)
    found, slopes = [_bound(problem, grid, settings)], []
    for name, place, numbers in _gradient(problem, grid, settings):
        found.append(numbers)
        second = numbers[1].coefficient[2]
        slopes.append((f"{name}{list(place)}", second, terms.slope_of_second_term(problem, name, place)))
    far = measures.counts(settings.ending_largest_k, settings.per_decade)
    ending = [
        terms.ending(beta, far, settings.digits)
        for beta in track(settings.ending_beta, lambda beta: f"β = {beta}")
    ]
    return {
        "remainders": pd.concat([one for one, _ in found], ignore_index=True),
        "terms": pd.concat([one for _, one in found], ignore_index=True),
        "second": pd.DataFrame(slopes, columns=["what", "term", "difference"]),
        "ending": pd.concat(ending, ignore_index=True),
        "estimators": of_every_estimator.compare(problem, "proposal_mean", settings.estimators_k),
    }


def _bound(problem: Problem, grid: list[int], settings: ExpansionSettings) -> Numbers:
    """What is left of L_K − log Z, and the terms of its expansion."""
    expansion = series.bound(problem, settings.terms + 3, digits=settings.digits)
    gaps = enclose.bounds(problem, grid, digits=settings.digits, with_ess=False).gap[0]
    with ctx.workprec(terms.bits(settings.digits)):
        values = [-gap for gap in gaps]
    left = terms.remainders(BOUND, grid, values, expansion.value, settings.digits)
    return left, terms.coefficients(BOUND, expansion.value)


def _gradient(
    problem: Problem, grid: list[int], settings: ExpansionSettings
) -> Iterator[tuple[str, tuple[int, ...], Numbers]]:
    """The same for coordinates of the mean of IWAE's gradient."""
    form = toyiwae.estimators.get("iwae").form
    assert form is not None
    asked = {name: (form, name, places) for name, places in COORDINATES.items()}
    right = enclose.gradients(problem, asked, grid, digits=settings.digits)
    for name, places in COORDINATES.items():
        expansion = series.gradient_mean(problem, form, name, settings.terms + 3, digits=settings.digits)
        assert expansion.first == 0
        for column, place in enumerate(places):
            what, orders = f"{name}{list(place)}", expansion.value[(slice(None), *place)]
            left = terms.remainders(what, grid, list(right[name].mean[:, column]), orders, settings.digits)
            yield name, place, (left, terms.coefficients(what, orders))


def draw(table: Table) -> Figure:
    """Remainders of the bound and of one coordinate of the gradient, slopes where it ends, and every estimator's."""
    remainders = table["remainders"]
    figure, axes = style.mosaic([["bound", "gradient", "every"], ["end", "end", "every"]], aspect=0.78)
    left, middle, right = (axes[name] for name in ("bound", "gradient", "end"))
    _fan(left, remainders[remainders.what == BOUND], r"$|R_n|$ of $L_K-\log Z$")
    style.label_panel(left, "a", "Bound, less $n$ terms")
    low, _ = left.get_ylim()
    if low < 1e-5 * FLOAT:
        left.text(1.5, 1e3 * low, "below the last\ndigit of float64", color=style.GREY, fontsize="small")
    _fan(middle, remainders[remainders.what == SHOWN], r"$|R_n|$ of $\mathrm{E}[\Delta_K(\phi)]$")
    style.label_panel(middle, "b", "Gradient")
    right.axhline(0, **style.GUIDE)
    for index, (beta, part) in enumerate(table["ending"].groupby("beta", sort=False)):
        look = {"color": style.PALETTE[index], "marker": MARKERS[index % len(MARKERS)]}
        places = np.sqrt(part.K.to_numpy(dtype=float)[1:] * part.K.to_numpy(dtype=float)[:-1])
        limit = 1 + 1 / float(beta)
        law, exact = (measures.slopes(part.K, part[name]) - limit for name in ("law", "remainder"))
        right.semilogx(
            places, law, color=look["color"], linewidth=0.9, linestyle=style.DASHES[index % len(style.DASHES)]
        )
        text = rf"$\beta={beta:g}$: $n={part.order.iloc[0]}$"
        right.semilogx(places, exact, linestyle="none", markersize=3, label=text, **look)
    right.set(xlabel="particles $K$", ylabel=r"slope of $R_n$, less its limit")
    right.legend(loc="upper right", handletextpad=0.1)
    style.label_panel(right, "c", "Where it ends")
    of_every_estimator.draw(axes["every"], table["estimators"])
    style.label_panel(axes["every"], "d", "Every estimator")
    return figure


def _fan(axes: Axes, remainders: pd.DataFrame, label: str) -> None:
    """One line for each number of terms taken out, named at its end, over what float64 resolves."""
    count_ = remainders.n.nunique()
    for n, part in remainders.groupby("n"):
        color = style.ordinal(int(n), count_)
        axes.loglog(part.K, part.remainder.abs(), color=color, marker="o", markersize=2)
        end = (part.K.iloc[-1], abs(part.remainder.iloc[-1]))
        axes.annotate(
            f"$n={n}$", end, (3, -2), textcoords="offset points", color=color, annotation_clip=False
        )
    first = remainders[remainders.n == 0]
    low = 10.0 ** np.floor(np.log10(remainders.remainder.abs().min()))
    axes.fill_between(first.K, low, FLOAT * first.value.abs(), color=style.GREY, alpha=0.15, linewidth=0)
    axes.set(xlabel="particles $K$", ylabel=label, ylim=(low, None))


def verdicts(table: Table) -> list[Claim]:
    """Every remainder falls like the first term left out, with its constant; with too few moments like the tail's."""
    remainders = table["remainders"]
    largest = int(remainders.K.max())
    tail = remainders[remainders.K >= largest**0.5]
    end = remainders[remainders.K == largest]
    return [
        _slope_claim(
            tail[tail.what == BOUND],
            "After $n$ terms of its expansion, what is left of the bound falls like the term of order $n+1$.",
            r"\log Z-L_K=\frac{\mu_2}{2K}+\left(\frac{3\mu_2^2}{4}-\frac{\mu_3}{3}\right)\frac{1}{K^2}+O(K^{-3})",
            source="nowozin2018jvi",
        ),
        _slope_claim(
            tail[tail.what != BOUND],
            "After $n$ terms of its expansion, what is left of the mean gradient falls like the term of order $n+1$.",
            r"\mathrm{E}[\Delta_K(\phi)]=-\frac{\nabla_\phi\mathrm{Var}[w]}{2KZ^2}+\frac{1}{K^2}\nabla_\phi"
            r"\left(\frac{\mu_3}{3}-\frac{3\mu_2^2}{4}\right)+O(K^{-3})",
            source="slide: inference gradient; rainforth2018tighter",
        ),
        Claim.near(
            "What is left after $n$ terms begins with the next three.",
            r"\frac{K^2}{c_{n+3}}(K^{n+1}R_n(K)-c_{n+1}-\frac{c_{n+2}}{K})\to 1",
            measures.farthest(end.beyond / end.after, 1.0),
            expected=1.0,
            within=100 / largest,
            note=f"The left side at $K$ = {report.in_prose(largest)}, for the bound and {end.what.nunique() - 1} "
            "coordinates of the gradient, where it is farthest from 1. Remainders come from the integrals over Laplace "
            "transforms, the terms from moments by the delta method. The tolerance is for the term after these.",
        ),
        _second_claim(table["second"]),
        *_ending_claims(table["ending"]),
        *of_every_estimator.claims(table["estimators"]),
    ]


def _slope_claim(tail: pd.DataFrame, text: str, formula: str, source: str = "") -> Claim:
    slopes = [measures.slopes(part.K, part.remainder) + n + 1 for (_, n), part in tail.groupby(["what", "n"])]
    return Claim.near(
        text,
        formula,
        measures.farthest(np.concatenate(slopes), 0.0),
        expected=0.0,
        within=float(tail.next.abs().max()),
        note=f"The deviation of a local slope from $-(n+1)$ that is farthest from 0, for $n$ = 0 to {tail.n.max()} and "
        f"$K\\ge$ {report.in_prose(tail.K.min())}; a slope may deviate by what the next term adds.",
        source=source,
        condition=r"$\mathrm{E}[w^{n+2}]<\infty$",
    )


def _second_claim(second: pd.DataFrame) -> Claim:
    return Claim(
        "The gradient's second term is the gradient of the bound's.",
        r"\nabla_\phi\left(\frac{\mu_3}{3}-\frac{3\mu_2^2}{4}\right)",
        float((second.term / second.difference - 1).abs().max()),
        high=1e-7,
        note=f"The largest relative difference of {len(second)} coordinates from differences of closed Gaussian "
        "integrals by other code, extrapolated to a step of zero; they hold about eight digits.",
        condition=r"$\mathrm{E}[w^3]<\infty$",
    )


def _ending_claims(ending: pd.DataFrame) -> list[Claim]:
    """Where moments are missing: how many terms there are, and the law of what is left."""
    last = ending.groupby("beta", sort=False).tail(1)
    order, k = -1 / last.beta, int(last.K.iloc[0])
    excess = float((last.order - (np.ceil(order) - 2)).abs().max())
    first = ending[ending.beta == last.beta.iloc[0]]
    limit = 1 - float(order.iloc[0])
    betas = ", ".join(f"{beta:g}" for beta in last.beta).replace("-", "−")
    return [
        Claim.near(
            "The term of order $n$ exists if and only if the moment of order $n+1$ does.",
            r"\beta_{\mathrm{min}}>-\frac{1}{n+1}",
            excess,
            expected=0.0,
            within=0.0,
            note=f"The number of terms that the series gives before it refuses one, less the number by the rule, for "
            f"the smallest $\\beta$ = {betas}: {', '.join(str(n) for n in last.order)} terms.",
        ),
        Claim(
            "After the last term, what is left follows the law of the weight's tail.",
            r"R(K)\to\frac{1}{2\pi i}\int\Gamma(s)\Gamma(-s)K^{1-s}(\mathrm{E}[(w/Z)^s]-1)ds",
            float((last.remainder / last.law - 1).abs().max()),
            high=float((10 * np.log(k) ** 0.5 * float(k) ** (order - np.ceil(order))).max()),
            note=f"The largest relative difference at $K$ = {report.in_prose(k)}, for the same $\\beta$. The contour "
            "lies just before the first moment that does not exist; it neglects the next whole power of $1/K$, beside "
            "which the law has a factor of the order of $1/\\sqrt{\\log K}$. The tolerance is ten times the ratio.",
        ),
        Claim.near(
            r"So what is left falls like $K^{-(1/|\beta|-1)}$ up to a slowly varying factor, more slowly than a term.",
            r"R(K)\propto K^{-(1/|\beta_{\mathrm{min}}|-1)}",
            float(measures.slopes(first.K, first.remainder)[-1]),
            expected=limit,
            within=float(1 / np.log(k)),
            note=f"The last local slope for $\\beta$ = {last.beta.iloc[0]:g}".replace("-", "−")
            + f" at $K$ = {report.in_prose(k)}; "
            "the factor, a power of $\\log K$, may add $1/\\log K$. On the way the slope passes through "
            f"{measures.slopes(first.K, first.remainder)[1]:.2f}".replace("-", "−")
            + " at $K$ of a few dozen and overshoots.",
        ),
    ]


def caption(table: Table) -> str:
    """What the figure shows."""
    ending = table["ending"]
    return (
        "What is left of (a) the bound and (b) one coordinate of IWAE's mean gradient after the first $n$ terms of "
        "their expansions in $1/K$: exact values of a problem with three latents, enclosed in ball arithmetic. The "
        "shaded area lies below the last digit that float64 has. (c) Weights with too few moments, of "
        "smallest $\\beta$: how far the local slope of what is left after the last term that exists is from its limit "
        f"$1-1/|\\beta|$, up to $K$ = {report.in_prose(int(ending.K.max()))}: exact (markers), and by the law of the "
        "weight's tail (lines). (d) The same coordinate's mean for every estimator whose mean has an expansion and "
        "depends on $K$, less its limit and in units of $K^{-n}$, the first term's power (bars: the term)."
    )


STUDY = Study(
    name="expansion",
    order=20,
    title="The expansion in 1/K, term by term",
    question="What do terms of the expansion in $1/K$ leave of the bound and of its gradient, and when does it end?",
    settings=ExpansionSettings,
    quick={
        "terms": 1,
        "largest_k": 10**4,
        "digits": 24,
        "estimators_k": (10, 100),
        "ending_beta": (-0.4,),
        "ending_largest_k": 10**8,
    },
    full={"terms": 8, "largest_k": 10**12, "per_decade": 2, "digits": 160},
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="With $\\mu_n$ the central moments of $w/Z$, the terms are polynomials in moments, found by the delta "
    "method in exact rationals. The bounds and gradients are the integrals at finite $K$, by code that knows no "
    "expansion. Both are balls of proven digits, since what is left after a few terms lies far below the last digit "
    "of float64.",
)
