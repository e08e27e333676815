"""Tier 4: independence of what should be independent: replicates, calls, groups."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from toyiwae import stats
from toyiwae.conformance.checks.hypothesis_tests import LARGEST_CORRECTION, compare
from toyiwae.conformance.checks.mean_variance import POWER, Level, worst_check
from toyiwae.conformance.report import Check


def dependence_checks(
    chunks: list[dict[str, np.ndarray]], where: Any, level: Level, *, digits: int, noise: int
) -> Iterator[Check]:
    """Tier 4: between replicates of a call, at lag 1 and half the batch, and between calls.

    Args:
        chunks: replicates by call.
        where: of the checks.
        level: of each.
        digits: that the replicates carry.
        noise: numbers of noise that one replicate is made of.
    """
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
            detectable = level.detectable(len(products))
            yield worst_check(base, compared, np.zeros(()), 0.0, level, detectable, np.ones((), bool))
    joint = np.concatenate([np.column_stack([a.reshape(len(a), -1) for a in c.values()]) for c in chunks])
    if np.ptp(joint, axis=0).any():
        yield repeat_check(joint, where, level, digits, noise)


def repeat_check(joint: np.ndarray, where: Any, level: Level, digits: int, noise: int) -> Check:
    """No replicate is another one once more: refused where rounding alone might repeat one.

    Under independence the pairs that agree in everything have expectation `λ` at most, the larger of two birthday
    counts: of the noise, in single precision, and of what is returned, in the precision it carries. Three repeats
    then have a probability of about `λ³/6`, and λ is asked to keep that below the level of one test.
    """
    n = len(joint)
    base = {**where, "name": "no replicate twice", "tier": 4, "n": n}
    digits = min(digits, 6) if np.array_equal(joint, joint.astype(np.float32)) else digits
    agree = max(2.0 ** (-23.0 * noise), coincidence(joint, noise, digits))
    if (0.5 * n * n * agree) ** 3 / 6.0 > level.each:
        reason = f"rounding to {digits} digits may repeat a replicate of {noise} numbers of noise"
        return Check(**base, reason=reason)
    repeats = n - len(np.unique(joint, axis=0))
    reason = f"{repeats} replicates repeat others" if repeats >= 3 else None
    return Check(**base, estimate=float(repeats), truth=0.0, passed=repeats < 3, reason=reason)


def coincidence(joint: np.ndarray, noise: int, digits: int) -> float:
    """About how probable it is that two independent replicates `[n, F]` of continuous laws are rounded to one.

    They vary in as many directions as there is noise, and in no more than the rank of their columns. In one direction
    two agree with the probability of the unit in the last place times the density at the other: of the order of that
    unit over the distance between the quartiles, within which lies half of the probability. Of the columns those that
    agree most easily are taken.
    """
    low, high = np.quantile(joint, [0.25, 0.75], axis=0)
    varies = high > low
    if not varies.any():
        return 1.0
    low, high, joint = low[varies], high[varies], joint[:, varies]
    units = 10.0**-digits * np.maximum(np.abs(low), np.abs(high)) / (high - low)
    rounding = units.max() * np.sqrt(joint.size)  # of all entries together, in the units of the next line
    scaled = (joint - joint.mean(axis=0)) / (high - low)
    if noise < scaled.shape[1]:  # a rank beyond `noise` would not count: as many random combinations show it
        normal = np.random.default_rng(noise).standard_normal((scaled.shape[1], noise))
        scaled = scaled @ np.linalg.qr(normal)[0]
    directions = np.linalg.matrix_rank(scaled, tol=rounding)
    return float(np.prod(np.sort(np.minimum(units, 1.0))[::-1][: min(noise, int(directions))]))


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
    if (
        max(abs(float(m.skewness)) / math.sqrt(m.count) for m in found) * level.threshold**3
        > 24 * LARGEST_CORRECTION
    ):
        return Check(**base, reason="tails too heavy for variances to be compared")
    se = math.hypot(*(float(m.mean_se / m.mean) for m in found))
    shift = logs[1] + np.log(M) - logs[0]
    p = float(stats.p_value(shift / se))
    detectable = (level.threshold + stats.normal_quantile(POWER)) * se
    return Check(
        **base, estimate=float(np.exp(shift)), truth=1.0, truth_error=0.0, shift_in_sd=shift / se, p_value=p,
        smallest_detectable=detectable, passed=p > level.each,
    )  # fmt: skip
