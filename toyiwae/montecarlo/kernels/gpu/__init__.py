"""Sampling on a GPU: one fused Triton kernel, and the torch engine on the same noise beside it."""

from toyiwae.extras import import_extra

import_extra("triton", extra="gpu", purpose="engine 'triton'")

from toyiwae.montecarlo.kernels.gpu.sampler import TritonSampler  # noqa: E402

__all__ = ["TritonSampler"]
