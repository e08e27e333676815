"""How much of a step is held at once: members, images and particles in pieces that fit into memory and caches.

Results depend on it in round-off only.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from toyiwae.networks.noise import block

BUDGET = {"cpu": 2**28, "cuda": 2**34}
"""Bytes of one image's activations held at once, by type of device; beyond, particles come in chunks."""

TOGETHER = {"cpu": 3 * 2**23, "cuda": 2**34}
"""Bytes of several images' activations held at once: on a CPU, what its cache holds."""

ALONE = 2**20
"""Numbers of a member from which on a CPU it is handled alone."""


def chunk_size(
    model: Any,
    particles: int,
    members: int,
    images: int,
    drawn: int,
    size: int,
    device: torch.device,
) -> int:
    """Particles of each image that a pass holds, all of them where `BUDGET` takes one image's.

    Args:
        model: whose numbers of a particle count.
        particles: of an image.
        members: in the pass.
        images: in the pass.
        drawn: images of the batch, whose noise is drawn in whole blocks.
        size: bytes of a number.
        device: where.
    """
    budget = held(BUDGET, device) // (members * size)
    if particles * max(model.row_numbers, 2 * images * model.dim_z) <= budget:
        return particles
    return blocks(budget // (model.row_numbers * images), particles, block((drawn, model.dim_z)))


def blocks(chunk: int, particles: int, size: int) -> int:
    """A chunk of particles rounded up to whole blocks of noise."""
    return size * max(1, -(-min(chunk, particles) // size))


def images_together(
    model: Any, particles: int, members: int, images: int, size: int, device: torch.device
) -> int:
    """Images that a pass holds with all their particles; arguments as for `chunk_size`."""
    most = max(1, held(TOGETHER, device) // (model.row_numbers * members * particles * size))
    return -(-images // -(-images // most))


def held(budgets: Mapping[str, int], device: torch.device) -> int:
    """A budget of bytes by type of device, and on a GPU no more than a quarter of its memory."""
    own = budgets.get(device.type, budgets["cpu"])
    if device.type == "cuda":
        own = min(own, torch.cuda.get_device_properties(device).total_memory // 4)
    return own


def all_together(model: Any, particles: int, images: int, device: torch.device) -> bool:
    """Whether all members go in one pass, or one after another: what is faster, unless the model is compiled."""
    return particles * images * model.row_numbers < ALONE or device.type != "cpu"
