"""What a check says and what all of them together say: frozen records, as data and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from toyiwae import records

CONFORMS, NOT, UNJUDGED = "conforms", "does not conform", "cannot be judged"
TIERS = {0: "contract", 1: "deterministic", 2: "mean", 3: "variance", 4: "dependence"}


@dataclass(frozen=True)
class Check:
    """One check: of a parameter, by its worst coordinate, or of the value, on one problem at one K and M.

    Attributes:
        name: what is checked.
        tier: 0 contract, 1 deterministic, 2 mean, 3 variance, 4 dependence.
        problem: name in the bank.
        K, M: particles inside the log, groups outside.
        parameter: "value", a parameter's name, or None.
        index: the worst coordinate.
        coordinates: how many coordinates it judges, each at the same significance level.
        n: replicates.
        estimate, truth: of the worst coordinate; of a variance check, variances.
        truth_error: bound on the error of the truth.
        shift_in_sd: their distance in standard deviations of one replicate (of its square for a variance); None where
            the replicates do not vary.
        p_value: of the worst coordinate, for the record; `e_value` in sequential mode.
        smallest_detectable: minimum detectable effect, in the same unit: the shift found with probability 0.999.
        passed: None where the check was refused; then `reason` says why.
        seed: what reproduces the call that a violation is about.
    """

    name: str
    tier: int
    problem: str | None
    K: int | None = None
    M: int | None = None
    parameter: str | None = None
    index: tuple[int, ...] | None = None
    coordinates: int = 1
    n: int | None = None
    estimate: float | None = None
    truth: float | None = None
    truth_error: float | None = None
    shift_in_sd: float | None = None
    p_value: float | None = None
    smallest_detectable: float | None = None
    passed: bool | None = None
    reason: str | None = None
    seed: int | None = None
    e_value: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what is None for this kind of check stays, as null."""
        entry = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for optional in ("reason", "seed", "e_value"):
            if entry[optional] is None:
                del entry[optional]
        return entry

    @property
    def id(self) -> str:
        """A name that is the same in every run: for test ids and lists of expected failures."""
        where = [f"K={self.K}" if self.K else "", f"M={self.M}" if self.M else ""]
        parts = [TIERS[self.tier], self.name, self.problem or "", *where, self.parameter or ""]
        return "-".join(part.replace(" ", "_") for part in parts if part)


@dataclass(frozen=True)
class CheckReport:
    """What `toyiwae.check` found.

    Attributes:
        target: what the estimator was judged as.
        checks: all checks, in order.
        rate: family-wise error rate, the probability that a correct estimator fails anywhere.
        tests: number of p- or e-values that share it.
        reason: why nothing could be judged.
        provenance: versions and arguments.
    """

    target: str
    checks: tuple[Check, ...]
    rate: float
    tests: int
    reason: str | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """`"conforms"`, `"does not conform"` or `"cannot be judged"`."""
        if self.failures:
            return NOT
        if self.reason is None and any(check.tier == 2 and check.passed for check in self.checks):
            return CONFORMS
        return UNJUDGED

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.passed is False)

    @property
    def refused(self) -> tuple[Check, ...]:
        """The checks that could not be made."""
        return tuple(check for check in self.checks if check.passed is None)

    @property
    def exit_code(self) -> int:
        """0, 1 or 2."""
        return (CONFORMS, NOT, UNJUDGED).index(self.verdict)

    @property
    def smallest_detectable(self) -> float | None:
        """The bias, in standard deviations of one replicate, that no judged coordinate has."""
        found = [c.smallest_detectable for c in self.checks if c.tier == 2 and c.smallest_detectable]
        return max(found, default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for strict JSON."""
        reason = self.reason
        if self.verdict == UNJUDGED and reason is None:
            reason = next((c.reason for c in self.refused if c.tier == 2), "no mean could be judged")
        return records.plain(
            {
                "verdict": self.verdict,
                **({"reason": reason} if reason else {}),
                "target": self.target,
                "family_rate": self.rate,
                "tests": self.tests,
                "smallest_detectable": self.smallest_detectable,
                "checks": [check.to_dict() for check in self.checks],
                "provenance": self.provenance,
            }
        )

    def to_dataframe(self):
        """One row per check.

        Raises:
            MissingExtraError: if pandas is not installed.
        """
        return records.to_dataframe(check.to_dict() for check in self.checks)
