"""Answers as tables for people: the same documents that `--json` writes, summarised to fit 80 columns.

A vector shows its first coordinates, its norm, the root mean square of its standard deviations and the median
of its SNRs; a number that does not exist shows as a dash with the number of a footnote that gives the reason.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from toyiwae.cli import decimals
from toyiwae.cli.layout import print_table, table_of, whole

Cell = Mapping[str, Any]
POSTERIOR_SHOWN = 3


_VARYING = re.compile(r"(?<=\bat K = )\d+|(?<=\bknown to )\S+(?= of its size)")
"""What may differ between the reasons of one footnote: particles, and how well a number is known."""


class Footnotes:
    """Reasons for missing numbers, numbered in order of appearance; those that differ only in K share a number."""

    def __init__(self) -> None:
        """Starts without any."""
        self._found: dict[tuple[str, ...], list[list[str]]] = {}

    def number(self, value: float | None, digits: int, reason: str | None = None) -> str:
        """A number with so many significant digits, or a dash with the footnote's number."""
        if value == 0:
            return "0"
        if value is not None:
            return format(value, f"#.{digits}g").replace(".e", "e").rstrip(".")
        return "–" + self.mark(reason or "no value")

    def mark(self, reason: str) -> str:
        """The mark that stands for a reason."""
        words, numbers = tuple(_VARYING.split(reason)), _VARYING.findall(reason)
        self._found.setdefault(words, []).append(numbers)
        return f"[{list(self._found).index(words) + 1}]"

    def show(self, console: Console) -> None:
        """Prints the reasons below the tables: of numbers that vary all counts of particles, and the worst accuracy."""
        for place, (words, every) in enumerate(self._found.items(), start=1):
            text = words[0]
            for rest, numbers in zip(words[1:], zip(*every, strict=True), strict=True):
                worst = max(numbers, key=float) if text.endswith("known to ") else None
                text += (worst or ", ".join(dict.fromkeys(numbers))) + rest
            console.print(f"[{place}] {text}")


def exact(console: Console, document: Mapping[str, Any]) -> None:
    """Prints the document of `ExactResult.to_dict`."""
    notes = Footnotes()
    cells = document["results"]
    rows = max(len((cell.get("per_row") or {}).get("gap", [None])) for cell in cells)
    average = f"   (averages over {rows} rows of data)" if rows > 1 else ""
    console.print(
        f"log evidence   {notes.number(document['log_evidence'], 10, document.get('reason'))}{average}"
    )
    if rows == 1 and len(_flat(document["posterior"]["mean"])) <= POSTERIOR_SHOWN:
        _posterior(console, document["posterior"], notes)
    table = table_of("K", "M", "bound", "gap", "± error", "ESS", *(["gap of the rows"] if rows > 1 else []))
    groups = ", ".join(dict.fromkeys(whole(cell["M"]) for cell in cells))  # on which none of these depends
    for cell in {cell["K"]: cell for cell in cells}.values():
        reason = cell.get("reason")
        columns = (("bound", 8), ("gap", 6), ("gap_error", 1), ("ess", 6))
        values = [notes.number(cell[key], digits, reason) for key, digits in columns]
        if rows > 1:
            values.append(_range(cell["per_row"]["gap"], notes, cell["per_row"].get("reason")))
        table.add_row(whole(cell["K"]), groups, *values)
    print_table(console, table)
    for name in cells[0]["gradients"]:
        _heading(console, name, _targets(cells, name, notes))
        for parameter in _parameters(cells, name):
            print_table(console, _exact_gradients(cells, name, parameter, notes))
        if any("directional_snr" in cell["gradients"][name] for cell in cells):
            print_table(console, _directions(cells, name, notes))
    decimals.show(console, document)
    notes.show(console)


def estimate(console: Console, document: Mapping[str, Any]) -> None:
    """Prints the document of `EstimateResult.to_dict`."""
    notes = Footnotes()
    cells = document["results"]
    count = cells[0]["replicates"]
    console.print(f"{whole(count)} replicate{'s' if count != 1 else ''}")
    table = table_of("K", "M", "bound", "± se", "truth", "z", "ESS", "± se", "truth")
    columns = [("bound", key, digits) for key, digits in (("estimate", 6), ("se", 2), ("truth", 6), ("z", 3))]
    columns += [("ess", key, digits) for key, digits in (("estimate", 4), ("se", 2), ("truth", 4))]
    for cell in cells:
        values = [
            notes.number(cell[quantity][key], digits, cell[quantity].get("reason"))
            for quantity, key, digits in columns
        ]
        table.add_row(whole(cell["K"]), whole(cell["M"]), *values)
    print_table(console, table)
    for name in cells[0]["gradients"]:
        _heading(console, name, None)
        for parameter in _parameters(cells, name):
            print_table(console, _estimated_gradients(cells, name, parameter, notes))
    notes.show(console)
    _verdict(console, document["agreement"])


def _exact_gradients(cells: Iterable[Cell], name: str, parameter: str, notes: Footnotes) -> Table:
    """Mean, std and SNR of one parameter's gradient, and its bias if it has one; one line per cell."""
    cells = [cell for cell in cells if parameter in cell["gradients"][name]]
    found = [cell["gradients"][name][parameter] for cell in cells]
    size = max(len(_entries(moments, "mean", parameter)) for moments in found)
    found = [
        {**moments, "bias": _beyond_error(moments.get("bias"), moments["mean_error"])} for moments in found
    ]
    biased = any(any(_flat(moments["bias"])) for moments in found)
    summaries: list[tuple[str, str, str, Any]] = [
        ("norm", "norm", "mean", lambda values: math.hypot(*values)),
        ("bias", "bias norm", "bias", lambda values: math.hypot(*values)),
        ("std", "rms std", "var", _rms_std),
        ("SNR", "median SNR", "snr", statistics.median),
    ]
    shown = [
        entry for entry in summaries if (size > 1 or entry[0] != "norm") and (biased or entry[0] != "bias")
    ]
    names = [entry[size > 1] for entry in shown]
    table = table_of("K", "M", "mean", *names, title=_title(parameter, size))
    for cell, moments in zip(cells, found, strict=True):
        reason = moments.get("reason")
        values = [_first(_entries(moments, "mean", parameter), 1 if biased else 2, notes, reason)]
        values += [
            _summary(_entries(moments, key, parameter), function, notes, reason)
            for _, _, key, function in shown
        ]
        table.add_row(whole(cell["K"]), whole(cell["M"]), *values)
    return table


def _directions(cells: Iterable[Cell], name: str, notes: Footnotes) -> Table:
    """Directional SNR of the model's and of the proposal's gradient; the covariances are in the JSON."""
    cells = [cell for cell in cells if cell["gradients"][name].get("directional_snr")]
    parts = list(dict.fromkeys(part for cell in cells for part in cell["gradients"][name]["directional_snr"]))
    table = table_of("K", "M", *parts, title="directional SNR")
    for cell in cells:
        found = cell["gradients"][name]["directional_snr"]
        values = [notes.number(found.get(part), 4, found.get("reason")) for part in parts]
        table.add_row(whole(cell["K"]), whole(cell["M"]), *values)
    return table


def _beyond_error(bias: Any, error: Any) -> Any:
    """A bias, entry by entry, with 0 where it is no larger than the error of the mean."""
    if isinstance(bias, list) and isinstance(error, list):
        return [_beyond_error(*pair) for pair in zip(bias, error, strict=True)]
    if isinstance(bias, float) and isinstance(error, float) and abs(bias) <= error:
        return 0.0
    return bias


def _estimated_gradients(cells: Iterable[Cell], name: str, parameter: str, notes: Footnotes) -> Table:
    """Mean and std of one parameter's gradient beside the truth: first entry, and largest |z| of all."""
    cells = [cell for cell in cells if parameter in cell["gradients"][name]]
    size = max(len(_entries(cell["gradients"][name][parameter], "mean", parameter)) for cell in cells)
    names = ("mean", "± se", "truth", "std", "true std", "|z|")
    names = ("mean[0]", "± se", "truth[0]", "std[0]", "true std[0]", "max |z|") if size > 1 else names
    table = table_of("K", "M", *names, title=_title(parameter, size))
    for cell in cells:
        moments = cell["gradients"][name][parameter]
        reason = moments.get("reason")
        values = []
        for key, digits in (("mean", 4), ("mean_se", 2), ("truth_mean", 4), ("var", 4), ("truth_var", 4)):
            first = _entries(moments, key, parameter)[0]
            if first is not None and key.endswith("var"):
                first = math.sqrt(first)
            values.append(notes.number(first, digits, reason))
        scores = _entries(moments, "z", parameter)
        values.append(_summary(scores, lambda z: max(map(abs, z)), notes, reason, digits=3))
        table.add_row(whole(cell["K"]), whole(cell["M"]), *values)
    return table


def _verdict(console: Console, agreement: Mapping[str, Any]) -> None:
    """Whether the estimates agree with the truth, and how large a difference would have been seen."""
    if not agreement["tests"]:
        return
    verdict = "Agrees with" if agreement["passed"] else "DIFFERS from"
    largest = "infinite" if agreement["largest_z"] is None else format(agreement["largest_z"], ".3g")
    console.print(
        f"{verdict} the truth: largest |z| {largest} in {agreement['tests']} tests, threshold"
        f" {agreement['threshold']:.3g} (family-wise rate {agreement['rate']:g}); a shift of"
        f" {agreement['smallest_shift']:.2g} standard deviations of one replicate would have been seen with"
        f" probability {agreement['power']:g}"
    )


def _posterior(console: Console, posterior: Mapping[str, Any], notes: Footnotes) -> None:
    """Mean and standard deviations of the posterior of one row."""
    mean, cov = _flat(posterior["mean"]), posterior["cov"]
    std = [math.sqrt(row[i]) for i, row in enumerate(cov)]
    mean, std = (", ".join(notes.number(number, 4) for number in numbers) for numbers in (mean, std))
    console.print(f"posterior      mean ({mean}), std ({std})")


def _heading(console: Console, name: str, detail: str | None) -> None:
    console.print(Text(name, style="bold"), Text(detail or "", style="dim"), sep="   " if detail else "")


def _targets(cells: Iterable[Cell], name: str, notes: Footnotes) -> str:
    """The bound whose gradient an estimator aims at, for each K (and M where that matters)."""
    by_particles: dict[int, dict[int, float | None]] = {}
    for cell in cells:
        by_particles.setdefault(cell["K"], {})[cell["M"]] = cell["gradients"][name].get("target_bound")
    found = []
    for particles, by_groups in by_particles.items():
        if set(by_groups.values()) == {None}:
            continue
        same = len(set(by_groups.values())) == 1
        for groups, bound in list(by_groups.items())[: 1 if same else None]:
            where = f"K={whole(particles)}" + ("" if same else f", M={whole(groups)}")
            found.append(f"{notes.number(bound, 6)} ({where})")
    return f"target bound {', '.join(found)}" if found else "no target bound"


def _parameters(cells: Iterable[Cell], name: str) -> list[str]:
    """The parameters with gradients: every entry of the estimator that is a record with a mean."""
    found: dict[str, None] = {}
    for cell in cells:
        entries = cell["gradients"][name].items()
        found |= {key: None for key, entry in entries if isinstance(entry, Mapping) and "mean" in entry}
    return list(found)


def _title(parameter: str, size: int) -> str:
    return f"gradient by {parameter}" + (f", {size} numbers" if size > 1 else "")


def _entries(moments: Mapping[str, Any], key: str, parameter: str) -> list[float | None]:
    """The entries of a number, vector or matrix; of a Cholesky factor only those that are not zero anyway."""
    value = moments.get(key)
    return _flat(_lower(value) if parameter.endswith("_chol") and isinstance(value, list) else value)


def _lower(value: list[Any]) -> list[Any]:
    """The entries on and below the diagonal of a matrix, or of each of several."""
    many = isinstance(value[0][0], list)
    return [_lower(row) if many else row[: i + 1] for i, row in enumerate(value)]


def _flat(value: Any) -> list[float | None]:
    if isinstance(value, list):
        return [number for item in value for number in _flat(item)]
    return [value]


def _first(flat: list[float | None], shown: int, notes: Footnotes, reason: str | None) -> str:
    """The first coordinates of a vector or matrix."""
    if len(flat) == 1:
        return notes.number(flat[0], 4, reason)
    numbers = [notes.number(number, 3, reason) for number in flat[:shown]]
    return f"({', '.join(numbers + ['…'] * (len(flat) > shown))})"


def _summary(
    flat: list[float | None], function: Any, notes: Footnotes, reason: str | None, digits: int = 4
) -> str:
    """One number for a vector or matrix: of the entries that exist, with the reason's mark if some do not."""
    there = [number for number in flat if number is not None]
    if not there:
        return notes.number(None, digits, reason)
    return notes.number(function(there), digits) + (
        notes.mark(reason or "no value") if len(there) < len(flat) else ""
    )


def _rms_std(variances: list[float]) -> float:
    return math.sqrt(math.fsum(variances) / len(variances))


def _range(values: list[float | None], notes: Footnotes, reason: str | None) -> str:
    there = [value for value in values if value is not None]
    if not there:
        return notes.number(None, 3, reason)
    mark = notes.mark(reason or "no value") if len(there) < len(values) else ""
    return f"{notes.number(min(there), 2)} – {notes.number(max(there), 2)}{mark}"
