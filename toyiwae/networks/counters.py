"""Random numbers from counters: the same integers on every device, and nothing to seed within a CUDA graph.

Four numbers at a time are Philox-4x32-10 of a key and a counter:

    key = hash of (member's seed, kind and purpose),    counter = (position // 4, step),    word position % 4

A position is the flat index of a number in what is drawn. So it depends on its member's seed, its purpose, the step and
its place alone: neither on other members, nor on how particles are cut into chunks, nor on the device. Keys and the
step lie on the device, so that a recorded sequence of launches draws other numbers once the step is counted up.

Where there are CUDA and Triton one kernel draws them (`kernels.random`); the functions here are its slow twin and work
on every device. Integers and uniform numbers are the same to the bit, normals in float32 to about 1e-6.

References:
    salmon2011random
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch

from toyiwae.networks import kernels
from toyiwae.networks.noise import Noise

Tensor = torch.Tensor

_FACTORS, _WEYL = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)
_ROUNDS, _MASK = 10, 0xFFFFFFFF


@dataclass(frozen=True, eq=False)
class Counters(Noise):
    """The random numbers of a step of every member, as `Noise`, from counters.

    Attributes:
        clock: the step as an int64 tensor `[]` on the device, read when numbers are drawn; by default `step`.
    """

    clock: Tensor | None = None

    def at(self, step: int | Tensor) -> Counters:
        """The same members' random numbers of another step, or of the one that a tensor holds when they are drawn."""
        if isinstance(step, Tensor):
            return replace(self, clock=step)
        return replace(self, step=step, clock=None)

    def normal(
        self, purpose: str, length: int, inner: tuple[int, ...] = (), where: slice | None = None
    ) -> Tensor:
        """Standard normals `[E, n, *inner]` of `length` positions or of any of them, `where`."""
        return self._numbers("normal", purpose, length, inner, where)

    def uniform(
        self, purpose: str, length: int, inner: tuple[int, ...] = (), where: slice | None = None
    ) -> Tensor:
        """Uniform numbers in [0, 1), as `normal`: multiples of 2⁻²⁴ in float32, of 2⁻³² in float64."""
        return self._numbers("uniform", purpose, length, inner, where)

    def permutation(self, purpose: str, length: int) -> Tensor:
        """A random order of `length` things for each member `[E, length]`, on the device: that of random integers."""
        words = philox(self._keys(f"order {purpose}"), self._step(), 0, 4 * length).unflatten(-1, (-1, 4))
        return (words[..., 0] << 31 | words[..., 1] >> 1).argsort(dim=-1, stable=True)

    def _keys(self, purpose: str) -> Tensor:
        return _keys(self.seeds, purpose, torch.device(self.device))

    def _step(self) -> Tensor:
        """The step `[]` on the device."""
        if self.clock is not None:
            return self.clock
        return torch.full((), self.step, dtype=torch.int64, device=self.device)

    def _numbers(
        self, kind: str, purpose: str, length: int, inner: tuple[int, ...], where: slice | None
    ) -> Tensor:
        where, size = slice(0, length) if where is None else where, math.prod(inner)
        first, count = where.start * size, (where.stop - where.start) * size
        keys, step = self._keys(f"{kind} {purpose}"), self._step()
        if self.dtype == torch.float32 and kernels.usable(keys):
            numbers = kernels.load("random").drawn(kind, keys, step, first, count)
        else:
            numbers = drawn(kind, keys, step, first, count, self.dtype)
        return numbers.view(len(self.seeds), where.stop - where.start, *inner)


@cache
def _keys(seeds: tuple[int, ...], purpose: str, device: torch.device) -> Tensor:
    """Keys `[E]` as int64 on the device. They stay there: recorded launches read them."""
    words = (zlib.crc32(purpose.encode()),)
    found = [np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0] for seed in seeds]
    return torch.from_numpy(np.array(found).view(np.int64)).to(device)


def philox(keys: Tensor, step: Tensor, first: int, count: int) -> Tensor:
    """Random words of 32 bits `[E, count]` in int64, those at the positions from `first` on.

    Args:
        keys: int64 `[E]`, of whose 64 bits all count.
        step: int64 `[]`.
        first: position of the first.
        count: how many.
    """
    start, stop = first // 4, -(-(first + count) // 4)
    quad = torch.arange(start, stop, device=keys.device)
    counter = [quad & _MASK, quad >> 32, step & _MASK, (step >> 32) & _MASK]
    key = [keys[:, None] & _MASK, (keys[:, None] >> 32) & _MASK]
    for _ in range(_ROUNDS):  # products wrap around at 64 bits, and a shift's copies of the sign are masked
        low, high = counter[2] * _FACTORS[1], counter[0] * _FACTORS[0]
        counter = [
            (low >> 32 & _MASK) ^ counter[1] ^ key[0],
            low & _MASK,
            (high >> 32 & _MASK) ^ counter[3] ^ key[1],
            high & _MASK,
        ]
        key = [(part + add) & _MASK for part, add in zip(key, _WEYL, strict=True)]
    words = torch.stack(counter, dim=-1).flatten(-2)
    return words[:, first - 4 * start : first - 4 * start + count]


def drawn(kind: str, keys: Tensor, step: Tensor, first: int, count: int, dtype: torch.dtype) -> Tensor:
    """Numbers `[E, count]` made of the words of `philox`.

    A uniform number is a word's upper 24 bits (in float64 all) as a fraction. A pair of words gives two normals by the
    method of Box and Muller, from a radius of (word + ½)·2⁻³² and an angle of the other word.
    """
    if kind == "uniform":
        words = philox(keys, step, first, count)
        return (words >> 8).to(dtype) * 2.0**-24 if dtype == torch.float32 else words.to(dtype) * 2.0**-32
    start = first // 4 * 4
    words = philox(keys, step, start, -(-(first + count - start) // 4) * 4).unflatten(-1, (-1, 2))
    radius = ((words[..., 0].to(dtype) * 2.0**-32 + 2.0**-33).log() * -2.0).sqrt()
    signed = torch.where(words[..., 1] < 2**31, words[..., 1], words[..., 1] - 2**32)
    angle = signed.to(dtype) * (2.0 * math.pi * 2.0**-32)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(-2)
    return pairs[:, first - start : first - start + count]
