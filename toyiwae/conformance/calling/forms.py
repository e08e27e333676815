"""The forms in which an estimator may be written, each turned into replicates; and what else its form lets one ask.

* `replicates`: `(problem, *, K, M, replicates, seed) -> (values, gradients)`
* `coefficients`: `log_w [..., M, K] -> (model, path, score)`
* `surrogate`: `(log_joint, log_q, sample, *, K, M) -> value [B], surrogate [B]`, in torch
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae.conformance.bank import particles
from toyiwae.conformance.bank.nonlinear import Curved
from toyiwae.conformance.calling import call
from toyiwae.conformance.calling.call import Finding, Replicates, Sample
from toyiwae.errors import InputError
from toyiwae.forms import Coefficients
from toyiwae.problems.linear_gaussian import Problem

FORMS = ("replicates", "coefficients", "surrogate")
_SURROGATES = "toyiwae.conformance.calling.torch_surrogate"  # needs torch; loaded for surrogates alone


@dataclass(frozen=True, eq=False)
class Written:
    """An estimator, loaded.

    Attributes:
        replicates: it, as a function of the contract.
        probe: of a formula, `log_w -> Coefficients`; of a surrogate, `(problem, K, M, replicates, seed, others) ->
            Sample`, a call whose noise is that of another seed in all replicates but the first; None for replicates.
    """

    replicates: Replicates
    probe: Callable[..., Any] | None = None

    @classmethod
    def of(cls, estimator: Callable[..., Any] | str, form: str) -> Written:
        """Loads a function, or what `FILE:NAME` names.

        Raises:
            InputError: no such file or name.
            MissingExtraError: a surrogate where torch is not installed.
        """
        if form == "surrogate":
            module = importlib.import_module(_SURROGATES)
        function = call.load(estimator) if isinstance(estimator, str) else estimator
        if form == "coefficients":
            return cls(_from_coefficients(function), lambda log_w: evaluated(function, log_w))
        if form == "surrogate":
            made = _from_surrogate(module.replicates, function)
            return cls(made, lambda *where: _apart(made, *where))
        return cls(function)


def _from_coefficients(function: Callable[[Any], Any]) -> Replicates:
    """Replicates of a formula, by the suite's own sampler."""

    def estimator(problem: Problem, *, K: int, M: int, replicates: int, seed: int):
        drawn = particles.draw(problem, K, M, replicates, seed)
        return None, drawn.gradients(evaluated(function, drawn.log_w))

    return estimator


def evaluated(function: Callable[[Any], Any], log_w: np.ndarray) -> Coefficients:
    """The formula's answer as coefficients of the right shape.

    Raises:
        Finding: an exception, another shape or kind.
    """
    answer = call.guarded(lambda: function(log_w))
    return call.guarded(lambda: _coefficients(answer, log_w.shape), "shapes", "its answer cannot be read:")


def _coefficients(answer: Any, shape: tuple[int, ...]) -> Coefficients:
    parts = (answer.model, answer.path, answer.score) if hasattr(answer, "score") else answer
    if not isinstance(parts, (tuple, list)) or len(parts) != 3:
        raise Finding("shapes", "expected three arrays (model, path, score), each shaped like log_w")
    made = []
    for name, part in zip(("model", "path", "score"), parts, strict=True):
        array = call.as_array(part)[0]
        if array.shape not in ((), shape):
            raise Finding("shapes", f"{name} has shape {array.shape}: expected {shape}")
        made.append(np.broadcast_to(array, shape))
    return Coefficients(*made)


def _from_surrogate(evaluate: Callable[..., Any], function: Callable[..., Any]) -> Replicates:
    """Replicates of a surrogate, by torch."""

    def estimator(
        problem: Problem | Curved, *, K: int, M: int, replicates: int, seed: int, others: int | None = None
    ):
        arrays, decoder = problem, "linear"
        if isinstance(problem, Curved):
            arrays, decoder = problem.arrays, problem.decoder
        options = {"K": K, "M": M, "replicates": replicates, "seed": seed, "decoder": decoder}
        try:
            return evaluate(function, arrays, **options, others=others)
        except InputError as error:  # what it returned, or what it gave the callables
            raise Finding("shapes", str(error)) from error

    return estimator


def _apart(
    estimator: Replicates, problem: Problem | Curved, K: int, M: int, replicates: int, seed: int, others: int
) -> Sample:
    def same(problem: Problem | Curved, **options: Any) -> Any:
        return estimator(problem, **options, others=others)

    return call.call(same, problem, K, M, replicates, seed)
