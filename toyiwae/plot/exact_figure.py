"""The figure of an exact result: gap, effective sample size and signal-to-noise ratios against K."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from toyiwae.errors import InputError
from toyiwae.plot.curves import alike, label_ends, together
from toyiwae.plot.looks import looks, short
from toyiwae.plot.saving import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY = "#222222", "#777777"
WIDTH = 6.0
FEW = 6
"""Values of K that are the ticks themselves."""

CHARACTER = 0.035
"""Width of a tick's character, over the narrowest panel's."""

CONSTANT = 1.01
"""Largest over smallest value of what is drawn as constant."""


def figure(result: Any) -> Figure:
    """Gap and effective sample size against K, and for each parameter the SNR of every estimator; of `exact`.

    The SNR is the median over the coordinates of the parameter. At a single K the ratios stand in order, estimator by
    estimator, and gap and sample size in the heading. An estimator whose variance is not known has no curve; a line
    below names it.

    Args:
        result: of `toyiwae.exact`.

    Raises:
        InputError: a single K and no ratio that is known: nothing to draw.
        MissingExtraError: if matplotlib is not installed.
    """
    with style():
        counts = list(dict.fromkeys(cell.K for cell in result.results))
        return _against_k(result, counts) if len(counts) > 1 else _at_one_k(result)


def called(keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """What figures call estimators with their groups: M where there are several, the parameter where a family has."""
    several = len({m for _, m in keys}) > 1
    words = {key: short(*key) for key in keys}
    members = {short(name): set() for name, _ in keys}
    for name, _ in keys:
        members[short(name)].add(name)
    found = {}
    for (name, m), word in words.items():
        parameter = name.rpartition(":")[2] if len(members[short(name)]) > 1 else ""
        found[name, m] = " ".join(filter(None, [word, parameter])) + (f", $M={m}$" if several else "")
    return found


def looks_of(keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], dict[str, Any]]:
    """(estimator, M) -> how it looks, members of a family told apart."""
    names = list(dict.fromkeys(name for name, _ in keys))
    return {(name, m): looks(names, m)[names.index(name)] for name, m in keys}


def span_of(axes: Axes, counts: Sequence[int]) -> None:
    """Limits of axes whose curves are flat, where rounding would fill the height, and of axes without curves.

    Args:
        axes: whose curves are drawn.
        counts: the K of the figure, smallest first.
    """
    values = [value for line in axes.get_lines() for value in np.asarray(line.get_ydata(), dtype=float)]
    if not values:
        axes.set_xlim(counts[0] / 1.1, counts[-1] * 1.1)
        axes.set_yticks([])
        axes.set_yticks([], minor=True)
        axes.text(0.5, 0.5, "nothing above 0 to draw", transform=axes.transAxes, ha="center", color=GREY)
    elif max(values) < CONSTANT * min(values):
        axes.set_ylim(min(values) / 2.0, max(values) * 2.0)


def _ratios(result: Any) -> dict[str, dict[tuple[str, int], dict[int, float]]]:
    """Parameter -> (estimator, M) -> K -> median SNR over the coordinates, where all of them are known and not 0."""
    found: dict[str, dict[tuple[str, int], dict[int, float]]] = {}
    for cell in result.results:
        for name, truth in cell.gradients.items():
            for parameter, moments in truth.parameters.items():
                curve = found.setdefault(parameter, {}).setdefault((name, cell.M), {})
                if moments.snr is None or np.isnan(moments.var).any():
                    continue
                doubt = 0.0 if moments.snr_error is None else np.nan_to_num(moments.snr_error)
                value = np.where(moments.snr > doubt, moments.snr, 0.0)[np.isfinite(moments.snr)]
                if value.size and np.median(value) > 0.0:
                    curve[cell.K] = float(np.median(value))
    return found


def _apart(counts: Sequence[int]) -> bool:
    """Whether each K is far enough from the next for a label to stand below it, in the narrowest panel."""
    places, longest = np.log(np.sort(counts)), len(f"{max(counts):,}")
    return bool(np.diff(places).min() > CHARACTER * (longest + 1) * (places[-1] - places[0]))


def _against_k(result: Any, counts: list[int]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator

    known, first = _ratios(result), {cell.K: cell for cell in result.results}
    heights = [2.1] + [2.7] * len(known)
    made = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    parts = np.ravel(made.subfigures(len(heights), 1, squeeze=False, height_ratios=heights))
    left, right = parts[0].subplots(1, 2)
    _curve(left, counts, [first[k].gap for k in counts], r"gap $\log p(x) - L_K$ (nats)")
    _curve(right, counts, [first[k].ess for k in counts], "effective sample size")
    right.plot(counts, counts, color=GREY, linewidth=0.7, linestyle=(0, (4, 2.5)), zorder=1)
    right.annotate(
        "$K$", (counts[-1], counts[-1]), (-4, 0), textcoords="offset points", ha="right", color=GREY
    )
    for part, (parameter, curves) in zip(parts[1:], known.items(), strict=True):
        axes = part.subplots()
        _snr(axes, curves)
        span_of(axes, sorted(counts))
        axes.set(title=f"gradient by {parameter.replace('_', ' ')}", ylabel="median SNR")
    for axes in made.axes:
        axes.set(xscale="log", xlabel="particles $K$")
        if len(counts) <= FEW and _apart(counts):
            axes.xaxis.set_minor_locator(NullLocator())
            axes.set_xticks(counts, [f"{k:,}" for k in counts])
    for axes in made.axes[2:]:
        label_ends(axes)
    return made


def _curve(axes: Axes, counts: list[int], values: list[float | None], label: str) -> None:
    """One number of the bound against K; on a logarithmic axis where it is above 0."""
    numbers = np.array([np.nan if value is None else value for value in values])
    axes.plot(counts, numbers, color=INK, marker="o")
    axes.set_ylabel(label)
    if (numbers[np.isfinite(numbers)] > 0).all():
        axes.set_yscale("log")


def _snr(axes: Axes, curves: dict[tuple[str, int], dict[int, float]]) -> None:
    """Every estimator's ratio against K; equal curves share a line and a label."""
    names, shown = called(list(curves)), looks_of(list(curves))
    for group in alike(curves):
        curve = curves[group[0]]
        label = together([names[key] for key in group])
        axes.plot(list(curve), list(curve.values()), label=label, **shown[group[0]])
    if any(curves.values()):
        axes.set_yscale("log")
    absent = [names[key] for key, curve in curves.items() if not curve]
    if absent:
        text = f"not known, or 0: {', '.join(absent)}"
        axes.set_title(text, loc="right", fontsize="x-small", color=GREY)


def _at_one_k(result: Any) -> Figure:
    from matplotlib.figure import Figure

    cell = result.results[0]
    every = {
        parameter: {key: curve[cell.K] for key, curve in curves.items() if curve}
        for parameter, curves in _ratios(result).items()
    }
    known = {parameter: values for parameter, values in every.items() if values}
    if not known:
        needed = "expected several K, or an estimator whose signal-to-noise ratio is known"
        raise InputError(f"there is nothing to draw at K = {cell.K}: {needed}")
    made = Figure(figsize=(WIDTH, 0.9 + 0.2 * max(map(len, known.values()))), layout="constrained")
    panels = np.atleast_1d(made.subplots(1, len(known)))
    for axes, (parameter, values) in zip(panels, known.items(), strict=True):
        names, shown = called(list(values)), looks_of(list(values))
        ordered = sorted(values, key=lambda key: values[key])
        for place, key in enumerate(ordered):
            axes.hlines(place, 0, values[key], color=shown[key]["color"], linewidth=0.8)
            axes.plot(values[key], place, **shown[key])
        axes.set_yticks(range(len(ordered)), [names[key] for key in ordered])
        axes.set_xlim(left=0)
        axes.set_ylim(-0.6, len(ordered) - 0.4)  # whole markers at either end
        axes.set(title=f"gradient by {parameter.replace('_', ' ')}", xlabel="median SNR")
    numbers = [f"gap {cell.gap:.4g} nats"] if cell.gap is not None else []
    numbers += [f"ESS {cell.ess:.4g}"] if cell.ess is not None else []
    made.suptitle(f"$K={cell.K}$: {', '.join(numbers)}", fontsize=9.0, x=0.01, ha="left")
    return made
