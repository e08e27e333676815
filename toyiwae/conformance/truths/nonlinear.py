"""The exact moments on the problem with a nonlinear decoder, by quadrature over its one latent."""

from __future__ import annotations

import numpy as np

from toyiwae.conformance.bank.bank import Entry
from toyiwae.conformance.truths import values
from toyiwae.conformance.truths.targets import Target, Truth
from toyiwae.forms import Bound
from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.truth import Cell, Moments, exact

_KNOWN: dict[object, dict[tuple[int, int], dict[str, Truth]]] = {}
_REACH, _NODES = 12.0, (481, 961)  # standard deviations of the proposal; nodes of the two lattices
_ANY = "only a bound is claimed, so any variance will do"


def truths(target: Target, entry: Entry) -> dict[tuple[int, int], dict[str, Truth]]:
    """Moments of the value and of all gradients, for each (K, M); computed once in a process.

    Args:
        target: what is claimed.
        entry: the entry of a `Curved` problem.
    """
    key = (*target.key, entry.problem, entry.cells)
    if key not in _KNOWN:
        problem = entry.problem.quadrature()
        particles, groups = (sorted({cell[i] for cell in entry.cells}) for i in (0, 1))
        found = exact(problem, K=particles, M=groups, estimators=(target.claimed,), parameters="all")
        _KNOWN[key] = {(k, m): _cell(target, entry, found.cell(k, m)) for k, m in entry.cells}
    return _KNOWN[key]


def _cell(target: Target, entry: Entry, cell: Cell) -> dict[str, Truth]:
    found, shapes = cell.gradients[target.claimed.name], entry.problem.parameters
    return {"value": _value(target, entry, cell)} | {
        name: _gradient(target, moments, shapes[name]) for name, moments in found.parameters.items()
    }


def _gradient(target: Target, moments: Moments, shape: tuple[int, ...]) -> Truth:
    """A gradient's moments in the parameter's own shape."""
    if moments.mean is None or moments.mean_error is None:
        return Truth(None, np.zeros(()), mean_reason=moments.reason, var_reason=moments.reason)
    mean, error = moments.mean.reshape(shape), moments.mean_error.reshape(shape)
    if not target.named:
        return Truth(mean, error, mean_reason=moments.reason, var_reason=_ANY)
    var = slack = None
    if moments.var is not None and moments.var_error is not None:
        var, slack = moments.var.reshape(shape), moments.var_error.reshape(shape)
    return Truth(mean, error, var, slack, mean_reason=moments.reason, var_reason=moments.reason)


def _value(target: Target, entry: Entry, cell: Cell) -> Truth:
    mean, slack, reason = values.mean(target.claimed, cell)
    if not target.named:
        return Truth(mean, slack, mean_reason=reason, var_reason=_ANY)
    var = value_variance(entry, target.claimed.value(cell.K, cell.M), cell.K, cell.M)
    if var is None:
        missing = values.NOT_DERIVED.format(name=target.claimed.name)
        return Truth(mean, slack, mean_reason=reason, var_reason=missing)
    return Truth(mean, slack, var.value, var.error, mean_reason=reason)


def value_variance(entry: Entry, bound: Bound, K: int, M: int) -> Bounded | None:
    """Variance of the mean over groups of `(1/e) log (1/K) Σ w^e`, or of log w over all particles; None for others.

    The error is the difference of two lattices.
    """
    found = values.parts(bound, K, M)
    if found is None:
        return None
    particles, groups = found
    coarse, fine = (_variance(_law(entry, bound.exponent, nodes), particles) for nodes in _NODES)
    scale = bound.exponent**2 * groups
    return Bounded(np.asarray(fine / scale), np.asarray((abs(fine - coarse) + 1e-12 * fine) / scale))


def _law(entry: Entry, exponent: float, nodes: int) -> DiscreteLaw:
    """The law of w^exponent on a lattice."""
    problem = entry.problem.quadrature()
    noise = np.linspace(-_REACH, _REACH, nodes)[:, None]
    std = np.sqrt(problem.proposal_cov[0, 0])
    log_prob = -0.5 * noise[:, 0] ** 2
    log_w = problem.log_joint(problem.proposal_mean + std * noise) - log_prob
    return DiscreteLaw(log_prob, exponent * log_w)


def _variance(law: DiscreteLaw, particles: int) -> float:
    """Variance of log y."""
    if particles == 1:
        prob = np.exp(law.log_prob)
        return float(prob @ (law.log_w - prob @ law.log_w) ** 2)
    return float(values.log_variance(FiniteK(law, [particles])).value[0])
