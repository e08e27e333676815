"""The steps of a run that stay on the device: a CUDA graph for whole batches, and one for an epoch's last, shorter."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from toyiwae.errors import InputError
from toyiwae.networks.averages import ImageAverage
from toyiwae.networks.captured import Captured, Shared
from toyiwae.networks.counters import Counters
from toyiwae.networks.data.batches import DeviceBatches
from toyiwae.networks.optim import DeviceAdam
from toyiwae.networks.resident import ResidentStep, waits
from toyiwae.networks.runs.run import Run
from toyiwae.networks.step import StepResult, step

Tensor = torch.Tensor


class DeviceSteps:
    """Makes the steps of a run whose random numbers come from counters; on a CPU the same work, call by call.

    Attributes:
        bound: of the last step, each member's mean over its batch `[E]`.
        first_bad: as `ResidentStep.first_bad`.
    """

    def __init__(
        self,
        run: Run,
        model: Any,
        batches: DeviceBatches,
        adam: DeviceAdam,
        take: Callable[..., StepResult] = step,
    ):
        """Before the first step.

        Args:
            run: whose settings say whether a step is a graph.
            model: the run's, or that compiled.
            batches: of the run's images.
            adam: of the model's parameters.
            take: `step`, or what stands in its place, of which no graph is made: it asks other processes.

        Raises:
            InputError: the settings want a graph where there can be none.
        """
        self._noise, self._batches, self._adam = run.noise, batches, adam
        assert isinstance(self._noise, Counters)
        self._graph = graph_wanted(run, shared=take is not step)
        self._must, self._shared = run.settings.training.graph == "on", Shared()
        self._training = run.settings.training
        self._step = ResidentStep(model, run.members, batches, adam, self._noise, take)
        self.bound, self.first_bad = self._step.bound, self._step.first_bad
        self._calls: dict[int, Captured] = {}
        self._epoch = -1

    def begin(self, done: int, window: ImageAverage) -> None:
        """Goes on after so many steps, with averages under way."""
        self._step.clock.fill_(done)
        self._step.total.copy_(window.total)
        self._epoch = -1

    def make(self, number: int, window: ImageAverage) -> ImageAverage:
        """The step of a number counted from 0, the one after the last.

        Args:
            number: which.
            window: averages under way, whose totals are those of the steps before; without images they begin anew.

        Returns:
            The averages with this step's images; their totals change with the next.
        """
        epoch, count = number // self._batches.per_epoch, self._batches.count(number)
        if epoch != self._epoch:
            self._batches.turn(epoch)
            self._adam.factor.fill_(self._training.factor(epoch))
            self._epoch = epoch
        if not window.count:
            self._step.total.zero_()
        if count not in self._calls:
            options: dict[str, Any] = {"graph": self._graph, "must": self._must, "shared": self._shared}
            self._calls[count] = Captured(partial(self._step, count), self._noise.device, **options)
        self._calls[count]()
        return ImageAverage(self._step.total, window.count + count)


def graph_wanted(run: Any, *, shared: bool = False) -> bool:
    """Whether the steps of a run become CUDA graphs.

    Args:
        run: whose steps.
        shared: whether processes share every batch.

    Raises:
        InputError: the settings want them where they cannot be; why, in one line.
    """
    wanted = run.settings.training.graph
    reason = _no_graph(run)
    if reason is None and shared:
        reason = "processes share every batch, and a step asks the others"
    if wanted == "on" and reason is not None:
        raise InputError(f"training.graph is 'on': {reason}; use auto or off")
    return wanted != "off" and reason is None


def _no_graph(run: Any) -> str | None:
    """Why there can be no graph; None if there can."""
    noise = run.noise
    if torch.device(noise.device).type != "cuda":
        return f"there are CUDA graphs on CUDA devices, not on {noise.device}"
    if not isinstance(noise, Counters):
        return (
            "torch's generators are seeded by the host in every step, which training.random = philox is not"
        )
    for member in run.members:
        for name, rule in zip((member.model, member.proposal), member.rules, strict=True):
            if waits(rule, member.M, member.K):
                return f"how much {name} computes follows from the weights, which the host must read"
    return None
