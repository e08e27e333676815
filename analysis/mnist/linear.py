"""The linear decoder on images: exact gaps and effective sample sizes, image by image."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import toyiwae
from analysis.mnist import kept
from analysis.mnist.plans import Plan


@dataclass(frozen=True, eq=False)
class Linear:
    """Exact values, image by image.

    Attributes:
        K: numbers of particles.
        gap, ess: `[nK, N]`, gaps in nats.
        log_p: exact log p(x) `[N]`.
        error: largest bound on the error of a gap, in nats.
        seconds: processor time that the answers took.
    """

    K: tuple[int, ...]
    gap: np.ndarray
    ess: np.ndarray
    log_p: np.ndarray
    error: float
    seconds: float


def linear(plan: Plan, data: Path, out: Path, note: Callable[[str], Any]) -> Linear:
    """Exact values under the maximum-likelihood linear decoder, with an encoder fitted to few images.

    Args:
        plan: sizes.
        data: folder of IDX files.
        out: where `linear.npz` lies, for these sizes and files alone.
        note: told what is done, a line each.
    """
    sizes = [plan.latents, plan.linear_images, plan.encoder_images, plan.linear_k]

    def compute() -> Mapping[str, Any]:
        note(f"exact gaps of {plan.linear_images:,} images, {plan.latents} latents")
        problem = toyiwae.mnist_problem(
            data, plan.latents, n_images=plan.linear_images, n_encoder_images=plan.encoder_images
        )
        began = time.process_time()
        answer = toyiwae.exact(problem, K=plan.linear_k, parameters=[])
        seconds = time.process_time() - began
        rows = [cell.per_row or {} for cell in answer.results]
        gap, ess = (np.array([row[name] for row in rows]) for name in ("gap", "ess"))
        return {
            "K": plan.linear_k,
            "gap": gap,
            "ess": ess,
            "log_p": toyiwae.ClosedForms(problem).log_evidence,
            "error": max(cell.gap_error or 0.0 for cell in answer.results),
            "seconds": seconds,
        }

    images = sorted(path for path in data.glob("**/*images*") if path.is_file())
    found = kept.taken(out / "linear.npz", kept.key(sizes, *images), compute)
    counts = tuple(int(k) for k in found["K"])
    return Linear(
        counts, found["gap"], found["ess"], found["log_p"], float(found["error"]), float(found["seconds"])
    )
