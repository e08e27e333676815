"""The processes of one run, as `torchrun` starts them: who holds what, and what they tell each other.

Members of the stack are divided among the processes; where there are more processes than members, or on request, the
images of every batch are. Process 0 alone writes. What is told goes over gloo and the CPU, gradients over NCCL where
they are on GPUs (`spread`). A process that ends is noticed by the others, since its connection breaks; one that hangs
after `timeout_seconds`.
"""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from toyiwae.checks import shown
from toyiwae.errors import InputError, ToldElsewhereError, ToyiwaeError

TIMEOUT = 600.0
"""Seconds that processes wait for each other; `TOYIWAE_TIMEOUT` in the environment says otherwise."""

EXPECTED = (ToyiwaeError, OSError, MemoryError)
"""Errors that one process tells the others about."""

_STARTED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Share:
    """What a process has to do.

    Attributes:
        members: of the stack, as positions.
        place, parts: it takes the place-th of so many parts of each batch's images.
        leader: the process with the same members and place 0.
    """

    members: slice
    place: int
    parts: int
    leader: int

    def images(self, batch: int) -> slice:
        """Its images of a batch of so many; none where there are fewer than parts."""
        return slice(batch * self.place // self.parts, batch * (self.place + 1) // self.parts)


def shares(processes: int, members: int, split: str = "members") -> list[Share]:
    """What each of the processes has to do.

    Args:
        processes: how many there are.
        members: of the stack.
        split: "members" divides these, and batches where there are more processes than members; "images" gives every
            process all members and a part of each batch.
    """
    groups = 1 if split == "images" else min(processes, members)
    found = []
    for group in range(groups):
        own = slice(members * group // groups, members * (group + 1) // groups)
        first, last = (processes * g // groups for g in (group, group + 1))
        found += [Share(own, rank - first, last - first, first) for rank in range(first, last)]
    return found


def started() -> bool:
    """Whether torchrun, or what sets the same variables, has started this process as one of several."""
    several = os.environ.get("WORLD_SIZE", "1").isdigit() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    return several and all(os.environ.get(name) for name in _STARTED)


def is_first() -> bool:
    """Whether this process is the one that answers."""
    return not started() or os.environ["RANK"] == "0"


def timeout_seconds(usual: float = TIMEOUT) -> float:
    """How long processes wait for each other.

    Raises:
        InputError: `TOYIWAE_TIMEOUT` is no number greater than 0.
    """
    text = os.environ.get("TOYIWAE_TIMEOUT", str(usual))
    with contextlib.suppress(ValueError):
        if 0.0 < float(text) < 1e6:
            return float(text)
    raise InputError(f"TOYIWAE_TIMEOUT is {shown(text)}: expected seconds, greater than 0")


@dataclass(frozen=True, eq=False)
class Ranks:
    """The processes of a run; by default this one alone, for which everything here does nothing.

    Attributes:
        rank: number of this process; 0 writes.
        size: how many there are.
        group: over which they tell each other things.
    """

    rank: int = 0
    size: int = 1
    group: Any = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def told(self, fault: str | None) -> tuple[int, str] | None:
        """The first process with a fault, and which, on every process; None if none has one."""
        if self.size == 1:
            return None if fault is None else (0, fault)
        number = torch.tensor(self.size if fault is None else self.rank)
        with answering():
            dist.all_reduce(number, dist.ReduceOp.MIN, group=self.group)
            if int(number) == self.size:
                return None
            said = [fault]
            dist.broadcast_object_list(said, int(number), group=self.group)
        return int(number), str(said[0])

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Within the block: an expected error of one process ends all, and only that process tells of it.

        Raises:
            ToldElsewhereError: another process had the error.
        """
        if self.size == 1:
            yield
            return
        error: BaseException | None = None
        try:
            yield
        except EXPECTED as caught:
            error = caught
        found = self.told(None if error is None else str(error) or type(error).__name__)
        if found is None:
            return
        rank, message = found
        if error is not None and rank == self.rank:
            raise error
        raise ToldElsewhereError(f"process {rank} of {self.size}: {message}")

    def from_first(self, value: Any) -> Any:
        """Process 0's value, on every process."""
        if self.size == 1:
            return value
        said = [value if self.first else None]
        with answering():
            dist.broadcast_object_list(said, 0, group=self.group)
        return said[0]

    def at_first(self, value: Any) -> list[Any]:
        """Every process's value, in their order, on process 0; nothing on the others."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size if self.first else []
        with answering():
            dist.gather_object(value, values if self.first else None, 0, group=self.group)
        return values

    def largest(self, *numbers: float) -> list[float]:
        """The largest of every process's numbers, one by one, on every process."""
        if self.size == 1:
            return list(numbers)
        found = torch.tensor(numbers, dtype=torch.float64)
        with answering():
            dist.all_reduce(found, dist.ReduceOp.MAX, group=self.group)
        return found.tolist()


@contextlib.contextmanager
def joined(wanted: bool, patience: float = TIMEOUT) -> Iterator[Ranks]:
    """Within the block: the processes of the run, if others are wanted and there are any.

    A process group of torch's that exists already is used, with all its processes; else one is made of what torchrun
    has put into the environment, and ends with the block.

    Args:
        wanted: whether other processes are.
        patience: seconds that processes wait for each other, unless the environment says otherwise.

    Raises:
        ToyiwaeError: the others cannot be reached.
    """
    own = wanted and not (dist.is_available() and dist.is_initialized())
    if not wanted or (own and not started()):
        yield Ranks()
        return
    timeout = datetime.timedelta(seconds=timeout_seconds(patience))
    with answering("cannot reach the other processes of this run"):
        if own:
            dist.init_process_group("gloo", timeout=timeout, **_meeting(timeout))
        group = dist.new_group(backend="gloo", timeout=timeout)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), group)
    finally:
        if own:
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()


def _meeting(timeout: datetime.timedelta) -> dict[str, Any]:
    """Where processes find each other: apart from where those that torchrun has restarted did, whose addresses stay.

    Every machine's torchrun counts its own restarts, so that the number is the same for all on one machine only.
    """
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    alone = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "0"
    own = dist.PrefixStore(f"toyiwae {attempt}", store)  # pyright: ignore[reportPrivateImportUsage]
    return {"store": own, "rank": rank, "world_size": size}


@contextlib.contextmanager
def answering(what: str = "another process of this run has ended, or does not answer") -> Iterator[None]:
    """Says in one line that processes cannot reach each other; torch raises a RuntimeError with a page of addresses."""
    try:
        yield
    except (torch.OutOfMemoryError, NotImplementedError, RecursionError):
        raise
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0].rpartition("] ")[2].partition(". ")[0]
        raise ToyiwaeError(
            f"{what} ({reason}); start the run again with --resume to go on from its last checkpoint"
        ) from None


def joined_rows(parts: list[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """One stack's tensors from those of some members after others; tensors without axes are the same for all."""
    found = {}
    for name, value in parts[0].items():
        found[name] = torch.cat([part[name] for part in parts], axis_of(name)) if value.ndim else value
    return found


def own_rows(tensors: Mapping[str, torch.Tensor], members: slice) -> dict[str, torch.Tensor]:
    """Some members' tensors of a stack's."""
    return {
        name: value.movedim(axis_of(name), 0)[members].movedim(0, axis_of(name)) if value.ndim else value
        for name, value in tensors.items()
    }


def axis_of(name: str) -> int:
    """Which axis of a checkpoint's tensor is that of the members."""
    return 1 if name == "window.total" else 0
