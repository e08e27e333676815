"""A trained model as a simulator: latents from the prior, images from latents, the likelihood and its slope."""

from __future__ import annotations

from typing import Any

import torch

from toyiwae.errors import InputError
from toyiwae.networks.densities import Gaussian
from toyiwae.networks.latent import LatentModel
from toyiwae.networks.noise import Noise
from toyiwae.networks.two_layers import TwoLayerModel

Tensor = torch.Tensor


def refuse_binary(model: Any, what: str) -> None:
    """Refuses latents without a density.

    Raises:
        InputError: binary latents.
    """
    if not model.reparameterised:
        raise InputError(f"{what} needs continuous latents: this model's are binary")


def log_likelihood(model: Any, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """`log p(x|z(u))` `[E, T, N]` and its gradient by u `[E, T, N, D]`, u the prior's standard normals.

    One layer: z = u. Two: z₂ = u₂ and z₁ = mean(z₂) + std(z₂) u₁.

    Args:
        model: with E members.
        x: images `[E, N, D_x]`.
        u: `[E, T, N, D]`.

    Raises:
        InputError: binary latents.
    """
    refuse_binary(model, "annealing")
    if isinstance(model, LatentModel):
        return _given(model, x, u)
    first, second = u.split([model.outer.dim_z, model.inner.dim_z], -1)
    out, inputs = model.inner.decoder.forward(model.parameters, second.flatten(1, 2))
    mean, log_std = out.unflatten(1, u.shape[1:3]).chunk(2, -1)
    scaled = log_std.exp() * first
    value, slope = _given(model.outer, x, mean + scaled)
    by_out = torch.cat([slope, slope * scaled], -1).flatten(1, 2)
    _, by_second = model.inner.decoder.backward(model.parameters, inputs, by_out, own=False)
    assert by_second is not None
    return value, torch.cat([slope * log_std.exp(), by_second.view_as(second)], -1)


def _given(model: LatentModel, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
    """`log p(x|z)` and its slope in z."""
    value, slope, inputs = model.decode(x, z)
    _, down = model.decoder.backward(model.parameters, inputs, slope.flatten(1, 2), own=False)
    assert down is not None
    return value, down.view_as(z)


@torch.no_grad()
def simulated(model: Any, noise: Noise, images: int) -> tuple[Tensor, Tensor]:
    """Latents u `[E, N, D]` from the prior, and images x `[E, N, D_x]` drawn from the likelihood."""
    u = prior_draws(model, noise, images)
    outer = model.outer if isinstance(model, TwoLayerModel) else model
    mean = means(model, latents(model, u))
    if isinstance(outer.likelihood, Gaussian):
        std = outer.likelihood.var(model.parameters).sqrt()[:, None]
        return u, mean + std * noise.normal("simulated images", images, (model.dim_x,))
    return u, (noise.uniform("simulated images", images, (model.dim_x,)) < mean).to(mean.dtype)


def latents(model: Any, u: Tensor) -> Tensor:
    """The latents next to the image `[E, N, D]`, from the prior's standard normals."""
    if isinstance(model, LatentModel):
        return u
    first, second = u.split([model.outer.dim_z, model.inner.dim_z], -1)
    mean, log_std = model.inner.decoder.forward(model.parameters, second)[0].chunk(2, -1)
    return mean + log_std.exp() * first


def means(model: Any, z: Tensor) -> Tensor:
    """`E[x|z]` `[E, N, D_x]` of the latents next to the image."""
    outer = model.outer if isinstance(model, TwoLayerModel) else model
    out = outer.decoder.forward(model.parameters, z)[0]
    return out if isinstance(outer.likelihood, Gaussian) else torch.sigmoid(out)


def prior_draws(model: Any, noise: Noise, images: int) -> Tensor:
    """Latents of the prior `[E, N, D]`, as its standard normals; binary ones as they are."""
    if model.reparameterised:
        return noise.normal("simulated latents", images, (model.dim_z,))
    mean = torch.sigmoid(model.parameters["prior.logit"])[:, None]
    return (noise.uniform("simulated latents", images, (model.dim_z,)) < mean).to(mean.dtype)
