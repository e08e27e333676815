"""Labels at the ends of curves, in place of a legend."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)

TIE = {
    "arrowstyle": "-",
    "linewidth": 0.5,
    "alpha": 0.7,
    "shrinkA": 1.0,
    "shrinkB": 1.0,
    "relpos": (0.0, 0.5),
}
"""How a label is tied to its line."""

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def label_ends(axes: Axes, *, fontsize: float | str = "x-small", gap: float = 10.0, **options: Any) -> list:
    """Writes each labelled line's label to the right of the axes, at the height where the line ends, in its colour.

    Labels that would overlap are pushed apart; thin lines tie them to their curves. A line whose label begins with an
    underscore, matplotlib's default, has none. To be called when data, limits and layout are final.

    Args:
        axes: whose lines.
        fontsize: of the labels.
        gap: between the axes and the labels, in points.
        options: for the texts.

    Returns:
        The annotations.
    """
    from matplotlib.font_manager import FontProperties
    from matplotlib.transforms import ScaledTranslation

    lines = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    ends = [_end(line) for line in lines]
    kept = [(line, end) for line, end in zip(lines, ends, strict=True) if end is not None]
    if not kept:
        return []
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()  # so that the layout is known
    box = axes.get_window_extent()
    heights = axes.transAxes.inverted().transform(axes.transData.transform([end for _, end in kept]))[:, 1]
    spacing = 1.15 * FontProperties(size=fontsize).get_size_in_points() * figure.dpi / 72.0 / box.height
    places = axes.transAxes + ScaledTranslation(gap / 72.0, 0.0, figure.dpi_scale_trans)
    found = []
    for (line, end), height in zip(kept, spread(heights, spacing), strict=True):
        color = line.get_color()
        text = axes.annotate(
            str(line.get_label()), end, (1.0, height), textcoords=places, color=color, fontsize=fontsize,
            va="center", annotation_clip=False, arrowprops=TIE | {"color": color}, **options,
        )  # fmt: skip
        found.append(text)
    return found


def alike(curves: Mapping[Key, Mapping[int, float]]) -> list[list[Key]]:
    """Names of curves, those together whose values are equal wherever both have one; the first of a group has most.

    Args:
        curves: name -> {K: value}; those without values are left out.
    """
    groups: list[list[Key]] = []
    for key in sorted(curves, key=lambda key: -len(curves[key])):
        for group in groups:
            both = curves[group[0]].keys() & curves[key].keys()
            if both and all(math.isclose(curves[group[0]][k], curves[key][k], rel_tol=1e-9) for k in both):
                group.append(key)
                break
        else:
            groups += [[key]] if curves[key] else []
    return groups


def together(names: Sequence[str]) -> str:
    """What a label calls several curves that are one.

    >>> together(["a", "b"]), together(["a", "b", "c"])
    ('a, b', 'a and 2 more')
    """
    return ", ".join(names) if len(names) < 3 else f"{names[0]} and {len(names) - 1} more"


def spread(places: Sequence[float] | np.ndarray, spacing: float) -> np.ndarray:
    """The places nearest to those given, in least squares, of which no two are closer than `spacing`; the order stays.

    >>> spread([0.0, 1.0, 10.0], 3.0).tolist()
    [-1.0, 2.0, 10.0]
    """
    places = np.asarray(places, dtype=float)
    order = np.argsort(places, kind="stable")
    steps = spacing * np.arange(len(places))
    blocks: list[list[float]] = []  # of sum and count: what must not fall is pooled
    for value in places[order] - steps:
        blocks.append([value, 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] >= blocks[-1][0] / blocks[-1][1]:
            total, count = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += count
    means = np.concatenate([np.full(int(count), total / count) for total, count in blocks])
    found = np.empty(len(places))
    found[order] = means + steps
    return found


def _end(line: Any) -> tuple[float, float] | None:
    """The last point of a line that can be shown, within the limits of its axes."""
    x, y = (np.asarray(values, dtype=float) for values in line.get_data())
    low, high = sorted(line.axes.get_ylim())
    shown = np.isfinite(x) & np.isfinite(y) & (y >= low) & (y <= high)
    return (x[shown][-1], y[shown][-1]) if shown.any() else None
