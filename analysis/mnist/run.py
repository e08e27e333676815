"""What is computed on MNIST: a linear decoder's exact gaps, and a stack of deep models, trained and evaluated.

Whatever is finished lies in the folder and is not computed again; training goes on from its latest checkpoint.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import toyiwae
from analysis.studies._trained import methods
from toyiwae.files import write_atomic
from toyiwae.networks.data.images import Images
from toyiwae.networks.runs import checkpoints
from toyiwae.networks.runs.run import Run, load_run
from toyiwae.networks.runs.train import train

PARTICLES, PICTURES = 64, ("reconstructions", "samples")


@dataclass(frozen=True)
class Plan:
    """Sizes of everything.

    Attributes:
        latents: of the linear decoder.
        linear_images: test images with an exact gap.
        encoder_images: images that its encoder is fitted to.
        linear_k: K of the gaps.
        train, epochs: training images (None for all), and how often each is used at most.
        test: images of the evaluation.
        largest_k: of the estimate of log p(x).
        curve_images: test images of the curves.
        metrics_every, checkpoint_every: steps.
    """

    latents: int
    linear_images: int
    encoder_images: int
    linear_k: tuple[int, ...]
    train: int | None
    epochs: int
    test: int
    largest_k: int
    curve_images: int
    metrics_every: int
    checkpoint_every: int


QUICK = Plan(50, 300, 300, (1, 64, 5000), 2000, 1, 100, 500, 50, 10, 20)
FULL = Plan(50, 10_000, 300, (1, 64, 5000), None, 20, 1000, 5000, 500, 100, 500)


@dataclass(frozen=True, eq=False)
class Linear:
    """Exact values of the linear decoder, image by image.

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


@dataclass(frozen=True, eq=False)
class Deep:
    """The trained stack.

    Attributes:
        run: as it was when it was evaluated.
        found: the evaluation's numbers, as `evaluation-STEP.json` has them.
        images: a row for every member, image and K.
        curves: own bound of the training batches, a row for every member and line of metrics.
        test_curves: bound with 64 particles of some test images at some checkpoints.
        pictures: name -> a PNG file for every member.
    """

    run: Run
    found: dict[str, Any]
    images: pd.DataFrame
    curves: pd.DataFrame
    test_curves: pd.DataFrame
    pictures: dict[str, list[Path]]

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return -(-len(self.run.images.train) // self.run.settings.training.batch)


def settings(plan: Plan) -> dict[str, Any]:
    """The training's settings: the papers' model, five methods with 64 particles each, one seed."""
    data = {"name": "mnist", "binarisation": "dynamic"} | (
        {} if plan.train is None else {"train": plan.train}
    )
    return {
        "data": data,
        "model": {"kind": "bernoulli_vae", "products": "bfloat16"},
        "members": methods(PARTICLES),
        "training": {"epochs": plan.epochs, "batch": 20, "seeds": [1]},
        "output": {"metrics_every": plan.metrics_every, "checkpoint_every": plan.checkpoint_every, "keep": 0},
    }


def linear(plan: Plan, data: Path, out: Path, note: Callable[[str], Any]) -> Linear:
    """Exact gaps and sample sizes under the maximum-likelihood linear decoder, with an encoder fitted to few images."""
    path, of = out / "linear.npz", _linear_key(plan, data)
    if not path.is_file() or _key_of(path) != of:
        note(f"exact gaps of {plan.linear_images:,} images, {plan.latents} latents")
        problem = toyiwae.mnist_problem(
            data, plan.latents, n_images=plan.linear_images, n_encoder_images=plan.encoder_images
        )
        began = time.process_time()
        answer = toyiwae.exact(problem, K=plan.linear_k, parameters=[])
        seconds = time.process_time() - began
        rows = [cell.per_row or {} for cell in answer.results]
        error = max(cell.gap_error or 0.0 for cell in answer.results)
        log_p = toyiwae.ClosedForms(problem).log_evidence
        gap, ess = (np.array([row[name] for row in rows]) for name in ("gap", "ess"))
        out.mkdir(parents=True, exist_ok=True)
        stream = io.BytesIO()
        np.savez(stream, of=of, K=plan.linear_k, gap=gap, ess=ess, log_p=log_p, error=error, seconds=seconds)
        write_atomic(path, stream.getvalue())
    with np.load(path) as found:
        counts = tuple(int(k) for k in found["K"])
        numbers = {name: float(found[name]) for name in ("error", "seconds")}
        return Linear(counts, found["gap"], found["ess"], found["log_p"], **numbers)


def _linear_key(plan: Plan, data: Path) -> str:
    """What the linear decoder's numbers are of: sizes, version, and the content of the image files."""
    sizes = [plan.latents, plan.linear_images, plan.encoder_images, plan.linear_k]
    found = hashlib.sha256(json.dumps([sizes, toyiwae.__version__]).encode())
    for file in sorted(data.glob("*images*")):
        found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def _key_of(path: Path) -> str | None:
    with np.load(path) as found:
        return str(found["of"]) if "of" in found else None


def deep(
    plan: Plan,
    data: Path,
    out: Path,
    minutes: float | None,
    note: Callable[[str], Any],
    images: Images | None = None,
) -> Deep:
    """Trains as long as there is time, from where it stopped the last time, and evaluates the latest checkpoint.

    Args:
        plan: sizes.
        data: folder of MNIST's files.
        out: where the run and its evaluation lie.
        minutes: of training in this call; None for all epochs, 0 for none.
        note: told what is done, a line each.
        images: in place of MNIST.
    """
    folder = out / "deep"
    own: dict[str, Any] = {"images": images} if images is not None else {"data_dir": data}
    if minutes is None or minutes > 0:
        note("training five methods in one stack")
        train(settings(plan), folder, resume=True, minutes=minutes, note=note, **own)
    run = load_run(folder, **own)
    base = folder / f"evaluation-{run.step}"
    rows = base.with_name(f"{base.name}-images.csv")
    if not rows.is_file():
        note(f"evaluation after step {run.step}")
        found = toyiwae.evaluate(run, K=(1, PARTICLES, plan.largest_k), images=plan.test, note=note)
        found.save(folder)
        write_atomic(rows, found.to_dataframe().to_csv(index=False).encode())
    return Deep(
        run,
        json.loads(base.with_name(f"{base.name}.json").read_text(encoding="utf-8")),
        pd.read_csv(rows),
        run.to_dataframe().reindex(columns=["epoch", "model", "M", "K", "bound"]),  # of no lines yet, too
        _test_curves(plan, run, own, note),
        {
            name: [base.with_name(f"{base.name}-{name}-{e}.png") for e in range(len(run.members))]
            for name in PICTURES
        },
    )


def _test_curves(plan: Plan, run: Run, own: dict[str, Any], note: Callable[[str], Any]) -> pd.DataFrame:
    """Bounds of the first test images at about ten checkpoints; each is computed once and kept."""
    assert run.folder is not None
    path = run.folder / "curves.csv"
    parts = [pd.read_csv(path)] if path.is_file() else []
    known = set(parts[0].step) if parts else set()
    steps = [checkpoints.step_of(file) for file in checkpoints.found(run.folder / "checkpoints")]
    chosen = sorted({steps[i] for i in np.linspace(0, len(steps) - 1, 11).round().astype(int)} - {0})
    for step in [step for step in chosen if step not in known]:
        earlier = load_run(run.folder, step=step, **own)
        found = toyiwae.evaluate(earlier, K=(PARTICLES,), images=plan.curve_images, note=note).bounds.bound
        rows = [
            {"step": step, **vars(member), "bound": found[e, 0].mean()}
            for e, member in enumerate(run.members)
        ]
        parts.append(pd.DataFrame(rows))
        write_atomic(path, pd.concat(parts).to_csv(index=False).encode())
    table = pd.concat(parts)
    return table[table.step.isin(chosen)].sort_values("step", kind="stable")
