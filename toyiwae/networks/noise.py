"""Random numbers of a training step, keyed by (member's seed, purpose, step): nothing to save, nothing shared.

A member's numbers depend neither on the other members of a stack, nor on how the particles are cut into chunks, nor
on what else was drawn. There is no generator state: asked again, the same key gives the same numbers. CPU and CUDA
generators differ, and so do their numbers.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch

from toyiwae.errors import InputError
from toyiwae.montecarlo.noise import UNIT, scrambled

Tensor = torch.Tensor


@dataclass(frozen=True)
class Noise:
    """The random numbers of one step (or epoch, or whatever is counted) of every member.

    Attributes:
        seeds: the members' seeds, whole numbers from 0.
        step: which step.
        device: where to draw.
        dtype: of normal and uniform numbers.
    """

    seeds: tuple[int, ...]
    step: int = 0
    device: torch.device | str = "cpu"
    dtype: torch.dtype = torch.float32

    def at(self, step: int) -> Noise:
        """The same members' random numbers of another step."""
        return replace(self, step=step)

    def of(self, member: int) -> Noise:
        """One member's random numbers alone."""
        return replace(self, seeds=self.seeds[member : member + 1])

    def normal(
        self, purpose: str, length: int, inner: tuple[int, ...] = (), where: slice | None = None
    ) -> Tensor:
        """Standard normals `[E, n, *inner]`.

        Args:
            purpose: tells numbers of different use apart.
            length: of the whole axis that may be cut into chunks.
            inner: sizes of the axes inside, never cut.
            where: the positions of a chunk, multiples of `block(inner)` but for the end; by default all.
        """
        return self._draw(torch.Tensor.normal_, purpose, length, inner, where)

    def uniform(
        self, purpose: str, length: int, inner: tuple[int, ...] = (), where: slice | None = None
    ) -> Tensor:
        """Uniform numbers in [0, 1), as `normal`."""
        return self._draw(torch.Tensor.uniform_, purpose, length, inner, where)

    def permutation(self, purpose: str, length: int) -> Tensor:
        """A random order of `length` things for each member `[E, length]`, drawn on the CPU."""
        generator = torch.Generator()
        orders = [
            torch.randperm(
                length, generator=generator.manual_seed(scrambled(_start(seed, purpose) + self.step))
            )
            for seed in self.seeds
        ]
        return torch.stack(orders)

    def key(self, purpose: str, number: int) -> int:
        """A seed of the first member for a block of numbers that others draw, fewer than 2¹² of them in a step.

        Raises:
            InputError: for more.
        """
        if number >= 2**12:
            raise InputError(f"block {number} of a step: expected fewer than {2**12}, of fewer particles")
        return scrambled(_start(self.seeds[0], purpose) + (self.step << 12) + number)

    def _draw(
        self, fill: Callable, purpose: str, length: int, inner: tuple[int, ...], where: slice | None
    ) -> Tensor:
        """Numbers of some blocks: each comes from a generator of its own, at a seed of its own."""
        where = slice(0, length) if where is None else where
        size = block(inner)
        numbers = torch.empty(
            (len(self.seeds), where.stop - where.start, *inner), dtype=self.dtype, device=self.device
        )
        generator, blocks = torch.Generator(self.device), -(-length // size)
        for seed, own in zip(self.seeds, numbers, strict=True):
            start = (
                _start(seed, f"{fill.__name__} {purpose} {length} {inner}")
                + self.step * blocks
                + where.start // size
            )
            for index, part in enumerate(own.split(size)):
                fill(part, generator=generator.manual_seed(scrambled(start + index)))
        return numbers


def block(inner: tuple[int, ...]) -> int:
    """Positions along the axis that is cut which are drawn together: they make at most 2¹⁷ numbers, if one does."""
    return max(1, UNIT // math.prod(inner))


@lru_cache(maxsize=4096)
def _start(seed: int, purpose: str) -> int:
    """Where the sequence of a member's seeds of one purpose begins; within it no seed repeats for 2³² blocks."""
    return int(np.random.SeedSequence([seed, zlib.crc32(purpose.encode())]).generate_state(1, np.uint32)[0])
