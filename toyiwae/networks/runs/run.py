"""A run: settings, images, the model with its parameters, and what was measured while it was trained."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from toyiwae import records
from toyiwae.arguments import whole_number
from toyiwae.errors import InputError
from toyiwae.networks import models
from toyiwae.networks.counters import Counters
from toyiwae.networks.data.images import Images, images_named
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.runs import checkpoints
from toyiwae.networks.runs.settings import Settings, read
from toyiwae.networks.runs.tables import Module
from toyiwae.networks.users import module_of

Tensor = torch.Tensor


@dataclass(frozen=True, eq=False)
class Run:
    """A trained model and where it comes from.

    Attributes:
        settings: all of them.
        members: of the stack, in the order of the member axis E.
        model: with the parameters `[E, ...]` after `step` steps.
        images: training and test images, with their binarisation.
        step: steps made.
        metrics: a record for every line of `metrics.jsonl`: step, epoch, data, and bound and ess `[E]`.
        folder: of the run; None if nothing was written.
    """

    settings: Settings
    members: tuple[Member, ...]
    model: Any
    images: Images
    step: int
    metrics: tuple[Mapping[str, Any], ...] = ()
    folder: Path | None = None

    @property
    def noise(self) -> Noise:
        """The members' random numbers, on the model's device and in its dtype."""
        return noise_of(self.settings, self.members)

    def only(self, members: slice) -> Run:
        """The run of some members, with parameters of its own."""
        found = fresh(self.settings, self.images, members)
        for name, value in found.model.parameters.items():
            value.copy_(self.model.parameters[name][members])
        return Run(self.settings, found.members, found.model, self.images, self.step, folder=self.folder)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for strict JSON: every member with its last bound and effective sample size, and provenance."""
        last: Mapping[str, Any] = self.metrics[-1] if self.metrics else {}
        none = [None] * len(self.members)
        measured = zip(last.get("bound", none), last.get("ess", none), strict=True)
        return {
            "step": self.step,
            "data": self.images.description,
            "members": [
                {**vars(member), "bound": bound, "ess": ess}
                for member, (bound, ess) in zip(self.members, measured, strict=True)
            ],
            "provenance": records.provenance(self.settings.plain()),
        }

    def to_dataframe(self) -> Any:
        """A pandas data frame with a row for every line of the metrics and every member.

        Raises:
            MissingExtraError: if pandas is not installed; the message names the extra.
        """
        return records.to_dataframe(
            {**line, **vars(member), "bound": line["bound"][index], "ess": line["ess"][index]}
            for line in self.metrics
            for index, member in enumerate(self.members)
        )


def load_run(
    path: str | os.PathLike[str],
    *,
    step: int | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    images: Images | None = None,
) -> Run:
    """The run in a folder, as it was at a checkpoint.

    Args:
        path: the folder.
        step: of the checkpoint; by default the latest.
        data_dir: where the IDX files of its images lie now; by default where they were.
        images: of your own, grey, if it was trained on such.

    Raises:
        InputError: no run or no such checkpoint there, damaged files, or other images than it was trained on.
    """
    home, settings = Path(path), settings_in(path)
    folder = home / "checkpoints"
    found = {checkpoints.step_of(file): file for file in checkpoints.found(folder)}
    if step is not None and whole_number(step, "step", minimum=0) not in found:
        raise InputError(
            f"step is {step}: expected one of {', '.join(map(str, found)) or 'none'}, the checkpoints"
        )
    if not found:
        raise InputError(f"no checkpoint in {str(folder)!r} yet")
    checkpoint = checkpoints.load(found[max(found) if step is None else step])
    run = fresh(settings, images_of(settings, data_dir, images))
    adopt(run, checkpoint)
    metrics = tuple(line for line in read_metrics(home) if line["step"] <= checkpoint.step)
    return Run(run.settings, run.members, run.model, run.images, checkpoint.step, metrics, home)


def settings_in(path: str | os.PathLike[str]) -> Settings:
    """The settings of the run in a folder.

    Raises:
        InputError: there is none.
    """
    home = Path(path)
    if not (home / "settings.toml").is_file():
        raise InputError(f"no run in {str(home)!r}: expected a folder that `toyiwae train` wrote")
    return read(home / "settings.toml")


def fresh(settings: Settings, data: Images, own: slice = slice(None)) -> Run:
    """A run before its first step, with all members of the settings or some.

    Raises:
        InputError: arguments that the model refuses, more images in a batch than there are, no such device.
    """
    members, training = settings.stack()[own], settings.training
    if training.batch > len(data.train):
        raise InputError(
            f"training.batch is {training.batch}: expected at most {len(data.train)}, all images"
        )
    if settings.model.kind == "module" and training.random == "philox":
        raise InputError(
            "training.random is 'philox': a module of yours draws torch's numbers; expected auto or torch"
        )
    noise = noise_of(settings, members)
    ink = data.train.mean(axis=0, dtype="float64") / (255 if data.train.dtype == "uint8" else 1)
    try:
        model = _model(settings, noise, ink)
    except InputError as error:
        raise InputError(f"model: {error}") from None
    return Run(settings, members, model, data, 0)


def _model(settings: Settings, noise: Noise, ink: Any) -> Any:
    """The model before its first step."""
    where: dict[str, Any] = {"device": noise.device, "dtype": noise.dtype}
    if isinstance(settings.model, Module):
        if settings.training.compile:
            raise InputError("a module of yours is not compiled here: expected training.compile = false")
        return module_of(settings.model.file, ink, noise.seeds[0], **where)
    options = settings.model.model_dump(exclude={"kind"})
    return getattr(models, settings.model.kind)(noise.seeds, ink, **options, **where)


def images_of(
    settings: Settings, data_dir: str | os.PathLike[str] | None = None, own: Images | None = None
) -> Images:
    """The images that the settings name, or the user's own, binarised as the settings say."""
    data = settings.data
    grey = images_named(data.name, data_dir or data.folder or None) if own is None else own
    return grey.first(data.train, data.test).binarised(data.binarisation, data.binarisation_seed)


def located(settings: Settings, data_dir: str | os.PathLike[str] | None) -> Settings:
    """The settings with the folder where the images lie now, if one is given."""
    if data_dir is None:
        return settings
    own = settings.data.model_copy(update={"folder": os.path.abspath(data_dir)})
    return settings.model_copy(update={"data": own})


def noise_of(settings: Settings, members: tuple[Member, ...]) -> Noise:
    """The members' random numbers, on the device and in the dtype of the training.

    Raises:
        InputError: a device that does not exist.
    """
    training = settings.training
    try:
        device = torch.device(training.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"training.device is {training.device!r}: {reason}; use cpu") from None
    dtype = {"float32": torch.float32, "float64": torch.float64}[training.dtype]
    kind = Counters if settings.counters else Noise
    return kind(tuple(member.seed for member in members), device=device, dtype=dtype)


def adopt(run: Run, checkpoint: checkpoints.Checkpoint) -> None:
    """Takes over the parameters of a checkpoint, in place.

    Raises:
        InputError: it belongs to other settings or other images.
    """
    if checkpoint.settings != run.settings.content_hash:
        raise InputError(f"the checkpoint of step {checkpoint.step} belongs to a run with other settings")
    if checkpoint.images != run.images.content_hash:
        raise InputError(f"{run.images.description}: these are other images than the run was trained on")
    for name, parameter in run.model.parameters.items():
        parameter.copy_(checkpoint.tensors[f"parameters.{name}"])


def read_metrics(folder: Path) -> tuple[dict[str, Any], ...]:
    """The lines of a run's metrics; one that was not written to its end is left out."""
    path = folder / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").split("\n")[:-1] if path.is_file() else []
    return tuple(json.loads(line) for line in lines)
