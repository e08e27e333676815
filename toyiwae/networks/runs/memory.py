"""How many bytes a training needs, and how many there are: what does not fit is refused before it begins.

An estimate from shapes, within a factor of two of what processes were measured to take. Particles come in chunks
(`portions`), so that K adds only what every particle leaves behind, its log-weight and coefficients; members and images
cost their batches, members also parameters.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from toyiwae.errors import InputError
from toyiwae.networks import models, portions
from toyiwae.networks.data.images import Images
from toyiwae.networks.proposals import Cholesky
from toyiwae.networks.runs.ranks import Share
from toyiwae.networks.runs.settings import Settings
from toyiwae.networks.two_layers import TwoLayerModel

PARTICLE = 14
"""Numbers of a particle that live through a step: log-weight, coefficients, and what these are computed from."""

PIXEL = 2
"""Numbers of a pixel of a batch that live at once: ink, and the uniform number or the observation."""


@dataclass(frozen=True)
class Sizes:
    """What memory depends on.

    Attributes:
        model: with no members, for the shapes of its parameters.
        members: of this process.
        gathered: members whose state this process writes as a checkpoint; 0 if another one does, or none.
        batch: images of a step.
        parts: processes that share a batch.
        particles: T = M·K.
        images: number and bytes of the training images.
        number: bytes of a number.
        device: where.
        compiled: whether all members go in one pass.
    """

    model: Any
    members: int
    gathered: int
    batch: int
    parts: int
    particles: int
    images: tuple[int, int]
    number: int
    device: torch.device
    compiled: bool = False

    def needed(self) -> dict[str, int]:
        """Bytes by what they are for, those that are held at the same time at the peak."""
        model, number = self.model, self.number
        parameters = number * sum(math.prod(p.shape[1:]) for p in model.parameters.values())
        own = -(-self.batch // self.parts)
        at_once = self.members
        if not self.compiled and not portions.all_together(model, self.particles, own, self.device):
            at_once = 1
        chunk = portions.chunk_size(model, self.particles, at_once, own, self.batch, number, self.device)
        images = own
        if chunk == self.particles:
            images = portions.images_together(model, chunk, at_once, own, number, self.device)
        row = model.row_numbers + _square(model)
        noise = at_once * chunk * self.batch * model.dim_z
        encoder = at_once * own * 2 * sum(_outer(model).encoder.sizes[1:])
        batches = self.members * self.batch * PIXEL * model.dim_x
        count, stored = self.images
        state = self.members * (6 if self.parts == 1 else 8)
        if (
            self.device.type == "cpu" and self.gathered
        ):  # three copies while it becomes a file, three more if sent
            state = max(
                state, 3 * self.members + (9 if self.gathered == self.members else 18) * self.gathered
            )
        return {
            "parameters, gradients and Adam's moments": parameters * state,
            "images and their order": stored + 16 * count * self.members,
            "batches": number * (batches + encoder),
            "particles' log-weights": number * at_once * self.particles * own * PARTICLE,
            "activations": number * (at_once * chunk * images * row + noise),
        }

    def fitting(self, free: int) -> list[str]:
        """What would fit into so many bytes, each in words: batch, members, M·K."""

        def largest(most: int, changed: Callable[[int], Sizes]) -> int:
            low, high = 0, most  # low fits, or is 0; high does not
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if changed(middle).total() <= free else (low, middle)
            return low

        batch = largest(self.batch, lambda n: replace(self, batch=n))
        members = largest(self.members, lambda n: replace(self, members=n, gathered=min(n, self.gathered)))
        particles = largest(self.particles, lambda n: replace(self, particles=n))
        found = [f"training.batch = {batch}"] if batch else []
        found += [f"{members} of {self.members} members"] if members else []
        found += [f"M·K = {particles}"] if particles else []
        return found

    def total(self) -> int:
        """Bytes at the peak."""
        return sum(self.needed().values())


def check(settings: Settings, images: Images, share: Share, device: torch.device, *, writes: bool) -> None:
    """Refuses a training that does not fit. Of a user's module nothing is known, and nothing is checked.

    Args:
        settings: of the run.
        images: to train on.
        share: of this process.
        device: where its numbers are.
        writes: whether this process writes checkpoints.

    Raises:
        InputError: with the bytes needed and free, and the sizes that would fit.
    """
    if settings.model.kind == "module":
        return
    free = free_bytes(device)
    if device.type == "cpu" and free is not None:  # the processes of a machine share its memory
        free //= max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    sizes = sizes_of(settings, images, share, device, writes=writes)
    parts = sizes.needed()
    if free is None or sizes.total() <= free:
        return
    most = max(parts, key=lambda name: parts[name])
    fits = " or ".join(sizes.fitting(free))
    raise InputError(
        f"this training needs about {_shown(sizes.total())} of memory on {device}, most of it for {most}, and "
        f"{_shown(free)} are free: "
        + (f"{fits} would fit" if fits else "expected a smaller model or fewer images")
    )


def sizes_of(
    settings: Settings, images: Images, share: Share, device: torch.device, *, writes: bool
) -> Sizes:
    """What the memory of a training depends on; arguments as for `check`.

    Raises:
        InputError: arguments that the model refuses, a layer with more weights than can be counted.
    """
    training, stack = settings.training, settings.stack()
    count, pixels = images.train.shape
    options = settings.model.model_dump(exclude={"kind"})
    try:
        model = getattr(models, settings.model.kind)((), torch.zeros(pixels), **options)
    except InputError as error:
        raise InputError(f"model: {error}") from None
    except (RuntimeError, OverflowError):
        raise InputError(
            "model: a layer has more weights than can be counted: expected smaller ones"
        ) from None
    members = len(stack[share.members])
    return Sizes(
        model,
        members,
        len(stack) if writes else 0,
        min(training.batch, count),
        share.parts,
        stack[0].particles,
        (count, images.train.nbytes),
        8 if training.dtype == "float64" else 4,
        device,
        training.compile,
    )


def free_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Bytes that can be had on a device; None where the system does not say.

    On a CPU the least of what the machine has available and what the control groups (versions 1 and 2) of this process
    leave it, whose file cache counts as free; on a GPU also what torch holds for this process without using it.

    Args:
        device: which.
        root: of the file system.
    """
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + held
    if device.type != "cpu":
        return None
    limits = [_available(root), *(_left(folder) for folder in _groups(root))]
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _available(root: Path) -> int | None:
    """What Linux says could be had without swapping."""
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    return None


def _groups(root: Path) -> list[Path]:
    """The folders of the control groups that limit this process's memory, with those above them."""
    found = []
    for line in _lines(root / "proc/self/cgroup"):
        _, kinds, path = line.split(":", 2)
        if kinds in ("", "memory"):
            base = root / "sys/fs/cgroup" / kinds
            own = base / path.strip("/")
            found += [own, *(p for p in own.parents if p == base or base in p.parents)]
            found += [base]  # in a container, whose own group is the root that it sees
    return found


def _left(group: Path) -> int | None:
    """What a control group leaves; None without a limit."""
    for limit, used, cache in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        numbers = [next(iter(_lines(group / name)), "") for name in (limit, used)]
        if all(text.isdigit() for text in numbers):
            files = [
                line.split()[1] for line in _lines(group / "memory.stat") if line.startswith(f"{cache} ")
            ]
            return max(0, int(numbers[0]) - int(numbers[1]) + sum(map(int, files)))
    return None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []


def _outer(model: Any) -> Any:
    return model.outer if isinstance(model, TwoLayerModel) else model


def _square(model: Any) -> int:
    """Numbers of a particle's factor of the covariance, where the proposal has a full one."""
    return 0 if isinstance(model, TwoLayerModel) or model.proposal is not Cholesky else model.dim_z**2


def _shown(count: int) -> str:
    return f"{count / 2**30:.3g} GiB"
