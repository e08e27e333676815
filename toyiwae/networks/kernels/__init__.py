"""Triton kernels of a training step on a GPU; the slow twin of each, in torch, stands in the module that calls it."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
from importlib import metadata
from typing import Any

import torch

LEAST = (3, 6)
"""Triton's oldest version that has what the kernels use."""


def _able() -> bool:
    """Whether torch is built for CUDA, not ROCm (it calls either so), and Triton is there (CUDA's builds bring it)."""
    if torch.version.hip is not None or importlib.util.find_spec("triton") is None:
        return False
    for name in ("triton", "pytorch-triton", "triton-windows"):  # of one module
        with contextlib.suppress(metadata.PackageNotFoundError):
            found = re.match(r"(\d+)\.(\d+)", metadata.version(name))
            return found is not None and tuple(map(int, found.groups())) >= LEAST
    return False


_ABLE = _able()


def usable(tensor: torch.Tensor) -> bool:
    """Whether kernels take a tensor: it lies on a GPU of Nvidia's, and there is a Triton that is new enough."""
    return tensor.is_cuda and _ABLE


def load(name: str) -> Any:
    """The module of some kernels; imports Triton."""
    return importlib.import_module(f"{__name__}.{name}")
