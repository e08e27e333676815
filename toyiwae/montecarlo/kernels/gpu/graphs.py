"""A sequence of launches recorded once and replayed: what small problems cost is launching, not computing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


class Replayed:
    """Calls a function of no arguments whose launches are the same every time, on a GPU from a CUDA graph.

    The first call runs as it is, so that kernels are compiled and libraries are ready; the second is recorded, and
    from then on the record is replayed. What changes between calls, the function reads from tensors on the device.

    Args:
        function: returns tensors on the device, always of the same shapes.
        device: where they are. Anywhere but on a GPU every call runs as it is.
    """

    def __init__(self, function: Callable[[], Sequence[torch.Tensor]], device: torch.device):
        """Nothing has run so far."""
        self._function, self._device = function, device
        self._ready, self._graph = False, None
        self._outputs: Sequence[torch.Tensor] = ()

    def __call__(self) -> list[torch.Tensor]:
        """The function's tensors; copies, where the next replay would overwrite them."""
        if self._device.type != "cuda" or not self._ready:
            self._ready = True
            return list(self._function())
        with torch.cuda.device(self._device):
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):
                    self._outputs = self._function()
            self._graph.replay()
            return [output.clone() for output in self._outputs]
