"""What the latents and the gradients do: active units, signal-to-noise ratios, pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from toyiwae import stats
from toyiwae.networks.evaluation.simulated import latents, means, prior_draws
from toyiwae.networks.latent import LatentModel
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.step import plan_of, step
from toyiwae.networks.two_layers import TwoLayerModel
from toyiwae.networks.users import ModuleModel

Tensor = torch.Tensor

ACTIVE = 0.01
"""Least variance over images of the posterior's mean of an active unit."""

_PARTICLES = 64  # over which the mean of a layer above the first is taken
_TOGETHER = 64  # replicates whose moments are taken at once


@torch.no_grad()
def unit_variances(model: Any, x: Tensor, noise: Noise) -> Tensor:
    """`Var_x E_q[z_i]` of every latent `[E, D]`; for a second layer E_q is over 64 particles of the first.

    Args:
        model: with E members.
        x: images `[E, N, D_x]`.
        noise: one seed for each member.

    References:
        burda2016iwae
    """
    if isinstance(model, ModuleModel):
        return model.proposal_means(x[0]).var(0, correction=0)[None]
    found = model.encode(x).stats
    outer = model.outer if isinstance(model, TwoLayerModel) else model
    first = found[..., : outer.dim_z] if model.reparameterised else torch.sigmoid(found)
    if isinstance(model, LatentModel):
        return first.var(1, correction=0)
    total = torch.zeros((*x.shape[:2], model.inner.dim_z), dtype=x.dtype, device=x.device)
    for particle in range(_PARTICLES):
        drawn = noise.at(particle).normal("active units", 1, (x.shape[1], outer.dim_z))
        z = outer.proposal.sample(found, drawn).z[:, 0]
        total += model.inner.encode(z).stats[..., : model.inner.dim_z]
    return torch.cat([first, total / _PARTICLES], -1).var(1, correction=0)


@torch.no_grad()
def gradient_moments(
    model: Any, members: Sequence[Member], x: Tensor, noise: Noise, replicates: int
) -> dict[str, stats.Moments]:
    """Moments over replicates of the gradient of one batch by the proposal's parameters.

    Args:
        model: with E members' parameters.
        members: their estimators.
        x: the batch `[E, B, D_x]`, the same in all replicates.
        noise: one seed for each member.
        replicates: R, independent draws of the particles.

    Returns:
        Parameter -> moments of shape `[E, ...]`; a parameter that both methods of a user's module use has those of its
        whole gradient. Their `snr` of a weight whose gradient has mean 0 is not 0 but of the
        order of √(2/(πR)).

    Raises:
        InputError: a user's module whose encoder has no parameters that are trained.
    """
    moments: dict[str, stats.Moments] = {}
    if isinstance(model, ModuleModel):
        own = model.encoder_parameters(x[0], noise)
    else:
        own = [name for name in model.parameters if model.part(name) == "proposal"]
    for first in range(0, replicates, _TOGETHER):
        found: dict[str, list[Tensor]] = {}
        for replicate in range(first, min(first + _TOGETHER, replicates)):
            slopes = step(model, members, x, noise.at(replicate)).gradients
            for name in own:
                found.setdefault(name, []).append(slopes[name])
        for name, values in found.items():
            new = _moments(torch.stack(values))
            moments[name] = moments[name].merge(new) if name in moments else new
    return moments


def _moments(values: Tensor) -> stats.Moments:
    """The moments of replicates `[n, ...]`; on a GPU computed there, so that sums alone come to the host."""
    if values.device.type == "cpu":
        return stats.Moments.of(values.numpy())
    return stats.Moments(len(values), *(part.cpu().numpy() for part in moment_sums(values)))


def moment_sums(values: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and central sums of order 2 to 4 of replicates `[n, ...]`, as `stats.Moments.of`, in float64."""
    values = values.to(torch.float64)
    mean = values.mean(0)
    centred = values - mean
    mean, centred = mean + centred.mean(0), centred - centred.mean(0)
    square = centred * centred
    return mean, square.sum(0), (square * centred).sum(0), (square * square).sum(0)


def encoder_snr(moments: dict[str, stats.Moments]) -> np.ndarray:
    """Signal-to-noise ratios `[E, P]` of what `gradient_moments` gives; NaN where a gradient is always 0."""
    found = [np.asarray(value.snr) for value in moments.values()]
    return np.concatenate([snr.reshape(len(snr), -1) for snr in found], axis=1)


@torch.no_grad()
def proposal_moments(
    model: LatentModel, members: Sequence[Member], x: Tensor, noise: Noise, replicates: int
) -> stats.Moments:
    """Moments over replicates of the each image's own gradient by its proposal's statistics, `[E, B, S]`.

    In a model of one layer the encoder's gradient is `Σ_x (∂ stats(x)/∂φ)ᵀ` of these.
    """
    stream, encoded, plan = stats.Stream(), model.encode(x), plan_of(tuple(members), model.reparameterised)
    for first in range(0, replicates, _TOGETHER):
        slopes = []
        for replicate in range(first, min(first + _TOGETHER, replicates)):
            drawn = model.draw(noise.at(replicate), plan.particles, x.shape[1])
            found = model.weigh(x, encoded.stats, drawn)
            slopes.append(model.backward(found, *plan.coefficients(found.log_w, images=1))[1])
        stream.add(torch.stack(slopes).cpu().numpy())
    return stream.moments


@torch.no_grad()
def reconstructions(model: Any, x: Tensor, noise: Noise) -> Tensor:
    """`E[x|z]` at one particle of each image's proposal `[E, N, D_x]`."""
    outer = model.outer if isinstance(model, TwoLayerModel) else model
    drawn = outer.draw(noise, 1, x.shape[1])
    return means(model, outer.proposal.sample(model.encode(x).stats, drawn).z[:, 0])


@torch.no_grad()
def samples(model: Any, noise: Noise, images: int) -> Tensor:
    """`E[x|z]` at latents from the prior `[E, N, D_x]`."""
    return means(model, latents(model, prior_draws(model, noise, images)))


def grid(images: Any, size: tuple[int, int], columns: int = 0) -> np.ndarray:
    """Images `[N, D_x]` with ink in [0, 1] side by side, dark on white, as bytes `[height, width]`.

    Args:
        images: values outside [0, 1] are clipped.
        size: height and width of one.
        columns: how many stand in a row; by default about as many as there are rows.
    """
    ink = np.clip(np.asarray(images, dtype=np.float64), 0.0, 1.0).reshape(-1, *size)
    columns = columns or math.ceil(math.sqrt(len(ink)))
    rows = -(-len(ink) // columns)
    sheet = np.zeros((rows * (size[0] + 1) + 1, columns * (size[1] + 1) + 1))
    for index, image in enumerate(ink):
        top, left = (
            1 + place * (length + 1) for place, length in zip(divmod(index, columns), size, strict=True)
        )
        sheet[top : top + size[0], left : left + size[1]] = image
    return np.round(255.0 * (1.0 - sheet)).astype(np.uint8)
