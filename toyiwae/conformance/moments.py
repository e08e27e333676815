"""Tiers 2 to 4: means and variances against exact ones, and independence of what should be independent."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae import stats
from toyiwae.conformance.evidence import STEEP, Compared, compare, compare_known, worst
from toyiwae.conformance.record import Check
from toyiwae.conformance.targets import Truth

POWER = 0.999


@dataclass(frozen=True)
class Level:
    """The level of each test: a family of `tests` at a family-wise rate."""

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


def mean_checks(
    arrays: Mapping[str, np.ndarray], truths: Mapping[str, Truth], where: Any, level: Level, digits: int
):
    """Tier 2: one check for the value and one for every parameter."""
    for name, samples in arrays.items():
        truth = truths[name]
        base = {**where, "name": "mean", "tier": 2, "parameter": name, "n": len(samples)}
        if truth.mean is None:
            yield Check(**base, reason=truth.reason)
            continue
        compared = compare(samples, truth.mean, truth.mean_error, floor=10.0 ** (3 - digits))
        spread = np.std(samples, axis=0)
        detectable = level.detectable(len(samples))
        if np.any(truth.mean_error > np.maximum(0.01 * detectable * spread, 1e-9 * (1 + np.abs(truth.mean)))):
            yield Check(**base, reason="the truth is not known to 1 % of what is to be detected")
            continue
        yield _check(base, compared, truth.mean, truth.mean_error, level, detectable, name)


def variance_checks(arrays: Mapping[str, np.ndarray], truths: Mapping[str, Truth], where: Any, level: Level):
    """Tier 3: the mean of the squared distance from the exact mean, in units of the true variance, against 1.

    The variance of that square is the kurtosis less 1. Where it is known the test holds for every sample size
    (`compare_known`); where it is estimated, only as long as it is small enough to be estimated.
    """
    for name, samples in arrays.items():
        truth = truths[name]
        base = {**where, "name": "variance", "tier": 3, "parameter": name, "n": len(samples)}
        if truth.var is None or truth.var_error is None:
            yield Check(**base, reason=truth.reason)
            continue
        free = judged(name, truth.var.shape)
        known = free & (truth.var > truth.var_error)
        if not known.any():
            still = np.ptp(samples, axis=0) <= 1e-7 * (1 + np.abs(samples).max(axis=0))
            yield Check(**base, estimate=0.0, truth=0.0, passed=bool(still[free].all()))
            continue
        yield _variance_check(base, samples, truth, known, level)


def _variance_check(
    base: dict[str, Any], samples: np.ndarray, truth: Truth, known: Any, level: Level
) -> Check:
    """One check of the coordinates whose variance is known and not 0."""
    n, var = len(samples), np.where(known, np.asarray(truth.var), 1.0)
    error = np.where(known, np.asarray(truth.var_error) / var, 0.0)
    mean = samples.mean(axis=0) if truth.mean is None else truth.mean
    squares = np.where(known, (samples - mean) ** 2 / var, 1.0)
    if truth.kurtosis is not None:
        spread = np.where(known, np.asarray(truth.kurtosis) - 1.0, 1.0)
        compared = compare_known(squares, np.ones(var.shape), spread, level.each, error)
        refused, gap = False, level.detectable_known(n)
    else:
        spread = np.var(squares, axis=0)
        compared = compare(squares, np.ones(var.shape), error)
        refused, gap = compared.steepness * level.threshold**3 > 4 * STEEP, level.detectable(n)
    index, detectable = worst(compared, known), gap * np.sqrt(spread)
    made = _check(
        base, compared, np.ones(var.shape), error, level, detectable[index], base["parameter"], known
    )
    hopeless = known & (refused | (detectable > 1.0))
    if hopeless.any() and (made.passed or np.any(refused)):
        worst_of = np.where(hopeless, spread, 0.0).max() + 1.0
        reason = f"kurtosis {worst_of:.3g}: {n} replicates would not show a variance twice the right one"
        return Check(**base, reason=reason)
    scale = float(np.asarray(var)[index])
    numbers = {
        "estimate": float(compared.estimate[index]) * scale,
        "truth": scale,
        "truth_error": float(np.asarray(error)[index]) * scale,
    }
    return Check(**{**vars(made), **numbers})


def dependence_checks(chunks: list[dict[str, np.ndarray]], where: Any, level: Level) -> Iterator[Check]:
    """Tier 4: between replicates of a call, at lag 1 and half the batch, and between calls."""
    sizes = {len(chunk[name]) for chunk in chunks for name in chunk}
    for name in chunks[0]:
        first = [chunk[name].reshape(len(chunk[name]), -1)[:, 0] for chunk in chunks]
        flat = np.concatenate(first)
        if np.std(flat) <= 1e-13 * np.abs(flat).max(initial=1e-300):
            continue
        centred = [(part - flat.mean()) / flat.std() for part in first]
        pairs = {
            "neighbouring replicates": [(part[:-1:2], part[1::2]) for part in centred],
            "halves of a batch": [
                (part[: len(part) // 2], part[len(part) // 2 : len(part) // 2 * 2]) for part in centred
            ],
        }
        if len(sizes) == 1 and len(chunks) > 1:
            pairs["calls with different seeds"] = list(zip(centred[:-1:2], centred[1::2], strict=False))
        for kind, halves in pairs.items():
            products = np.concatenate([a[: len(b)] * b[: len(a)] for a, b in halves])
            base = {**where, "name": f"independent {kind}", "tier": 4, "parameter": name, "n": len(products)}
            compared = compare(products, np.zeros(()))
            yield _check(base, compared, np.zeros(()), 0.0, level, level.detectable(len(products)), "value")
    joint = np.concatenate([np.column_stack([a.reshape(len(a), -1) for a in c.values()]) for c in chunks])
    if np.ptp(joint, axis=0).any():
        repeats = len(joint) - len(np.unique(joint, axis=0))
        yield Check(
            **where, name="no replicate twice", tier=4, n=len(joint), estimate=float(repeats), truth=0.0,
            passed=repeats < 3, reason=f"{repeats} replicates repeat others" if repeats >= 3 else None,
        )  # fmt: skip


def group_check(
    one: dict[str, np.ndarray], many: dict[str, np.ndarray], M: int, where: Any, level: Level
) -> Check:
    """Tier 4: groups are independent: the variance at M groups is 1/M of that at one."""
    name = next(iter(one))
    columns = [a[name].reshape(len(a[name]), -1)[:, 0] for a in (one, many)]
    found = [stats.Moments.of((column - column.mean()) ** 2) for column in columns]
    base = {**where, "name": "independent groups", "tier": 4, "parameter": name, "n": len(columns[1])}
    logs = [np.log(float(m.mean)) for m in found if float(m.mean) > 0]
    if len(logs) < 2:
        return Check(**base, reason="nothing varies")
    if max(abs(float(m.skewness)) / math.sqrt(m.count) for m in found) * level.threshold**3 > 24 * STEEP:
        return Check(**base, reason="tails too heavy for variances to be compared")
    se = math.hypot(*(float(m.mean_se / m.mean) for m in found))
    shift = logs[1] + np.log(M) - logs[0]
    p = float(stats.p_value(shift / se))
    detectable = (level.threshold + stats.normal_quantile(POWER)) * se
    return Check(
        **base, estimate=float(np.exp(shift)), truth=1.0, truth_error=0.0, shift_in_sd=shift / se, p_value=p,
        smallest_detectable=detectable, passed=p > level.each,
    )  # fmt: skip


def _check(
    base: dict[str, Any], compared: Compared, truth: Any, error: Any, level: Level, detectable: float, name: str,
    keep: Any = None,
) -> Check:  # fmt: skip
    """The record of the worst coordinate."""
    free = judged(name, compared.p_value.shape) if keep is None else keep
    index = worst(compared, free)
    p = float(compared.p_value[index])
    error = np.broadcast_to(error, compared.p_value.shape)
    return Check(
        **base,
        index=index,
        coordinates=int(np.sum(free)),
        estimate=float(compared.estimate[index]),
        truth=float(np.asarray(truth)[index]),
        truth_error=float(error[index]),
        shift_in_sd=float(compared.shift[index]),
        p_value=p,
        smallest_detectable=float(detectable),
        passed=p > level.each,
    )
