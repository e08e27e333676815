"""Adam with a member axis, ascending, and the eight stages of learning rates of Burda et al."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from toyiwae.errors import InputError

Tensor = torch.Tensor

MOMENTS = ("first", "second")

STAGES = 8
"""Stages of `stage_factor`: the i-th takes 3^i epochs."""

EPOCHS = sum(3**stage for stage in range(STAGES))
"""Epochs of all stages: 3,280."""


def stage_factor(epoch: int) -> float:
    """`10^(−i/7)` in the stage i = 0, …, 7 of an epoch counted from 0; stage i has 3^i epochs, and the last goes on.

    References:
        burda2016iwae
    """
    stage = next((i for i in range(STAGES) if epoch < (3 ** (i + 1) - 1) // 2), STAGES - 1)
    return 10.0 ** (-stage / 7.0)


class Adam:
    """Adam on parameters `[E, ...]`, each member with its own learning rate; steps go up the gradient.

    Attributes:
        steps: how many were made.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        learning_rates: Sequence[float],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
    ):
        """Starts with moments of zero.

        Args:
            parameters: changed in place by `step`.
            learning_rates: one for each member.
            betas: decay of the first and the second moment.
            eps: added to the root of the second moment; the paper's is 1e-4.

        References:
            burda2016iwae
        """
        self._parameters = dict(parameters)
        self._options = {"beta1": betas[0], "beta2": betas[1], "eps": eps, "weight_decay": 0.0}
        self.steps = 0
        self._moments = {
            f"{moment}.{name}": torch.zeros_like(value)
            for moment in MOMENTS
            for name, value in parameters.items()
        }
        self._rates = tuple(learning_rates)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], factor: float = 1.0) -> None:
        """Moves every parameter up its gradient, in one pass over its numbers.

        Args:
            gradients: one for each parameter.
            factor: what multiplies the learning rates, that of the schedule.
        """
        self.steps += 1
        names = list(self._parameters)
        for e, rate in enumerate(self._rates):
            values, slopes = (
                [tensors[name][e] for name in names] for tensors in (self._parameters, gradients)
            )
            means, squares = ([self._moments[f"{moment}.{name}"][e] for name in names] for moment in MOMENTS)
            counts = [torch.full((), self.steps, dtype=torch.float32, device=values[0].device)] * len(names)
            lists = (values, slopes, means, squares, [], counts)
            torch.ops.aten._fused_adam_(
                *lists, lr=rate * factor, amsgrad=False, maximize=True, **self._options
            )

    def state(self) -> dict[str, Tensor]:
        """Everything that `load` needs: moments, and the number of steps."""
        return {"steps": torch.tensor(self.steps), **self._moments}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Takes up a state.

        Raises:
            InputError: names or shapes that are not those of the parameters.
        """
        own = self.state()
        found, expected = ({k: tuple(v.shape) for k, v in one.items()} for one in (state, own))
        wrong = sorted(set(found.items()) ^ set(expected.items()))
        if wrong:
            name, shape = wrong[0]
            raise InputError(f"the optimiser's state does not fit the parameters: {name} of shape {shape}")
        self.steps = int(state["steps"])
        for name, moment in self._moments.items():
            moment.copy_(state[name])


class DeviceAdam(Adam):
    """The same steps with the count, the learning rates and the schedule's factor as tensors on the device.

    Nothing of it is read by the host, so a CUDA graph may hold a step. Neighbouring members with the same learning rate
    take one launch: all leaves `[E, ...]` at once where all have it. Rates are float32 on a GPU, whose fused routine
    reads no others.

    Attributes:
        factor: what multiplies the learning rates, a tensor `[]` that the caller fills.
    """

    def __init__(
        self, parameters: Mapping[str, Tensor], learning_rates: Sequence[float], *, eps: float = 1e-4
    ):
        """As `Adam`."""
        device = next(iter(parameters.values())).device
        kind = torch.float32 if device.type == "cuda" else torch.float64
        self._count = torch.zeros((), dtype=torch.float32, device=device)
        super().__init__(parameters, learning_rates, eps=eps)
        self.factor = torch.ones((), dtype=kind, device=device)
        starts = [e for e, rate in enumerate(self._rates) if e == 0 or rate != self._rates[e - 1]]
        stops = [*starts[1:], len(self._rates)]
        self._alike = [slice(*pair) for pair in zip(starts, stops, strict=True)]
        self._lr = torch.tensor([self._rates[e] for e in starts], dtype=kind, device=device)

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor], factor: float | None = None) -> None:
        """Moves every parameter up its gradient.

        Args:
            gradients: one for each parameter.
            factor: none; it is the attribute.
        """
        self._count += 1.0
        rates = self._lr * self.factor
        for index, some in enumerate(self._alike):
            kinds = [self._parameters, gradients]
            kinds += [{n: self._moments[f"{moment}.{n}"] for n in self._parameters} for moment in MOMENTS]
            lists = [[tensors[name][some] for name in self._parameters] for tensors in kinds]
            counts = [self._count] * len(self._parameters)
            torch.ops.aten._fused_adam_.tensor_lr(
                *lists, [], counts, lr=rates[index], amsgrad=False, maximize=True, **self._options
            )

    @property
    def steps(self) -> int:
        """How many were made; waits for the device."""
        return int(self._count)

    @steps.setter
    def steps(self, count: int) -> None:
        self._count.fill_(count)
