"""Fully connected networks with a member axis: forward, and backward of a unit upstream gradient.

    y = f(… f(x W_0 + b_0) … ) W_n + b_n      x [E, N, in],  W_i [E, in_i, out_i],  b_i [E, out_i],  f = tanh

The backward pass is linear in each row's upstream gradient. So rows may be propagated with an upstream gradient of
one, and multiplied by their own coefficient only where a weight's gradient is formed: `Σ_n s_n x_n g_nᵀ`. One backward
pass then serves any coefficients, zero or not, different for a decoder and for the encoder below it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from toyiwae.networks.products import affine, once, product, unrounded

Tensor = torch.Tensor
Parameters = Mapping[str, Tensor]
Gradients = dict[str, Tensor]


@dataclass(frozen=True)
class Network:
    """A fully connected network: its parameters' names and shapes, forward and backward.

    Attributes:
        name: parameters are called `name.i.weight` and `name.i.bias`.
        sizes: widths from the input to the output.
        products: precision of the products, see `products.product`.
    """

    name: str
    sizes: tuple[int, ...]
    products: str = "float32"

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.sizes) - 1

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter -> its shape, without the member axis."""
        found: dict[str, tuple[int, ...]] = {}
        for i, pair in enumerate(zip(self.sizes, self.sizes[1:], strict=False)):
            found[f"{self.name}.{i}.weight"] = pair
            found[f"{self.name}.{i}.bias"] = pair[1:]
        return found

    def forward(
        self, parameters: Parameters, x: Tensor, *, last_bias: bool = True
    ) -> tuple[Tensor, list[Tensor]]:
        """Output `[E, N, out]`, and what the backward pass needs: each layer's input.

        Args:
            parameters: of this network, and perhaps others.
            x: input `[E, N, in]`.
            last_bias: whether the output has its bias, or its taker adds it.
        """
        inputs = [x]
        for i in range(self.depth):
            weight, bias = self.layer(parameters, i)
            inner = i < self.depth - 1
            bias = bias if inner or last_bias else None
            inputs.append(affine(inputs[-1], weight, bias, tanh=inner, products=self.products))
        return inputs.pop(), inputs

    def backward(
        self,
        parameters: Parameters,
        inputs: Sequence[Tensor],
        upstream: Tensor,
        scale: Tensor | None = None,
        *,
        own: bool = True,
        down: bool = True,
    ) -> tuple[Gradients, Tensor | None]:
        """Gradients of `Σ_n s_n upstream_n · y_n` by the parameters, and `upstream · ∂y/∂x`, which has no s.

        Args:
            parameters: as for `forward`.
            inputs: what `forward` handed back.
            upstream: gradients at the output `[E, N, out]`.
            scale: s `[E, N]`; ones if not given.
            own: whether gradients by the parameters are wanted.
            down: whether the gradient by the input is wanted.
        """
        gradients: Gradients = {}
        for i in reversed(range(self.depth)):
            x, (weight, _) = inputs[i], self.layer(parameters, i)
            rounded = once(upstream, self.products)
            if own:
                gradients |= self._slopes(i, x, upstream, rounded, scale)
            if i == 0 and not down:
                return gradients, None
            upstream = product(rounded, weight.mT, self.products)
            if i:
                upstream = torch.ops.aten.tanh_backward(upstream, x)
        return gradients, upstream

    def _slopes(
        self, i: int, x: Tensor, upstream: Tensor, rounded: Tensor, scale: Tensor | None
    ) -> Gradients:
        """Gradients by the parameters of layer i, of an upstream gradient as it is and as products take it.

        The scale multiplies the narrower side.
        """
        if scale is None:
            bias = upstream.sum(1)
        else:
            with unrounded(upstream):
                bias = torch.bmm(scale[:, None], upstream)[:, 0]
            if x.shape[-1] <= upstream.shape[-1]:
                x = x * scale[..., None]
            else:
                rounded = upstream * scale[..., None]
        return {
            f"{self.name}.{i}.weight": product(x.mT, rounded, self.products),
            f"{self.name}.{i}.bias": bias,
        }

    def layer(self, parameters: Parameters, i: int) -> tuple[Tensor, Tensor]:
        """Weight `[E, in, out]` and bias `[E, out]` of layer i, counted from the end where negative."""
        i %= self.depth
        return parameters[f"{self.name}.{i}.weight"], parameters[f"{self.name}.{i}.bias"]
