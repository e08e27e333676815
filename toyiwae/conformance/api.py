"""`check`: one estimator judged against exact truth, on the whole bank."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from toyiwae import arguments, records, stats
from toyiwae.checks import nearest
from toyiwae.conformance.bank.bank import Entry, bank, curved
from toyiwae.conformance.bank.nonlinear import Curved
from toyiwae.conformance.calling import call
from toyiwae.conformance.calling.call import Finding, Sample
from toyiwae.conformance.calling.forms import FORMS
from toyiwae.conformance.calling.subprocess_runner import Isolated
from toyiwae.conformance.checks import dependence, deterministic, mean_variance, sequential
from toyiwae.conformance.checks.mean_variance import POWER, Level
from toyiwae.conformance.report import Check, CheckReport
from toyiwae.conformance.truths import nonlinear
from toyiwae.conformance.truths.targets import Target, Truth
from toyiwae.errors import InputError, MissingMomentError, PrecisionError

RATE, SHIFT, SEED = 1e-6, 0.05, 20_260_101
_NUMBERS = 1_500_000  # of noise in one call
_LARGEST_CALL = 6000


def check(
    estimator: Callable[..., Any] | str,
    target: str,
    *,
    form: str = "replicates",
    K: Any = None,
    M: Any = None,
    parameters: Any = None,
    rows: bool = False,
    sequential: bool = False,
    timeout: float | None = None,
    seed: int = SEED,
    rate: float = RATE,
    shift: float = SHIFT,
) -> CheckReport:
    """Judges a gradient estimator against exact answers, at a stated rate of false alarms.

    Args:
        estimator: a function of the contract (see `toyiwae.conformance.calling.call`), or `"FILE.py:NAME"`.
        target: what it claims to be: `"dreg"`, `"ciwae:0.5"`, …, or only unbiased for a bound: `"bound:iwae"`.
        form: `"replicates"`; `"coefficients"`: a formula `log_w [..., M, K] -> (model, path, score)`; `"surrogate"`: a
            loss in torch, `(log_joint, log_q, sample, *, K, M) -> value [B], surrogate [B]`, which is also judged on
            a problem with a nonlinear decoder (see `toyiwae.conformance.calling.forms`).
        K: particles inside the log, one or several; by default those of the bank.
        M: groups outside; by default those of the bank.
        parameters: whose gradients are judged; by default all that are returned.
        rows: also the problem with many rows of data and an amortised proposal.
        sequential: stop at the first proof of a gross error, by an e-process.
        timeout: seconds that one call may take; the estimator then runs in a process of its own.
        seed: same seed, same numbers.
        rate: probability that a correct estimator fails anywhere.
        shift: the bias, in standard deviations of one replicate, that must not be missed.

    Raises:
        InputError: an unknown target, file, function, form or parameter, a K below the target's minimum.
        MissingExtraError: a surrogate where torch is not installed.
    """
    claimed = Target.of(target)
    if form not in FORMS:
        raise InputError(f"form is {form!r}: {nearest(str(form), FORMS)}")
    entries = _entries(claimed, form, K, M, rows)
    known = {name: None for entry in entries for name in entry.problem.parameters}
    wanted = None if parameters is None else arguments.parameter_names(parameters, known, known)
    number = arguments.whole_number(seed, "seed", minimum=0)
    plan = Plan(claimed, form, entries, wanted, rate, shift, number)
    asked = {
        "estimator": _name(estimator),
        "target": target, "form": form, "K": K, "M": M, "parameters": wanted, "rows": rows,
        "sequential": sequential, "timeout": timeout, "seed": number, "shift": shift,
    }  # fmt: skip
    source = records.provenance({key: value for key, value in asked.items() if value is not None})
    started = time.perf_counter()
    with Isolated(estimator, form, timeout) as calls:
        checks = tuple(plan.sequential(calls) if sequential else plan.checks(calls))
    source["seconds"] = round(time.perf_counter() - started, 3)
    return CheckReport(claimed.name, checks, rate, plan.tests, plan.reason, source)


def _name(estimator: Callable[..., Any] | str) -> str:
    """What the report calls it."""
    if isinstance(estimator, str):
        return estimator
    with contextlib.suppress(Exception):
        return str(estimator.__name__)
    return "a callable"


def _entries(claimed: Target, form: str, K: Any, M: Any, rows: bool) -> tuple[Entry, ...]:
    """The problems with the cells to run."""
    particles = None if K is None else arguments.whole_numbers(K, "K")
    groups = None if M is None else arguments.whole_numbers(M, "M")
    for count in particles or ():
        claimed.claimed.check_particles(count)
    made = []
    for entry in (*bank(), *(curved() if form == "surrogate" else ())):
        if entry.rows and not rows:
            continue
        cells = [
            (k, m)
            for cell in entry.cells
            for k in (particles or (cell[0],))
            for m in (groups or (cell[1],))
            if k >= claimed.claimed.min_particles
        ]
        cells = list(dict.fromkeys(cells))
        if cells:
            made.append(replace(entry, cells=tuple(cells)))
    if not made:
        raise InputError(
            f"{claimed.name} needs K of at least {claimed.claimed.min_particles}: give one with -K"
        )
    return tuple(made)


@dataclass
class Plan:
    """All checks of one estimator; `tests` and `reason` are known once they have run."""

    target: Target
    form: str
    entries: Sequence[Entry]
    wanted: tuple[str, ...] | None
    rate: float
    shift: float
    seed: int
    tests: int = 1
    reason: str | None = None

    def checks(self, calls: Isolated) -> Iterator[Check]:
        """Tier by tier; a broken contract or a failed call ends the problem it happened on."""
        first = list(self._deterministic(calls))
        yield from first
        if any(check.tier == 0 and check.passed is False for check in first):
            return
        names = {entry.name: self.returned(calls, entry) for entry in self.entries}
        if not any(names.values()):
            self.reason = "none of the parameters asked for is returned"
            return
        self.tests = sum(self._count(entry, names[entry.name]) for entry in self.entries)
        level = Level(self.rate, self.tests)
        n = stats.required_replicates(self.shift, tests=self.tests, rate=self.rate, power=POWER)
        for entry in self.entries:
            yield from self._sampled(calls, entry, level, n)

    def sequential(self, calls: Isolated) -> Iterator[Check]:
        """Tiers 0 and 1, then the e-process over all problems at once."""
        first = list(self._deterministic(calls))
        yield from first
        if not any(check.tier == 0 and check.passed is False for check in first):
            yield from sequential.checks(self, calls)

    def _deterministic(self, calls: Isolated) -> Iterator[Check]:
        seed = call.seed_of(self.seed, "contract")
        yield from deterministic.contract_checks(calls.call, self.entries[0], self.target, seed)
        yield from deterministic.posterior_checks(calls.call, self.target, seed)
        if self.form == "coefficients" and calls.probe is not None:
            yield from deterministic.formula_checks(calls.probe, self.target, seed)
        if self.form == "surrogate" and calls.probe is not None:
            yield from deterministic.surrogate_checks(calls.call, calls.probe, self.entries[0], seed)

    def returned(self, calls: Isolated, entry: Entry) -> list[str]:
        """What the estimator returns of what is asked for, on one problem."""
        K, M = entry.cells[0]
        try:
            sample = calls.call(entry.problem, K, M, 2, call.seed_of(self.seed, "names"))
        except Finding:
            return []
        return list(self.select(sample.arrays))

    def select(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What is asked for; the value always is."""
        return {n: a for n, a in arrays.items() if self.wanted is None or n == "value" or n in self.wanted}

    def _count(self, entry: Entry, names: list[str]) -> int:
        """Tests on one problem: a mean and a variance per coordinate, three correlations per name, the groups."""
        shapes = {"value": (), **entry.problem.parameters}
        free = sum(int(mean_variance.judged(n, shapes[n]).sum()) for n in names)
        return (2 * free + 3 * len(names) + 1) * len(entry.cells)

    def truths(self, entry: Entry) -> dict[tuple[int, int], dict[str, Truth]] | str:
        """The exact answers, or why there are none."""
        try:
            if isinstance(entry.problem, Curved):
                return nonlinear.truths(self.target, entry)
            return self.target.truths(entry, entry.cells)
        except (MissingMomentError, PrecisionError) as error:
            return str(error)

    def _sampled(self, calls: Isolated, entry: Entry, level: Level, n: int) -> Iterator[Check]:
        truths = self.truths(entry)
        if isinstance(truths, str):
            yield Check("mean", 2, entry.name, reason=truths)
            return
        ones: dict[int, dict[str, np.ndarray]] = {}
        for K, M in sorted(entry.cells, key=lambda cell: cell[1]):
            where = {"problem": entry.name, "K": K, "M": M}
            chunks: list[Sample] = []
            try:
                chunks.extend(self.chunks(calls, entry, K, M, n))
            except Finding as found:
                yield Check(
                    name=found.kind, tier=0, **where, passed=False, reason=found.message, seed=found.seed
                )
                continue
            parts = [self.select(chunk.arrays) for chunk in chunks]
            arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            digits = min(chunk.digits for chunk in chunks)
            yield from mean_variance.mean_checks(arrays, truths[K, M], where, level, digits)
            yield from mean_variance.variance_checks(arrays, truths[K, M], where, level)
            noise = K * M * entry.problem.dim_z * entry.problem.n_rows
            yield from dependence.dependence_checks(parts, where, level, digits=digits, noise=noise)
            if M == 1:
                ones[K] = arrays
            elif K in ones:
                yield dependence.group_check(ones[K], arrays, M, where, level)

    def chunks(
        self, calls: Isolated, entry: Entry, K: int, M: int, n: int, start: int = 0
    ) -> Iterator[Sample]:
        """Calls that give at least n replicates, keyed by seed, problem, K, M and their number.

        The size of a call is even, where it is not 1: who uses noise twice uses it on the two halves of a batch, and
        the halves of an odd one do not face each other.

        Raises:
            Finding: what a call did wrong; its `seed` reproduces it.
        """
        problem = entry.problem
        size = max(1, min(_LARGEST_CALL, _NUMBERS // (K * M * problem.dim_z * problem.n_rows)))
        count = -(-n // size)
        size = -(-n // count)
        size += size % 2 if size > 1 else 0
        for chunk in range(start, start + count):
            seed = call.seed_of(self.seed, problem.content_hash, K, M, chunk)
            try:
                yield calls.call(problem, K, M, size, seed)
            except Finding as found:
                found.seed = seed
                raise
