"""Runs killed at random moments (SIGKILL) and resumed end as the uninterrupted run does, byte for byte.

    python -m tests.crashes [KILLS [SEED]]

A life of a run is a forked process, so that it starts at once; it dies wherever it is: while it starts, cuts the
metrics, makes steps, appends metrics, writes or deletes a checkpoint. Runs go on until so many lives were taken; the
exit status is 1 unless each ended with the metrics and the last checkpoints of the run that nobody killed.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from toyiwae.networks.data.images import Images, of_arrays
from toyiwae.networks.runs.train import train

SETTINGS = {
    "data": {"binarisation": "dynamic"},
    "model": {"kind": "bernoulli_vae", "latents": 3, "hidden": [8]},
    "members": [
        {"estimator": "iwae", "K": 6},
        {"model": "iwae", "proposal": "dreg", "M": 2, "K": 3},
    ],
    "training": {"epochs": 60, "batch": 8, "seeds": [1, 2]},
    "output": {"metrics_every": 3, "checkpoint_every": 5},
}
LONGEST = 0.5
"""Seconds that a life lasts at most."""


def images() -> Images:
    """Fifty small images: epochs of seven steps, the last one with two images."""
    grey = np.random.default_rng(4).random((60, 12), np.float32)
    return of_arrays("random", grey[:50], grey[50:])


def content(folder: Path) -> dict[str, bytes]:
    """What of a run must not depend on when it was interrupted."""
    files = [folder / "settings.toml", folder / "metrics.jsonl", *sorted((folder / "checkpoints").iterdir())]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def life(folder: Path, seconds: float = math.inf) -> bool:
    """Starts or resumes a run in a process of its own and kills it after some time; whether it was killed.

    Raises:
        RuntimeError: it ended with an error.
    """
    child = os.fork()
    if not child:
        code = 1
        try:
            train(SETTINGS, folder, resume=True, images=images())
            code = 0
        finally:
            os._exit(code)
    end, status = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.001)
    else:
        os.kill(child, signal.SIGKILL)  # it is not reaped yet, so the number is still its own
        status = os.waitpid(child, 0)[1]
    if not os.WIFSIGNALED(status) and os.WEXITSTATUS(status):
        raise RuntimeError(f"a run in {folder} ended with an error")
    return os.WIFSIGNALED(status)


def main(kills: int, seed: int) -> int:
    """Runs until `kills` lives were taken; the exit status."""
    chance, taken, runs, wrong = random.Random(seed), 0, 0, 0
    with tempfile.TemporaryDirectory() as temporary:
        life(Path(temporary, "whole"))
        expected = content(Path(temporary, "whole"))
        while taken < kills:
            runs += 1
            folder = Path(temporary, f"run {runs}")
            while life(folder, chance.uniform(0.0, LONGEST) if taken < kills else math.inf):
                taken += 1
            wrong += content(folder) != expected
    print(f"{taken} kills in {runs} runs: {wrong} ended otherwise than the uninterrupted run")
    return int(wrong > 0)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    sys.exit(main(*(numbers + [50, 0][len(numbers) :])))
