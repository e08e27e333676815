"""`exact`: a request, its numbers, those that need it refined, and cells of them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from toyiwae import arguments, records
from toyiwae.errors import InputError
from toyiwae.estimators import Estimator, registry
from toyiwae.problems.binary import DiscreteProblem
from toyiwae.problems.density import QuadratureProblem
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.truth.cells import cell, nothing, truth
from toyiwae.truth.digits import Multiprecision
from toyiwae.truth.finite_states import EnumeratedSource
from toyiwae.truth.linear_gaussian import GaussianSource
from toyiwae.truth.quadrature import QuadratureSource
from toyiwae.truth.refine import asked_digits, refined
from toyiwae.truth.request import Request, exponents
from toyiwae.truth.results import ExactResult
from toyiwae.truth.source import Source, numbers


def exact(
    problem: Problem | DiscreteProblem | QuadratureProblem,
    *,
    K: int | Sequence[int],
    M: int | Sequence[int] = 1,
    estimators: str | Estimator | Sequence[str | Estimator] | None = None,
    parameters: Sequence[str] | str | None = None,
    covariance: bool = False,
    digits: Any = None,
) -> ExactResult:
    """Exact bounds and gradient moments of a problem, at any K, M and dimension.

    Values and gradients are those of the average over the rows of data; variances are of one replicate, with
    independent noise for each row. Every number has a bound on its error. One whose error exceeds 1e-8 (of the number,
    or of a mean's standard deviation) is computed again in ball arithmetic; where that would take too long, or does not
    help, it is None or NaN, with a reason.

    Args:
        problem: the model, the proposal and the data: linear-Gaussian, with binary latents, or a user's own density.
        K: particles inside the log, one or several.
        M: groups averaged outside, one or several.
        estimators: names such as "iwae", "ciwae:0.5" or "FILE.py:name", or estimators; by default iwae, or, where the
            latents have no path derivative, the first of the registry that serves the same bound: score_function.
        parameters: whose gradients; by default the parameters of the prior's and the proposal's mean; "all" for all, []
            or "none" for none: bounds, gaps and sample sizes alone.
        covariance: also the covariance between coordinates, and from it the directional SNR.
        digits: significant decimal digits, in ball arithmetic, of bounds, gaps, sample sizes, means, variances (with
            logarithms where all K ≥ 2 and balls have a formula), what follows from these, and covariances; as text in
            `decimals`, and rounded to float64 in their own places. None for float64.

    Raises:
        InputError: for a K or M that is not a whole number of at least 1, an unknown estimator or parameter, a K
            below an estimator's minimum, and digits that are not from 1 to 1000 or of a problem that is not
            linear-Gaussian.
        PrecisionError: if a range of the computation is beyond what can be represented; it names the range.
    """
    counts, groups = arguments.whole_numbers(K, "K"), arguments.whole_numbers(M, "M")
    given = None if estimators is None else registry.select(estimators, counts)  # refused before all else
    wanted = arguments.parameter_names(parameters, problem.parameters, problem.mean_parameters)
    if digits is not None:
        digits = arguments.whole_number(digits, "digits", maximum=1000)
        if not isinstance(problem, Problem):
            raise InputError("digits: ball arithmetic serves linear-Gaussian problems only")
    return answered(
        problem,
        given or _default(problem, wanted, counts),
        [(k, m) for k in counts for m in groups],
        wanted,
        covariance=covariance,
        digits=digits,
    )


def answered(
    problem: Problem | DiscreteProblem | QuadratureProblem,
    chosen: Sequence[Estimator],
    cells: Sequence[tuple[int, int]],
    wanted: Sequence[str],
    *,
    covariance: bool = False,
    digits: int | None = None,
) -> ExactResult:
    """`exact` at pairs (K, M) that need not be a product; what is asked for is known to be right.

    Args:
        problem: as `exact` takes.
        chosen: estimators, each with enough particles in every cell.
        cells: pairs (K, M).
        wanted: names of parameters.
        covariance: as `exact` takes.
        digits: as `exact` takes.

    Raises:
        InputError: for an estimator that the problem has no answer for.
        PrecisionError: as `exact`.
    """
    source = source_of(problem)
    source.check(chosen, wanted)
    refused = _refused(source, chosen, cells)
    served = [estimator for estimator in chosen if estimator.name not in refused]
    records_of = [problem.parameters.record(name) for name in wanted]
    request = Request(served, records_of, cells, digits, covariance)
    known = refined(numbers(source, request), request, source)
    finer = None if digits is None else Multiprecision(source.problem, asked_digits(request), digits)
    found = []
    for k, m in cells:
        truths = {e.name: truth(known, request, e, k, m, finer) for e in served}
        truths |= {name: nothing(request, reason) for name, reason in refused.items()}
        ordered = {e.name: truths[e.name] for e in chosen}
        found.append(cell(known, request, ordered, k, m, finer, by_row=source.many_rows))
    asked: dict[str, Any] = {
        "K": request.counts,
        "M": list(dict.fromkeys(m for _, m in cells)),
        "estimators": [estimator.name for estimator in chosen],
        "parameters": list(wanted),
        "problem": problem.content_hash,
    }
    asked |= {} if digits is None else {"digits": digits}
    evidence = known.evidence.mean()
    decimals = None if finer is None else {"log_evidence": finer.text(finer.average(finer.log_evidence))}
    return ExactResult(
        float(evidence.value),
        float(evidence.error),
        source.posterior,
        tuple(found),
        records.provenance(asked),
        decimals,
    )


def source_of(problem: Any) -> Source:
    """Who computes a problem's numbers."""
    if isinstance(problem, DiscreteProblem):
        return EnumeratedSource(problem)
    if isinstance(problem, QuadratureProblem):
        return QuadratureSource(problem)
    return GaussianSource(problem)


def _default(problem: Any, wanted: Sequence[str], counts: Sequence[int]) -> tuple[Estimator, ...]:
    """IWAE, or the first estimator with its targets and enough particles that the problem has an answer for."""
    first = registry.get("iwae")
    if not isinstance(problem, DiscreteProblem):
        return (first,)
    source = source_of(problem)
    for one in (first, *registry.all()):
        if one.target == first.target and one.min_particles <= min(counts):
            with contextlib.suppress(InputError):
                source.check([one], wanted)
                return (one,)
    return (first,)


def _refused(
    source: Source, estimators: Sequence[Estimator], cells: Sequence[tuple[int, int]]
) -> dict[str, str]:
    """Estimator -> the moment that it needs and that does not exist."""
    found: dict[str, str] = {}
    for estimator in estimators:
        for exponent in sorted(exponents(estimator, cells)):
            reason = source.missing_mean(exponent)
            if reason is not None:
                found[estimator.name] = reason
    return found
