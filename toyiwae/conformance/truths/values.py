"""The exact mean and variance of the value that an estimator reports, with bounds on their errors."""

from __future__ import annotations

import numpy as np

from toyiwae.conformance.truths.targets import ANY_VARIANCE, Target, Truth
from toyiwae.forms import Bound
from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.finite_k.fourth_moments import Spread
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.truth import Cell, fourth_moments


def truth(target: Target, cell: Cell, log_evidence: float) -> Truth:
    """The truth of a value, without its variance: that of the bound whose gradient is estimated, or of L_K without one.

    What is not known is not replaced: L_K stands in for a bound that the estimator does not have, not for one that is
    not known.
    """
    claimed, found = target.claimed, cell.gradients[target.claimed.name]
    value, error, reason = cell.bound, cell.bound_error, cell.reason
    if claimed.target.model is not None or claimed.target.proposal is not None:
        value, error, reason = found.target_bound, found.target_bound_error, found.reason
    missing = f"the variance of the value of {claimed.name} is not derived" if target.named else ANY_VARIANCE
    options = {"mean_reason": reason, "var_reason": missing, "log_evidence": log_evidence}
    if value is None or error is None:
        return Truth(None, np.zeros(()), **options)
    return Truth(np.asarray(value), np.asarray(error + 1e-12 * (1.0 + abs(value))), **options)


def parts(bound: Bound, K: int, M: int) -> tuple[int, int] | None:
    """Particles in one independent part of a value and the number of parts it is the mean of; None for other values.

    Known are the mean of log w over all particles, and the mean over groups of `(1/e) log (1/K) Σ w^e`.
    """
    if len(bound.terms) != 1 or bound.terms[0][1] != 1.0 or bound.terms[0][0] not in (1, K):
        return None
    particles = bound.terms[0][0]
    return particles, K * M // particles


def fourth_moments_of(
    whitened: Whitened, bound: Bound, K: int, M: int
) -> tuple[Spread, np.ndarray, int] | None:
    """Variance and fourth moment of one part of a value, the variance's error, and how many parts; None for others.

    At one particle the variance is `Σ β²/2 + Σ h²`, as exact as β and h are. Elsewhere it comes from derivatives of
    `E[y^-s]` on a circle (`toyiwae.oracle.finite_k.fourth_moments`); its error is that of the transform carried
    through a second formula (`log_variance`), and the distance between the two.
    """
    found = parts(bound, K, M)
    if found is None:
        return None
    particles, groups = found
    made, rows = fourth_moments.value(whitened, particles, bound.exponent), len(whitened.h)
    error = made.var.error
    if particles > 1:
        other = log_variance(FiniteK(whitened.law(bound.exponent), [particles]))
        scale = bound.exponent**2 * rows**2
        error = other.error.sum() / scale + np.abs(other.value.sum() / scale - made.var.value)
    return made, np.asarray(error), groups


def log_variance(engine: FiniteK) -> Bounded:
    """Variance of log y, `y = (1/K) Σ w` in units of its mean, for the engine's first K: [N].

    With `D = Λ(t/K)^K - e^-t`, `E[log y] = -∫ D dt/t` and `E[log² y] = 2 ∫ D (log t + γ) dt/t`; the error is that of
    D, carried through. The one of the rule in log t is not in it.
    """
    difference, weight = engine.difference[:, 0], engine.grid.weight
    log_t = engine.grid.log_t + np.log(engine.particles[0]) + np.euler_gamma
    first, second = difference @ weight, difference @ (2.0 * weight * log_t)
    return second - first**2
