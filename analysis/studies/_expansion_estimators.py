"""The expansion of every estimator's mean gradient: its first term, what is left after two, and a panel of both."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

import toyiwae
from analysis import measures, style
from analysis.closed_limits import ROUNDING
from analysis.study import Claim
from toyiwae import Problem, estimators, plot, series
from toyiwae.errors import InputError, MissingMomentError
from toyiwae.oracle.laws.bounded import Bounded

DEPTH = 5
"""The order up to which expansions are looked at."""
MARKERS = ("o", "^", "v", "s")


def compare(problem: Problem, name: str, grid: Sequence[int]) -> pd.DataFrame:
    """The mean gradient of each registered estimator that has an expansion, beside its terms, in the first coordinate.

    `left`: the mean less its limit, whose error is `error`. `order`, `first`: of the first term that is not 0, 0 for a
    mean that does not depend on K; `next`, `after` and `last` the coefficients behind it. `scaled`: `left` in units of
    K^-order.
    """
    found = {}
    for estimator in estimators.all():
        if estimator.form is not None and estimator.min_particles <= min(grid):
            with contextlib.suppress(
                InputError, MissingMomentError
            ):  # no expansion, by the form or by the law
                found[estimator.name] = series.gradient_mean(problem, estimator.form, name, DEPTH)
    rows = []
    for cell in toyiwae.exact(problem, K=grid, estimators=[*found], parameters=[name]).results:
        for estimator, expansion in found.items():
            terms = [
                expansion.term(n)[0] if n >= expansion.first else Bounded.zeros(()) for n in range(DEPTH + 1)
            ]
            limit = terms[0]
            some = [
                n
                for n, term in enumerate(terms[: DEPTH - 2])
                if n and abs(term.value) > term.error + ROUNDING * abs(limit.value)
            ]
            order = some[0] if some else 0
            coefficients = [float(term.value) for term in terms[order : order + 4]] if order else [0.0] * 4
            moments = cell.gradients[estimator].parameters[name]
            left = Bounded(np.asarray(moments.mean[0]), np.asarray(moments.mean_error[0])) - limit
            scaled = float(left.value) * float(cell.K) ** order
            rows.append(
                (estimator, cell.K, float(left.value), float(left.error), order, *coefficients, scaled)
            )
    columns = ["estimator", "K", "left", "error", "order", "first", "next", "after", "last", "scaled"]
    return pd.DataFrame(rows, columns=columns)


def draw(axes: Axes, found: pd.DataFrame) -> None:
    """A row for each estimator whose mean depends on K: K^n times mean less limit for each K, and where it tends."""
    found = found[found.order > 0]
    counts = sorted(found.K.unique())
    for row, (name, part) in enumerate(found.groupby("estimator", sort=False)):
        ends = [row - 0.35, row + 0.35]
        axes.plot([part["first"].iloc[0]] * 2, ends, color=plot.look(str(name))["color"], linewidth=1.8)
    rows = {name: row for row, name in enumerate(found.estimator.unique())}
    for index, k in enumerate(counts):
        at = found[found.K == k]
        color = style.ordinal(len(counts) - 1 - index, len(counts))
        places = at.estimator.map(rows)
        axes.plot(
            at.scaled, places, MARKERS[index % len(MARKERS)], color=color, markersize=3, label=f"$K={k}$"
        )
    axes.set_yticks(range(len(rows)), [plot.short(name) for name in rows])
    axes.tick_params(axis="y", length=0)
    axes.axvline(0, **style.GUIDE)
    axes.margins(x=0.12)
    axes.set(xlabel=r"$K^n(\mathrm{E}[\Delta_K(\phi)]-c_0)$", ylim=(len(rows) - 0.4, -0.6))
    axes.legend(loc="lower center", bbox_to_anchor=(0.3, -0.22), ncols=3, handletextpad=0, columnspacing=0.6)


def claims(found: pd.DataFrame) -> list[Claim]:
    """What the expansion says of each estimator's mean, at the largest K."""
    k = int(found.K.max())
    at = found[found.K == k]
    moving, still = at[at.order > 0], at[at.order == 0]
    unit = float(k) ** (moving.order + 2) / moving.after
    third = moving.left * unit - (moving["first"] * k**2 + moving.next * k) / moving.after
    within = 2 * (moving["last"] / moving.after / k).abs() + moving.error * unit.abs()
    return [
        Claim.near(
            "So it is for every estimator: after its limit and two terms the mean gradient falls like the next.",
            r"\frac{K^{n+2}}{c_{n+2}}\left(\mathrm{E}[\Delta_K(\phi)]-c_0-\frac{c_n}{K^n}-\frac{c_{n+1}}{K^{n+1}}\right)"
            r"\to 1",
            measures.farthest(third, 1.0),
            expected=1.0,
            within=float(within.max()),
            note=f"The value farthest from 1 of {len(moving)} estimators at $K$ = {k}; the tolerance is twice the term "
            "after it. The means are the integrals at finite $K$ in float64, with the error that they state.",
            condition=r"$\mathrm{E}[w^{n+2}]<\infty$",
        ),
        Claim(
            "An estimator without terms has a mean that does not depend on $K$.",
            r"\mathrm{E}[\Delta_K(\phi)]=c_0",
            float((still.left.abs() - still.error).max()) if len(still) else 0.0,
            high=1e-12,
            note=f"The largest difference beyond the stated errors of {len(still)} estimators at $K$ = {k}.",
        ),
    ]
