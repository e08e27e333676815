"""How figures look: sizes and type of a venue, one palette, one set of lines; no global state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from cycler import cycler
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from tueplots import axes, figsizes, fontsizes

from toyiwae.checks import nearest
from toyiwae.errors import InputError
from toyiwae.plot import COLORS
from toyiwae.plot import label_ends as label_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# for what is no estimator: how those look is in toyiwae.plot
BLUE, RED, PURPLE, YELLOW, GREEN, CYAN, INK = COLORS
GREY = "#777777"
PALETTE = (BLUE, RED, GREEN, PURPLE, CYAN, YELLOW, GREY)
DASHES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
EXACT = {"color": INK, "linewidth": 1.3}
SAMPLED: dict[str, Any] = {
    "linestyle": "none", "marker": "o", "markersize": 3.2, "markeredgewidth": 0.7, "markerfacecolor": "white",
    "elinewidth": 0.7, "capsize": 1.8, "capthick": 0.7, "zorder": 4,
}  # fmt: skip
GUIDE = {"color": GREY, "linewidth": 0.8, "linestyle": (0, (4, 2.5))}
LIMIT = {"color": RED, "linewidth": 0.9, "linestyle": (0, (4, 2.5))}


SERIF = {"font.family": "STIXGeneral", "mathtext.fontset": "stix"}
SANS = {"font.family": "DejaVu Sans", "mathtext.fontset": "dejavusans"}
VENUES: dict[str, dict[str, Any]] = {
    "jmlr": {**figsizes.jmlr2001(), **fontsizes.jmlr2001(default_smaller=1), **SERIF},
    "neurips": {**figsizes.neurips2024(), **fontsizes.neurips2024(default_smaller=1), **SERIF},
    "icml": {**figsizes.icml2024_full(), **fontsizes.icml2024(default_smaller=1), **SERIF},
    "slides": {**figsizes.beamer_169(rel_width=0.95), **fontsizes.beamer(default_smaller=2), **SANS},
}
"""Venue -> width of a figure (of both columns where there are two) and type: Times and its like for papers, by the STIX
fonts that matplotlib brings, a sans serif for slides."""


def check_venue(name: str) -> str:
    """The venue's name.

    Raises:
        InputError: there is no such venue; with the nearest one.
    """
    if name not in VENUES:
        raise InputError(f"--style is {name!r}: {nearest(name, VENUES)}")
    return name


def rc_params(venue: str = "jmlr") -> Any:
    """The parameters of matplotlib for all figures: sizes and type of a venue, thin lines.

    Raises:
        InputError: no such venue.
    """
    return {
        **VENUES[check_venue(venue)],
        **axes.lines(base_width=0.6),
        **axes.spines(top=False, right=False),
        "axes.prop_cycle": cycler(color=PALETTE),
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.titlelocation": "left",
        "axes.titlepad": 5.0,
        "legend.frameon": False,
        "legend.handlelength": 2.0,
        "legend.borderaxespad": 0.2,
        "figure.dpi": 100,
        "savefig.facecolor": "white",
        "pdf.fonttype": 42,
        "svg.fonttype": "none",
    }


@contextmanager
def house_style(venue: str = "jmlr") -> Iterator[None]:
    """Within the block, matplotlib draws and saves in the house style, whatever the user's own settings.

    Args:
        venue: one of VENUES.

    Raises:
        InputError: no such venue.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(rc_params(venue))
        yield


def panels(rows: int, columns: int, *, aspect: float = 0.72, **options: Any) -> tuple[Figure, Any]:
    """A figure as wide as the text of the venue, with `rows` × `columns` axes.

    Args:
        rows: of axes.
        columns: of axes.
        aspect: height of one axes over its width.
        options: for `Figure.subplots` (`sharex`, `gridspec_kw`, ...).
    """
    width = mpl.rcParams["figure.figsize"][0]
    figure = Figure(figsize=(width, width * aspect * rows / columns), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def mosaic(places: Sequence[Sequence[str]], *, aspect: float) -> tuple[Figure, Any]:
    """A figure as wide as the text of the venue, with named axes that may span rows and columns.

    Args:
        places: the names, as `Figure.subplot_mosaic` takes them.
        aspect: height of the figure over its width.
    """
    width = mpl.rcParams["figure.figsize"][0]
    figure = Figure(figsize=(width, width * aspect), layout="constrained")
    return figure, figure.subplot_mosaic([list(row) for row in places])


def label_ends(panels: Sequence[Axes], **options: Any) -> None:
    """`plot.label_ends` for several axes of one figure, laid out once: constrained layout is most of its time."""
    figure = panels[0].get_figure(root=True)
    assert figure is not None
    engine = figure.get_layout_engine()
    for one in panels:
        label_curves(one, **options)
        figure.set_layout_engine("none")
    figure.set_layout_engine(engine)


def label_panel(axes: Axes, letter: str, title: str) -> None:
    """The heading of a panel: (a) what it shows."""
    axes.set_title(f"({letter}) {title}", fontsize="medium")


def violins(axes: Axes, samples: Sequence[Any], colors: Sequence[str], *, vertical: bool = True) -> None:
    """One violin a sample at 0, 1, 2, …, with quartiles (bar) and median (dot); a point where all values are equal."""
    for position, (sample, color) in enumerate(zip(map(np.asarray, samples), colors, strict=True)):
        first, median, third = np.quantile(sample, [0.25, 0.5, 0.75])
        at = (position, median) if vertical else (median, position)
        if np.ptp(sample) <= 1e-9 * max(1.0, np.abs(sample).max()):
            axes.plot(*at, "o", color=color, markersize=4)
            continue
        where = "vertical" if vertical else "horizontal"
        options: dict[str, Any] = {"orientation": where, "widths": 0.8, "showextrema": False, "points": 200}
        drawn: Any = axes.violinplot([sample], [position], **options)
        drawn["bodies"][0].set(facecolor=color, edgecolor=color, alpha=0.4, linewidth=0.6)
        (axes.vlines if vertical else axes.hlines)(position, first, third, color=INK, linewidth=2.0)
        axes.plot(*at, "o", color="white", markeredgecolor=INK, markersize=3.4)


def ordinal(index: int, count: int) -> Any:
    """A colour for the `index`-th of `count` ordered values, dark to light, legible on white and in grey."""
    return mpl.colormaps["viridis"](0.85 * index / max(count - 1, 1))


def log_ticks(axes: Axes, low: int, high: int) -> None:
    """Labels a vertical axis that holds log10 of a quantity like a logarithmic one, from 10^low to 10^high."""
    axes.set_yticks(range(low, high + 1), [f"$10^{{{power}}}$" for power in range(low, high + 1)])
    minor = [power + np.log10(digit) for power in range(low, high) for digit in range(2, 10)]
    axes.set_yticks(minor, minor=True)


def count_ticks(axes: Axes, counts: Iterable[int]) -> None:
    """Labels a logarithmic horizontal axis at these counts and nowhere else."""
    values = sorted(set(counts))
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.xaxis.set_minor_formatter(NullFormatter())


def round_counts(largest: float) -> list[int]:
    """1, 3, 10, 30, … up to `largest`, for `count_ticks`."""
    every = [lead * 10**power for power in range(10) for lead in (1, 3)]
    return [count for count in every if count <= largest]
