"""One process's share of a training: its members, its images of a batch, and when all stop.

Every process of those that share their members' batches makes the same step of Adam from the same gradients, the sum of
all parts. This is what DistributedDataParallel does, written out: it hooks into autograd, and a step here has none,
since its gradients are computed by hand; so they go flat through one `all_reduce`. Gradients are parts of the mean over
the whole batch, so that a batch that cannot be divided evenly, or has fewer images than there are processes, needs
no weights. Noise is that of the whole batch, of which each process takes its images': the result is that of one
process but for the order of sums.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from toyiwae.errors import InputError
from toyiwae.networks.data.images import Images
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.runs.ranks import Ranks, Share, answering, joined_rows, shares, timeout_seconds
from toyiwae.networks.runs.run import Run, fresh
from toyiwae.networks.runs.settings import Settings
from toyiwae.networks.step import StepResult, step

Tensor = torch.Tensor

AGREED_EVERY = 0.5
"""Seconds, about, after which processes ask each other whether one must stop."""


class Spread:
    """This process's share.

    Attributes:
        ranks: the processes of the run.
        share: of this one.
    """

    def __init__(self, ranks: Ranks, share: Share, group: Any):
        """As `divide` makes it; `group` are the processes that share its batches, None if there are no others."""
        self.ranks, self.share, self._group = ranks, share, group
        self._left, self._since, self._steps = 0, time.monotonic(), 0

    def step(self, model: Any, members: Sequence[Member], x: Tensor, noise: Noise) -> StepResult:
        """The step of a batch `[E, B, D_x]` that processes may share: the same result on each of them.

        Args:
            model: with the members of the share.
            members: these.
            x: the whole batch.
            noise: of the step.
        """
        if self.share.parts == 1:
            return step(model, members, x, noise)
        batch, own = x.shape[1], self.share.images(x.shape[1])
        part, names = (own.stop - own.start) / batch, sorted(model.parameters)
        if part:
            found = step(model, members, x, noise, own=own)
            pieces = [*(found.gradients[name] for name in names), found.bound * part, found.ess * part]
        else:
            none = x.new_zeros(len(members))
            pieces = [*(torch.zeros_like(model.parameters[name]) for name in names), none, none]
        whole = torch.cat([piece.flatten() for piece in pieces])
        with answering():
            dist.all_reduce(whole, group=self._group)
        sums = [s.view_as(p) for s, p in zip(whole.split([p.numel() for p in pieces]), pieces, strict=True)]
        return StepResult(dict(zip(names, sums, strict=False)), *sums[-2:])

    def stops(self, wanted: bool) -> bool:
        """Before a step: whether all processes stop here, because one wants to; asked about twice a second.

        The number of steps until they ask again follows from the slowest one's time, the same on each.
        """
        if self.ranks.size == 1:
            return wanted
        self._left, self._steps = self._left - 1, self._steps + 1
        if self._left > 0:
            return False
        now = time.monotonic()
        any_wants, seconds = self.ranks.largest(float(wanted), (now - self._since) / self._steps)
        self._left, self._since, self._steps = max(1, min(10**6, int(AGREED_EVERY / seconds))), now, 0
        return any_wants > 0

    def whole(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor] | None:
        """All members' tensors, on process 0; None on the others."""
        if self.ranks.size == 1:
            return tensors
        own = {k: v.cpu() for k, v in tensors.items()} if self.share.place == 0 else None
        parts = [part for part in self.ranks.at_first(own) if part is not None]
        return joined_rows(parts) if self.ranks.first else None

    def whole_run(self, run: Run) -> Run:
        """The run with all members, on every process."""
        if self.ranks.size == 1:
            return run
        parameters = self.ranks.from_first(self.whole(run.model.parameters))
        found = fresh(run.settings, run.images)
        for name, value in found.model.parameters.items():
            value.copy_(parameters[name])
        return replace(run, members=found.members, model=found.model)


def divide(ranks: Ranks, settings: Settings, images: Images) -> Spread:
    """This process's share of a run; every process must come here.

    Raises:
        InputError: processes with other settings or images than the first.
    """
    plan = shares(ranks.size, len(settings.stack()), settings.training.split)
    own = (settings.content_hash, images.content_hash) if ranks.size > 1 else None
    with ranks.together():
        if ranks.from_first(own) != own:
            raise InputError("this process has other settings, code or images than process 0")
    return Spread(ranks, plan[ranks.rank], _group(ranks, plan, settings.training.device))


def take_device(ranks: Ranks, device: str) -> None:
    """Gives each of a machine's processes a GPU of its own, if that is where they compute.

    Raises:
        InputError: one GPU is named for all, or there are fewer than processes.
    """
    if ranks.size == 1 or not device.startswith("cuda") or not torch.cuda.is_available():
        return
    if device != "cuda":
        raise InputError(
            f"training.device is {device!r} for {ranks.size} processes: expected cuda, each its own GPU"
        )
    place, here = int(os.environ.get("LOCAL_RANK", ranks.rank)), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    there = torch.cuda.device_count()
    if there == 1:  # as where the launcher shows each process its own alone
        place, here = 0, 1
    if place >= there or here > there:
        raise InputError(f"{here} processes on this machine, which has {there} GPUs: expected one for each")
    torch.cuda.set_device(place)


def _group(ranks: Ranks, plan: Sequence[Share], device: str) -> Any:
    """Over which the processes that share this one's batches add gradients up; None if it shares them with nobody."""
    backend, own = "nccl" if device.startswith("cuda") else "gloo", None
    for leader in sorted({share.leader for share in plan if share.parts > 1}):
        members = [rank for rank, share in enumerate(plan) if share.leader == leader]
        with answering():  # every process makes every group, as torch wants it
            group = dist.new_group(members, backend=backend, timeout=timedelta(seconds=timeout_seconds()))
        own = group if ranks.rank in members else own
    return own
