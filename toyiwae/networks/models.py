"""The models there are: each made by a function from the members' seeds, the training mean and sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from toyiwae.errors import InputError
from toyiwae.networks.densities import (
    Bernoulli,
    BernoulliPrior,
    Flat,
    Gaussian,
    GaussianWithStd,
    StandardNormal,
)
from toyiwae.networks.latent import LatentModel
from toyiwae.networks.layers import Network
from toyiwae.networks.noise import Noise
from toyiwae.networks.products import check
from toyiwae.networks.proposals import PROPOSALS, MeanField
from toyiwae.networks.two_layers import TwoLayerModel

Tensor = torch.Tensor

CLIPPED = 1e-3
"""Least mean of a pixel from which the decoder's bias is made, and 1 less the largest."""


def linear_gaussian(
    seeds: Sequence[int],
    data_mean: Any,
    *,
    latents: int,
    hidden: Sequence[int] = (),
    proposal: str = "mean_field",
    per_pixel: bool = False,
    floor_var: float = 1e-3,
    noise_var: float = 0.1,
    products: str = "float32",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LatentModel:
    """Probabilistic PCA or factor analysis with an encoder: `p(x|z) = N(W z + b, diag(var))`.

    Args:
        seeds: the members'.
        data_mean: mean of the training images `[D_x]`, where the decoder's bias begins.
        latents: D.
        hidden: widths of the encoder's hidden layers; none for one that is affine.
        proposal: "mean_field" or "full".
        per_pixel: a noise variance for each pixel (factor analysis), or one for all (pPCA).
        floor_var: least noise variance.
        noise_var: where it begins, above the floor.
        products: precision of the networks' products, "float32", "tf32" or "bfloat16".
        device: where the parameters are.
        dtype: of the parameters.
    """
    check(products)
    mean = _mean(data_mean)
    family = _proposal(proposal, ("mean_field", "full"))
    if not 0.0 <= floor_var < noise_var:
        raise InputError(
            f"noise_var is {noise_var:g}: expected more than floor_var = {floor_var:g}, at least 0"
        )
    encoder = Network("encoder", (len(mean), *hidden, family.width(latents)), products)
    decoder = Network("decoder", (latents, len(mean)), products)
    starts = {"decoder.0.bias": mean, "noise.log_var": torch.tensor(noise_var - floor_var).log()}
    likelihood = Gaussian(per_pixel, floor_var)
    return _made(seeds, encoder, decoder, family, StandardNormal(), likelihood, starts, device, dtype)


def bernoulli_vae(
    seeds: Sequence[int],
    data_mean: Any,
    *,
    latents: int = 50,
    hidden: Sequence[int] = (200, 200),
    proposal: str = "mean_field",
    products: str = "float32",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> LatentModel:
    """The deep model of the papers: tanh layers `D_x-200-200-50` and their mirror, Bernoulli pixels.

    With `proposal = "bernoulli"` the latents are binary, with a learnt prior, and only estimators without a path
    part apply.

    Args:
        seeds: the members'.
        data_mean: mean of the training images `[D_x]`; its logit, clipped, is where the decoder's bias begins.
        latents: D.
        hidden: widths of the encoder's hidden layers, the decoder's in reverse.
        proposal: "mean_field", "full" or "bernoulli".
        products: precision of the networks' products, "float32", "tf32" or "bfloat16".
        device: where the parameters are.
        dtype: of the parameters.

    References:
        burda2016iwae
    """
    check(products)
    mean = _mean(data_mean)
    family = _proposal(proposal, tuple(PROPOSALS))
    encoder = Network("encoder", (len(mean), *hidden, family.width(latents)), products)
    decoder = Network("decoder", (latents, *reversed(hidden), len(mean)), products)
    starts = {f"decoder.{len(hidden)}.bias": _logit(mean)}
    prior = StandardNormal() if family.reparameterised else BernoulliPrior()
    return _made(seeds, encoder, decoder, family, prior, Bernoulli(), starts, device, dtype)


def two_layer_vae(
    seeds: Sequence[int],
    data_mean: Any,
    *,
    latents: tuple[int, int] = (100, 50),
    hidden: Sequence[int] = (200, 200),
    inner_hidden: Sequence[int] = (100, 100),
    products: str = "float32",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> TwoLayerModel:
    """Two stochastic layers, Bernoulli pixels: `D_x-200-200-100` and `100-100-100-50`, and their mirrors.

    Args:
        seeds: the members'.
        data_mean: as for `bernoulli_vae`.
        latents: of the layer next to the pixels, and of the one above.
        hidden: widths of the hidden layers between pixels and the first latents, in the encoder's order.
        inner_hidden: those between the latents.
        products: precision of the networks' products, "float32", "tf32" or "bfloat16".
        device: where the parameters are.
        dtype: of the parameters.

    References:
        burda2016iwae
    """
    check(products)
    mean = _mean(data_mean)
    first, second = latents
    outer = (
        Network("encoder", (len(mean), *hidden, 2 * first), products),
        Network("decoder", (first, *reversed(hidden), len(mean)), products),
    )
    inner = (
        Network("inner_encoder", (first, *inner_hidden, 2 * second), products),
        Network("inner_decoder", (second, *reversed(inner_hidden), 2 * first), products),
    )
    starts = {f"decoder.{len(hidden)}.bias": _logit(mean)}
    shapes = {name: shape for network in (*outer, *inner) for name, shape in network.shapes().items()}
    parameters = initial(shapes, starts, seeds, device, dtype)
    return TwoLayerModel(
        LatentModel(*outer, MeanField, Flat(), Bernoulli(), parameters),
        LatentModel(*inner, MeanField, StandardNormal(), GaussianWithStd(), parameters),
        parameters,
    )


def _made(
    seeds: Sequence[int],
    encoder: Network,
    decoder: Network,
    family: Any,
    prior: Any,
    likelihood: Any,
    starts: dict[str, Tensor],
    device: torch.device | str,
    dtype: torch.dtype,
) -> LatentModel:
    shapes = encoder.shapes() | decoder.shapes()
    shapes |= prior.shapes(decoder.sizes[0]) | likelihood.shapes(decoder.sizes[-1])
    parameters = initial(shapes, starts, seeds, device, dtype)
    return LatentModel(encoder, decoder, family, prior, likelihood, parameters)


def initial(
    shapes: dict[str, tuple[int, ...]],
    starts: dict[str, Tensor],
    seeds: Sequence[int],
    device: torch.device | str,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Parameters `[E, ...]`: weights uniform in ±√(6/(in + out)) (Glorot), all else zero or where it starts.

    The weights are drawn in float64 on the CPU from the members' seeds, so they are the same on every device.

    References:
        burda2016iwae
    """
    noise, found = Noise(tuple(seeds), dtype=torch.float64), {}
    for name, shape in shapes.items():
        if name.endswith(".weight"):
            uniform = noise.uniform(f"initial {name}", shape[0], shape[1:])
            values = (2.0 * uniform - 1.0) * (6.0 / sum(shape)) ** 0.5
        else:
            start = starts.get(name, torch.zeros(())).to(torch.float64)
            values = start.expand(len(seeds), *shape).clone()
        found[name] = values.to(device=device, dtype=dtype)
    return found


def _mean(data_mean: Any) -> Tensor:
    mean = torch.as_tensor(data_mean, dtype=torch.float64)
    if mean.ndim != 1 or not len(mean) or not bool(mean.isfinite().all()):
        raise InputError(
            f"data_mean has shape {tuple(mean.shape)}: expected a finite mean for each pixel, [D_x]"
        )
    return mean.cpu()


def _logit(mean: Tensor) -> Tensor:
    """Logits of a pixel's clipped mean."""
    return torch.logit(mean.clamp(CLIPPED, 1.0 - CLIPPED))


def _proposal(name: str, known: tuple[str, ...]) -> Any:
    if name not in known:
        raise InputError(f"proposal is {name!r}: expected one of {', '.join(known)}")
    return PROPOSALS[name]
