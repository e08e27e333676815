"""A model whose passes `torch.compile` fuses; used as the model itself is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from toyiwae.networks.latent import LatentModel
from toyiwae.networks.products import tf32
from toyiwae.networks.two_layers import TwoLayerModel


@dataclass(frozen=True, eq=False)
class CompiledModel:
    """The passes of a model, compiled; everything else is the model's own.

    Attributes:
        model: whose parameters it shares.
        encode, weigh, backward, encode_backward: its methods of these names, compiled.
    """

    model: LatentModel | TwoLayerModel
    encode: Any
    weigh: Any
    backward: Any
    encode_backward: Any

    def __getattr__(self, name: str) -> Any:
        """What is not compiled."""
        return getattr(self.model, name)


def compiled(model: LatentModel | TwoLayerModel) -> CompiledModel:
    """The same model, parameters shared, with passes that `torch.compile` fuses; the first steps take a minute.

    On a CPU the products, which it does not change, take most of a step, and the members of a stack are compiled for
    one pass together.
    """
    outer = model.outer if isinstance(model, TwoLayerModel) else model
    on_cuda = next(iter(model.parameters.values())).is_cuda
    wanted = outer.decoder.products == "tf32"

    def fused(one: Callable[..., Any]) -> Callable[..., Any]:
        made = torch.compile(one, dynamic=False)

        def call(*arguments: Any) -> Any:
            with tf32(wanted, on_cuda):
                return made(*arguments)

        return call

    passes = (model.encode, model.weigh, model.backward, model.encode_backward)
    return CompiledModel(model, *map(fused, passes))
