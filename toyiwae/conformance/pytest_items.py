"""What the pytest plugin adds to a session: one item for every check. Loaded only when it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toyiwae.conformance.api import RATE, SEED, SHIFT, check
from toyiwae.conformance.checks.mean_variance import POWER
from toyiwae.conformance.report import Check, CheckReport
from toyiwae.errors import ToyiwaeError


class CheckItem(pytest.Item):
    """One check: fails where it failed, is skipped where it was refused."""

    def __init__(self, *, found: Check, expected: bool, **kwargs: Any):
        """Takes the check, and whether it is listed to fail."""
        super().__init__(**kwargs)
        self.found, self.expected = found, expected

    def runtest(self) -> None:
        """Says what the check found."""
        if self.found.passed is None:
            pytest.skip(f"not judged: {self.found.reason}")
        if self.found.passed is False and self.expected:
            pytest.xfail("listed as an expected failure")
        if self.found.passed and self.expected:
            pytest.fail("listed as an expected failure, but it passes: take it off the list", pytrace=False)
        if self.found.passed is False:
            pytest.fail(describe(self.found), pytrace=False)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Where the line of the report points to."""
        return self.path, None, f"toyiwae: {self.name}"


def describe(found: Check) -> str:
    """All that a check knows, in lines."""
    return "\n".join(f"{key}: {value}" for key, value in found.to_dict().items() if value is not None)


def report_of(config: Any) -> CheckReport:
    """Runs the suite once in a session."""
    if not hasattr(config, "toyiwae_report"):
        spec = config.getoption("--toyiwae-estimator")
        target = config.getoption("--toyiwae-target") or spec.rpartition(":")[2]
        form = config.getoption("--toyiwae-form")
        try:
            made = check(spec, target, form=form, seed=getattr(config, "toyiwae_seed", SEED))
        except ToyiwaeError as error:
            raise pytest.UsageError(str(error)) from error
        config.toyiwae_report = made
    return config.toyiwae_report


def collect(session: Any, config: Any) -> list[CheckItem]:
    """The items; an expected failure that no check is called by is a usage error."""
    report = report_of(config)
    listed = expected(config.getoption("--toyiwae-expected-failures"))
    unknown = listed - {found.id for found in report.checks}
    if unknown:
        raise pytest.UsageError(
            f"no check is called {sorted(unknown)[0]!r}: see --collect-only for the names"
        )
    return [
        CheckItem.from_parent(session, name=found.id, found=found, expected=found.id in listed)
        for found in report.checks
    ]


def expected(file: str | None) -> set[str]:
    """Ids in a file, one in a line; `#` starts a comment."""
    if file is None:
        return set()
    try:
        lines = Path(file).read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise pytest.UsageError(f"--toyiwae-expected-failures: {error}") from error
    return {line.partition("#")[0].strip() for line in lines} - {""}


def header(config: Any) -> list[str]:
    """What the session's header says; the shift is what the number of replicates is chosen for."""
    seed = getattr(config, "toyiwae_seed", SEED)
    return [
        f"toyiwae: family-wise error rate {RATE:g}; minimum detectable effect: a bias of {SHIFT:g} standard deviations"
        f" of one replicate, found with probability {POWER:g}; seed {seed}"
    ]
