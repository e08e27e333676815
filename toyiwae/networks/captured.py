"""A function of the device's tensors as one CUDA graph: what many small launches cost is launching, not computing."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch

from toyiwae.errors import InputWarning, ToyiwaeError

WARM = 2
"""Calls that run as they are before one is recorded: kernels are compiled, and libraries set themselves up."""


class Shared:
    """What functions of one device that are never called at the same time share.

    Attributes:
        refused: whether one of them could not be recorded, so that no other need be tried.
    """

    refused = False

    @cached_property
    def pool(self) -> Any:
        """Memory of their graphs; what a graph leaves there is overwritten by the next."""
        return torch.cuda.graph_pool_handle()

    @cached_property
    def stream(self) -> Any:
        """For calls before recording."""
        return torch.cuda.Stream()


class Captured:
    """Calls a function without arguments or result, whose launches are the same every time.

    On a GPU the first `WARM` calls run as they are, on a stream of their own; the next is recorded, and from then on
    the record is replayed. Every call does its work once: recording runs nothing. What changes from call to call the
    function reads from tensors, and what it makes it leaves in tensors that were there before.
    """

    def __init__(
        self,
        function: Callable[[], None],
        device: torch.device | str,
        *,
        graph: bool = True,
        must: bool = True,
        shared: Shared | None = None,
    ):
        """Calls nothing yet.

        Args:
            function: what to call. It neither waits for the device, nor does its host's work matter.
            device: where its tensors are. Anywhere but on a GPU every call runs as it is.
            graph: whether to record.
            must: whether it is an error that no record can be made; else calls then run as they are, after a warning.
            shared: with other functions of the device.
        """
        self._function, self._device, self._must = function, torch.device(device), must
        self._on, self._calls = graph and self._device.type == "cuda", 0
        self._shared = Shared() if shared is None else shared
        self._graph: Any = None

    @property
    def recorded(self) -> bool:
        """Whether there is a record."""
        return self._graph is not None

    def __call__(self) -> None:
        """The function's work, once.

        Raises:
            ToyiwaeError: it cannot be recorded, and must be.
        """
        if not self._on:
            self._function()
            return
        with torch.cuda.device(self._device):
            if self._graph is None and self._calls < WARM:
                self._calls += 1
                self._aside()
                return
            if self._graph is None and not self._shared.refused:
                self._graph = self._record()
            if self._graph is None:
                self._on = False
                self._function()
            else:
                self._graph.replay()

    def _aside(self) -> None:
        """Runs it on a stream of its own, as recording will."""
        here, aside = torch.cuda.current_stream(), self._shared.stream
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            self._function()
        here.wait_stream(aside)

    def _record(self) -> Any:
        """The graph; None where there can be none and need not be."""
        graph, here, own = torch.cuda.CUDAGraph(), torch.cuda.current_stream(), None
        try:
            with torch.cuda.graph(graph, pool=self._shared.pool):
                try:
                    self._function()
                except Exception as error:
                    own = error  # the end of a capture that failed raises another
                    raise
        except Exception as error:
            torch.cuda.set_stream(
                here
            )  # `torch.cuda.graph` leaves its own where the end of the capture raises
            cause = error if own is None else own
            if isinstance(cause, torch.OutOfMemoryError) or not isinstance(cause, RuntimeError):
                raise cause from None
            reason = str(cause).split("\n")[0]
            line = f"a step cannot be one CUDA graph ({reason})"
            if self._must:
                raise ToyiwaeError(f"{line}: set training.graph = off") from cause
            self._shared.refused = True
            warnings.warn(f"{line}: steps are made without", InputWarning, stacklevel=3)
            return None
        return graph
