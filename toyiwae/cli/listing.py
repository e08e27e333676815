"""The registry as plain data and as a table, for `toyiwae list`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from toyiwae import estimators
from toyiwae.estimators import Estimator
from toyiwae.estimators.claims import BoundOf


def entries() -> list[dict[str, Any]]:
    """One record for each registered family, in the order of registration.

    Returns:
        Records ``{"name", "parameter", "target", "value", "flags", "min_particles", "cite", "summary"}``.
        ``parameter`` is ``{"name", "default", "smallest", "largest"}`` or None (so are infinite limits).
        ``target`` is ``{"theta", "phi"}``: the labels of bounds, None for the gradient of no bound.
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


def _entry(estimator: Estimator) -> dict[str, Any]:
    target = estimator.target

    def label(bound: BoundOf | None) -> str | None:
        return None if bound is None else bound(estimator.min_particles, 1).label or "a bound of its own"

    return {
        "name": estimator.family,
        "parameter": _parameter(estimator),
        "target": {"theta": label(target.model), "phi": label(target.proposal)},
        "value": label(estimator.value),
        "flags": {
            "vanishes_at_posterior": estimator.vanishes_at_posterior,
            "shift_invariant": estimator.shift_invariant,
            "form": estimator.form is not None,
            "subsets": estimator.subsets is not None,
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
    if not flags["form"] and not flags["subsets"]:
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
