"""`exact` looks estimators up in the registry, asks the oracle about their Forms and lays the numbers out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toyiwae import arguments, records
from toyiwae.errors import InputError
from toyiwae.estimators import Estimator, registry
from toyiwae.problems.binary import DiscreteProblem
from toyiwae.problems.density import QuadratureProblem
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.truth.cells import Cells
from toyiwae.truth.finite_states import EnumeratedSource
from toyiwae.truth.linear_gaussian import GaussianSource
from toyiwae.truth.quadrature import QuadratureSource
from toyiwae.truth.refine import Answers
from toyiwae.truth.request import Questions
from toyiwae.truth.results import ExactResult
from toyiwae.truth.source import Source


def exact(
    problem: Problem | DiscreteProblem | QuadratureProblem,
    *,
    K: int | Sequence[int],
    M: int | Sequence[int] = 1,
    estimators: str | Estimator | Sequence[str | Estimator] = ("iwae",),
    parameters: Sequence[str] | str | None = None,
    covariance: bool = False,
    digits: Any = None,
) -> ExactResult:
    """Exact bounds and gradient moments of a problem, at any K, M and dimension.

    Values and gradients are those of the average over the rows of data; variances are of one replicate, with
    independent noise for each row. Every number has a bound on its error. One whose error exceeds 1e-8 (of the number,
    or of a mean's standard deviation) is computed again with mpmath; where that would take too long, or does not
    help, it is None or NaN, with a reason.

    Args:
        problem: the model, the proposal and the data: linear-Gaussian, with binary latents, or a user's own density.
        K: particles inside the log, one or several.
        M: groups averaged outside, one or several.
        estimators: names such as "iwae", "ciwae:0.5" or "FILE.py:name", or estimators.
        parameters: whose gradients; by default the parameters of the prior's and the proposal's mean; "all" for all.
        covariance: also the covariance between coordinates, and from it the directional SNR.
        digits: significant decimal digits, computed with mpmath, of bounds, gaps, sample sizes, means, and variances
            without logarithms; as text in `decimals`, and rounded to float64 in their own places. None for float64.

    Raises:
        InputError: for a K or M that is not a whole number of at least 1, an unknown estimator or parameter, a K
            below an estimator's minimum, and digits that are not from 1 to 1000 or of a problem that is not
            linear-Gaussian.
        PrecisionError: if a range of the computation is beyond what can be represented; it names the range.
    """
    counts, groups = arguments.whole_numbers(K, "K"), arguments.whole_numbers(M, "M")
    chosen = registry.select(estimators, counts)
    wanted = arguments.parameter_names(parameters, problem.parameters, problem.mean_parameters)
    if digits is not None:
        digits = arguments.whole_number(digits, "digits", maximum=1000)
        if not isinstance(problem, Problem):
            raise InputError("digits: mpmath serves linear-Gaussian problems only")
    source = _source(problem)
    source.check(chosen, wanted)
    refused = _refused(source, chosen, counts, groups)
    served = [estimator for estimator in chosen if estimator.name not in refused]
    asked_of = [problem.parameters.record(name) for name in wanted]
    answers = Answers(source, Questions(served, asked_of, counts, groups), digits)
    cells = Cells(answers, refused, joint=covariance)
    asked = {
        "K": counts,
        "M": groups,
        "estimators": [estimator.name for estimator in chosen],
        "parameters": list(wanted),
        "problem": problem.content_hash,
    }
    asked |= {} if digits is None else {"digits": digits}
    evidence = float(np.mean(source.log_evidence)), float(np.mean(source.log_evidence_error))
    decimals = None
    if digits is not None:
        finer = answers.precise
        decimals = {"log_evidence": finer.text(finer.average(finer.log_evidence))}
    return ExactResult(
        *evidence,
        source.posterior,
        tuple(cells.cell(chosen, k, m) for k in counts for m in groups),
        records.provenance(asked),
        decimals,
    )


def _source(problem: Any) -> Source:
    """How a problem's questions are answered."""
    if isinstance(problem, DiscreteProblem):
        return EnumeratedSource(problem)
    if isinstance(problem, QuadratureProblem):
        return QuadratureSource(problem)
    return GaussianSource(problem)


def _refused(
    source: Source, estimators: Sequence[Estimator], counts: Sequence[int], groups: Sequence[int]
) -> dict[str, str]:
    """Estimator -> the moment that it needs and that does not exist."""
    found: dict[str, str] = {}
    for estimator in estimators:
        for exponent in sorted(Questions([estimator], (), counts, groups).exponents(estimator)):
            reason = source.missing_mean(exponent)
            if reason is not None:
                found[estimator.name] = reason
    return found
