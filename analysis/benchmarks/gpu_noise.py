"""Judges the GPU's generator, whose logarithm, root and circle functions are approximations, by the normal law."""

from __future__ import annotations

import math

import scipy.stats
import torch

from toyiwae import stats
from toyiwae.montecarlo.kernels.gpu import kernels, launch

ORDERS, TAILS, DIM = range(1, 13), (1.0, 2.0, 3.0, 4.0, 5.0, 5.5, 6.0), 16


def judged(draws: int, device: torch.device, particles: int = 2**22) -> str:
    """Moments to order 12, tails, and products of neighbours, of so many normals.

    Raises:
        RuntimeError: if one deviates at a family-wise rate of 1e-6.
    """
    found = scores(draws, device, particles)
    name = max(found, key=lambda name: abs(found[name]))
    threshold = stats.family_threshold(len(found), 1e-6)
    if abs(found[name]) > threshold:
        raise RuntimeError(f"{name} of {draws:.2g} normals is {found[name]:.1f} standard deviations off")
    return f"{draws:.2g} normals: {name} deviates most, {abs(found[name]):.2f} of {threshold:.2f}"


def scores(draws: int, device: torch.device, particles: int) -> dict[str, float]:
    """Every statistic in standard deviations of its law; tails by their p-values."""
    start = launch.start_of(20_261_129, (particles, 1, 0), device)
    z = torch.empty((particles, DIM), dtype=torch.float64, device=device)
    powers, tails, products = (
        torch.zeros(n, dtype=torch.float64, device=device) for n in (len(ORDERS), len(TAILS), 2)
    )
    blocks = -(-draws // z.numel())
    for block in range(blocks):
        start[1].fill_(block * particles)
        launch.launch(kernels.standard_normals, particles, start, z, particles, particles, D=DIM)
        powers += torch.stack([(z**order).sum() for order in ORDERS])
        tails += torch.stack([(z.abs() > tail).sum() for tail in TAILS])
        products += torch.stack([(z[:, 1:] * z[:, :-1]).sum(), (z[1:] * z[:-1]).sum()])
    count = blocks * z.numel()
    found = {}
    for order, total in zip(ORDERS, powers.tolist(), strict=True):
        spread = math.sqrt(_moment(2 * order) - _moment(order) ** 2)
        found[f"moment {order}"] = (total / count - _moment(order)) * math.sqrt(count) / spread
    for tail, total in zip(TAILS, tails.tolist(), strict=True):
        law = scipy.stats.binom(count, 2.0 * scipy.stats.norm.sf(tail))
        low, high = law.cdf(total), law.sf(total - 1)
        found[f"tail {tail}"] = float(scipy.stats.norm.ppf(low) if low < high else scipy.stats.norm.isf(high))
    sizes = (blocks * particles * (DIM - 1), blocks * (particles - 1) * DIM)
    for name, total, size in zip(("coordinates", "particles"), products.tolist(), sizes, strict=True):
        found[f"product of neighbouring {name}"] = total / math.sqrt(size)
    return found


def _moment(order: int) -> float:
    """`E z^order` of a standard normal."""
    return 0.0 if order % 2 else float(math.prod(range(1, order, 2)))
