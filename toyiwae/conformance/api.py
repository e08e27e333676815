"""`check`: one estimator judged against exact truth, on the whole bank."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from toyiwae import arguments, records
from toyiwae.checks import nearest
from toyiwae.conformance.bank.bank import Entry, bank, nonlinear_bank
from toyiwae.conformance.calling.forms import FORMS
from toyiwae.conformance.calling.subprocess_runner import Runner
from toyiwae.conformance.plan import Plan
from toyiwae.conformance.report import CheckReport
from toyiwae.conformance.truths.targets import Target
from toyiwae.errors import InputError

RATE, SHIFT, SEED = 1e-6, 0.05, 20_260_101


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
    """Judges a gradient estimator against exact answers, at a stated family-wise rate of type-I errors.

    Args:
        estimator: a function (see `toyiwae.conformance.calling.call`), or `"FILE.py:NAME"`.
        target: what it claims to be: `"dreg"`, `"ciwae:0.5"`, …, or only unbiased for a bound: `"bound:iwae"`.
        form: `"replicates"`; `"coefficients"`: a formula `log_w [..., M, K] -> (model, path, score)`; `"surrogate"`: a
            loss in torch, `(log_joint, log_q, sample, *, K, M) -> value [B], surrogate [B]`, which is also judged on
            a problem with a nonlinear decoder (see `toyiwae.conformance.calling.forms`).
        K: particles inside the log, one or several, to which every call keeps; by default those of the bank.
        M: groups outside; likewise.
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
    particles = None if K is None else arguments.whole_numbers(K, "K")
    groups = None if M is None else arguments.whole_numbers(M, "M")
    entries = _entries(claimed, form, particles, groups, rows)
    known = {name: None for entry in entries for name in entry.problem.parameters}
    wanted = None if parameters is None else arguments.parameter_names(parameters, known, known)
    number = arguments.whole_number(seed, "seed", minimum=0)
    plan = Plan(claimed, entries, particles, groups, wanted, rate, shift, number)
    asked = {
        "estimator": _name(estimator),
        "target": target, "form": form, "K": K, "M": M, "parameters": wanted, "rows": rows,
        "sequential": sequential, "timeout": timeout, "seed": number, "shift": shift,
    }  # fmt: skip
    source = records.provenance({key: value for key, value in asked.items() if value is not None})
    started = time.perf_counter()
    with Runner(estimator, form, timeout) as runner:
        checks = tuple(plan.checks(runner, stop_early=sequential))
    source["seconds"] = round(time.perf_counter() - started, 3)
    return CheckReport(claimed.name, checks, rate, plan.tests, plan.reason, source)


def _name(estimator: Callable[..., Any] | str) -> str:
    """What the report calls it."""
    if isinstance(estimator, str):
        return estimator
    with contextlib.suppress(Exception):
        return str(estimator.__name__)
    return "a callable"


def _entries(
    claimed: Target, form: str, particles: tuple[int, ...] | None, groups: tuple[int, ...] | None, rows: bool
) -> tuple[Entry, ...]:
    """The problems with the cells to run."""
    for count in particles or ():
        claimed.claimed.check_particles(count)
    made = []
    for entry in (*bank(), *(nonlinear_bank() if form == "surrogate" else ())):
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
