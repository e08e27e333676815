"""What has to be right before a step on a GPU is timed: its kernels beside their twins."""

from __future__ import annotations

import torch

from analysis.benchmarks.networks import PIXELS
from toyiwae.networks import counters, kernels
from toyiwae.networks.counters import Counters


def of_kernels(device: torch.device) -> dict[str, float]:
    """Largest differences of kernels from their twins, or of the twins on this device where there is no Triton.

    Raises:
        RuntimeError: one is beyond what rounding makes.
    """
    found, limits = (
        {},
        {"normals": 4e-6, "uniform": 0.0, "log p(x|z), nats": 1e-4, "slope": 1e-6},
    )
    keys, step = torch.tensor([3, -5, 2**62]), torch.tensor(2**40 + 7)
    for kind, name in (("normal", "normals"), ("uniform", "uniform")):
        twin = counters.drawn(kind, keys, step, 5, 100_001, torch.float32)
        on_device = Counters((0,), device=device)
        other = _drawn(on_device, kind, keys.to(device), step.to(device))
        found[name] = float((other.cpu() - twin).abs().max())
    generator = torch.Generator().manual_seed(1)
    x = (torch.rand(2, 3, PIXELS, generator=generator) < 0.2).float()
    logits = 4.0 * torch.randn(2, 5, 3, PIXELS, generator=generator) + 6.0 * (2.0 * x - 1.0)[:, None]
    bias = torch.randn(2, PIXELS, generator=generator)
    whole = logits.double() + bias.double()[:, None, None]
    exact = (x[:, None] * whole - torch.nn.functional.softplus(whole)).sum(-1)
    if kernels.usable(keys.to(device)):
        out = logits.to(device)
        log_p = kernels.load("bernoulli").log_likelihood(x.to(device), out, bias.to(device))
        found["log p(x|z), nats"] = float((log_p.cpu() - exact).abs().max())
        found["slope"] = float((out.cpu() - (x[:, None] - torch.sigmoid(whole))).abs().max())
    wrong = {name: value for name, value in found.items() if not value <= limits[name]}
    if wrong:
        raise RuntimeError(f"beyond rounding: {wrong}")
    return found


def _drawn(noise: Counters, kind: str, keys: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Numbers as a step on the keys' device draws them."""
    if kernels.usable(keys):
        return kernels.load("random").drawn(kind, keys, step, 5, 100_001)
    return counters.drawn(kind, keys, step, 5, 100_001, noise.dtype)
