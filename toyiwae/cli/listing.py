"""The registry as plain data and as a table, for `toyiwae list`; a bound in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from toyiwae import estimators
from toyiwae.estimators import Estimator
from toyiwae.estimators.claims import BoundOf

# Two pairs (K, M) that no formula in K and M confuses: all products, sums and differences differ.
_WITNESSES = ((1009, 10_007), (2003, 20_011))
_NEIGHBOURS = 8


def entries() -> list[dict[str, Any]]:
    """One record for each registered family, in the order of registration.

    Returns:
        Records ``{"name", "parameter", "target", "value", "flags", "min_particles", "cite", "summary"}``.
        ``parameter`` is ``{"name", "default", "smallest", "largest"}`` or None (so are infinite limits).
        ``target`` is ``{"theta", "phi"}``: bounds as `in_words` has them, None for the gradient of no bound.
        ``flags`` is ``{"vanishes_at_posterior", "shift_invariant", "form"}``.
    """
    return [_entry(estimator) for estimator in estimators.all()]


def show(console: Console, entries: Sequence[Mapping[str, Any]]) -> None:
    """Prints `entries`: a line for each with a summary below."""
    lines = [("name", "θ: unbiased for", "φ: unbiased for", "K ≥")]
    for entry in entries:
        parameter, target = entry["parameter"], entry["target"]
        name = entry["name"] + (f":{parameter['default']:g}" if parameter else "")
        lines.append((name, target["theta"] or "–", target["phi"] or "–", str(entry["min_particles"])))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    heads = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
    console.print(Text(heads[0].rstrip(), style="underline"))
    for head, entry in zip(heads[1:], entries, strict=True):
        console.print(Text(head.rstrip(), style="bold"))
        console.print(Padding(Text(" ".join(_remarks(entry)), style="dim"), (0, 0, 0, 4)))


def in_words(bound: BoundOf | None) -> str | None:
    """A bound as a function of K and M in words, such as ``0.5 L_1 + 0.5 L_K``; None for no bound.

    The function is evaluated at two pairs (K, M), and what fits both is named: the numbers of particles
    1, K−j, M and M·K, and the weights where they depend on neither. VR-IWAE bounds read ``VR_K(α)``.
    """
    if bound is None:
        return None
    first, second = (bound(particles, groups) for particles, groups in _WITNESSES)
    letters = [
        _letters(made.terms, witness) for made, witness in zip((first, second), _WITNESSES, strict=True)
    ]
    names = list(letters[0])
    symbol = "L_{}" if first.exponent == 1.0 else f"VR_{{}}({1 - first.exponent:.12g})"
    shown = [symbol.format(name) for name in names]
    if names != list(letters[1]) or first.exponent != second.exponent:
        return "a bound of its own"
    if letters[0] != letters[1]:
        return f"a mixture of {', '.join(shown)}"
    weights = ["" if weight == 1.0 else f"{weight:.12g} " for weight in letters[0].values()]
    return " + ".join(weight + name for weight, name in zip(weights, shown, strict=True)).replace("+ -", "− ")


def _entry(estimator: Estimator) -> dict[str, Any]:
    return {
        "name": estimator.family,
        "parameter": _parameter(estimator),
        "target": {"theta": in_words(estimator.target.model), "phi": in_words(estimator.target.proposal)},
        "value": in_words(estimator.value),
        "flags": {
            "vanishes_at_posterior": estimator.vanishes_at_posterior,
            "shift_invariant": estimator.shift_invariant,
            "form": estimator.form is not None,
        },
        "min_particles": estimator.min_particles,
        "cite": list(estimator.cite),
        "summary": estimator.summary,
    }


def _remarks(entry: Mapping[str, Any]) -> list[str]:
    """Sentences about an estimator: summary, parameter, flags, citations."""
    remarks, parameter, flags = [entry["summary"].replace("`", "")], entry["parameter"], entry["flags"]
    if parameter:
        low, high = parameter["smallest"], parameter["largest"]
        limits = ("" if low is None else f"{low:g} ≤ ", "" if high is None else f" ≤ {high:g}")
        remarks.append(
            f"{limits[0]}{parameter['name']}{limits[1]}." if any(limits) else f"Any {parameter['name']}."
        )
    if flags["vanishes_at_posterior"]:
        remarks.append("Vanishes where q is the posterior.")
    if not flags["shift_invariant"]:
        remarks.append("Changes with the scale of p(x).")
    if not flags["form"]:
        remarks.append("No exact variance.")
    return [*remarks, f"[{', '.join(entry['cite'])}]"] if entry["cite"] else remarks


def _parameter(estimator: Estimator) -> dict[str, Any] | None:
    if estimator.parameter_name is None:
        return None
    limits = [limit if abs(limit) < float("inf") else None for limit in estimator.between]
    return {
        "name": estimator.parameter_name,
        "default": estimator.parameter,
        "smallest": limits[0],
        "largest": limits[1],
    }


def _letters(terms: tuple[tuple[int, float | Fraction], ...], witness: tuple[int, int]) -> dict[str, float]:
    """Weights of a bound by the name of the number of particles."""
    particles, groups = witness
    known = {1: "1", particles: "K", groups: "M", particles * groups: "MK"}
    known |= {particles - j: f"{{K−{j}}}" for j in range(1, _NEIGHBOURS)}
    return {known.get(count, str(count)): float(weight) for count, weight in reversed(terms)}
