"""What an estimator claims to be, and the exact moments that follow from the claim."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toyiwae.conformance.bank.bank import Entry
from toyiwae.conformance.truths import values, variance_table
from toyiwae.errors import InputError
from toyiwae.estimators import Estimator, registry
from toyiwae.forms import Form
from toyiwae.oracle.finite_k.fourth_moments import Spread
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.truth import Cell, Moments, exact, fourth_moments, pooling

Array = np.ndarray | np.float64
_Spreads = dict[tuple[str, int], Spread]
_KNOWN: dict[object, dict[tuple[int, int], dict[str, Truth]]] = {}
_ANY = "only a bound is claimed, so any variance will do"
_NO_VARIANCE = (
    "the variance of {name} at this parameter has no closed form, and the table has none for this cell"
)


@dataclass(frozen=True, eq=False)
class Truth:
    """Exact moments of one replicate of a value or a parameter's gradient.

    Attributes:
        mean, var: with bounds on their errors; None where nothing is known, NaN in a coordinate that is not known.
        kurtosis: fourth central moment over var², rounded up; None where it must be estimated.
        mean_reason, var_reason: why something of the mean, or of the variance, is None or NaN.
    """

    mean: Array | None
    mean_error: Array
    var: Array | None = None
    var_error: Array | None = None
    kurtosis: Array | None = None
    mean_reason: str | None = None
    var_reason: str | None = None


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

    @property
    def key(self) -> tuple[object, ...]:
        """What tells targets apart: the registry makes a new record whenever one is asked for."""
        function = getattr(self.claimed.function, "func", self.claimed.function)
        return self.name, function, self.claimed.parameter, self.claimed.form

    def truths(
        self, entry: Entry, cells: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], dict[str, Truth]]:
        """Moments of the value and of all gradients, for each (K, M); computed once in a process."""
        key = (*self.key, entry.problem, tuple(cells))
        if key not in _KNOWN:
            _KNOWN[key] = self._truths(entry, cells)
        return _KNOWN[key]

    def _truths(
        self, entry: Entry, cells: Sequence[tuple[int, int]]
    ) -> dict[tuple[int, int], dict[str, Truth]]:
        problem = entry.problem
        particles, groups = (sorted({cell[i] for cell in cells}) for i in (0, 1))
        found = exact(problem, K=particles, M=groups, estimators=(self.claimed,), parameters="all")
        whitened = Whitened(problem)
        form = self.claimed.form
        spreads = _spreads(whitened, form, cells) if self.named and form is not None else {}
        return {(k, m): self._cell(entry, whitened, found.cell(k, m), spreads) for k, m in cells}

    def _cell(self, entry: Entry, whitened: Whitened, cell: Cell, spreads: _Spreads) -> dict[str, Truth]:
        truth = cell.gradients[self.claimed.name]
        made = {"value": self._value(whitened, cell)}
        for name, moments in truth.parameters.items():
            if moments.mean is None or moments.mean_error is None:
                why = moments.reason
                made[name] = Truth(None, np.zeros(()), mean_reason=why, var_reason=why)
            elif not self.named:
                known = moments.mean, moments.mean_error
                made[name] = Truth(*known, mean_reason=moments.reason, var_reason=_ANY)
            else:
                made[name] = self._with_variance(entry, cell, name, moments, spreads)
        return made

    def _with_variance(
        self, entry: Entry, cell: Cell, name: str, moments: Moments, spreads: _Spreads
    ) -> Truth:
        """A gradient's truth with variance and kurtosis: exact ones, or those of the table."""
        var, error, form = moments.var, moments.var_error, self.claimed.form
        known = kurtosis = None
        if form is not None:
            particles, groups = pooling(form, _part(name), cell.K, cell.M)
            known = spreads.get((name, particles))
            kurtosis = None if known is None else known.kurtosis(groups)
        if var is None or kurtosis is None:
            tabled = variance_table.lookup(entry, self.claimed, cell.K, name)
            if tabled is not None:
                kurtosis = 3.0 + (tabled.kurtosis - 3.0) / cell.M
                if var is None:
                    var, error = tabled.var / cell.M, tabled.var_error / cell.M
        reason = moments.reason if var is not None else _NO_VARIANCE.format(name=self.claimed.name)
        mean, slack = moments.mean, np.asarray(moments.mean_error)
        return Truth(mean, slack, var, error, kurtosis, mean_reason=moments.reason, var_reason=reason)

    def _value(self, whitened: Whitened, cell: Cell) -> Truth:
        mean, slack, reason = values.mean(self.claimed, cell)
        if not self.named:
            return Truth(mean, slack, mean_reason=reason, var_reason=_ANY)
        found = values.spread(whitened, self.claimed.value(cell.K, cell.M), cell.K, cell.M)
        if found is None:
            missing = values.NOT_DERIVED.format(name=self.claimed.name)
            return Truth(mean, slack, mean_reason=reason, var_reason=missing)
        spread, error, groups = found
        kurtosis = spread.kurtosis(groups)
        return Truth(
            mean, slack, spread.var.value / groups, np.asarray(error / groups), kurtosis, mean_reason=reason
        )


def _part(name: str) -> str:
    return "proposal" if name.startswith("proposal") else "model"


def _spreads(whitened: Whitened, form: Form, cells: Sequence[tuple[int, int]]) -> _Spreads:
    """Spread of one group's gradient, by parameter and number of particles that a weight is normalised over."""
    found: _Spreads = {}
    names = whitened.problem.parameters
    for part in ("model", "proposal"):
        particles = sorted({pooling(form, part, k, m)[0] for k, m in cells})
        made = fourth_moments.gradients(
            whitened, form, [name for name in names if _part(name) == part], particles
        )
        found |= {(name, k): spread.at(i) for name, spread in made.items() for i, k in enumerate(particles)}
    return found
