"""Which estimator, which K, which M: all of them at every split of a budget of particles, ranked by exact errors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from toyiwae import arguments, records
from toyiwae.checks import nearest
from toyiwae.errors import InputError
from toyiwae.estimators import Estimator, registry
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.problems.binary import DiscreteProblem
from toyiwae.problems.density import QuadratureProblem
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.truth.api import answered, source_of
from toyiwae.truth.rankings import Comparison, Entry, Ranking
from toyiwae.truth.results import Moments

LARGEST_BUDGET = 10**9
"""Largest number of particles whose divisors are looked for."""

PARTS = ("model", "proposal")
DECIDES = {
    "rmse": {"model": "rmse_evidence", "proposal": "relative_rmse"},
    "snr": {"model": "snr", "proposal": "snr"},
}
"""What is ranked by -> the number that decides, for either part."""


def compare(
    problem: Problem | DiscreteProblem | QuadratureProblem,
    *,
    budget: int,
    estimators: str | Estimator | Sequence[str | Estimator] | None = None,
    parameters: Sequence[str] | str | None = None,
    by: str = "rmse",
) -> Comparison:
    """Every estimator at every split M·K of a budget of particles, ranked by exact errors of its gradients.

    The model's and the proposal's gradients are each compared as one vector Δ of all coordinates asked for, with g the
    gradient of the estimator's own target (of L_K where it has none):

        rmse² = E‖Δ − g‖² = ‖bias‖² + tr Cov Δ             relative_rmse = rmse / ‖g‖
        rmse_evidence² = E‖Δ − ∇ log p(x)‖²                 snr = ‖E Δ‖ / √(tr Cov Δ)

    By the proposal's parameters ∇ log p(x) is 0: there rmse_evidence² is the second moment, least for an estimator that
    always answers 0; and g differs in size from target to target, so that rmse favours small targets. Hence by="rmse"
    ranks the model's gradients by rmse_evidence, the proposal's by relative_rmse, which is 1 for the answer 0; by="snr"
    ranks both by snr, which a bias can flatter. All numbers are those of `exact`, of one replicate; with many
    observations the gradient is that of the average over them.

    Args:
        problem: as `exact` takes.
        budget: T, the particles of each estimate; every divisor K of it is tried, with M = T/K groups.
        estimators: names or estimators; all that are registered if not given.
        parameters: whose gradients; by default those of the prior's and the proposal's mean; "all" for all.
        by: "rmse" or "snr".

    Raises:
        InputError: for a budget that is no whole number from 1 to 10⁹, an unknown estimator, parameter or `by`, and for
            no parameters at all.
        PrecisionError: as `exact`.
    """
    budget = arguments.whole_number(budget, "budget", maximum=LARGEST_BUDGET)
    if by not in DECIDES:
        raise InputError(f"by is {by!r}: {nearest(str(by), DECIDES)}")
    chosen = registry.select(registry.all() if estimators is None else estimators)
    wanted = arguments.parameter_names(parameters, problem.parameters, problem.mean_parameters)
    if not wanted:
        raise InputError("parameters is empty: gradients are compared, expected at least one parameter")
    of = {part: [n for n in wanted if problem.parameters.record(n).part == part] for part in PARTS}
    found, missing = _truths(problem, chosen, budget, wanted, of)
    parts = {}
    for part, names in of.items():
        if names:
            entries = [
                _entry(
                    e.name, k, budget // k, found.get((e.name, k), {}), names, missing.get((e.name, k, part))
                )
                for e in chosen
                for k in divisors(budget)
            ]
            parts[part] = Ranking(tuple(names), DECIDES[by][part], ranked(entries, DECIDES[by][part]))
    asked = {"budget": budget, "estimators": [e.name for e in chosen], "parameters": list(wanted), "by": by}
    return Comparison(budget, parts, records.provenance(asked | {"problem": problem.content_hash}))


def divisors(number: int) -> list[int]:
    """The divisors of a whole number, smallest first.

    >>> divisors(12)
    [1, 2, 3, 4, 6, 12]
    """
    small = [k for k in range(1, math.isqrt(number) + 1) if number % k == 0]
    return sorted({*small, *(number // k for k in small)})


def _truths(
    problem: Any, chosen: Sequence[Estimator], budget: int, wanted: Sequence[str], of: Mapping[str, list[str]]
) -> tuple[dict[tuple[str, int], dict[str, Moments]], dict[tuple[str, int, str], str]]:
    """Moments by estimator and K; and why there are none, by estimator, K and part.

    Splits that the same estimators serve are answered in one call, as `exact` answers several K.
    """
    source = source_of(problem)
    missing: dict[tuple[str, int, str], str] = {}
    together: dict[tuple[tuple[Estimator, ...], tuple[str, ...]], list[int]] = {}
    for k in divisors(budget):
        served: dict[tuple[str, ...], list[Estimator]] = {}
        for estimator in chosen:
            least = estimator.min_particles
            few = f"needs K of at least {least}" if k < least else None
            no_path = _refusal(source.check, [estimator], wanted)
            missing |= {(estimator.name, k, part): few for part in of if few}
            if no_path and not few:
                missing[estimator.name, k, "proposal"] = no_path
            names = tuple(of["model"] if no_path else wanted)
            if names and not few:
                served.setdefault(names, []).append(estimator)
        for names, group in served.items():
            together.setdefault((tuple(group), names), []).append(k)
    found: dict[tuple[str, int], dict[str, Moments]] = {}
    for (group, names), counts in together.items():
        result = answered(problem, group, [(k, budget // k) for k in counts], names)
        found |= {
            (name, cell.K): truth.parameters
            for cell in result.results
            for name, truth in cell.gradients.items()
        }
    return found, missing


def _refusal(check: Callable[..., None], *arguments: Any) -> str | None:
    """What a check refuses, in its own words."""
    try:
        check(*arguments)
    except InputError as error:
        return str(error)
    return None


def _entry(
    name: str, k: int, m: int, known: Mapping[str, Moments], parameters: Sequence[str], why: str | None
) -> Entry:
    """The numbers of all coordinates of some parameters together."""
    if why is not None:
        return Entry(name, k, m, reason=why)
    moments = [known[parameter] for parameter in parameters]
    reasons = [one.reason for one in moments if _unknown(one)]
    mean, var, bias, rmse, distance = (
        _joined(moments, field) for field in ("mean", "var", "bias", "rmse", "rmse_evidence")
    )
    numbers = {
        "rmse_evidence": distance and _norm(distance),
        "rmse": rmse and _norm(rmse),
        "bias": bias and _norm(bias),
        "std": var and var.sum().sqrt(),
    }
    if mean is not None and var is not None:
        why_not = ("mean and variance are 0", "the variance is 0")
        numbers["snr"], reason = _ratio(_norm(mean), numbers["std"], *why_not)
        reasons.append(reason)
    if mean is not None and bias is not None and rmse is not None:
        zero = "the gradient of the target is not told from 0"
        numbers["relative_rmse"], reason = _ratio(numbers["rmse"], _norm(mean - bias), zero, zero)
        reasons.append(reason)
    values: dict[str, Any] = {
        key: float(number.value) for key, number in numbers.items() if number is not None
    }
    values |= {f"{key}_error": float(number.error) for key, number in numbers.items() if number is not None}
    return Entry(name, k, m, **values, reason="; ".join(dict.fromkeys(filter(None, reasons))) or None)


def _unknown(moments: Moments) -> bool:
    """Whether a coordinate of what is compared is missing."""
    return any(
        values is None or bool(np.isnan(values).any())
        for values in (moments.mean, moments.var, moments.bias, moments.rmse, moments.rmse_evidence)
    )


def _joined(moments: Sequence[Moments], field: str) -> Bounded | None:
    """A number of all coordinates of several parameters, one after the other; None where any is not known."""
    parts = [(getattr(one, field), getattr(one, f"{field}_error")) for one in moments]
    if any(value is None or error is None or np.isnan(value).any() for value, error in parts):
        return None
    return Bounded(
        *(np.concatenate([np.ravel(array) for array in arrays]) for arrays in zip(*parts, strict=True))
    )


def _norm(vector: Bounded) -> Bounded:
    return (vector * vector).sum().sqrt()


def _ratio(a: Any, b: Any, none: str, infinite: str) -> tuple[Bounded, str | None]:
    """Of norms a and b, a / b; NaN or infinite, with the reason, where b is not told from 0."""
    if b.value > b.error:
        return a / b, None
    nothing = bool(a.value <= a.error)
    value = np.array(np.nan if nothing else np.inf)
    return Bounded(value, np.array(np.nan)), none if nothing else infinite


def ranked(entries: Sequence[Entry], by: str) -> tuple[Entry, ...]:
    """In order, with ranks: by the number that decides, then by the absolute error; what is not known comes last.

    What is not told apart has one rank and keeps its order: an entry shares the rank of those before it if it is told
    apart from none of them, so that one wide error does not chain entries that clearly differ.
    """
    order = sorted(range(len(entries)), key=lambda place: _key(entries[place], by))
    ranks: list[int | None] = []
    rank, equals = 0, []
    for place in order:
        if not equals or not all(_alike(entries[other], entries[place], by) for other in equals):
            rank, equals = rank + 1, []
        equals.append(place)
        ranks.append(rank if getattr(entries[place], by) is not None else None)
    pairs = zip(order, ranks, strict=True)
    placed = sorted(pairs, key=lambda pair: (pair[1] is None, pair[1] or 0, pair[0]))
    return tuple(replace(entries[place], rank=rank) for place, rank in placed)


def _key(entry: Entry, by: str) -> tuple[int, float, float]:
    """What sorts: known, 0/0 or a zero target, not known; the number that decides; the absolute error."""
    value, size = getattr(entry, by), math.inf if entry.rmse is None else entry.rmse
    if value is None:
        return 2, math.inf, size
    if math.isnan(value) or (by != "snr" and math.isinf(value)):
        return 1, math.inf, size
    return 0, -value if by == "snr" else value, size


def _alike(a: Entry, b: Entry, by: str) -> bool:
    """Whether the number that decides is not told apart; where neither has it, the absolute error."""
    first, second = getattr(a, by), getattr(b, by)
    if first is None or second is None:
        return False
    if not (math.isfinite(first) or math.isfinite(second)):
        return by != "rmse" and _alike(a, b, "rmse")
    doubt = getattr(a, f"{by}_error") + getattr(b, f"{by}_error")
    return bool(first == second or abs(first - second) <= doubt)
