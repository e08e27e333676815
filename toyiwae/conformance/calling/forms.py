"""The forms of an estimator, each turned into samples of replicates; and what else its form lets one ask.

* `replicates`: `(problem, *, K, M, replicates, seed) -> (values, gradients)`
* `coefficients`: `log_w [..., M, K] -> (model, path, score)`
* `surrogate`: `(log_joint, log_q, sample, *, K, M) -> value [B], surrogate [B]`, in torch
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from toyiwae.conformance.bank import particles
from toyiwae.conformance.bank.nonlinear import NonlinearProblem
from toyiwae.conformance.calling import call
from toyiwae.conformance.calling.call import Sample, Violation
from toyiwae.errors import InputError
from toyiwae.forms import Coefficients
from toyiwae.problems.linear_gaussian import Problem

FORMS = ("replicates", "coefficients", "surrogate")
_SURROGATES = "toyiwae.conformance.calling.torch_surrogate"  # needs torch; loaded for surrogates alone


@dataclass(frozen=True, eq=False)
class Loaded:
    """An estimator, loaded; each function raises Violation for whatever a call does wrong.

    Attributes:
        sample: `(problem, K, M, replicates, seed) -> Sample`: one call.
        formula: of a formula, `log_w -> (Coefficients, digits that they carry)`; None for other forms.
        mixed: of a surrogate, `(problem, K, M, replicates, seed, others) -> Sample`: a call in which the noise of all
            replicates but the first is that of another seed; None for other forms.
    """

    sample: Callable[..., Sample]
    formula: Callable[[np.ndarray], tuple[Coefficients, int]] | None = None
    mixed: Callable[..., Sample] | None = None

    @classmethod
    def of(cls, estimator: Callable[..., Any] | str, form: str) -> Loaded:
        """Loads a function, or what `FILE:NAME` names.

        Raises:
            InputError: no such file or name.
            MissingExtraError: a surrogate where torch is not installed.
        """
        module = importlib.import_module(_SURROGATES) if form == "surrogate" else None
        function = call.load(estimator) if isinstance(estimator, str) else estimator
        if form == "coefficients":
            formula = partial(evaluated, function)
            return cls(partial(_of_formula, formula), formula)
        if module is not None:
            sample = partial(_of_surrogate, module.replicates, function)
            return cls(sample, mixed=sample)
        return cls(partial(call.call, function))


def _of_formula(
    formula: Callable[[np.ndarray], tuple[Coefficients, int]],
    problem: Problem, K: int, M: int, replicates: int, seed: int,
) -> Sample:  # fmt: skip
    """Replicates of a formula, by the suite's own sampler, with the digits of its coefficients."""
    carried = []

    def estimator(problem: Problem, *, K: int, M: int, replicates: int, seed: int):
        drawn = particles.draw(problem, K, M, replicates, seed)
        coefficients, digits = formula(drawn.log_w)
        carried.append(digits)
        return None, drawn.gradients(coefficients)

    sample = call.call(estimator, problem, K, M, replicates, seed)
    return replace(sample, digits=min(carried))


def evaluated(function: Callable[[Any], Any], log_w: np.ndarray) -> tuple[Coefficients, int]:
    """The formula's answer as coefficients of the right shape, and the decimal digits that they carry.

    Raises:
        Violation: an exception, another shape or kind.
    """
    answer = call.guarded(lambda: function(log_w))
    return call.guarded(lambda: _coefficients(answer, log_w.shape), "shapes", "its answer cannot be read:")


def _coefficients(answer: Any, shape: tuple[int, ...]) -> tuple[Coefficients, int]:
    parts = (answer.model, answer.path, answer.score) if hasattr(answer, "score") else answer
    if not isinstance(parts, (tuple, list)) or len(parts) != 3:
        raise Violation("shapes", "expected three arrays (model, path, score), each shaped like log_w")
    arrays, digits = zip(*map(call.as_array, parts), strict=True)
    for name, array in zip(("model", "path", "score"), arrays, strict=True):
        if array.shape not in ((), shape):
            raise Violation("shapes", f"{name} has shape {array.shape}: expected {shape}")
    return Coefficients(*(np.broadcast_to(array, shape) for array in arrays)), min(digits)


def _of_surrogate(
    evaluate: Callable[..., Any], function: Callable[..., Any], problem: Problem | NonlinearProblem,
    K: int, M: int, replicates: int, seed: int, others: int | None = None,
) -> Sample:  # fmt: skip
    """Replicates of a surrogate, by torch."""

    def estimator(problem: Problem | NonlinearProblem, **options: Any) -> Any:
        arrays, decoder = problem, "linear"
        if isinstance(problem, NonlinearProblem):
            arrays, decoder = problem.arrays, problem.decoder
        try:
            return evaluate(function, arrays, decoder=decoder, others=others, **options)
        except InputError as error:  # what it returned, or what it gave the callables
            raise Violation("shapes", str(error)) from error

    return call.call(estimator, problem, K, M, replicates, seed)
