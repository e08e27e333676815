"""What an estimator claims to be, and the exact moments that follow from the claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toyiwae.conformance import reference
from toyiwae.conformance.bank import Entry
from toyiwae.errors import InputError
from toyiwae.estimators import Estimator, registry
from toyiwae.forms import Bound
from toyiwae.oracle.finite_k import FiniteK
from toyiwae.oracle.gradients import Whitened
from toyiwae.problem import Problem
from toyiwae.truth import Cell, exact

Array = np.ndarray | np.float64
_EULER = float(np.euler_gamma)
_KNOWN: dict[object, dict[tuple[int, int], dict[str, Truth]]] = {}
_NO_MEAN = "{name} declares no target for this parameter and has no Form: its mean is not known"
_NO_VARIANCE = (
    "the variance of {name} at this parameter has no closed form, and the table has none for this cell"
)


@dataclass(frozen=True, eq=False)
class Truth:
    """Exact moments of one replicate of a value or a parameter's gradient; None where `reason` says why."""

    mean: Array | None
    mean_error: Array
    var: Array | None = None
    var_error: Array | None = None
    reason: str | None = None


@dataclass(frozen=True, eq=False)
class Target:
    """A registered estimator (all is judged), or only a bound that gradients are unbiased for (the mean is).

    Attributes:
        name: as asked for.
        claimed: the registry's record, whose claims are read.
        named: whether the estimator claims to be that one, and not only unbiased for its bound.
    """

    name: str
    claimed: Estimator
    named: bool

    @classmethod
    def of(cls, spec: str) -> Target:
        """The target that a name asks for: `"dreg"`, `"ciwae:0.5"`, or `"bound:iwae"`.

        Raises:
            InputError: an unknown name, or a bound that the named estimator has not for both its gradients.
        """
        if not isinstance(spec, str):
            raise InputError(f"target is {spec!r}: expected a name such as 'dreg' or 'bound:iwae'")
        if not spec.startswith("bound:"):
            return cls(spec, registry.get(spec), named=True)
        claimed = registry.get(spec.removeprefix("bound:"))
        claim = claimed.target
        if claim.model is None or claim.proposal is None or claim.model(3, 2) != claim.proposal(3, 2):
            raise InputError(f"target {spec!r}: {claimed.name} is not unbiased for one bound")
        return cls(spec, claimed, named=False)

    def truths(
        self, entry: Entry, cells: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], dict[str, Truth]]:
        """Moments of the value and of all gradients, for each (K, M); computed once in a process."""
        key = (self.name, self.claimed, entry.problem, tuple(cells))
        if key not in _KNOWN:
            _KNOWN[key] = self._truths(entry, cells)
        return _KNOWN[key]

    def _truths(
        self, entry: Entry, cells: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], dict[str, Truth]]:
        problem = entry.problem
        particles, groups = (sorted({cell[i] for cell in cells}) for i in (0, 1))
        found = exact(problem, K=particles, M=groups, estimators=(self.claimed,), parameters="all")
        return {(k, m): self._cell(entry, found.cell(k, m)) for k, m in cells}

    def _cell(self, entry: Entry, cell: Cell) -> dict[str, Truth]:
        truth = cell.gradients[self.claimed.name]
        made = {"value": self._value(entry.problem, cell)}
        for name, moments in truth.parameters.items():
            if moments.mean is None or moments.mean_error is None:
                made[name] = Truth(None, np.zeros(()), reason=_NO_MEAN.format(name=self.claimed.name))
                continue
            var, error, reason = moments.var, moments.var_error, None
            if not self.named:
                var = error = None
                reason = "only a bound is claimed, so any variance will do"
            elif var is None:
                var, error = reference.variance(entry, self.claimed, cell.K, cell.M, name)
                reason = None if var is not None else _NO_VARIANCE.format(name=self.claimed.name)
            made[name] = Truth(moments.mean, moments.mean_error, var, error, reason)
        return made

    def _value(self, problem: Problem, cell: Cell) -> Truth:
        bound = self.claimed.value(cell.K, cell.M)
        value = cell.gradients[self.claimed.name].target_bound
        mean = np.asarray(cell.bound if value is None else value)
        error = np.asarray(cell.gap_error + 1e-12 * (1.0 + abs(float(mean))))
        if not self.named:
            return Truth(mean, error, reason="only a bound is claimed, so any variance will do")
        var = value_variance(problem, bound, cell.K, cell.M)
        reason = (
            None if var is not None else f"the variance of the value of {self.claimed.name} is not derived"
        )
        return Truth(mean, error, var, None if var is None else 1e-8 * var, reason)


def value_variance(problem: Problem, bound: Bound, K: int, M: int) -> np.ndarray | None:
    """Exact variance of a value of one term: the mean of log w, or of `(1/e) log (1/K) Σ w^e`; None for others.

    With `y = (1/K) Σ w^e` in units of its mean, `E[log² y] = 2 ∫ (Λ(t/K)^K − e^−t)(log t + γ) dt/t`.
    """
    whitened = Whitened(problem)
    beta, h = whitened.beta, whitened.h
    rows = len(h)
    of_log_w = (0.5 * (beta**2).sum() + (h**2).sum(axis=1)).mean() / rows
    if len(bound.terms) != 1 or bound.terms[0][1] != 1.0:
        return None
    particles = bound.terms[0][0]
    if particles == 1:
        return np.asarray(of_log_w / (K * M))
    if particles != K:
        return None
    engine = FiniteK(whitened.law(bound.exponent), [K])
    difference, log_t = engine.difference[0][:, 0], engine.grid.log_t + np.log(K)
    first = -engine.grid.step * difference.sum(axis=-1)
    second = 2.0 * engine.grid.step * (difference * (log_t + _EULER)).sum(axis=-1)
    return np.asarray((second - first**2).mean() / (rows * M * bound.exponent**2))
