"""`toyiwae.evaluate`: everything that is measured of a trained run, in one record."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from toyiwae import arguments, records
from toyiwae.checks import shown
from toyiwae.errors import InputError
from toyiwae.networks.data.batches import observed
from toyiwae.networks.evaluation import annealing, diagnostics
from toyiwae.networks.evaluation.bounds import ImageBounds, image_bounds
from toyiwae.networks.evaluation.exact import exact_bounds, exact_snr
from toyiwae.networks.evaluation.record import Evaluation
from toyiwae.networks.evaluation.simulated import refuse_binary
from toyiwae.networks.latent import LatentModel
from toyiwae.networks.noise import Noise
from toyiwae.networks.runs import ranks
from toyiwae.networks.runs.run import Run, load_run, settings_in
from toyiwae.networks.runs.spread import take_device
from toyiwae.networks.users import ModuleModel

Tensor = torch.Tensor

PATIENCE = 86_400.0
"""Seconds that a process waits for others that have more members or images to evaluate."""

_SHOWN = 24  # images of a picture


def evaluate(
    run: Run | str | os.PathLike[str],
    *,
    K: Any = (1, 64, 5000),
    images: int | None = None,
    annealing_steps: int = 0,
    annealing_images: int = 100,
    chains: int = 16,
    snr_replicates: int = 0,
    snr_images: int = 8,
    seed: int = 0,
    step: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    note: Callable[[str], Any] = lambda line: None,
    spread: bool = False,
) -> Evaluation:
    """Evaluates a trained run on its test images; means are over images, whatever the batches.

    Args:
        run: what `toyiwae.train` or `load_run` gave, or a run's folder.
        K: numbers of particles; the bound of the largest is the estimate of log p(x), 5,000 in the papers.
        images: the first so many test images; by default all.
        annealing_steps: temperatures of annealed importance sampling; 0 for none.
        annealing_images: on how many images, and how many are drawn from the model for the sandwich.
        chains: of each of these.
        snr_replicates: draws of the gradient of one training batch, for the signal-to-noise ratios of the encoder's
            weights; 1,000 in the studies, 0 for none.
        snr_images: with a linear decoder, on how many test images those of the gradients by the proposal's mean are
            compared with exact ones, which take up to seconds an image where the encoder is bad; 0 for none.
        seed: of all random numbers here. Dynamic binarisation is drawn once, the same for all members.
        step: of the checkpoint, with a folder; by default the latest.
        data_dir: where the images' IDX files lie now, with a folder.
        note: told what is computed, one line each.
        spread: divide the members, and images where there are more processes, among those that torchrun has started;
            all must call this alike. Exact values and pictures are the first one's.

    Returns:
        The evaluation, the same in every process, with exact values beside the estimates where the decoder is linear
        and its pixels Gaussian.

    Raises:
        InputError: no such run, counts out of range, annealing with binary latents or of a user's module, gradients of
            an encoder without parameters that are trained.
        ToldElsewhereError: another process had an error.
        ToyiwaeError: another process is gone.
    """
    with ranks.joined(spread, PATIENCE) as others:
        note = note if others.first else _silent
        with others.together():
            counts = tuple(arguments.whole_numbers(K, "K"))
            plan = _Plan(counts, chains, annealing_steps, annealing_images, snr_replicates, snr_images, seed)
            if isinstance(run, Run):
                if step is not None or data_dir is not None:
                    raise InputError(
                        "step and data_dir belong to a run's folder: give the folder, or load_run's arguments"
                    )
                loaded = run
            else:
                take_device(others, settings_in(run).training.device)
                loaded = load_run(run, step=step, data_dir=data_dir)
            test = loaded.images.test
            if images is not None:
                test = test[: arguments.whole_number(images, "images", maximum=len(test))]
            plan.refuse(loaded.model)
            share = ranks.shares(others.size, len(loaded.members))[others.rank]
            own = loaded if others.size == 1 else loaded.only(share.members)
            piece = _measured(own, test, plan, share, note)
        pieces, result = others.at_first(piece), None
        with others.together():
            if others.first:
                result = _assembled(loaded, test, plan, pieces, note)
        return others.from_first(result)


@dataclass(frozen=True)
class _Plan:
    """What is measured: arguments of `evaluate`, checked."""

    counts: tuple[int, ...]
    chains: int
    annealing_steps: int
    annealing_images: int
    snr_replicates: int
    snr_images: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("annealing_steps", "snr_replicates", "snr_images", "seed"):
            arguments.whole_number(getattr(self, name), name, minimum=0)
        for name in ("annealing_images", "chains"):
            arguments.whole_number(getattr(self, name), name)
        if self.snr_replicates == 1:
            raise InputError(f"snr_replicates is {shown(1)}: expected at least 2, or 0 for none")

    def refuse(self, model: Any) -> None:
        """Refuses what a model cannot.

        Raises:
            InputError: annealing of a user's module or of binary latents.
        """
        if isinstance(model, ModuleModel) and self.annealing_steps:
            raise InputError(
                f"annealing_steps is {self.annealing_steps}: expected 0 for a module of yours, whose latents need not"
                " be normal a priori"
            )
        if self.annealing_steps:
            refuse_binary(model, "annealing")

    def plain(self, images: int) -> dict[str, Any]:
        """For the record: what was measured, of how many images."""
        names = ("chains", "annealing_steps", "snr_replicates", "snr_images", "seed")
        return {"K": list(self.counts), "images": images, **{name: getattr(self, name) for name in names}}


def _silent(line: str) -> None:
    """Tells nobody what another process tells."""


def _measured(
    run: Run, test: np.ndarray, plan: _Plan, share: ranks.Share, note: Callable[[str], Any]
) -> tuple[int, ImageBounds | None, dict[str, Any]]:
    """Of the members of a run: bounds of this process's images, and all else if they are its own alone or first."""
    model, noise, x = run.model, _noise(run, plan.seed), _seen(run, test, plan.seed)
    batch = _seen(run, run.images.train[: run.settings.training.batch], plan.seed)
    if plan.snr_replicates and isinstance(model, ModuleModel):
        model.encoder_parameters(batch[0], noise)  # refuses before hours of bounds
    note(f"bounds of {len(test)} images at K = {', '.join(map(str, plan.counts))}")
    some, bounds = share.images(len(test)), None
    if some.start < some.stop:
        bounds = image_bounds(model, x[:, some], noise, plan.counts, first=some.start)
    if share.place:
        return share.leader, bounds, {}
    found: dict[str, Any] = {"unit_variances": diagnostics.unit_variances(model, x, noise).cpu().numpy()}
    if plan.annealing_steps:
        steps, chains, simulated = plan.annealing_steps, plan.chains, plan.annealing_images
        some = x[:, : min(simulated, len(test))]
        note(f"annealing {some.shape[1]} images and {simulated} simulated ones, {steps} temperatures")
        found["annealed"] = annealing.forward(model, some, noise, steps, chains)
        found["sandwich"] = annealing.sandwich(model, noise, simulated, steps, chains)
    if plan.snr_replicates:
        note(f"{plan.snr_replicates} gradients of a batch of {batch.shape[1]} images")
        moments = diagnostics.gradient_moments(model, run.members, batch, noise, plan.snr_replicates)
        found["snr"] = diagnostics.encoder_snr(moments)
    return share.leader, bounds, found


def _assembled(
    run: Run,
    test: np.ndarray,
    plan: _Plan,
    pieces: list[tuple[int, ImageBounds | None, dict[str, Any]]],
    note: Callable[[str], Any],
) -> Evaluation:
    """The record of all members, from what every process has measured, with exact values and pictures."""
    images: dict[int, list[ImageBounds]] = {}
    for leader, part, _ in pieces:
        if part is not None:
            images.setdefault(leader, []).append(part)
    bounds = joined([joined(parts, -1) for parts in images.values()], 0)
    measured = [found for _, _, found in pieces if found]
    found = {name: joined([one[name] for one in measured], 0) for name in measured[0]}
    model, noise, x = run.model, _noise(run, plan.seed), _seen(run, test, plan.seed)
    if isinstance(model, LatentModel) and model.linear_gaussian:
        note("exact values")
        found["exact"] = exact_bounds(model, x, bounds)
        if plan.snr_replicates and plan.snr_images:
            note(f"exact signal-to-noise ratios of {min(plan.snr_images, len(test))} images")
            found["exact_snr"] = exact_snr(
                model, run.members, x[:, : plan.snr_images], noise, plan.snr_replicates
            )
    return Evaluation(
        members=run.members,
        step=run.step,
        data=run.images.description,
        bounds=bounds,
        pictures={} if isinstance(model, ModuleModel) else _pictures(run, x[:, :_SHOWN], noise),
        provenance=records.provenance({**plan.plain(len(test)), **run.settings.plain()}),
        **found,
    )


def joined(parts: Sequence[Any], axis: int) -> Any:
    """One array, or one record of arrays, from those of some members or images after others."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts, axis)
    columns = {name: [vars(part)[name] for part in parts] for name in vars(parts[0])}
    return type(parts[0])(
        **{
            name: np.concatenate(column, axis) if isinstance(column[0], np.ndarray) else column[0]
            for name, column in columns.items()
        }
    )


def _noise(run: Run, seed: int) -> Noise:
    """Random numbers of an evaluation: those of no training, whose seeds are below 2⁶³."""
    own = run.noise
    return replace(own, seeds=tuple(2**63 + 2**64 * seed + one for one in own.seeds))


def _seen(run: Run, images: np.ndarray, seed: int) -> Tensor:
    """What the model sees of images, the same for all members `[E, N, D_x]`."""
    own = run.noise
    ink = torch.from_numpy(images.copy()).to(own.device)[None]
    once = replace(own, seeds=(2**63 + 2**64 * seed,))
    return observed(ink, once, dynamic=run.images.binarisation == "dynamic").expand(len(run.members), -1, -1)


def _pictures(run: Run, x: Tensor, noise: Noise) -> dict[str, np.ndarray]:
    """Images above their reconstructions, and samples of the prior."""
    again = diagnostics.reconstructions(run.model, x, noise)
    drawn = diagnostics.samples(run.model, noise, x.shape[1])
    both = torch.cat([x, again], 1)
    return {
        name: np.stack(
            [diagnostics.grid(member.cpu().numpy(), run.images.size, columns) for member in tensors]
        )
        for name, tensors, columns in (("reconstructions", both, x.shape[1]), ("samples", drawn, 0))
    }
