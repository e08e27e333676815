"""The deep model on images: its stacks trained as far as there is time, and what is measured of them.

A stack's run lies in a folder of its own; what was measured lies below it, a file for every checkpoint that was looked
at, each taken again only for the same checkpoint and arguments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import toyiwae
from analysis import gradients
from analysis.mnist import kept
from analysis.mnist.plans import BATCH, PARTICLES, Plan
from toyiwae.networks.data.images import Images
from toyiwae.networks.runs import checkpoints
from toyiwae.networks.runs.run import Run, load_run
from toyiwae.networks.runs.train import train

Note = Callable[[str], Any]


@dataclass(frozen=True, eq=False)
class Place:
    """Where things are.

    Attributes:
        data: folder of the IDX files.
        images: what it holds, grey.
        home: of this plan's results.
    """

    data: Path
    images: Images
    home: Path

    @property
    def name(self) -> str:
        """Of the images, as settings have it."""
        return "mnist" if self.images.name == "mnist" else "idx"


@dataclass(frozen=True, eq=False)
class Stack:
    """A stack as it was when it was measured.

    Attributes:
        name: of the stack.
        run: after its latest checkpoint.
        evaluation: bound, ess `[E, nK, N]`, pareto_k `[E, N]`, K, unit_variances `[E, D]`, and the pictures
            `[E, height, width]`.
        curve: step -> mean over test images of the bound with 64 particles `[E]`.
        snr: step -> layer -> (SNR, standard error of its logarithm) `[2, E]`.
    """

    name: str
    run: Run
    evaluation: kept.Arrays
    curve: Mapping[int, np.ndarray]
    snr: Mapping[int, kept.Arrays]

    @property
    def per_epoch(self) -> int:
        """Steps of an epoch."""
        return steps_of_epoch(self.run.images)


def steps_of_epoch(images: Images) -> int:
    """Steps of an epoch over these training images."""
    return -(-len(images.train) // BATCH)


def train_stacks(plan: Plan, place: Place, minutes: float | None, epochs: int | None, note: Note) -> None:
    """Trains one stack after another, each from where it stopped the last time.

    Args:
        plan: sizes.
        place: of images and results.
        minutes: of training in this call, at least a step; 0 for none, None for no limit.
        epochs: after how many, counted from the first, each stack stops; by default the plan's.
        note: told what is done, a line each.
    """
    until = None if minutes is None else time.monotonic() + 60.0 * minutes
    per_epoch = steps_of_epoch(place.images.first(plan.train))
    last = min(epochs or plan.epochs, plan.epochs)
    goals = [*(epoch for epoch in plan.milestones if epoch < last), last]
    work = [(name, goal) for name in plan.stacks for goal in goals]
    left = [(name, goal) for name, goal in work if reached(place.home / name) < goal * per_epoch]
    for index, (name, goal) in enumerate(left):
        seconds = None if until is None else until - time.monotonic()
        if index and seconds is not None and seconds <= 0.0:
            return
        note(f"training {name!r} up to epoch {goal:,} of {plan.epochs:,}")
        train(
            plan.settings(name, place.name),
            place.home / name,
            resume=True,
            minutes=None if seconds is None else max(seconds, 1e-3) / 60.0,
            steps=goal * per_epoch,
            data_dir=place.data,
            note=note,
        )


def reached(folder: Path) -> int:
    """Step of a run's latest checkpoint; 0 if there is none."""
    found = checkpoints.found(folder / "checkpoints")
    return checkpoints.step_of(found[-1]) if found else 0


def measure(plan: Plan, place: Place, note: Note) -> list[Stack]:
    """What there is of each stack that has been trained for a step at least."""
    return [_measured(plan, place, name, note) for name in plan.stacks if reached(place.home / name)]


def _measured(plan: Plan, place: Place, name: str, note: Note) -> Stack:
    folder = place.home / name
    files = {checkpoints.step_of(path): path for path in checkpoints.found(folder / "checkpoints")}
    steps = _regular(plan, place, [step for step in files if step])
    last = load_run(folder, step=steps[-1], images=place.images)

    def at(step: int) -> Run:
        return last if step == last.step else load_run(folder, step=step, images=place.images)

    def taken(what: str, step: int, arguments: Any, compute: Callable[[], Mapping[str, Any]]) -> kept.Arrays:
        path = folder / "measured" / f"{what}-{step}.npz"
        return kept.taken(path, kept.key([what, arguments], files[step]), compute)

    def evaluation() -> Mapping[str, Any]:
        note(f"evaluation of {name!r} after step {last.step:,}")
        found = toyiwae.evaluate(last, K=(1, PARTICLES, plan.largest_k), images=plan.test, note=note)
        arrays = {key: getattr(found.bounds, key) for key in ("bound", "ess", "pareto_k")}
        arrays |= {"K": found.bounds.K, "unit_variances": found.unit_variances}
        return arrays | dict(found.pictures)

    def curve(step: int) -> Mapping[str, Any]:
        found = toyiwae.evaluate(at(step), K=(PARTICLES,), images=plan.curve_images, note=lambda line: None)
        return {"bound": found.bounds.bound[:, 0].mean(-1)}

    def snr(step: int) -> Mapping[str, Any]:
        note(f"signal-to-noise ratios of {name!r} after step {step:,}, {plan.snr_replicates:,} replicates")
        found = gradients.layer_snr(at(step), images=plan.snr_images, replicates=plan.snr_replicates)
        return {layer: np.stack([one.snr, one.log_snr_se]) for layer, one in found.items()}

    sizes = [1, PARTICLES, plan.largest_k, plan.test]
    evaluated = taken("evaluation", last.step, sizes, evaluation)
    looked = [PARTICLES, plan.curve_images]
    staged = plan.schedule == "stages"
    curves = {
        step: taken("curve", step, looked, lambda step=step: curve(step))["bound"]
        for step in spread(steps, plan.curve_points, even=not staged)
    }
    drawn = [plan.snr_images, plan.snr_replicates]
    ratios = {
        step: taken("snr", step, drawn, lambda step=step: snr(step))
        for step in spread(steps, plan.snr_points, even=False)
    }
    return Stack(name, last, evaluated, curves, ratios)


def _regular(plan: Plan, place: Place, steps: list[int]) -> list[int]:
    """The last step, and those before it that do not depend on where a run was interrupted."""
    per_epoch = steps_of_epoch(place.images.first(plan.train))
    ends = {epoch * per_epoch for epoch in plan.milestones}
    return [step for step in steps if step % plan.checkpoint_every == 0 or step in ends or step == steps[-1]]


def spread(steps: Sequence[int], count: int, *, even: bool) -> list[int]:
    """At most so many of some steps, the first and the last among them, evenly or evenly on the scale of logarithms."""
    places = (np.linspace if even else np.geomspace)(steps[0], steps[-1], count)
    return sorted({min(steps, key=lambda step: abs(step - place)) for place in places})
