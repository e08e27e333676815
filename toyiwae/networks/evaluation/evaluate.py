"""`toyiwae.evaluate`: everything that is measured of a trained run, in one record."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from toyiwae import arguments, records
from toyiwae.checks import shown
from toyiwae.errors import InputError
from toyiwae.networks.data.batches import observed
from toyiwae.networks.evaluation import annealing, diagnostics
from toyiwae.networks.evaluation.bounds import image_bounds
from toyiwae.networks.evaluation.exact import exact_bounds, exact_snr
from toyiwae.networks.evaluation.record import Evaluation
from toyiwae.networks.evaluation.simulated import refuse_binary
from toyiwae.networks.latent import LatentModel
from toyiwae.networks.noise import Noise
from toyiwae.networks.runs.run import Run, load_run
from toyiwae.networks.users import ModuleModel

Tensor = torch.Tensor

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

    Returns:
        The evaluation, with exact values beside the estimates where the decoder is linear and its pixels Gaussian.

    Raises:
        InputError: no such run, counts out of range, annealing with binary latents, or what a user's module cannot.
    """
    counts = arguments.whole_numbers(K, "K")
    whole = {
        "annealing_steps": annealing_steps,
        "snr_replicates": snr_replicates,
        "snr_images": snr_images,
        "seed": seed,
    }
    for name, value in whole.items():
        arguments.whole_number(value, name, minimum=0)
    for name, value in {"annealing_images": annealing_images, "chains": chains}.items():
        arguments.whole_number(value, name)
    if isinstance(run, Run) and (step is not None or data_dir is not None):
        raise InputError(
            "step and data_dir belong to a run's folder: give the folder, or load_run's arguments"
        )
    loaded = run if isinstance(run, Run) else load_run(run, step=step, data_dir=data_dir)
    if snr_replicates == 1:
        raise InputError(f"snr_replicates is {shown(1)}: expected at least 2, or 0 for none")
    test = loaded.images.test
    test = test if images is None else test[: arguments.whole_number(images, "images", maximum=len(test))]
    model, members = loaded.model, loaded.members
    module = isinstance(model, ModuleModel)
    if module and (annealing_steps or snr_replicates):
        raise InputError(
            "annealing_steps and snr_replicates need a model of toyiwae: expected 0 of both for a module of yours"
        )
    if annealing_steps:
        refuse_binary(model, "annealing")
    noise = _noise(loaded, seed)
    x = _seen(loaded, test, seed)
    note(f"bounds of {len(test)} images at K = {', '.join(map(str, counts))}")
    bounds = image_bounds(model, x, noise, counts)
    found: dict[str, Any] = {"unit_variances": diagnostics.unit_variances(model, x, noise).cpu().numpy()}
    if annealing_steps:
        some = x[:, : min(annealing_images, len(test))]
        note(
            f"annealing {some.shape[1]} images and {annealing_images} simulated ones, {annealing_steps} temperatures"
        )
        found["annealed"] = annealing.forward(model, some, noise, annealing_steps, chains)
        found["sandwich"] = annealing.sandwich(model, noise, annealing_images, annealing_steps, chains)
    if snr_replicates:
        batch = _seen(loaded, loaded.images.train[: loaded.settings.training.batch], seed)
        note(f"{snr_replicates} gradients of a batch of {batch.shape[1]} images")
        moments = diagnostics.gradient_moments(model, members, batch, noise, snr_replicates)
        found["snr"] = diagnostics.encoder_snr(moments)
    if isinstance(model, LatentModel) and model.linear_gaussian:
        note("exact values")
        found["exact"] = exact_bounds(model, x, bounds)
        if snr_replicates and snr_images:
            note(f"exact signal-to-noise ratios of {min(snr_images, len(test))} images")
            found["exact_snr"] = exact_snr(model, members, x[:, :snr_images], noise, snr_replicates)
    return Evaluation(
        members=members,
        step=loaded.step,
        data=loaded.images.description,
        bounds=bounds,
        pictures={} if module else _pictures(loaded, x[:, :_SHOWN], noise),
        provenance=records.provenance(
            {"K": list(counts), "images": len(test), "chains": chains, **whole, **loaded.settings.plain()}
        ),
        **found,
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
