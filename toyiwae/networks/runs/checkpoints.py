"""Checkpoints: tensors in safetensors, what they belong to in its metadata; written all or nothing, read with care.

Nothing is unpickled. The metadata holds the step, the hashes of settings and images, the length of the metrics' file,
the version, and a SHA-256 of all of it, since safetensors itself does not see flipped bytes.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

import toyiwae
from toyiwae.errors import InputError
from toyiwae.extras import import_extra
from toyiwae.files import reading, write_atomic

FORMAT = "toyiwae training 1"

_NAME = re.compile(r"step-(\d{10})\.safetensors")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after some steps.

    Attributes:
        step: steps made.
        settings: hash of the settings that decide its numbers.
        images: hash of the images.
        metrics_bytes: length of the metrics' file.
        tensors: parameters, the optimiser's state, and the averages under way.
        version: of toyiwae that wrote it.
    """

    step: int
    settings: str
    images: str
    metrics_bytes: int
    tensors: Mapping[str, torch.Tensor]
    version: str = toyiwae.__version__


def path_of(folder: Path, step: int) -> Path:
    """The file of a step's checkpoint."""
    return folder / f"step-{step:010d}.safetensors"


def step_of(path: Path) -> int:
    """The step of a checkpoint's file."""
    return int(path.stem.removeprefix("step-"))


def found(folder: Path) -> list[Path]:
    """The checkpoints' files in a folder, the latest last."""
    names = (path for path in folder.iterdir() if _NAME.fullmatch(path.name)) if folder.is_dir() else ()
    return sorted(names)


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Writes a checkpoint, all or nothing; returns its file.

    Raises:
        OSError: no room, or no right to write; what was there before is untouched.
    """
    safetensors = import_extra("safetensors.torch", extra="networks", purpose="a checkpoint")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    about = {
        "format": FORMAT,
        "version": checkpoint.version,
        "step": checkpoint.step,
        "settings": checkpoint.settings,
        "images": checkpoint.images,
        "metrics_bytes": checkpoint.metrics_bytes,
    }
    about["sha256"] = _digest(about, tensors)
    metadata = {"toyiwae": json.dumps(about)}  # as one entry: safetensors writes several in any order
    path = path_of(folder, checkpoint.step)
    write_atomic(path, safetensors.save(tensors, metadata))
    return path


def load(path: Path) -> Checkpoint:
    """Reads a checkpoint, tensors on the CPU.

    Raises:
        InputError: in one line, for a file that is missing, damaged, or no checkpoint of toyiwae.
    """
    safetensors = import_extra("safetensors", extra="networks", purpose="a checkpoint")
    name = repr(str(path))
    with reading(path, "a checkpoint"):
        pass
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("toyiwae", "{}"))
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name} is damaged, or no checkpoint ({reason}): {_MEND}") from None
    if about.get("format") != FORMAT:
        raise InputError(f"{name} is no checkpoint of toyiwae: {_MEND}")
    if about.pop("sha256", "") != _digest(about, tensors):
        raise InputError(f"{name} is damaged (by its SHA-256): {_MEND}")
    del about["format"]
    checkpoint = Checkpoint(tensors=tensors, **about)
    if path.name != path_of(path.parent, checkpoint.step).name:
        raise InputError(f"{name} holds step {checkpoint.step}: {_MEND}")
    return checkpoint


_MEND = "delete it to go on from an earlier one"


def _digest(about: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> str:
    """The SHA-256 of what a checkpoint says about itself and of its tensors."""
    digest = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
