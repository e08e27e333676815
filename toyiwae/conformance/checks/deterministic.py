"""Tiers 0 and 1: the contract, facts at a proposal equal to the posterior, and formulas on log-weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from toyiwae.conformance.bank.bank import Entry, posterior_problem
from toyiwae.conformance.calling.call import Sample, Violation
from toyiwae.conformance.report import Check
from toyiwae.conformance.truths.targets import Target
from toyiwae.forms import Coefficients
from toyiwae.oracle.closed_form.gaussian import condition

Draw = Callable[[Any, int, int, int, int], Sample]
Formula = Callable[[np.ndarray], tuple[Coefficients, int]]
SMALL = 7


def contract_checks(draw: Draw, entry: Entry, cells: Iterable[tuple[int, int]], seed: int) -> Iterator[Check]:
    """Tier 0: shapes, finiteness, seeds, replicates that differ, global generators untouched.

    Args:
        draw: one call of the estimator.
        entry: the problem.
        cells: pairs (K, M) at which it is called, the entry's own first; there a single replicate is drawn too.
        seed: of the calls.

    Raises:
        Violation: never; one is a failed check, after which nothing more is asked here.
    """
    (K, M), *rest = cells
    for k, m, replicates in ((K, M, SMALL), *((k, m, SMALL) for k, m in rest), (K, M, 1)):
        where = {"tier": 0, "problem": entry.name, "K": k, "M": m, "n": replicates, "seed": seed}
        try:
            sample = draw(entry.problem, k, m, replicates, seed)
        except Violation as found:
            yield found.check(where)
            return
        yield Check(name="shapes and finite numbers", **where, passed=True)
        if sample.global_noise:
            reason = "it drew from a global random generator: make one from the seed"
            yield Check(name="global generators untouched", **where, passed=False, reason=reason)
    yield from _seeds(draw, entry, K, M, seed)


def _seeds(draw: Draw, entry: Entry, K: int, M: int, seed: int) -> Iterator[Check]:
    where = {"tier": 0, "problem": entry.name, "K": K, "M": M, "n": SMALL, "seed": seed}
    try:
        one, again, other = (draw(entry.problem, K, M, SMALL, s) for s in (seed, seed, seed + 1))
    except Violation as found:
        yield found.check(where)
        return
    tolerance = 1e-12 if one.digits > 7 else 10.0 ** (1 - one.digits)
    same = all(np.allclose(one.arrays[n], again.arrays[n], rtol=tolerance, atol=0) for n in one.arrays)
    yield Check(name="same seed, same numbers", **where, passed=bool(same))
    another = any(not np.array_equal(one.arrays[n], other.arrays[n]) for n in one.arrays)
    yield Check(name="other seed, other numbers", **where, passed=another)
    differ = any(np.ptp(array, axis=0).any() for array in one.arrays.values())
    yield Check(name="replicates differ", **where, passed=bool(differ))


def posterior_checks(draw: Draw, target: Target, K: int, M: int, seed: int) -> Iterator[Check]:
    """Tier 1: where q is the posterior every value is log p(x), and φ-gradients vanish where claimed.

    Of a named target only: an ELBO with its KL in closed form is unbiased for its bound, and varies even there.
    """
    problem = posterior_problem()
    where = {"tier": 1, "problem": "posterior", "K": K, "M": M, "n": SMALL, "seed": seed}
    try:
        sample = draw(problem, K, M, SMALL, seed)
    except Violation as found:
        yield found.check(where)
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


def surrogate_checks(draw: Draw, mixed: Callable[..., Sample], entry: Entry, seed: int) -> Iterator[Check]:
    """Tier 1 for a surrogate: a replicate does not depend on the noise of the others beside it."""
    K, M = entry.cells[0]
    where = {"tier": 1, "problem": entry.name, "K": K, "M": M, "n": SMALL, "seed": seed}
    name = "replicates do not mix"
    try:
        one = draw(entry.problem, K, M, SMALL, seed)
        other = mixed(entry.problem, K, M, SMALL, seed, seed + 1)
    except Violation as found:
        yield found.check(where)
        return
    tolerance = 1e-9 if min(one.digits, other.digits) > 7 else 10.0 ** (2 - one.digits)
    for parameter, array in one.arrays.items():
        shift = np.abs(array[0] - other.arrays[parameter][0]).max()
        if shift > tolerance * np.abs(array).max():
            reason = (
                f"replicate 0 changes by {shift:.3g} with the noise of the others: leave the first axis alone"
            )
            yield Check(name=name, **where, parameter=parameter, passed=False, reason=reason)
            return
    yield Check(name=name, **where, passed=True)


def formula_checks(
    formula: Formula, target: Target, K: int, M: int, ones: tuple[bool, bool], seed: int
) -> Iterator[Check]:
    """Tier 1 for a formula of the log-weights: facts that careless code breaks.

    A fact holds up to its tolerance or, if that is more, two units in the last digit that the formula's dtype carries
    (`10^-digits`); a shift by a constant rounds the log-weights too, and costs as many units as they are large. A fact
    that these digits would not show is refused.

    Args:
        formula: log-weights -> coefficients, and the digits that they carry.
        target: what is claimed.
        K: particles of the log-weights.
        M: their groups.
        ones: whether the formula may be called at K = 1 and at M = 1.
        seed: of the log-weights.
    """
    log_w = np.random.default_rng(seed).normal(-3.0, 2.0, (4, M, K))
    where = {"tier": 1, "problem": "log-weights", "K": K, "M": M, "n": 4, "seed": seed}
    try:
        with np.errstate(all="ignore"):
            digits = formula(log_w)[1]
    except Violation:
        digits = 15  # the facts say what is wrong
    for name, (judge, tolerance, size) in _facts(formula, target, log_w, ones).items():
        tolerance = max(tolerance, 2.0 * 10.0**-digits * (1.0 + size))
        if tolerance > 0.1:
            yield Check(name, **where, reason=f"{digits} digits, which its dtype carries, would not show it")
            continue
        try:
            with np.errstate(all="ignore"):
                yield Check(name, **where, passed=bool(judge(tolerance)))
        except Violation as found:
            yield replace(found.check(where), name=name)


def _facts(
    formula: Formula, target: Target, log_w: np.ndarray, ones: tuple[bool, bool]
) -> dict[str, tuple[Callable[[float], Any], float, float]]:
    """Name -> whether the fact holds up to a tolerance; its tolerance in float64; the size of rounded log-weights."""

    def at(weights: np.ndarray) -> np.ndarray:
        made = formula(weights)[0]
        return np.stack([made.model, made.path, made.score])

    def same(
        one: Callable[[], np.ndarray], other: Callable[[], np.ndarray], least: float = 1e-9, size: float = 0.0
    ):
        def judge(tolerance: float) -> bool:
            a, b = one(), other()
            return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max()))

        return judge, least, size

    def finite(weights: np.ndarray, parts: int = 3):
        return lambda tolerance: np.isfinite(at(weights)[:parts]).all(), 0.0, 0.0

    order = np.random.default_rng(1).permutation(log_w.shape[-1])
    dominant, broken, empty = log_w.copy(), log_w.copy(), log_w.copy()
    dominant[..., 0] += 800.0
    broken[0, 0, 0], empty[1, :, 1:3] = np.nan, -np.inf
    far = np.where(np.arange(4)[:, None, None] % 2 == 0, 1e4, -1e4)
    half = log_w.astype(np.float16)
    facts = {
        "permutation of particles": same(lambda: at(log_w[..., order]), lambda: at(log_w)[..., order]),
        "permutation of groups": same(lambda: at(log_w[:, ::-1]), lambda: at(log_w)[:, :, ::-1]),
        "rows do not mix": same(lambda: at(log_w[1:]), lambda: at(log_w)[:, 1:]),
        "one dominant weight": finite(dominant),
        "weights of zero": finite(empty, 2),
        "NaN stays in its row": same(lambda: at(broken)[:, 1:], lambda: at(log_w)[:, 1:]),
        "rows at ±1e4": finite(log_w + far),
        "float16 log-weights": same(lambda: at(half), lambda: at(half.astype(float)), 2e-5),
    }
    if ones[0]:
        facts["K = 1"] = finite(log_w[..., :1])
    if ones[1]:
        facts["M = 1"] = (lambda tolerance: at(log_w[:, :1]).shape[-2] == 1, 0.0, 0.0)
    if target.named and target.claimed.shift_invariant:
        facts["shift by a constant"] = same(lambda: at(log_w + 37.5), lambda: at(log_w), 1e-7, 50.0)
        facts["shift at ±1e4"] = same(lambda: at(log_w + far), lambda: at(log_w), 1e-6, 1e4)
    return facts
