"""Calibration: does the conformance suite fail correct estimators as rarely as it says?

    python -m tests.calibrate [RUNS [FIRST_SEED]]

runs the whole suite at a family-wise rate of 0.05 on the registered estimators in turn, each time with another seed,
and asks two things. Each is a count of independent events whose probabilities are bounded, and is compared with the
exact law of such a count at those bounds (Poisson's binomial law); nothing is taken for normal.

* Failures: a run fails with a probability of at most 0.05.
* Tails: a check of c coordinates reports the smallest of c p-values p. For a correct estimator `c p ≤ τ` has
  probability at most τ, and at least τ/c where p-values are uniform, as those of means claim to be (those of variances
  are bounds, and may be small less often). The checks of one tier on one problem at one K may share their replicates:
  they are one group, and a group counts once, however many of its checks are below τ. With n checks that happens with
  probability at most `n τ`, and for means at least `max τ/c`, however they depend on one another. Groups share nothing.

Together these are 13 tests: failures; three tiers at τ = 1e-2, 1e-3 and 1e-4 from above; means at the same from below.
A correct suite fails any of them with probability at most 1e-3 (Bonferroni). The exit status is 1 if one fails.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

import toyiwae
from tests.members import correct
from toyiwae import estimators
from toyiwae.conformance.report import TIERS, Check, CheckReport

RATE, LEVELS, SAMPLED, MEANS = 0.05, (1e-2, 1e-3, 1e-4), (2, 3, 4), 2
FAMILY, TESTS = 1e-3, 1 + len(LEVELS) * (len(SAMPLED) + 1)


@dataclass(frozen=True)
class Count:
    """How many of some independent events happened, and bounds on their probabilities.

    Attributes:
        what: the events.
        found: how many happened.
        chances: bounds on the probability of each, from above; from below if `few`.
        few: whether too few are looked for, and not too many.
    """

    what: str
    found: int
    chances: np.ndarray
    few: bool = False

    @property
    def p_value(self) -> float:
        """P(at least so many, or at most, if `few`), where every event has the probability that bounds its own."""
        law = counted(self.chances, self.found)
        return float(law.sum() if self.few else 1.0 - law[:-1].sum())

    @property
    def passed(self) -> bool:
        """Whether the p-value is above one test's share of the family's rate."""
        return self.p_value > FAMILY / TESTS

    def __str__(self) -> str:
        """One line."""
        bound = f"at {'least' if self.few else 'most'} {self.chances.sum():.1f}"
        word = "ok" if self.passed else "WRONG"
        return f"{self.what}: {self.found} of {len(self.chances)}, expected {bound}: p = {self.p_value:.2g}: {word}"


def counted(chances: np.ndarray, most: int) -> np.ndarray:
    """P(0), …, P(most) for the number of independent events with these probabilities: their generating polynomial."""
    law = np.zeros(most + 1)
    law[0] = 1.0
    for chance in chances:
        law[1:] = law[1:] * (1.0 - chance) + law[:-1] * chance
        law[0] *= 1.0 - chance
    return law


def runs(number: int, first: int = 0, **options: object) -> Iterable[CheckReport]:
    """The suite on the registered estimators in turn, with the seeds first, first + 1, …."""
    names = [claimed.name for claimed in estimators.all()]
    for seed in range(first, first + number):
        name = names[seed % len(names)]
        yield toyiwae.check(correct(name), name, rate=RATE, seed=seed, **options)  # pyright: ignore[reportArgumentType]


def groups(reports: Iterable[CheckReport], tier: int) -> list[list[Check]]:
    """The checks of one tier that have p-values, those that may share replicates together."""
    found: dict[tuple[int, str | None, int | None], list[Check]] = {}
    for number, report in enumerate(reports):
        for check in report.checks:
            if check.tier == tier and check.p_value is not None:
                found.setdefault((number, check.problem, check.K), []).append(check)
    return list(found.values())


def judge(reports: Sequence[CheckReport]) -> list[Count]:
    """All tests of these runs."""
    failed = sum(report.verdict != "conforms" for report in reports)
    result = [Count(f"runs that failed at rate {RATE}", failed, np.full(len(reports), RATE))]
    for tier in SAMPLED:
        members = groups(reports, tier)
        for level in LEVELS:
            what = f"tier {tier} ({TIERS[tier]}), groups with a check below {level:g}"
            found = sum(any((c.p_value or 0.0) * c.coordinates <= level for c in group) for group in members)
            most = np.array([min(1.0, level * len(group)) for group in members])
            result.append(Count(what, found, most))
            if tier == MEANS:
                least = np.array([max(level / c.coordinates for c in group) for group in members])
                result.append(Count(what, found, least, few=True))
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
    found = judge(reports)
    print(*found, sep="\n")
    print(f"{len(found)} tests; a correct suite fails any with probability at most {FAMILY:g}")
    return int(not all(count.passed for count in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
