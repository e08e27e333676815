"""Averages over images, not over batches: the last batch may be smaller, and what pads it does not count.

    mean = Σ_batches Σ_images value / Σ_batches (number of images)

The mean of batches' means gives an image of a short last batch more weight than the others; padded images, which a
sampler repeats so that all processes have as many, would count twice. Totals and counts of several processes add up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class ImageAverage:
    """An average over images that grows batch by batch.

    Attributes:
        total: sum over the images so far `[...]`, in float64.
        count: how many images.
    """

    total: Tensor
    count: int = 0

    @classmethod
    def empty(cls, *shape: int, device: torch.device | str = "cpu") -> ImageAverage:
        """No images yet; `shape` is that of one image's value."""
        return cls(torch.zeros(shape, dtype=torch.float64, device=device))

    def add(self, values: Any, real: Any = None) -> ImageAverage:
        """With the values of one more batch.

        Args:
            values: `[..., B]`, one for each image.
            real: which of the B images count `[B]`; false for padding, whose values may be anything.
        """
        values = torch.as_tensor(values, device=self.total.device).to(torch.float64)
        if real is None:
            return ImageAverage(self.total + values.sum(-1), self.count + values.shape[-1])
        real = torch.as_tensor(real, dtype=torch.bool, device=self.total.device)
        return ImageAverage(self.total + values[..., real].sum(-1), self.count + int(real.sum()))

    def add_mean(self, mean: Tensor, count: int) -> ImageAverage:
        """With one more batch, of whose `count` images the mean is known."""
        return ImageAverage(self.total + count * mean.to(torch.float64), self.count + count)

    def merge(self, other: ImageAverage) -> ImageAverage:
        """With the images of another process."""
        return ImageAverage(self.total + other.total, self.count + other.count)

    @property
    def mean(self) -> Tensor:
        """The mean over all images `[...]`; NaN if there is none."""
        return self.total / self.count if self.count else torch.full_like(self.total, torch.nan)
