"""One row of data whose latents have finitely many states: their probabilities, weights and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import logsumexp

from toyiwae.oracle.laws.bounded import EPS, Bounded


@dataclass(frozen=True, eq=False)
class Row:
    """One row of data: states, weights, gradients.

    Attributes:
        log_prob: log-probabilities of the states under the proposal [n].
        log_w: log-weights [n], in their own units.
        model: parameter -> ∇ log p(x, z) [F, n].
        score: kind ("mean" or "chol") -> ∇φ log q [F, n].
        path: kind -> (∂ log w/∂z)(∂z/∂φ) [F, n], a Bounded where it is not exact; empty where there is none.
        moved: what the rounding of the states themselves changes log-weights by [n].
    """

    log_prob: np.ndarray
    log_w: np.ndarray
    model: dict[str, np.ndarray]
    score: dict[str, np.ndarray]
    path: Mapping[str, np.ndarray | Bounded] = field(default_factory=dict)
    moved: np.ndarray | float = 0.0

    @cached_property
    def log_evidence(self) -> float:
        """Log Σ p w."""
        return log_sum(self.log_prob + self.log_w) - log_sum(self.log_prob)

    @property
    def log_w_error(self) -> np.ndarray:
        """What rounding leaves in each log-weight [n]: of log p(x, z), taken for right to a few units, and of z."""
        return 4 * EPS * (1.0 + np.abs(self.log_prob) + np.abs(self.log_w)) + self.moved

    def log_mean(self, exponent: float, *, apart: bool = False) -> Bounded:
        """Log Σ p w^e, or log Σ p (w/Z)^e: [1]."""
        log_w = self.log_w - self.log_evidence if apart else self.log_w
        value = log_sum(self.log_prob + exponent * log_w) - log_sum(self.log_prob)
        error = self.round_off(exponent) + (abs(exponent) * self.round_off(1.0) if apart else 0.0)
        return Bounded(np.array([value]), np.array([error]))

    def posterior(self, z: np.ndarray) -> tuple[Bounded, Bounded]:
        """Mean [D] and covariance [D, D] of functions z [n, D] of the state under p w / Σ p w."""
        log_weight = self.log_prob + self.log_w
        weight = np.exp(log_weight - log_sum(log_weight))
        size = self.log_w_error + self.round_off(1.0)
        posterior = Bounded(weight, weight * size)
        mean = posterior @ z
        centred = Bounded.exact(z) - mean
        return mean, (centred * posterior[:, None]).map(np.transpose) @ centred

    def round_off(self, exponent: float) -> float:
        """Of log Σ p w^e, from that of log p and log w: their sizes, averaged under the tilted law."""
        total = np.sqrt(len(self.log_w))
        for power in (0.0, exponent):
            terms = self.log_prob + power * self.log_w
            size = np.abs(self.log_prob) + np.abs(power * self.log_w)
            total = total + np.exp(terms - log_sum(terms)) @ size
        return 4 * EPS * float(total)


def log_sum(terms: np.ndarray) -> float:
    """Log of the sum of exponentials."""
    return float(np.asarray(logsumexp(terms)))
