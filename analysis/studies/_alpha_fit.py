"""Gaussians fitted to a target by α-divergences: a mixture by quadrature, a correlated pair in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.optimize import minimize

_LOG_2PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class Mixture:
    """A mixture of Gaussians in one dimension, on a grid whose sums are its integrals.

    Attributes:
        weights: of the components.
        means: of the components.
        stds: of the components.
        reach: the grid's half-width.
        step: between its points.
    """

    weights: tuple[float, ...]
    means: tuple[float, ...]
    stds: tuple[float, ...]
    reach: float = 30.0
    step: float = 0.03

    @cached_property
    def grid(self) -> np.ndarray:
        """Points z."""
        return np.arange(-self.reach, self.reach, self.step)

    @cached_property
    def log_p(self) -> np.ndarray:
        """Log p at the points."""
        parts = [
            math.log(weight) + log_normal(self.grid, mean, std)
            for weight, mean, std in zip(self.weights, self.means, self.stds, strict=True)
        ]
        return np.logaddexp.reduce(parts)

    @property
    def moments(self) -> tuple[float, float]:
        """Mean and standard deviation, in closed form."""
        weights, means, stds = map(np.array, (self.weights, self.means, self.stds))
        mean = weights @ means
        return float(mean), float(math.sqrt(weights @ (stds**2 + means**2) - mean**2))

    def log_power(self, order: float, mean: float, std: float) -> tuple[float, np.ndarray]:
        """Log ∫ p^α q^{1−α} for q = N(mean, std²), and the normalised integrand at the points."""
        terms = order * self.log_p + (1 - order) * log_normal(self.grid, mean, std)
        top = terms.max()
        mass = np.exp(terms - top)
        return float(top + math.log(mass.sum() * self.step)), mass / mass.sum()

    def objective(self, order: float, point: np.ndarray) -> tuple[float, np.ndarray]:
        """Rényi's divergence over its order at (mean, log std), and its slope −E_r[∇ log q]/α, r ∝ p^α q^{1−α}.

        At α = 0 it is KL(q‖p), whose slope is E_q[∇ log q · log(q/p)].
        """
        mean, std = float(point[0]), math.exp(point[1])
        u = (self.grid - mean) / std
        score = np.stack([u / std, u**2 - 1])
        log_q = log_normal(self.grid, mean, std)
        if order == 0:
            q = np.exp(log_q) * self.step
            return float(q @ (log_q - self.log_p)), score @ (q * (log_q - self.log_p))
        log_mass, tilted = self.log_power(order, mean, std)
        if order == 1:
            p = np.exp(self.log_p) * self.step
            return float(p @ (self.log_p - log_q)), -score @ p
        return log_mass / (order * (order - 1)), -(score @ tilted) / order


def log_normal(z: np.ndarray, mean: float, std: float) -> np.ndarray:
    """Log N(z; mean, std²)."""
    return -0.5 * ((z - mean) / std) ** 2 - math.log(std) - 0.5 * _LOG_2PI


def fits(target: Mixture, orders: np.ndarray) -> list[tuple[float, float, float]]:
    """The Gaussian of least divergence for each order: (mean, std, divergence per order).

    The search starts from each component, from the target's moments and from the fit before, and the best end wins:
    where α is negative there is a local minimum on each mode.
    """
    starts = [(mean, math.log(std)) for mean, std in zip(target.means, target.stds, strict=True)]
    mean, std = target.moments
    starts.append((mean, math.log(std)))
    found: list[tuple[float, float, float]] = []
    for order in orders:
        before = [(found[-1][0], math.log(found[-1][1]))] if found else []
        ends = [
            minimize(
                lambda point, a=order: target.objective(a, point),
                start,
                jac=True,
                method="BFGS",
                options={"gtol": 1e-9},
            )
            for start in [*before, *starts]
        ]
        best = min(ends, key=lambda end: end.fun)
        found.append((float(best.x[0]), math.exp(best.x[1]), float(best.fun)))
    return found


def pair_variance(order: float, correlation: float) -> float:
    """The variance of both coordinates, in units of the marginal one, of the mean-field Gaussian of least divergence.

    The target has two coordinates with this correlation. At the optimum p^α q^{1−α} has q's variances, which makes
    x = 1/variance a root of

        (1−α) x² + (2α−1) c x − α c = 0,    c = 1/(1−ρ²):

    from 1 − |ρ| at α → −∞ over 1 − ρ² at 0 and 1 at 1 to 1 + |ρ| at α → ∞.
    """
    c = 1 / (1 - correlation**2)
    half = 0.5 * (2 * order - 1) * c
    root = math.sqrt(half**2 + order * (1 - order) * c)
    # two forms of one root, each without cancellation where it is used
    x = order * c / (half + root) if half >= 0 else (root - half) / (1 - order)
    return 1 / x
