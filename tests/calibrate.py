"""Calibration: does the conformance suite fail correct estimators as rarely as it says?

    python -m tests.calibrate [RUNS [FIRST_SEED]]

runs the whole suite at a family-wise rate of 0.05 on the registered estimators in turn, each time with another seed,
and asks two things.

* Failures: of n runs at rate r no more may fail than a binomial count reaches with probability 1e-3.
* Tails: a check of c coordinates reports the smallest of c p-values. For a correct estimator `c p ≤ τ` has probability
  at most τ, and at least τ/c where p-values are uniform, as those of means claim to be (those of variances are bounds,
  and may be smaller less often). So the number of such checks in a run is compared with the sum of τ and, for means,
  with that of τ/c, in standard errors over runs: checks of one run share their replicates, runs share nothing.

The exit status is 1 if anything is as it should not be.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc

import toyiwae
from tests.members import correct
from toyiwae import estimators
from toyiwae.conformance.record import TIERS, CheckReport

RATE, LEVELS, LIMIT = 0.05, (1e-3, 1e-4), 3.29  # the limit is the 99.95 % point of the normal distribution


@dataclass(frozen=True)
class Tail:
    """Checks of one tier below one level, per run: how many, and how many there should be at least and at most."""

    tier: int
    level: float
    found: np.ndarray
    least: np.ndarray
    most: np.ndarray

    @property
    def se(self) -> float:
        """Standard error of the total: that seen between runs, at least that of as many independent checks."""
        seen = np.var(self.found) * len(self.found)
        return float(np.sqrt(max(seen, self.most.sum())))

    @property
    def passed(self) -> bool:
        """Whether the total is as it should be."""
        total = self.found.sum()
        return bool(self.least.sum() - LIMIT * self.se <= total <= self.most.sum() + LIMIT * self.se)

    def __str__(self) -> str:
        """One line."""
        word = "ok" if self.passed else "WRONG"
        least = f"{self.least.sum():.1f} to " if self.least.any() else "at most "
        return (
            f"tier {self.tier} ({TIERS[self.tier]}): {self.found.sum():g} checks below {self.level:g},"
            f" expected {least}{self.most.sum():.1f} ± {self.se:.1f}: {word}"
        )


def runs(number: int, first: int = 0, **options: object) -> Iterable[CheckReport]:
    """The suite on the registered estimators in turn, with the seeds first, first + 1, …."""
    names = [claimed.name for claimed in estimators.all()]
    for seed in range(first, first + number):
        name = names[seed % len(names)]
        yield toyiwae.check(correct(name), name, rate=RATE, seed=seed, **options)  # pyright: ignore[reportArgumentType]


def probability(failed: int, number: int) -> float:
    """P(at least so many failures), if each run fails with probability `RATE`."""
    return 1.0 if failed == 0 else float(bdtrc(failed - 1, number, RATE))


def tails(reports: Sequence[CheckReport]) -> list[Tail]:
    """The tails of every tier that has p-values."""
    result = []
    for tier in (2, 3, 4):
        judged = [[c for c in r.checks if c.tier == tier and c.p_value is not None] for r in reports]
        for level in LEVELS:
            found = [sum((c.p_value or 0.0) * c.coordinates <= level for c in checks) for checks in judged]
            most = [level * len(checks) for checks in judged]
            least = [level * sum(1 / c.coordinates for c in checks) * (tier == 2) for checks in judged]
            result.append(Tail(tier, level, *map(np.asarray, (found, least, most))))
    return result


def main(arguments: Sequence[str]) -> int:
    """Calibrate and say what was found."""
    number, first = (int(a) for a in (*arguments, *("300", "0")[len(arguments) :]))
    reports = []
    for seed, report in enumerate(runs(number, first), first):
        reports.append(report)
        if report.verdict != "conforms":
            first_failure = report.failures[0].to_dict() if report.failures else report.reason
            print(f"seed {seed} ({report.target}): {report.verdict}: {first_failure}", flush=True)
    failed = sum(report.verdict != "conforms" for report in reports)
    chance = probability(failed, number)
    found = tails(reports)
    print(f"{failed} of {number} runs failed at rate {RATE}; so many or more have probability {chance:.3g}")
    print(*found, sep="\n")
    return int(chance < 1e-3 or not all(tail.passed for tail in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
