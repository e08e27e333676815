"""Exact gaps and effective sample sizes of MNIST images (50 latents; K = 1, 64 and 5,000), on one core.

The images come from the folder that the environment variable MNIST_DIR names; without it nothing is timed.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator

import torch

import toyiwae
from analysis.benchmarks.timing import Timing

IMAGES, LATENTS, PARTICLES = 10_000, 50, (1, 64, 5000)


def run() -> Iterator[Timing]:
    """One covariance for all images, then one for each; the memory is the largest of the process so far."""
    folder = os.environ.get("MNIST_DIR")
    if not folder:
        print("  skipped: set MNIST_DIR to a folder with MNIST's IDX files", file=sys.stderr)
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for label, options in (("shared", {"n_encoder_images": 300}), ("per-image", {"per_image": True})):
            problem = toyiwae.mnist_problem(folder, LATENTS, n_images=IMAGES, **options)
            started = time.process_time()
            toyiwae.exact(problem, K=PARTICLES, parameters=[])
            seconds = time.process_time() - started
            yield Timing(f"{label} covariance, {IMAGES:,} images", seconds, "CPU seconds")
            yield Timing("  images", IMAGES / seconds, "images/s")
            yield Timing("  peak memory", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB")
    finally:
        torch.set_num_threads(threads)
