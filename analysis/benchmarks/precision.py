"""What rounded products do to IWAE-64 of a trained run's test images, all by the same particles.

    python -m analysis.benchmarks.precision RUN [DATA_DIR]

prints, for each member, the change of the mean over images, its paired standard error, the largest change of an image,
and the standard error of the mean itself, in nats.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from toyiwae import load_run
from toyiwae.networks.data.batches import observed
from toyiwae.networks.evaluation.bounds import image_bounds
from toyiwae.networks.noise import Noise
from toyiwae.networks.products import PRODUCTS

PARTICLES, BINARISED, DRAWN = 64, 0, 7


def changes(run: Any, images: int | None = None) -> dict[str, np.ndarray]:
    """Bounds with 64 particles `[E, N]` by precision of the products, in nats.

    Args:
        run: a trained one, in float32.
        images: test images, the first; by default all.
    """
    ink = torch.from_numpy(run.images.test[:images].copy())
    x = observed(ink[None], Noise((BINARISED,)), dynamic=run.images.binarisation == "dynamic")
    x = x.expand(len(run.members), -1, -1)
    noise = Noise(tuple(member.seed for member in run.members), DRAWN)
    found = {}
    for products in PRODUCTS:
        encoder, decoder = (replace(net, products=products) for net in (run.model.encoder, run.model.decoder))
        model = replace(run.model, encoder=encoder, decoder=decoder)
        found[products] = image_bounds(model, x, noise, [PARTICLES]).bound[:, 0]
    return found


def main(arguments: list[str]) -> None:
    """Prints the table."""
    torch.set_num_threads(1)
    run = load_run(arguments[0], data_dir=arguments[1] if len(arguments) > 1 else None)
    found = changes(run)
    exact = found["float32"]
    for products in PRODUCTS[1:]:
        for member, bound, change in zip(run.members, exact, found[products] - exact, strict=True):
            se, paired = (values.std(ddof=1) / len(values) ** 0.5 for values in (bound, change))
            print(
                f"{products} {member.model} M={member.M} K={member.K}: {change.mean():+.4f} ± {paired:.4f}, largest"
                f" {abs(change).max():.3f}; the mean is {bound.mean():.2f} ± {se:.2f}"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
