"""How an estimator looks in every figure: its colour, line and marker, by its place in the registry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toyiwae import estimators
from toyiwae.estimators import Estimator

COLORS = ("#0072b2", "#d55e00", "#cc79a7", "#e69f00", "#009e73", "#56b4e9", "#222222")
"""Okabe and Ito's colours but for their yellow, which is too pale for a line on white: blue, vermilion, pink, orange,
green, sky, black. Readers with the common colour-vision deficiencies tell them apart (tests/test_plot.py measures)."""

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DOTTED = (0, (1.2, 1.2))
KINDS = {
    "total": "solid",
    "path": (0, (5, 1.5)),
    "score": (0, (6, 1.5, 1.2, 1.5)),
    "other": (0, (6, 1.5, 1.2, 1.5, 1.2, 1.5)),
}
"""What a proposal's gradient is made of -> how its line is dashed."""

GREEK = {"alpha": "α", "beta": "β", "gamma": "γ"}
"""Parameter -> how a legend writes it."""

ABBREVIATIONS = {
    ", sticking the landing": " STL",
    ", doubly reparameterised": " DReG",
    ", asymptotic form": "",
}
"""Words of a summary -> how a label writes them."""

LONGEST = 28
"""Characters of a name in a label; what is longer is cut."""


def kind(estimator: str | Estimator) -> str:
    """What an estimator's gradient by the proposal's parameters is made of, by its form.

    Returns:
        "total": path and score of every particle, as in the reparameterised gradient of a bound; "path" or "score"
        alone; "other": not known, since the estimator has no Form.

    Raises:
        InputError: no such estimator.
    """
    found = estimators.get(estimator)
    if found.form is None:
        return "other" if found.subsets is None else "total"  # averages over subsets, of IWAE's
    if not found.form.path:
        return "score"
    return "total" if found.form.score else "path"


def look(name: str | Estimator, M: int = 1) -> dict[str, Any]:
    """Keywords for matplotlib's `plot`: colour, linestyle and marker.

    The line is dashed by what the gradient is made of (`kind`); colours and markers go by the place among the
    estimators of the same kind, so that up to seven of them differ in colour, and the other kinds' in marker and
    dashes. Members of a family look alike (`looks` tells them apart); with groups, M > 1, the line is dotted and the
    marker white.

    Args:
        name: of an estimator, `"iwae"` or `"ciwae:0.5"`.
        M: groups.

    Raises:
        InputError: no such estimator.
    """
    found = estimators.get(name)
    own = kind(found)
    families = [one.family for one in estimators.all() if kind(one) == own]
    place = families.index(found.family) if found.family in families else len(families)
    shift = 2 * list(KINDS).index(own)
    color, turn = (place + shift) % len(COLORS), place // len(COLORS)
    grouped = M > 1 and found.family != "elbo"  # whose particles are all alike
    return {
        "color": COLORS[color],
        "linestyle": DOTTED if grouped else KINDS[own],
        "marker": MARKERS[(color + shift + turn) % len(MARKERS)],
        "markerfacecolor": "white" if grouped else COLORS[color],
    }


def looks(names: Sequence[str | Estimator], M: int = 1) -> list[dict[str, Any]]:
    """`look` of several estimators in one figure; members of one family get lighter colours and other markers in turn.

    Args:
        names: of estimators, in the order of their parameter.
        M: groups.

    Raises:
        InputError: no such estimator.
    """
    chosen = [estimators.get(name) for name in names]
    found = []
    for estimator in chosen:
        family = [one.name for one in chosen if one.family == estimator.family]
        place, own = family.index(estimator.name), look(estimator, M)
        if place:
            color = _lighter(own["color"], 0.5 * place / (len(family) - 1))
            marker = MARKERS[(MARKERS.index(own["marker"]) + place) % len(MARKERS)]
            face = "white" if own["markerfacecolor"] == "white" else color
            own |= {"color": color, "marker": marker, "markerfacecolor": face}
        found.append(own)
    return found


def label(name: str | Estimator, M: int = 1, K: int = 1) -> str:
    """What a legend calls an estimator with its particles: the first words of its summary in the registry.

    >>> label("iwae", 8, 8), label("ciwae:0.5", 1, 64), label("iwae_stl", 1, 8)
    ('MIWAE(8, 8)', 'CIWAE(64, β = 0.5)', 'IWAE STL(8)')

    Raises:
        InputError: no such estimator.
    """
    found = estimators.get(name)
    if found.family == "elbo":  # whose particles are all alike
        return found.summary.partition(":")[0]
    counts = f"{M}, {K}" if M > 1 else f"{K}"
    value = parameter(found)
    return f"{_word(found, M)}({counts}, {value})" if value else f"{_word(found, M)}({counts})"


def short(name: str | Estimator, M: int = 1, longest: int = LONGEST) -> str:
    r"""The label without particles and parameters, at most so long; a dollar sign in it is `\$` for matplotlib.

    >>> short("iwae", 8), short("elbo"), short("vimco_geometric")
    ('MIWAE', 'ELBO', 'VIMCO geometric')

    Raises:
        InputError: no such estimator.
    """
    return _cut(_word(estimators.get(name), M), longest)


def parameter(name: str | Estimator) -> str:
    """What a legend writes of a family's parameter; "" in a family without one.

    >>> parameter("ciwae"), parameter("vr_iwae:0.2"), parameter("iwae")
    ('β = 0.5', 'α = 0.2', '')

    Raises:
        InputError: no such estimator.
    """
    found = estimators.get(name)
    letter = GREEK.get(found.parameter_name or "", found.parameter_name)
    return f"{letter} = {found.parameter:g}" if letter else ""


def _word(found: Estimator, M: int) -> str:
    """The first words of the summary, without what stands in brackets; with the family's last word if two are alike.

    A dollar sign is escaped: between two of them matplotlib would read a formula, and stop at one it cannot read.
    """
    word = _first_words(found)
    if any(_first_words(one) == word for one in estimators.all() if one.family != found.family):
        word += f" {found.family.rpartition('_')[2]}"
    word = word.replace("$", r"\$")
    return f"M{word}" if found.family == "iwae" and M > 1 else word


def _first_words(found: Estimator) -> str:
    if ".py:" in found.name:  # from a user's file, whose docstring need not begin with a name
        return _cut(found.family)
    word = found.summary.partition(":")[0].partition("(")[0].strip()
    for long, brief in ABBREVIATIONS.items():
        word = word.replace(long, brief)
    return _cut(word)


def _cut(word: str, longest: int = LONGEST) -> str:
    return word if len(word) <= longest else f"{word[: longest - 1].rstrip()}…"


def _lighter(color: str, share: float) -> str:
    """A colour mixed with white."""
    parts = [int(color[place : place + 2], 16) for place in (1, 3, 5)]
    return "#" + "".join(f"{round(part + share * (255 - part)):02x}" for part in parts)
