"""The audit as a page: HTML that needs no network, JSON with every number, and a page of the documentation."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from analysis import report
from analysis.audit.judge import COLUMNS, MISSING, RAISES, Cell, Result, to_dict
from analysis.audit.run import Outcome
from analysis.audit.subjects import DIVERGENCE, Library
from toyiwae import records
from toyiwae.conformance.report import CONFORMS, NOT, Check

NUMBERS = ("column", "worst check", "K", "M", "n", "estimate", "exact", "shift in sd", "smallest detectable")


def facts(outcomes: Sequence[Outcome], light: bool, date: str, command: str) -> dict[str, Any]:
    """What both pages say of the run as a whole."""
    ran = [outcome.result for outcome in outcomes if outcome.result.verdict != MISSING]
    return {
        "date": date,
        "command": command,
        "settings": "those of the tests (--quick)" if light else "the audit's",
        "ran": len(ran),
        "conform": sum(result.verdict == CONFORMS for result in ran),
        "fail": sum(result.verdict == NOT for result in ran),
        "raise": sum(result.verdict == RAISES for result in ran),
        "missing": sorted({outcome.result.subject.library.name for outcome in outcomes} - names(ran)),
        "changed": [result.subject.key for result in ran if not result.as_recorded],
        "seconds": round(sum(outcome.seconds for outcome in outcomes)),
    }


def names(results: Sequence[Result]) -> set[str]:
    """Names of the libraries that ran."""
    return {result.subject.library.name for result in results}


def document(
    outcomes: Sequence[Outcome], run: Mapping[str, Any], provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Plain data for strict JSON: every check of every subject, and the scripts."""
    results = []
    for outcome in outcomes:
        entry = to_dict(outcome.result) | {"seconds": round(outcome.seconds, 1)}
        if outcome.script is not None:
            entry["script"] = {"text": outcome.script.text, "printed": outcome.script.printed}
            entry["script"] |= {"shows_the_failure": outcome.script.shows, "error": outcome.script.error}
        results.append(entry)
    return records.plain({**run, "provenance": dict(provenance), "results": results})


def html(outcomes: Sequence[Outcome], run: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """The page in the style of the report."""
    style = (report.TEMPLATES / "report.css").read_text(encoding="utf-8")
    style += (report.TEMPLATES / "audit.css").read_text(encoding="utf-8")
    environment = report.environment()
    environment.filters["text"] = _text
    return environment.get_template("audit.html").render(
        **_shared(outcomes, run),
        provenance={key: value for key, value in provenance.items() if not isinstance(value, Mapping)},
        style=Markup(style),
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )


def markdown(outcomes: Sequence[Outcome], run: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """The page of the documentation."""
    environment = report.environment(autoescape=False)
    shared = _shared(outcomes, run) | {"provenance": provenance}
    return environment.get_template("audit.md").render(**shared).strip() + "\n"


def _shared(outcomes: Sequence[Outcome], run: Mapping[str, Any]) -> dict[str, Any]:
    """What both templates need."""
    constants = {"run": run, "columns": COLUMNS, "numbers": NUMBERS, "libraries": libraries(outcomes)}
    functions = (mark, rows, settings, smallest, verdict, versions, worst)
    return constants | {function.__name__: function for function in functions}


def libraries(outcomes: Sequence[Outcome]) -> list[tuple[Library, list[Outcome]]]:
    """Outcomes by library, in order."""
    grouped = groupby(outcomes, key=lambda outcome: outcome.result.subject.library)
    return [(library, list(members)) for library, members in grouped]


def versions(library: Library) -> str:
    """Name and version of what is installed."""
    return ", ".join(f"{name} {version}" for name, version in library.versions.items() if version)


def verdict(result: Result) -> str:
    """One or two words."""
    return "not judged" if result.verdict == "cannot be judged" else result.verdict


def mark(cell: Cell, result: Result) -> str:
    """What a column of the table says."""
    if result.verdict == RAISES and not any(check.passed for check in cell.checks):
        return "–"
    return {True: "pass", False: "fail", None: "–"}[cell.passed]


def settings(result: Result) -> str:
    """The arguments of the check, as the call has them."""
    given = ", ".join(f"{key}={value!r}" for key, value in result.subject.options(result.light).items())
    target = result.subject.target
    kind = "divergences.judge" if target.startswith(DIVERGENCE) else "toyiwae.check"
    return f'{kind}(…, "{target.removeprefix(DIVERGENCE)}", {given})'


def rows(result: Result) -> list[tuple[str, ...]]:
    """The numbers behind the columns of a subject: of each its worst check."""
    found = []
    for column, cell in result.cells.items():
        check = cell.worst
        if check is None or check.n is None or check.tier < 2:
            continue
        shift, least = check.shift_in_sd, check.smallest_detectable
        numbers = (check.estimate, check.truth, shift, least)
        texts = ["–" if value is None else report.number(value) for value in numbers]
        found.append((column, _what(check), str(check.K or ""), str(check.M or ""), str(check.n), *texts))
    return found


def _what(check: Check) -> str:
    coordinate = f"[{', '.join(map(str, check.index))}]" if check.index else ""
    return f"{check.name} of {check.parameter}{coordinate} on {check.problem}"


def worst(result: Result) -> str:
    """The mean that is farthest off, in a few words: of those that failed, if any did."""
    means = [check for cell in result.cells.values() for check in cell.checks if check.tier == 2]
    failed = [check for check in means if check.passed is False]
    check = max(failed or means, key=lambda check: abs(check.shift_in_sd or 0.0), default=None)
    if check is None or check.shift_in_sd is None:
        return "–"
    return f"{report.number(check.shift_in_sd, 2)} ({check.parameter}, n = {check.n})"


def smallest(result: Result) -> str:
    """The bias that a pass rules out."""
    least = result.report.smallest_detectable if result.report else None
    return report.number(least, 2) if least else "–"


def _text(text: str) -> Markup:
    """Text as HTML: what stands between backticks is code."""
    parts = [str(Markup.escape(part)) for part in text.strip().split("`")]
    return Markup("".join(f"<code>{part}</code>" if n % 2 else part for n, part in enumerate(parts)))
