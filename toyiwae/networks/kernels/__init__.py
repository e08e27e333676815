"""Triton kernels of a training step on a GPU; the slow twin of each, in torch, stands in the module that calls it."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import torch

_INSTALLED = importlib.util.find_spec("triton") is not None


def usable(tensor: torch.Tensor) -> bool:
    """Whether kernels take a tensor: it lies on a GPU, and Triton is installed (CUDA's builds of torch bring it)."""
    return tensor.is_cuda and _INSTALLED


def load(name: str) -> Any:
    """The module of some kernels; imports Triton."""
    return importlib.import_module(f"{__name__}.{name}")
