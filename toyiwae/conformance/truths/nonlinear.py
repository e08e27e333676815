"""The exact moments on the problem with a nonlinear decoder, by quadrature over its one latent."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from toyiwae.conformance.bank.bank import Entry
from toyiwae.conformance.bank.nonlinear import NonlinearProblem
from toyiwae.conformance.truths import values
from toyiwae.conformance.truths.targets import Target, Truth
from toyiwae.forms import Bound
from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.laws.discrete import DiscreteLaw
from toyiwae.truth import exact

_KNOWN: dict[object, dict[tuple[int, int], dict[str, Truth]]] = {}
_HALF_WIDTH, _NODES = 12.0, (481, 961)  # standard deviations of the proposal; nodes of the two lattices


def truths(target: Target, entry: Entry[NonlinearProblem]) -> dict[tuple[int, int], dict[str, Truth]]:
    """Moments of the value and of all gradients, for each (K, M) of an entry; computed once in a process."""
    key = (*target.key, entry.problem, entry.cells)
    if key not in _KNOWN:
        problem, shapes = entry.problem.quadrature(), entry.problem.parameters
        particles, groups = (sorted({cell[i] for cell in entry.cells}) for i in (0, 1))
        found = exact(problem, K=particles, M=groups, estimators=(target.claimed,), parameters="all")
        _KNOWN[key] = {}
        for K, M in entry.cells:
            cell = found.cell(K, M)
            value = values.truth(target, cell, found.log_evidence)
            var = value_variance(entry, target.claimed.value(K, M), K, M) if target.named else None
            if var is not None:
                value = replace(value, var=var.value, var_error=var.error)
            _KNOWN[key][K, M] = {"value": value} | {
                name: target.gradient(moments, shapes[name])
                for name, moments in cell.gradients[target.claimed.name].parameters.items()
            }
    return _KNOWN[key]


def value_variance(entry: Entry[NonlinearProblem], bound: Bound, K: int, M: int) -> Bounded | None:
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


def _law(entry: Entry[NonlinearProblem], exponent: float, nodes: int) -> DiscreteLaw:
    """The law of w^exponent on a lattice."""
    problem = entry.problem.quadrature()
    noise = np.linspace(-_HALF_WIDTH, _HALF_WIDTH, nodes)[:, None]
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
