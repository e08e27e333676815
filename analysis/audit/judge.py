"""One subject judged: a verdict, a cell for each column of the page, and the report behind them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import toyiwae
from analysis.audit import divergences
from analysis.audit.subjects import DIVERGENCE, Subject
from toyiwae.conformance.calling import call
from toyiwae.conformance.report import CONFORMS, NOT, UNJUDGED, Check, CheckReport
from toyiwae.errors import InputError

COLUMNS = ("value", "model gradient", "proposal gradient", "variance", "dependence", "contract")
RAISES, MISSING = "raises", "not installed"


@dataclass(frozen=True)
class Cell:
    """What a column says: passed (None: not judged), and the checks it speaks for."""

    passed: bool | None
    checks: tuple[Check, ...]

    @property
    def worst(self) -> Check | None:
        """The failed check with the largest shift, or the check with the largest shift."""
        failed = [check for check in self.checks if check.passed is False]
        among = failed or [check for check in self.checks if check.passed]
        return max(among, key=lambda check: abs(check.shift_in_sd or 0.0), default=None)


@dataclass(frozen=True)
class Result:
    """What the run of one subject shows.

    Attributes:
        subject: what was run.
        verdict: of the suite, or "raises", or "not installed".
        reason: what was raised, what is missing, or why nothing could be judged.
        report: the suite's report; None where it did not run.
        light: whether the settings were those of the tests.
    """

    subject: Subject
    verdict: str
    reason: str = ""
    report: CheckReport | None = None
    light: bool = False

    @property
    def cells(self) -> dict[str, Cell]:
        """Column -> what it says."""
        checks = self.report.checks if self.report else ()
        return {column: _cell(check for check in checks if column_of(check) == column) for column in COLUMNS}

    @property
    def fails(self) -> frozenset[str]:
        """The columns that fail."""
        if self.verdict == RAISES:
            return frozenset({RAISES})
        return frozenset(column for column, cell in self.cells.items() if cell.passed is False)

    @property
    def as_recorded(self) -> bool:
        """Whether it fails where `subjects.toml` says, and nowhere else."""
        return self.verdict == MISSING or (self.verdict != UNJUDGED and self.fails == self.subject.fails)


def judge(subject: Subject, *, light: bool = False) -> Result:
    """Runs the suite on one subject."""
    missing = subject.library.missing
    if missing:
        return Result(subject, MISSING, f"{', '.join(missing)}: not installed here", light=light)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # of TensorFlow, before it is imported
    estimator, options = f"{subject.library.file}:{subject.function}", subject.options(light)
    try:
        if subject.target.startswith(DIVERGENCE):
            name = subject.target.removeprefix(DIVERGENCE)
            report = divergences.judge(call.load(estimator), name, **options)
        else:
            report = toyiwae.check(estimator, subject.target, **options)
    except InputError as error:  # the adapter could not be imported
        message = str(error).rpartition(" failed: ")[2]
        return Result(subject, RAISES, message, light=light)
    raised = [check for check in report.failures if check.name == "no exception"]
    if raised:
        return Result(subject, RAISES, (raised[0].reason or "").removeprefix("it raised "), report, light)
    return Result(subject, report.verdict, report.to_dict().get("reason", ""), report, light)


def column_of(check: Check) -> str:
    """The column that a check belongs to."""
    if check.tier == 3:
        return "variance"
    if check.tier == 4:
        return "dependence"
    if check.parameter is None:
        return "contract"
    if check.parameter == "value":
        return "value"
    return "proposal gradient" if check.parameter.startswith("proposal") else "model gradient"


def _cell(checks: Iterable[Check]) -> Cell:
    found = tuple(checks)
    states = {check.passed for check in found}
    passed = False if False in states else True if True in states else None
    return Cell(passed, found)


def to_dict(result: Result) -> dict[str, Any]:
    """Plain data, the numbers behind it included."""
    subject = result.subject
    cells = {}
    for column, cell in result.cells.items():
        worst = cell.worst
        cells[column] = {"passed": cell.passed, "worst": None if worst is None else worst.to_dict()}
    return {
        "library": subject.library.name,
        "versions": subject.library.versions,
        "objective": subject.objective,
        "adapter": f"{subject.library.adapter}.py:{subject.function}",
        "target": subject.target,
        "settings": subject.options(result.light),
        "verdict": result.verdict,
        **({"reason": result.reason} if result.reason else {}),
        "as_recorded": result.as_recorded,
        "smallest_detectable": result.report.smallest_detectable if result.report else None,
        **cells,
        "report": result.report.to_dict() if result.report else None,
    }


__all__ = ["CONFORMS", "MISSING", "NOT", "RAISES", "Result", "judge", "to_dict"]
