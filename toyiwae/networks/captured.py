"""A function of the device's tensors as one CUDA graph: what many small launches cost is launching, not computing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from toyiwae.errors import ToyiwaeError

WARM = 2
"""Calls that run as they are before one is recorded: kernels are compiled, and libraries set themselves up."""


class Captured:
    """Calls a function without arguments or result, whose launches are the same every time.

    On a GPU the first `WARM` calls run as they are, on a stream of their own; the next is recorded, and from then on
    the record is replayed. Every call does its work once: recording runs nothing. What changes from call to call the
    function reads from tensors, and what it makes it leaves in tensors that were there before.

    Attributes:
        recorded: whether calls replay a record.
    """

    def __init__(self, function: Callable[[], None], device: torch.device | str, *, graph: bool = True):
        """Calls nothing yet.

        Args:
            function: what to call. It neither waits for the device, nor does its host's work matter.
            device: where its tensors are. Anywhere but on a GPU every call runs as it is.
            graph: whether to record.
        """
        self._function, self._device = function, torch.device(device)
        self._on, self._calls = graph and self._device.type == "cuda", 0
        self._graph: Any = None

    @property
    def recorded(self) -> bool:
        """Whether there is a record."""
        return self._graph is not None

    def __call__(self) -> None:
        """The function's work, once.

        Raises:
            ToyiwaeError: it cannot be recorded.
        """
        if not self._on:
            self._function()
            return
        with torch.cuda.device(self._device):
            if self._graph is None and self._calls < WARM:
                self._calls += 1
                self._aside()
                return
            if self._graph is None:
                self._graph = self._record()
            self._graph.replay()

    def _aside(self) -> None:
        """Runs it on a stream of its own, as recording will."""
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self._function()
        here.wait_stream(aside)

    def _record(self) -> Any:
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._function()
        except RuntimeError as error:
            reason = str(error).split("\n")[0]
            raise ToyiwaeError(
                f"a step cannot be one CUDA graph ({reason}): set training.graph = off"
            ) from error
        return graph
