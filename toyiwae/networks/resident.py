"""A whole training step as a function of tensors on the device: batch, noise, gradients, Adam, and what is measured.

    clock -> images by their order -> binarised -> log w -> (a, b, c) -> gradients -> Adam;   clock + 1

Nothing is read by the host, nothing comes from it, and no shape depends on data: the step is one CUDA graph where there
is a GPU (`captured`). Random numbers are those of `counters`, which read the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from toyiwae.estimators import Estimator
from toyiwae.networks.counters import Counters
from toyiwae.networks.data.batches import DeviceBatches
from toyiwae.networks.members import Member
from toyiwae.networks.optim import DeviceAdam
from toyiwae.networks.step import StepResult, step

Tensor = torch.Tensor

NEVER = 2**62
"""The step at which a bound that has stayed finite stopped being so."""


class ResidentStep:
    """The step of a stack, with its state on the device.

    Attributes:
        clock: steps made, int64 `[]`.
        bound: of the last step, each member's mean over its batch `[E]`.
        total: sums over images of bound and effective sample size `[2, E]`, in float64, until the caller zeroes them.
        first_bad: the first step, counted from 1, whose bound was not finite, of each member `[E]`; else `NEVER`.
    """

    def __init__(
        self,
        model: Any,
        members: Sequence[Member],
        batches: DeviceBatches,
        adam: DeviceAdam,
        noise: Counters,
        take: Callable[..., StepResult] = step,
    ):
        """Starts before the first step.

        Args:
            model: with E members' parameters, which the step changes in place; it may be compiled.
            members: E of them.
            batches: of the images, in the order of an epoch that the caller turns to.
            adam: of the model's parameters.
            noise: the members'.
            take: `step`, or what stands in its place.
        """
        self._take = take
        self._model, self._members, self._batches, self._adam = model, tuple(members), batches, adam
        count, device = len(self._members), noise.device
        self.clock = torch.zeros((), dtype=torch.int64, device=device)
        self.bound = torch.zeros(count, dtype=noise.dtype, device=device)
        self.total = torch.zeros((2, count), dtype=torch.float64, device=device)
        self.first_bad = torch.full((count,), NEVER, dtype=torch.int64, device=device)
        self._noise = noise.at(self.clock)

    @torch.no_grad()
    def __call__(self, count: int) -> None:
        """One step of `count` images."""
        x = self._batches.now(self.clock, count)
        result = self._take(self._model, self._members, x, self._noise)
        self._adam.step(result.gradients)
        self.clock += 1
        self.bound.copy_(result.bound)
        self.total += torch.stack([result.bound, result.ess]).to(torch.float64) * count
        since = torch.where(self.bound.isfinite(), NEVER, self.clock)
        torch.minimum(self.first_bad, since, out=self.first_bad)


def waits(rule: Estimator, M: int, K: int) -> bool:
    """Whether an estimator's function reads values on the host at M groups of K, so that no graph can hold it.

    It is called on tensors that have none.
    """
    log_w = torch.empty((1, M, K), device="meta")
    try:
        rule(log_w)
        rule.value_of(log_w)
    except (RuntimeError, NotImplementedError):
        return True
    return False
