"""Expectations over a few particles of a small model, by tensor trapezoidal rules: truth without an oracle.

One latent, two observed coordinates, nothing symmetric. The trapezoidal rule converges geometrically for
integrands analytic in a strip, as these are: a step of 0.3 standard deviations leaves an error near 1e-12.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np

from toyiwae.estimators import Estimator
from toyiwae.forms import Bound

STEPS, REACH = {1: 0.25, 2: 0.25, 3: 0.3, 4: 0.5}, 8.0
"""Distance of the nodes by number of particles, and largest node, in standard deviations of the proposal."""

NOISE_PRECISION = np.array([[1.1, -0.3], [-0.3, 0.8]])
PRIOR_VAR = 0.9
X = np.array([0.7, -0.4])
MODEL, PROPOSAL = ("prior_mean", "loading_0", "loading_1", "offset_0", "offset_1"), ("mean", "std")
PARAMETERS = MODEL + PROPOSAL


@dataclass(frozen=True)
class Toy:
    """A linear-Gaussian model of one latent, and its proposal N(mean, std²); parameters may be complex."""

    prior_mean: complex = 0.2
    loading_0: complex = 0.8
    loading_1: complex = -0.5
    offset_0: complex = 0.1
    offset_1: complex = -0.3
    mean: complex = 0.75
    std: complex = 0.52

    @classmethod
    def wide(cls) -> Toy:
        """A proposal wider than the posterior, on its other side."""
        return cls(mean=0.15, std=0.8)

    @classmethod
    def at_posterior(cls) -> Toy:
        """The same model with the posterior for its proposal."""
        toy = cls()
        loading = np.array([toy.loading_0, toy.loading_1])
        residual = X - np.array([toy.offset_0, toy.offset_1])
        var = 1.0 / (1.0 / PRIOR_VAR + loading @ NOISE_PRECISION @ loading)
        mean = var * (toy.prior_mean / PRIOR_VAR + loading @ NOISE_PRECISION @ residual)
        return replace(toy, mean=mean, std=np.sqrt(var))

    def residual(self, z: np.ndarray) -> np.ndarray:
        """`R⁻¹(x − Wz − b)`, `[2, ...]`."""
        first = X[0] - self.loading_0 * z - self.offset_0
        second = X[1] - self.loading_1 * z - self.offset_1
        return np.stack([row[0] * first + row[1] * second for row in NOISE_PRECISION])

    def log_weight(self, z: np.ndarray) -> np.ndarray:
        """`log p(x, z) − log q(z)`."""
        first = X[0] - self.loading_0 * z - self.offset_0
        second = X[1] - self.loading_1 * z - self.offset_1
        scaled = self.residual(z)
        likelihood = -(first * scaled[0] + second * scaled[1]) / 2
        likelihood += np.log(np.linalg.det(NOISE_PRECISION)) / 2 - np.log(2 * np.pi)
        prior = -((z - self.prior_mean) ** 2) / (2 * PRIOR_VAR) - np.log(2 * np.pi * PRIOR_VAR) / 2
        return likelihood + prior - self.log_proposal(z)

    def log_proposal(self, z: np.ndarray) -> np.ndarray:
        """`log q(z)`."""
        return -(((z - self.mean) / self.std) ** 2) / 2 - np.log(self.std) - np.log(2 * np.pi) / 2

    def gradients(self, noise: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """For each parameter what multiplies the coefficients of each particle, at `z = mean + std·noise`.

        Returns:
            For a parameter of the model `(∇θ log p, 0)`, for one of the proposal (path, score).
        """
        z = self.mean + self.std * noise
        scaled, pull = self.residual(z), (z - self.prior_mean) / PRIOR_VAR
        slope = self.loading_0 * scaled[0] + self.loading_1 * scaled[1] - pull + noise / self.std
        none = np.zeros_like(noise)
        return {
            "prior_mean": (pull, none),
            "loading_0": (scaled[0] * z, none),
            "loading_1": (scaled[1] * z, none),
            "offset_0": (scaled[0], none),
            "offset_1": (scaled[1], none),
            "mean": (slope, noise / self.std),
            "std": (slope * noise, (noise**2 - 1) / self.std),
        }


@functools.cache
def nodes(particles: int) -> tuple[np.ndarray, np.ndarray]:
    """Standard-normal noise `[nodes, particles]` and the weight of each node, far corners left out."""
    step = STEPS[particles]
    line = np.arange(-REACH, REACH + step / 2, step)
    density = step * np.exp(-(line**2) / 2) / np.sqrt(2 * np.pi)
    grid, weights = line[:, None], density
    for _ in range(particles - 1):
        pairs = np.argwhere(np.multiply.outer(weights, density) > 1e-18)
        grid = np.concatenate([grid[pairs[:, 0]], line[pairs[:, 1], None]], axis=1)
        weights = weights[pairs[:, 0]] * density[pairs[:, 1]]
    return grid, weights


@functools.cache
def log_weights(toy: Toy, groups: int, particles: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise and log-weights `[nodes, M, K]`, and the weight of each node."""
    noise, weights = nodes(groups * particles)
    noise = noise.reshape(-1, groups, particles)
    return noise, toy.log_weight(toy.mean + toy.std * noise), weights


def mean_gradient(toy: Toy, estimator: Estimator, groups: int, particles: int) -> dict[str, float]:
    """The exact mean of an estimator's gradient, for each parameter."""
    noise, log_w, weights = log_weights(toy, groups, particles)
    made = estimator(log_w)
    model, path, score = (weights[:, None, None] * part for part in (made.model, made.path, made.score))
    factors = toy.gradients(noise)
    result = {name: np.vdot(model, factors[name][0]) for name in MODEL}
    result |= {name: np.vdot(path, factors[name][0]) + np.vdot(score, factors[name][1]) for name in PROPOSAL}
    return {name: float(value) for name, value in result.items()}


@functools.cache
def term(toy: Toy, particles: int, exponent: float) -> complex:
    """`(1/e) E log (1/k) Σ w^e`, integrated over z, with the parameters of `toy` perhaps complex.

    The nodes stay where the proposal of the real parameters puts them, so that a complex parameter acts
    through the densities alone and nothing here knows of reparameterisation.
    """
    noise, step = nodes(particles)[0], STEPS[particles]
    real = Toy(**{name: np.real(getattr(toy, name)) for name in PARAMETERS})
    z = real.mean + real.std * noise
    log_w = exponent * toy.log_weight(z)
    peak = log_w.real.max(axis=-1, keepdims=True)
    value = (np.log(np.exp(log_w - peak).mean(-1)) + peak[..., 0]) / exponent
    density = np.exp(toy.log_proposal(z).sum(-1)) * (step * real.std) ** particles
    return complex(np.dot(density, value))


def bound_value(toy: Toy, bound: Bound) -> complex:
    """The value of a bound."""
    return sum(weight * term(toy, particles, bound.exponent) for particles, weight in bound.terms)


def bound_gradient(toy: Toy, bound: Bound) -> dict[str, float]:
    """The derivatives of a bound, by a complex step: no differences, no cancellation."""
    tiny = 1e-40
    shifted = {name: replace(toy, **{name: getattr(toy, name) + 1j * tiny}) for name in PARAMETERS}
    return {name: bound_value(moved, bound).imag / tiny for name, moved in shifted.items()}
