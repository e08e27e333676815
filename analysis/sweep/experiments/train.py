"""One training and what it reached, as `toyiwae.train` and `toyiwae.evaluate` give it."""

from __future__ import annotations

import functools
import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

import toyiwae
from analysis.settings import Settings
from analysis.sweep.experiment import Experiment
from analysis.sweep.experiments._problem import Count, Seed
from toyiwae.errors import InputError
from toyiwae.networks.runs.settings import read
from toyiwae.networks.runs.tables import DataSettings
from toyiwae.problems.idx import find_idx

CODE = ("model.file", "model.code", "members.code.")
"""What `numbers` calls the user's own files."""


class TrainSettings(Settings):
    """A cell: the tables of a training's settings, with one member.

    Attributes:
        data, model, training, output: tables as `toyiwae train` takes them, without seeds and learning rates.
        estimator: of all gradients; or
        model_estimator, proposal_estimator: of the decoder's and the encoder's.
        K, M, seed, learning_rate: of the member.
        test_k: particles of the estimate of the test images' log-likelihood.
        test_images: the first so many; by default all.
        contents: SHA-256 of the images' files and of the user's own code, by what names it; not to be set.
        folder: where runs keep checkpoints, so that one that was interrupted goes on; "" for nowhere.
    """

    data: dict[str, Any] = Field(default_factory=dict)
    model: dict[str, Any]
    training: dict[str, Any]
    output: dict[str, Any] = Field(default_factory=dict)
    estimator: str | None = None
    model_estimator: str | None = None
    proposal_estimator: str | None = None
    K: Count
    M: Count = 1
    seed: Seed = 0
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    test_k: Count = 64
    test_images: Count | None = None
    contents: dict[str, str] = Field(default_factory=dict)
    folder: str = ""
    device: Literal["cpu", "cuda"] = "cpu"


def tables_of(settings: Any) -> dict[str, Any]:
    """The tables of a training's settings file."""
    names = {
        "estimator": settings.estimator,
        "model": settings.model_estimator,
        "proposal": settings.proposal_estimator,
    }
    member = {key: value for key, value in names.items() if value is not None}
    own = {
        "seeds": [settings.seed],
        "learning_rates": [settings.learning_rate],
        "device": settings.device,
    }
    return {
        "data": settings.data,
        "model": settings.model,
        "members": [member | {"K": settings.K, "M": settings.M}],
        "training": settings.training | own,
        "output": settings.output,
    }


def check(settings: TrainSettings) -> TrainSettings:
    """Settings with all defaults of a training.

    Raises:
        InputError: what `toyiwae train` refuses; seeds, learning rates or a device of the tables' own.
    """
    for name, instead in {"seeds": "seed", "learning_rates": "learning_rate", "device": "device"}.items():
        if name in settings.training:
            raise InputError(f"training.{name} is given: expected {instead} of the cell")
    found = read(tables_of(settings))
    full = found.plain()
    for name in ("seeds", "learning_rates", "device"):
        del full["training"][name]
    tables = {key: full[key] for key in ("data", "model", "training", "output")}
    code = {key: value for key, value in found.numbers().items() if key in CODE or key.startswith(CODE)}
    return settings.model_copy(update=tables | {"contents": code | _images(found.data)})


def _images(data: DataSettings) -> dict[str, str]:
    """The SHA-256 of each of a data set's files of the user's own; others are known byte for byte."""
    if data.name != "idx":
        return {}
    if not data.folder:
        raise InputError("data.name is 'idx': expected the folder of the files in data.folder")
    files = [find_idx(data.folder, split) for split in ("train", "t10k")]
    return {f"data.{file.name}": _content(file, file.stat().st_mtime_ns) for file in files}


@functools.lru_cache
def _content(file: Path, changed: int) -> str:
    """The SHA-256 of a file as it is since a time."""
    with open(file, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def run(settings: Any, block: int) -> dict[str, Any]:
    """The last averages of the training, and bound and log-likelihood of the test images."""
    tables, folder = tables_of(settings), None
    if settings.folder:
        cell = {name: value for name, value in vars(settings).items() if name != "folder"}
        what = hashlib.sha256(json.dumps(cell, sort_keys=True).encode()).hexdigest()  # no two cells share one
        folder = Path(settings.folder) / what[:16]
        folder.parent.mkdir(parents=True, exist_ok=True)
    trained = toyiwae.train(tables, folder, resume=folder is not None, show_progress=False)
    counts = sorted({settings.K, settings.test_k})
    found = toyiwae.evaluate(trained, K=counts, images=settings.test_images, seed=settings.seed).to_dict()
    (member,), last = found["members"], trained.metrics[-1]
    bounds = {one["K"]: one for one in member["bounds"]}
    largest = bounds[counts[-1]]
    return {
        "steps": trained.step,
        "train_bound": last["bound"][0],
        "train_ess": last["ess"][0],
        "test_bound": bounds[settings.K]["bound"],
        "test_bound_se": bounds[settings.K]["se"],
        "test_ess": bounds[settings.K]["ess"],
        "test_log_likelihood": largest["bound"],
        "test_log_likelihood_se": largest["se"],
        "test_log_likelihood_exact": member.get("log_p"),
        "active_units": member["active_units"],
    }


PATHS = {"data.folder": ("",), "model.file": ("",)}
RULES = ("estimator", "model_estimator", "proposal_estimator")
EXPERIMENT = Experiment(
    "train", 1, TrainSettings, run, check, elsewhere=frozenset({"folder"}), paths=PATHS, estimators=RULES
)
