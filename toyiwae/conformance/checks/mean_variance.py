"""Tiers 2 and 3: means and variances against exact ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toyiwae import stats
from toyiwae.conformance.checks.hypothesis_tests import Compared, compare, compare_known, worst
from toyiwae.conformance.report import Check
from toyiwae.conformance.truths.targets import Truth

POWER = 0.999
Mask = np.ndarray | np.bool_  # one truth value per coordinate; NumPy makes scalars of those without axes


@dataclass(frozen=True)
class Level:
    """The significance level of each test: a family of `tests` shares a family-wise error rate."""

    rate: float
    tests: int

    @property
    def each(self) -> float:
        """Largest p-value that fails."""
        return self.rate / self.tests

    @property
    def threshold(self) -> float:
        """The same as a |z|."""
        return stats.family_threshold(self.tests, self.rate)

    def detectable(self, n: int) -> float:
        """The shift found with probability 0.999, in standard deviations of one replicate."""
        return stats.smallest_detectable_shift(n, tests=self.tests, rate=self.rate, power=POWER)

    def detectable_known(self, n: int) -> float:
        """The same of `compare_known`, whose sum has mean `nλδ` and must reach `2 log(2/level)`."""
        return (math.sqrt(2.0 * math.log(2.0 / self.each)) + stats.normal_quantile(POWER)) / math.sqrt(n)


def judged(name: str, array_shape: tuple[int, ...]) -> np.ndarray:
    """Which coordinates of a parameter are free: of a Cholesky factor, those not above the diagonal."""
    return np.tril(np.ones(array_shape, bool)) if name.endswith("_chol") else np.ones(array_shape, bool)


def left_out(base: Mapping[str, Any], keep: Mask, left: Iterable[tuple[Mask, str | None]]) -> Iterator[Check]:
    """One unjudged check for the coordinates that are not judged, with how many they are and why.

    Args:
        base: of the check that judges the others.
        keep: the coordinates that are judged.
        left: sets of the others, each with its reason.
    """
    counts = [(int(mask.sum()), reason or "not known") for mask, reason in left if mask.any()]
    if not counts:
        return
    total = sum(count for count, _ in counts)
    free = total + int(keep.sum())
    said = [reason if n == free else f"{n} of {free} coordinates: {reason}" for n, reason in counts]
    name = f"{base['name']} where it is not known" if keep.any() else base["name"]
    yield Check(**{**base, "name": name}, coordinates=total, reason="; ".join(said))


def mean_checks(
    arrays: Mapping[str, np.ndarray], truths: Mapping[str, Truth], where: Any, level: Level, digits: int
) -> Iterator[Check]:
    """Tier 2: one check for the value and one for every parameter, and one for what of it is not known."""
    for name, samples in arrays.items():
        truth = truths[name]
        base = {**where, "name": "mean", "tier": 2, "parameter": name, "n": len(samples)}
        if truth.mean is None:
            yield Check(**base, reason=truth.mean_reason)
            continue
        free = judged(name, samples.shape[1:])
        known = free & np.isfinite(truth.mean) & np.isfinite(truth.mean_error)
        mean, error = np.where(known, truth.mean, 0.0), np.where(known, truth.mean_error, 0.0)
        detectable, std = level.detectable(len(samples)), np.std(samples, axis=0)
        vague = known & (error > np.maximum(0.01 * detectable * std, 1e-9 * (1 + np.abs(mean))))
        keep = known & ~vague
        if keep.any():
            compared = compare(samples, mean, error, floor=10.0 ** (3 - digits))
            made = worst_check(base, compared, mean, error, level, detectable, keep)
            yield replace(made, reason=_above(made, truth.log_evidence))
        reason = "the truth is not known to 1 % of what is to be detected"
        yield from left_out(base, keep, [(free & ~known, truth.mean_reason), (vague, reason)])


def _above(check: Check, log_evidence: float | None) -> str | None:
    """Of a value that failed and lies above log p(x): by how much."""
    if check.passed or log_evidence is None or not (check.estimate or 0.0) > log_evidence + 1e-9:
        return None
    return f"the value lies {(check.estimate or 0.0) - log_evidence:.3g} nats above log p(x)"


def variance_checks(
    arrays: Mapping[str, np.ndarray], truths: Mapping[str, Truth], where: Any, level: Level, digits: int
) -> Iterator[Check]:
    """Tier 3: the mean of the squared distance from the exact mean, in units of the true variance, against 1.

    The variance of that square is the kurtosis less 1. Where it is known the test holds for every sample size
    (`compare_known`); where it is estimated, only as long as it is small enough to be estimated. A variance known
    to be 0 is not one that is not known: the first must not vary, the second is not judged. Rounding of the mean to
    the digits that the replicates carry counts as an error of the variance.
    """
    for name, samples in arrays.items():
        truth = truths[name]
        base = {**where, "name": "variance", "tier": 3, "parameter": name, "n": len(samples)}
        if truth.mean is None or truth.var is None or truth.var_error is None:
            yield Check(**base, reason=truth.mean_reason if truth.mean is None else truth.var_reason)
            continue
        free = judged(name, samples.shape[1:])
        told = free & np.isfinite(truth.var) & np.isfinite(truth.var_error)
        centred = told & np.isfinite(truth.mean)
        varies = centred & (truth.var > truth.var_error)
        wild = varies & ~np.isfinite(0.0 if truth.kurtosis is None else truth.kurtosis)
        keep = varies & ~wild
        if keep.any():
            rounding = (10.0**-digits * np.where(keep, truth.mean, 0.0)) ** 2
            yield _variance_check(
                base, samples, replace(truth, var_error=truth.var_error + rounding), keep, level
            )
        elif (centred & ~varies).any():
            keep = centred & ~varies
            still = np.ptp(samples, axis=0) <= 1e-7 * (1 + np.abs(samples).max(axis=0))
            yield Check(
                **base, coordinates=int(keep.sum()), estimate=0.0, truth=0.0, passed=bool(still[keep].all())
            )
        reasons = truth.var_reason, truth.mean_reason, "the fourth moment is not known"
        yield from left_out(base, keep, zip((free & ~told, told & ~centred, wild), reasons, strict=True))


def _variance_check(
    base: dict[str, Any], samples: np.ndarray, truth: Truth, known: Any, level: Level
) -> Check:
    """One check of the coordinates whose variance is known and not 0."""
    n, var = len(samples), np.where(known, np.asarray(truth.var), 1.0)
    error = np.where(known, np.asarray(truth.var_error) / var, 0.0)
    mean = np.where(known, np.asarray(truth.mean), 0.0)
    squares = np.where(known, (samples - mean) ** 2 / var, 1.0)
    if truth.kurtosis is not None:
        of_square = np.where(known, np.asarray(truth.kurtosis) - 1.0, 1.0)
        compared = compare_known(squares, np.ones(var.shape), of_square, level.each, error)
        refused, gap = False, level.detectable_known(n)
    else:
        of_square = np.var(squares, axis=0)
        compared = compare(squares, np.ones(var.shape), error)
        refused, gap = compared.too_skewed(level.threshold), level.detectable(n)
    index, detectable = worst(compared, known), gap * np.sqrt(of_square)
    made = worst_check(base, compared, np.ones(var.shape), error, level, detectable[index], known)
    hopeless = known & (refused | (detectable > 1.0))
    if hopeless.any() and (made.passed or np.any(refused)):
        worst_of = np.where(hopeless, of_square, 0.0).max() + 1.0
        reason = f"kurtosis {worst_of:.3g}: {n} replicates would not show a variance twice the right one"
        return Check(**base, reason=reason)
    scale = float(np.asarray(var)[index])
    numbers = {
        "estimate": float(compared.estimate[index]) * scale,
        "truth": scale,
        "truth_error": float(np.asarray(error)[index]) * scale,
    }
    return Check(**{**vars(made), **numbers})


def worst_check(
    base: dict[str, Any], compared: Compared, truth: Any, error: Any, level: Level, detectable: float,
    keep: Mask,
) -> Check:  # fmt: skip
    """The check of the worst coordinate of those to keep; one without a p-value fails."""
    index = worst(compared, keep)
    p, shift = float(compared.p_value[index]), float(compared.shift[index])
    error = np.broadcast_to(error, compared.p_value.shape)
    return Check(
        **base,
        index=index,
        coordinates=int(np.sum(keep)),
        estimate=float(compared.estimate[index]),
        truth=float(np.asarray(truth)[index]),
        truth_error=float(error[index]),
        shift_in_sd=shift if math.isfinite(shift) else None,
        p_value=p,
        smallest_detectable=float(detectable),
        passed=p > level.each,
    )
