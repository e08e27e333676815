"""The exact moments on a linear-Gaussian problem; variances that have no closed form come from the shipped table."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from toyiwae.conformance.bank.bank import Entry
from toyiwae.conformance.truths import values, variance_table
from toyiwae.conformance.truths.targets import Target, Truth
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.truth import Cell, exact, fourth_moments, pooling

_KNOWN: dict[object, dict[tuple[int, int], dict[str, Truth]]] = {}
_NO_VARIANCE = (
    "the variance of {name} at this parameter has no closed form, and the table has none for this cell"
)
_FourthMoments = dict[
    tuple[str, int], Any
]  # of one group, by parameter and particles a weight is normalised over


def truths(target: Target, entry: Entry[Problem]) -> dict[tuple[int, int], dict[str, Truth]]:
    """Moments of the value and of all gradients, for each (K, M) of an entry; computed once in a process."""
    key = (*target.key, entry.problem, entry.cells)
    if key not in _KNOWN:
        particles, groups = (sorted({cell[i] for cell in entry.cells}) for i in (0, 1))
        options: dict[str, Any] = {"estimators": (target.claimed,), "parameters": "all"}
        found = exact(entry.problem, K=particles, M=groups, **options)
        whitened = Whitened(entry.problem)
        fourth = _fourth_moments(target, entry, whitened)
        _KNOWN[key] = {}
        for K, M in entry.cells:
            cell = found.cell(K, M)
            value = values.truth(target, cell, found.log_evidence)
            _KNOWN[key][K, M] = {"value": _with_moments(target, whitened, cell, value)} | {
                name: _with_variance(
                    target,
                    entry,
                    cell,
                    name,
                    target.gradient(moments, entry.problem.parameters[name]),
                    fourth,
                )
                for name, moments in cell.gradients[target.claimed.name].parameters.items()
            }
    return _KNOWN[key]


def _with_moments(target: Target, whitened: Whitened, cell: Cell, truth: Truth) -> Truth:
    """A value's truth with variance and kurtosis, where they are derived."""
    found = None
    if target.named:
        found = values.fourth_moments_of(whitened, target.claimed.value(cell.K, cell.M), cell.K, cell.M)
    if found is None:
        return truth
    moments, error, groups = found
    return replace(
        truth, var=moments.var.value / groups, var_error=error / groups, kurtosis=moments.kurtosis(groups)
    )


def _with_variance(
    target: Target, entry: Entry[Problem], cell: Cell, name: str, truth: Truth, fourth: _FourthMoments
) -> Truth:
    """A gradient's truth with variance and kurtosis: exact ones, or those of the table."""
    if not target.named or truth.mean is None:
        return truth
    var, error, form, kurtosis = truth.var, truth.var_error, target.claimed.form, None
    if form is not None:
        particles, groups = pooling(form, _part(name), cell.K, cell.M)
        known = fourth.get((name, particles))
        kurtosis = None if known is None else known.kurtosis(groups)
    if var is None or kurtosis is None:
        tabled = variance_table.lookup(entry, target.claimed, cell.K, name)
        if tabled is not None:
            kurtosis = 3.0 + (tabled.kurtosis - 3.0) / cell.M
            if var is None:
                var, error = tabled.var / cell.M, tabled.var_error / cell.M
    reason = truth.var_reason if var is not None else _NO_VARIANCE.format(name=target.claimed.name)
    return replace(truth, var=var, var_error=error, kurtosis=kurtosis, var_reason=reason)


def _part(name: str) -> str:
    return "proposal" if name.startswith("proposal") else "model"


def _fourth_moments(target: Target, entry: Entry[Problem], whitened: Whitened) -> _FourthMoments:
    """Variance and fourth moment of one group's gradient; of a mere bound, and without a form, none."""
    found: _FourthMoments = {}
    form, names = target.claimed.form, entry.problem.parameters
    for part in ("model", "proposal") if target.named and form is not None else ():
        assert form is not None
        particles = sorted({pooling(form, part, k, m)[0] for k, m in entry.cells})
        wanted = [name for name in names if _part(name) == part]
        made = fourth_moments.gradients(whitened, form, wanted, particles)
        found |= {(name, k): moments.at(i) for name, moments in made.items() for i, k in enumerate(particles)}
    return found
