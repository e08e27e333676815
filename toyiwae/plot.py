"""How an estimator looks in every figure: its colour, line and marker, by its place in the registry."""

from __future__ import annotations

from typing import Any

from toyiwae import estimators

# P. Tol's "bright" scheme, which readers with the common colour-vision deficiencies tell apart; the families of the
# registry take its colours in turn, each round with lines and markers of its own
COLORS = ("#4477aa", "#ccbb44", "#66ccee", "#ee6677", "#228833", "#aa3377", "#777777")
DASHES = ("solid", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))
MARKERS = ("o", "^", "v", "s", "D", "P", "X")


def look(name: str, M: int = 1) -> dict[str, Any]:
    """Keywords for matplotlib's `plot`: colour, linestyle and marker.

    Members of a family share its colour; with groups, M > 1, the line is dotted and the marker white.

    Args:
        name: of an estimator, `"iwae"` or `"ciwae:0.5"`.
        M: groups.

    Raises:
        InputError: no such estimator.
    """
    families = [one.family for one in estimators.all()]
    family = estimators.get(name).family
    place = families.index(family) if family in families else len(families)
    turn, color = divmod(place, len(COLORS))
    grouped = M > 1 and family != "elbo"  # whose particles are all alike
    return {
        "color": COLORS[color],
        "linestyle": DASHES[2] if grouped else DASHES[turn % len(DASHES)],
        "marker": MARKERS[(color + turn) % len(MARKERS)],
        "markerfacecolor": "white" if grouped else COLORS[color],
    }


def label(name: str, M: int = 1, K: int = 1) -> str:
    """What a legend calls an estimator with its particles: the first words of its summary in the registry.

    >>> label("iwae", 8, 8), label("ciwae:0.5", 1, 64), label("elbo", 64, 1)
    ('MIWAE(8, 8)', 'CIWAE(64, β = 0.5)', 'ELBO (VAE)')
    """
    found = estimators.get(name)
    word = found.summary.partition(":")[0]
    if found.family == "elbo":  # whose particles are all alike
        return word
    if found.family == "iwae" and M > 1:
        word = f"M{word}"
    counts = f"{M}, {K}" if M > 1 else f"{K}"
    letter = GREEK.get(found.parameter_name or "", found.parameter_name)
    return f"{word}({counts}, {letter} = {found.parameter:g})" if letter else f"{word}({counts})"


GREEK = {"alpha": "α", "beta": "β", "gamma": "γ"}
"""Parameter -> how a legend writes it."""


def short(name: str, M: int = 1) -> str:
    """The label without particles and parameters.

    >>> short("iwae", 8), short("dreg"), short("elbo")
    ('MIWAE', 'DReG', 'ELBO')
    """
    return label(name, M).partition("(")[0].strip()
