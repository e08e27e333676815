"""Annealed importance sampling from the prior: a lower estimate of log p(x), and an upper one for simulated images.

    f_β(u) = N(u; 0, I) p(x|z(u))^β        β_0 = 0 < … < β_T = 1        u: the latents as the prior's standard normals
    forward, u ~ prior:            log ŵ = Σ_t (β_t − β_{t−1}) log p(x|z(u_{t−1})),     E[ŵ] = p(x)
    reverse, u ~ p(u|x) exactly:   the same sum, backwards along the chain,             E[1/ŵ] = 1/p(x)

Each u_t comes from u_{t−1} by Hamiltonian Monte Carlo that leaves f_{β_t} invariant. So the mean of `log mean ŵ` is at
most log p(x), and that of `−log mean 1/ŵ` at least. The second needs an exact sample of the posterior, which there is
for an image that the model itself has drawn; on other images there is only the first. Step sizes are chosen by a pilot
run with random numbers of its own, and then stay: adapted while a chain runs they would bias ŵ.

References:
    neal2001annealed, grosse2015sandwiching, wu2017quantitative
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from toyiwae import weights
from toyiwae.checks import shown
from toyiwae.errors import InputError
from toyiwae.networks.evaluation.simulated import log_likelihood, simulated
from toyiwae.networks.noise import Noise

Tensor = torch.Tensor

LEAPFROGS = 10
"""Leapfrog steps of a transition."""

ACCEPTED = 0.65
"""Rate of acceptance that the pilot run aims at."""

_FIRST_STEP = 0.1
_STEEP = 4.0  # of the sigmoid along which the temperatures lie


@dataclass(frozen=True, eq=False)
class Annealed:
    """Estimates of log p(x) for E members and N images `[E, N]`.

    Attributes:
        log_p: `log mean ŵ` over chains (forward), or `−log mean 1/ŵ` (reverse).
        accepted: rate of acceptance, the mean over chains and temperatures.
    """

    log_p: np.ndarray
    accepted: np.ndarray


@dataclass(frozen=True, eq=False)
class Sandwich:
    """Both sides for images that the model has drawn.

    Attributes:
        lower, upper: mean over images of the forward and the reverse estimate `[E]`.
        lower_se, upper_se: their standard errors over images.
        width, width_se: mean and standard error of the difference, image by image.
    """

    lower: np.ndarray
    lower_se: np.ndarray
    upper: np.ndarray
    upper_se: np.ndarray
    width: np.ndarray
    width_se: np.ndarray


def temperatures(steps: int) -> np.ndarray:
    """`β_0 = 0, …, β_T = 1` on a sigmoid, close together at both ends.

    Raises:
        InputError: fewer than 1 step.
    """
    if steps < 1:
        raise InputError(f"temperatures is {shown(steps)}: expected at least 1")
    sigmoid = 1.0 / (1.0 + np.exp(-_STEEP * np.linspace(-1.0, 1.0, steps + 1)))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


@torch.no_grad()
def forward(
    model: Any, x: Tensor, noise: Noise, steps: int, chains: int, *, step_sizes: Tensor | None = None
) -> Annealed:
    """The lower estimate of every image.

    Args:
        model: with E members and continuous latents.
        x: images `[E, N, D_x]`.
        noise: one seed for each member; the same images in the same batch get the same numbers.
        steps: T, the temperatures after 0.
        chains: of each image.
        step_sizes: `[T, E, N]` of `pilot`; by default it is run.

    Raises:
        InputError: binary latents.
    """
    sizes = pilot(model, x, noise, steps, chains) if step_sizes is None else step_sizes
    start = _normal(model, noise, chains, x.shape[1], "annealing start")
    log_w, accepted = _chain(model, x, start, noise, temperatures(steps), sizes, "annealing")
    return Annealed(_numpy(weights.log_mean_exp(log_w.mT)), accepted)


@torch.no_grad()
def reverse(
    model: Any, x: Tensor, u: Tensor, noise: Noise, steps: int, chains: int, *, step_sizes: Tensor
) -> Annealed:
    """The upper estimate of images x `[E, N, D_x]` whose latents u `[E, N, D]` are exact samples of the posterior."""
    start = u[:, None].expand(-1, chains, -1, -1)
    log_w, accepted = _chain(
        model, x, start, noise, temperatures(steps)[::-1], step_sizes.flip(0), "annealing back"
    )
    return Annealed(_numpy(-weights.log_mean_exp(log_w.mT)), accepted)


@torch.no_grad()
def sandwich(model: Any, noise: Noise, images: int, steps: int, chains: int) -> Sandwich:
    """Draws images from the model and brackets their log p(x).

    Raises:
        InputError: binary latents.
    """
    u, x = simulated(model, noise, images)
    sizes = pilot(model, x, noise, steps, chains)
    lower = forward(model, x, noise, steps, chains, step_sizes=sizes).log_p
    upper = reverse(model, x, u, noise, steps, chains, step_sizes=sizes).log_p
    found = (lower, upper, upper - lower)
    means = [value.mean(-1) for value in found]
    errors = [value.std(-1, ddof=1) / math.sqrt(images) for value in found]
    return Sandwich(*(number for pair in zip(means, errors, strict=True) for number in pair))


@torch.no_grad()
def pilot(model: Any, x: Tensor, noise: Noise, steps: int, chains: int) -> Tensor:
    """Step sizes `[T, E, N]` of every temperature, from a forward run that adapts them to the rate of acceptance."""
    start = _normal(model, noise, chains, x.shape[1], "pilot start")
    sizes: list[Tensor] = []
    size = torch.full(x.shape[:2], _FIRST_STEP, dtype=x.dtype, device=x.device)

    def adapt(rate: Tensor) -> None:
        nonlocal size
        sizes.append(size)
        size = size * (rate - ACCEPTED).exp().to(size.dtype)

    _chain(model, x, start, noise, temperatures(steps), lambda t: size, "pilot", adapt)
    return torch.stack(sizes)


def _chain(
    model: Any,
    x: Tensor,
    u: Tensor,
    noise: Noise,
    betas: np.ndarray,
    sizes: Tensor | Callable[[int], Tensor],
    purpose: str,
    watch: Callable[[Tensor], None] = lambda rate: None,
) -> tuple[Tensor, np.ndarray]:
    """`Σ_t (β_t − β_{t−1}) log p(x|u_{t−1})` `[E, C, N]` in float64, and the mean rate of acceptance `[E, N]`.

    On the way down the transition comes first: that of f_{β_{t-1}}, then the weight to β_t.
    """
    down = betas[0] > betas[-1]
    total = torch.zeros(u.shape[:3], dtype=torch.float64, device=u.device)
    rates = torch.zeros(u.shape[0], u.shape[2], dtype=torch.float64, device=u.device)
    value, slope = log_likelihood(model, x, u)
    for t in range(len(betas) - 1):
        own = noise.at(t)
        beta = float(betas[t] if down else betas[t + 1])
        if not down:
            total += (betas[t + 1] - betas[t]) * value.to(torch.float64)
        size = sizes(t) if callable(sizes) else sizes[t]
        u, value, slope, rate = _transition(model, x, (u, value, slope), own, beta, size, purpose)
        if down:
            total += (betas[t + 1] - betas[t]) * value.to(torch.float64)
        rates += rate
        watch(rate)
    return total, _numpy(rates / (len(betas) - 1))


def _transition(
    model: Any,
    x: Tensor,
    state: tuple[Tensor, Tensor, Tensor],
    noise: Noise,
    beta: float,
    size: Tensor,
    purpose: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One Hamiltonian step for f_β from u `[E, C, N, D]`: latents, log-likelihood, slope, rate `[E, N]`."""
    u, value, slope = state
    inner = tuple(u.shape[2:])
    momentum = noise.normal(f"{purpose} momentum", u.shape[1], inner)
    step = size[:, None, :, None]
    moved, velocity, new, force = u, momentum, value, beta * slope - u
    for _ in range(LEAPFROGS):
        velocity = velocity + 0.5 * step * force
        moved = moved + step * velocity
        new, gradient = log_likelihood(model, x, moved)
        force = beta * gradient - moved
        velocity = velocity + 0.5 * step * force
    change = beta * (new - value) - 0.5 * (
        moved.square() + velocity.square() - u.square() - momentum.square()
    ).sum(-1)
    rate = torch.nan_to_num(change.clamp_max(0.0).exp())  # a trajectory that diverged is not taken
    taken = noise.uniform(f"{purpose} acceptance", u.shape[1], inner[:1]) < rate
    kept = taken[..., None]
    return (
        torch.where(kept, moved, u),
        torch.where(taken, new, value),
        torch.where(kept, gradient, slope),
        rate.mean(1),
    )


def _normal(model: Any, noise: Noise, chains: int, images: int, purpose: str) -> Tensor:
    """Starts from the prior `[E, C, N, D]`."""
    return noise.normal(purpose, chains, (images, model.dim_z))


def _numpy(tensor: Tensor) -> np.ndarray:
    return tensor.to("cpu", torch.float64).numpy()
