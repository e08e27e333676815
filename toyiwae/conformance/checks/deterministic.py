"""Tiers 0 and 1: the contract, facts at a proposal equal to the posterior, and formulas on log-weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from toyiwae.conformance.bank.bank import Entry, posterior_problem
from toyiwae.conformance.calling.call import Finding, Sample
from toyiwae.conformance.report import Check
from toyiwae.conformance.truths.targets import Target
from toyiwae.forms import Coefficients
from toyiwae.oracle.closed_form.gaussian import condition

Call = Callable[[Any, int, int, int, int], Sample]
SMALL = 7


def contract_checks(call: Call, entry: Entry, target: Target, seed: int) -> Iterator[Check]:
    """Tier 0: shapes, finiteness, seeds, rows that differ, global generators untouched.

    Raises:
        Finding: never; a finding is a failed check, after which nothing more is asked.
    """
    K, M = entry.cells[0]
    least = max(1, target.claimed.min_particles)
    for k, m, replicates in ((K, M, SMALL), (least, 1, SMALL), (least, 3, SMALL), (K, M, 1)):
        where = {"tier": 0, "problem": entry.name, "K": k, "M": m, "n": replicates, "seed": seed}
        try:
            sample = call(entry.problem, k, m, replicates, seed)
        except Finding as found:
            yield Check(name=found.kind, **where, passed=False, reason=found.message)
            return
        yield Check(name="shapes and finite numbers", **where, passed=True)
        if sample.moved:
            reason = "it moved a global random generator: make one from the seed"
            yield Check(name="global generators untouched", **where, passed=False, reason=reason)
    yield from _seeds(call, entry, K, M, seed)


def _seeds(call: Call, entry: Entry, K: int, M: int, seed: int) -> Iterator[Check]:
    where = {"tier": 0, "problem": entry.name, "K": K, "M": M, "n": SMALL, "seed": seed}
    try:
        one, again, other = (call(entry.problem, K, M, SMALL, s) for s in (seed, seed, seed + 1))
    except Finding as found:
        yield Check(name=found.kind, **where, passed=False, reason=found.message)
        return
    tolerance = 1e-12 if one.digits > 7 else 10.0 ** (1 - one.digits)
    same = all(np.allclose(one.arrays[n], again.arrays[n], rtol=tolerance, atol=0) for n in one.arrays)
    yield Check(name="same seed, same numbers", **where, passed=bool(same))
    moved = any(not np.array_equal(one.arrays[n], other.arrays[n]) for n in one.arrays)
    yield Check(name="other seed, other numbers", **where, passed=moved)
    rows = any(np.ptp(array, axis=0).any() for array in one.arrays.values())
    yield Check(name="replicates differ", **where, passed=bool(rows))


def posterior_checks(call: Call, target: Target, seed: int) -> Iterator[Check]:
    """Tier 1: where q is the posterior every value is log p(x), and φ-gradients vanish where claimed.

    Of a named target only: an ELBO with its KL in closed form is unbiased for its bound, and varies even there.
    """
    problem = posterior_problem()
    K, M = max(4, target.claimed.min_particles), 3
    where = {"tier": 1, "problem": "posterior", "K": K, "M": M, "n": SMALL, "seed": seed}
    try:
        sample = call(problem, K, M, SMALL, seed)
    except Finding as found:
        yield Check(name=found.kind, **where, passed=False, reason=found.message)
        return
    tolerance = 10.0 ** min(-1, 6 - sample.digits)
    if target.named and "value" in sample.arrays:
        truth = float(condition(problem.model, problem.data.x).log_evidence[0])
        values = sample.arrays["value"]
        furthest = float(values[np.argmax(np.abs(values - truth))])
        passed = abs(furthest - truth) <= tolerance * max(1.0, abs(truth))
        numbers = {"estimate": furthest, "truth": truth, "truth_error": 1e-12, "parameter": "value"}
        yield Check(name="value is log p(x) at the posterior", **where, **numbers, passed=passed)
    if not (target.named and target.claimed.vanishes_at_posterior):
        return
    scale = float(np.sqrt(np.trace(np.linalg.inv(problem.proposal.cov))))
    for name, array in sample.arrays.items():
        if name.startswith("proposal"):
            largest = float(np.abs(array).max())
            numbers = {"estimate": largest, "truth": 0.0, "truth_error": 0.0, "parameter": name}
            passed = largest <= tolerance * scale
            yield Check(name="gradient vanishes at the posterior", **where, **numbers, passed=passed)


def surrogate_checks(call: Call, probe: Callable[..., Sample], entry: Entry, seed: int) -> Iterator[Check]:
    """Tier 1 for a surrogate: a replicate does not depend on the noise of the others beside it."""
    K, M = entry.cells[0]
    where = {"tier": 1, "problem": entry.name, "K": K, "M": M, "n": SMALL, "seed": seed}
    name = "replicates do not mix"
    try:
        one = call(entry.problem, K, M, SMALL, seed)
        other = probe(entry.problem, K, M, SMALL, seed, seed + 1)
    except Finding as found:
        yield Check(name=found.kind, **where, passed=False, reason=found.message)
        return
    tolerance = 1e-9 if min(one.digits, other.digits) > 7 else 10.0 ** (2 - one.digits)
    for parameter, array in one.arrays.items():
        shift = np.abs(array[0] - other.arrays[parameter][0]).max()
        if shift > tolerance * np.abs(array).max():
            reason = (
                f"replicate 0 moves by {shift:.3g} with the noise of the others: the first axis is not yours"
            )
            yield Check(name=name, **where, parameter=parameter, passed=False, reason=reason)
            return
    yield Check(name=name, **where, passed=True)


def formula_checks(probe: Callable[[Any], Coefficients], target: Target, seed: int) -> Iterator[Check]:
    """Tier 1 for a formula of the log-weights: shapes of log-weights that break careless code."""
    claimed = target.claimed
    K, M = max(5, claimed.min_particles + 1), 2
    log_w = np.random.default_rng(seed).normal(-3.0, 2.0, (4, M, K))
    for name, judge in _formula_facts(probe, target, log_w).items():
        where = {"name": name, "tier": 1, "problem": "log-weights", "K": K, "M": M, "n": 4, "seed": seed}
        try:
            with np.errstate(all="ignore"):
                passed = bool(judge())
            yield Check(**where, passed=passed)
        except Finding as found:
            yield Check(**where, passed=False, reason=found.message)


def _formula_facts(probe: Callable[[Any], Coefficients], target: Target, log_w: np.ndarray) -> dict[str, Any]:
    def at(weights: np.ndarray) -> np.ndarray:
        made = probe(weights)
        return np.stack([made.model, made.path, made.score])

    def close(a: np.ndarray, b: np.ndarray, tolerance: float = 1e-9) -> bool:
        return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max()))

    order = np.random.default_rng(1).permutation(log_w.shape[-1])
    dominant, broken, empty = log_w.copy(), log_w.copy(), log_w.copy()
    dominant[..., 0] += 800.0
    broken[0, 0, 0], empty[1, :, 1:3] = np.nan, -np.inf
    far = np.where(np.arange(4)[:, None, None] % 2 == 0, 1e4, -1e4)
    facts: dict[str, Any] = {
        "permutation of particles": lambda: close(at(log_w[..., order]), at(log_w)[..., order]),
        "permutation of groups": lambda: close(at(log_w[:, ::-1]), at(log_w)[:, :, ::-1]),
        "rows do not mix": lambda: close(at(log_w[1:]), at(log_w)[:, 1:]),
        "one dominant weight": lambda: np.isfinite(at(dominant)).all(),
        "weights of zero": lambda: np.isfinite(at(empty)[:2]).all(),
        "NaN stays in its row": lambda: close(at(broken)[:, 1:], at(log_w)[:, 1:]),
        "rows at ±1e4": lambda: np.isfinite(at(log_w + far)).all(),
        "float16 log-weights": lambda: close(
            at(log_w.astype(np.float16)), at(log_w.astype(np.float16).astype(float)), 2e-5
        ),
        "M = 1": lambda: at(log_w[:, :1]).shape[-2] == 1,
    }
    if target.claimed.min_particles == 1:
        facts["K = 1"] = lambda: np.isfinite(at(log_w[..., :1])).all()
    if target.named and target.claimed.shift_invariant:
        facts["shift by a constant"] = lambda: close(at(log_w + 37.5), at(log_w), 1e-7)
        facts["shift at ±1e4"] = lambda: close(at(log_w + far), at(log_w), 1e-6)
    return facts
