"""Two stochastic layers: `p(z2) p(z1|z2) p(x|z1)` with `q(z1|x) q(z2|z1)`.

The inner pair is a model of its own, whose observation is the particle z1:

    log w = [log p(x|z1) − log q(z1|x)] + [log p(z1|z2) + log p(z2) − log q(z2|z1)]

Estimators that use the path alone (`c = 0`) hold q's parameters fixed, and nothing else: z1 stays a variable of the
sample z2 and of the density `log q(z2|z1)`. Published code often detaches the mean and scale of `q(z2|z1)` there, and
with them their dependence on z1; its gradients are biased.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch

from toyiwae.networks.densities import Gradients, Tensor
from toyiwae.networks.latent import Encoded, LatentModel, Weighted
from toyiwae.networks.noise import Noise


class TwoWeighted(NamedTuple):
    """Pairs of particles with their log-weights `[E, T, B]`, and what their backward pass needs."""

    log_w: Tensor
    outer: Weighted
    encoded: Encoded
    inner: Weighted


@dataclass(frozen=True, eq=False)
class TwoLayerModel:
    """Two models, one on the other's particles; used as a `LatentModel` is.

    Attributes:
        outer: `p(x|z1)` and `q(z1|x)`, without a density of z1.
        inner: `p(z1|z2) p(z2)` and `q(z2|z1)`.
        parameters: of both.
    """

    outer: LatentModel
    inner: LatentModel
    parameters: dict[str, Tensor] = field(repr=False)

    @property
    def reparameterised(self) -> bool:
        """Particles have a derivative by the proposal's parameters."""
        return True

    @property
    def dim_z(self) -> int:
        """Number of latents of both layers."""
        return self.outer.dim_z + self.inner.dim_z

    @property
    def dim_x(self) -> int:
        """Number of pixels."""
        return self.outer.dim_x

    @property
    def row_numbers(self) -> int:
        """Numbers that a particle needs in the forward and the backward pass, about."""
        return self.outer.row_numbers + 2 * self.inner.row_numbers

    def at(self, member: int) -> TwoLayerModel:
        """The model of one member alone; its parameters are views."""
        outer = self.outer.at(member)
        return TwoLayerModel(outer, replace(self.inner, parameters=outer.parameters), outer.parameters)

    def part(self, name: str) -> str:
        """Whether a parameter belongs to the "model" or to the "proposal"."""
        return "proposal" if "proposal" in (self.outer.part(name), self.inner.part(name)) else "model"

    def draw(self, noise: Noise, particles: int, images: int, where: slice | None = None) -> Tensor:
        """Noise of both layers `[E, T, B, D_1 + D_2]`, or that of a chunk."""
        return noise.normal("particles", particles, (images, self.dim_z), where)

    def encode(self, x: Tensor) -> Encoded:
        """Statistics of q(z1|x) of images `[E, B, D_x]`."""
        return self.outer.encode(x)

    def weigh(self, x: Tensor, stats: Tensor, noise: Tensor) -> TwoWeighted:
        """Pairs of particles and their log-weights, as `LatentModel.weigh`."""
        first, second = noise.split([self.outer.dim_z, self.inner.dim_z], -1)
        outer = self.outer.weigh(x, stats, first)
        z = outer.sample.z.flatten(1, 2)
        encoded = self.inner.encode(z)
        inner = self.inner.weigh(z, encoded.stats, second.flatten(1, 2)[:, None])
        return TwoWeighted(outer.log_w + inner.log_w.view_as(outer.log_w), outer, encoded, inner)

    def backward(self, found: TwoWeighted, a: Tensor, b: Tensor, c: Tensor) -> tuple[Gradients, Tensor]:
        """As `LatentModel.backward`.

        The parameters of q(z2|z1) get b of the path and c of the score. To z1 goes an upstream gradient of one of the
        inner log-weight's total derivative, by the sample z2 and by q's density (b = 1, c = −1), and by `p(z1|z2)`.
        """
        flat = [array.flatten(1)[:, None] for array in (a, b, c)]
        gradients, slope = self.inner.decode_backward(found.inner, flat[0])
        inner, sample = self.inner, found.inner.sample
        gradients |= inner.encode_backward(found.encoded, inner.proposal.backward(sample, slope, *flat[1:]))
        one = torch.ones_like(flat[0])
        total = inner.proposal.backward(sample, slope, one, -one)
        _, by_z = inner.encoder.backward(self.parameters, found.encoded.inputs, total, own=False)
        assert by_z is not None
        by_z = by_z - found.inner.slope[:, 0, :, : self.outer.dim_z]
        others, slope = self.outer.decode_backward(found.outer, a)
        slope = slope + by_z.view_as(slope)
        return gradients | others, self.outer.proposal.backward(found.outer.sample, slope, b, c)

    def encode_backward(self, encoded: Encoded, upstream: Tensor) -> Gradients:
        """Gradients by the parameters of q(z1|x)'s encoder."""
        return self.outer.encode_backward(encoded, upstream)
