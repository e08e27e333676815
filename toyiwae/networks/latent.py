"""A latent-variable model on networks, one stochastic layer, with a member axis: log-weights and gradients."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch

from toyiwae.errors import InputError
from toyiwae.networks.densities import Gaussian, Gradients, Tensor
from toyiwae.networks.layers import Network
from toyiwae.networks.noise import Noise
from toyiwae.networks.proposals import Cholesky, Sample
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal


class Encoded(NamedTuple):
    """Statistics of the proposal `[E, B, S]`, and what their backward pass needs."""

    stats: Tensor
    inputs: list[Tensor]


class Weighted(NamedTuple):
    """Particles with their log-weights `[E, T, B]`, and what their backward pass needs."""

    log_w: Tensor
    sample: Sample
    inputs: list[Tensor]
    slope: Tensor


@dataclass(frozen=True, eq=False)
class LatentModel:
    """`p(z) p(x|z)` with a decoder, `q(z|x)` with an encoder; one stochastic layer.

    Attributes:
        encoder: network from x to the proposal's statistics.
        decoder: network from z to the likelihood's.
        proposal: family of q.
        prior: family of p(z).
        likelihood: family of p(x|z).
        parameters: name -> tensor `[E, ...]`; the optimiser changes them in place.
    """

    encoder: Network
    decoder: Network
    proposal: Any
    prior: Any
    likelihood: Any
    parameters: dict[str, Tensor] = field(repr=False)

    @property
    def dim_z(self) -> int:
        """Number of latents D."""
        return self.decoder.sizes[0]

    @property
    def dim_x(self) -> int:
        """Number of pixels."""
        return self.decoder.sizes[-1]

    @property
    def reparameterised(self) -> bool:
        """Whether particles have a derivative by the proposal's parameters."""
        return self.proposal.reparameterised

    @property
    def linear_gaussian(self) -> bool:
        """Whether exact answers exist: a linear decoder and Gaussian pixels."""
        return self.decoder.depth == 1 and isinstance(self.likelihood, Gaussian)

    @property
    def row_numbers(self) -> int:
        """Numbers that a particle needs in the forward and the backward pass, about."""
        return 3 * max(self.decoder.sizes) + 2 * sum(self.decoder.sizes)

    def at(self, member: int) -> LatentModel:
        """The model of one member alone; its parameters are views."""
        own = {name: value[member : member + 1] for name, value in self.parameters.items()}
        return replace(self, parameters=own)

    def part(self, name: str) -> str:
        """Whether a parameter belongs to the "model" or to the "proposal"."""
        return "proposal" if name.startswith(f"{self.encoder.name}.") else "model"

    def draw(self, noise: Noise, particles: int, images: int, where: slice | None = None) -> Tensor:
        """Noise of particles `[E, T, B, D]`, or of those of a chunk."""
        kind = noise.normal if self.proposal.noise == "normal" else noise.uniform
        return kind("particles", particles, (images, self.dim_z), where)

    def encode(self, x: Tensor) -> Encoded:
        """Statistics of q(z|x) of images `[E, B, D_x]`."""
        return Encoded(*self.encoder.forward(self.parameters, x))

    def weigh(self, x: Tensor, stats: Tensor, noise: Tensor) -> Weighted:
        """Particles and their log-weights `log w = log p(x, z) − log q(z|x)`.

        Args:
            x: images `[E, B, D_x]`.
            stats: of `encode`.
            noise: of `draw`.
        """
        sample = self.proposal.sample(stats, noise)
        log_p, slope, inputs = self.decode(x, sample.z)
        log_w = log_p + self.prior.log_density(self.parameters, sample.z) - sample.log_q
        return Weighted(log_w, sample, inputs, slope)

    def decode(self, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """`log p(x|z)` of particles z `[E, T, B, D]`, its slope in the decoder's output, and the layers' inputs."""
        fuses = self.likelihood.fuses(z, *self.parameters.values())
        out, inputs = self.decoder.forward(self.parameters, z.flatten(1, 2), last_bias=not fuses)
        out, last = out.unflatten(1, z.shape[1:3]), self.decoder.layer(self.parameters, -1)
        if fuses:
            log_p, slope = self.likelihood.fused(x, out, last[1])
        else:
            log_p, slope = self.likelihood.forward(self.parameters, x, out, (inputs[-1], *last))
        return log_p, slope, inputs

    def backward(self, found: Weighted, a: Tensor, b: Tensor, c: Tensor) -> tuple[Gradients, Tensor]:
        """Gradients by the model's parameters, and by the proposal's statistics `[E, B, S]`.

        One pass with an upstream gradient of one: a enters where gradients by parameters are formed, b and c where
        it arrives at the particles.

        Args:
            found: of `weigh`.
            a: coefficients `[E, T, B]` of `∇θ log p(x, z)`.
            b: of the path.
            c: of the score.
        """
        gradients, slope = self.decode_backward(found, a)
        return gradients, self.proposal.backward(found.sample, slope, b, c)

    def decode_backward(self, found: Weighted, a: Tensor) -> tuple[Gradients, Tensor]:
        """Gradients of `Σ a log p(x, z)` by the model's parameters, and `∂ log p(x, z)/∂z` `[E, T, B, D]` without a."""
        gradients, slope = self.decoder.backward(
            self.parameters, found.inputs, found.slope.flatten(1, 2), a.flatten(1), down=self.reparameterised
        )
        z = found.sample.z
        gradients |= self.likelihood.gradients(self.parameters, found.slope, a)
        gradients |= self.prior.gradients(self.parameters, z, a)
        return gradients, z if slope is None else self.prior.add_slope(slope.view_as(z), z)

    def encode_backward(self, encoded: Encoded, upstream: Tensor) -> Gradients:
        """Gradients by the encoder's parameters of the statistics' gradient `[E, B, S]`."""
        return self.encoder.backward(self.parameters, encoded.inputs, upstream, down=False)[0]

    def problem(self, x: Any, member: int = 0) -> Problem:
        """One member as a linear-Gaussian problem, each image with its own proposal: the truth is exact there.

        Args:
            x: images `[N, D_x]`.
            member: which.

        Raises:
            InputError: a decoder that is not linear, or a likelihood that is not Gaussian.
        """
        if not self.linear_gaussian:
            raise InputError("exact answers need a linear decoder and a Gaussian likelihood")
        x = torch.as_tensor(x).to(self.parameters["noise.log_var"])
        stats = self.encode(x.expand(len(self.parameters["noise.log_var"]), *x.shape)).stats[member]
        weight, bias = (self.parameters[f"decoder.0.{name}"][member] for name in ("weight", "bias"))
        var = self.likelihood.var(self.parameters)[member].expand(self.dim_x)
        model = Model(np.zeros(self.dim_z), 1.0, _array(weight.mT), _array(bias), _array(var))
        if self.proposal is Cholesky:
            mean, chol = map(_array, self.proposal.factor(stats, self.dim_z))
            return Problem(model, Proposal(chol @ chol.swapaxes(-1, -2), mean=mean), Data(_array(x)))
        mean, log_std = map(_array, stats.chunk(2, -1))
        return Problem(model, Proposal(mean=mean, var=np.exp(2.0 * log_std)), Data(_array(x)))


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().to("cpu", torch.float64).numpy()
