"""Batches of a stack: every member goes through the images in an order of its own, keyed by its seed."""

from __future__ import annotations

import torch

from toyiwae.networks.counters import Counters
from toyiwae.networks.data.images import Images
from toyiwae.networks.noise import Noise

Tensor = torch.Tensor


class Batches:
    """The batches of every step, the same whenever they are asked for.

    Each epoch takes every image once, in an order keyed by the member's seed and the epoch; the last batch of an epoch
    holds what is left. Dynamic binarisation is keyed by seed and step.

    Attributes:
        per_epoch: steps of an epoch.
    """

    def __init__(self, images: Images, noise: Noise, size: int):
        """Puts the training images on the device.

        Args:
            images: with their binarisation.
            noise: the members' seeds, the device and the dtype of the batches.
            size: images of a batch, at most as many as there are.
        """
        self._images = torch.from_numpy(images.train.copy()).to(noise.device)
        self._dynamic = images.binarisation == "dynamic"
        self._noise, self._size = noise, size
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)
        self.per_epoch = -(-len(images.train) // size)

    def at(self, step: int) -> Tensor:
        """The batch `[E, B, D_x]` of a step counted from 0, in the noise's dtype."""
        epoch, place = divmod(step, self.per_epoch)
        if epoch != self._epoch:
            order = self._noise.at(epoch).permutation("order of images", len(self._images))
            self._epoch, self._order = epoch, order.to(self._images.device)
        chosen = self._images[self._order[:, place * self._size : (place + 1) * self._size]]
        return observed(chosen, self._noise.at(step), dynamic=self._dynamic)


class DeviceBatches(Batches):
    """The same batches, of a step that a tensor on the device holds: the host reads and sends nothing.

    `turn` brings the order of an epoch, before its first step.
    """

    def __init__(self, images: Images, noise: Counters, size: int):
        """As `Batches`."""
        super().__init__(images, noise, size)
        self._counters = noise
        device = self._images.device
        shape = len(noise.seeds), len(self._images)
        self._turned = torch.empty(shape, dtype=torch.int64, device=device)
        self._places = torch.arange(size, device=device)

    def count(self, step: int) -> int:
        """Images of the batch of a step."""
        return min(self._size, len(self._images) - step % self.per_epoch * self._size)

    def turn(self, epoch: int) -> None:
        """Puts the order of an epoch where `now` reads it."""
        self._turned.copy_(self._noise.at(epoch).permutation("order of images", len(self._images)))

    def now(self, clock: Tensor, count: int) -> Tensor:
        """The batch `[E, count, D_x]` of the step that an int64 tensor `[]` holds, of the epoch of `turn`."""
        places = clock % self.per_epoch * self._size + self._places[:count]
        chosen = self._images[self._turned.index_select(1, places)]
        return observed(chosen, self._counters.at(clock), dynamic=self._dynamic)


def observed(images: Tensor, noise: Noise, *, dynamic: bool) -> Tensor:
    """What the model sees of images, in the noise's dtype.

    Args:
        images: `[E, B, D_x]`, ink in [0, 1] or uint8.
        noise: of the step.
        dynamic: whether each pixel is drawn from Bernoulli(ink).
    """
    ink = images.to(noise.dtype) / 255 if images.dtype == torch.uint8 else images.to(noise.dtype)
    if not dynamic:
        return ink
    return (noise.uniform("binarisation", ink.shape[1], (ink.shape[2],)) < ink).to(noise.dtype)
