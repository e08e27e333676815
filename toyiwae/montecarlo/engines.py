"""Which engine draws: the fastest that is installed and fits the device, unless one is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from toyiwae import arguments
from toyiwae.checks import nearest, shown
from toyiwae.errors import InputError
from toyiwae.estimators import Estimator
from toyiwae.extras import import_extra
from toyiwae.montecarlo.sampler import Sampler
from toyiwae.problems.linear_gaussian import Problem

PRECISIONS = ("float32", "float64")

_MOST_THREADS = 1024


@dataclass(frozen=True)
class Settings:
    """How to draw; no result but its round-off depends on `threads` and `budget`.

    Attributes:
        device: "cpu", "cuda" or "cuda:N".
        engine: a name of `ENGINES`, or "auto".
        precision: of the noise, "float32" or "float64"; None is the engine's own.
        threads: how many at once, on the engine numba; None is `OMP_NUM_THREADS`, else as many as there are cores for
            this process, and a user's functions are then called one at a time.
        budget: bytes of noise held at once, on the others; None is the engine's own.
    """

    device: Any = "cpu"
    engine: Any = "auto"
    precision: Any = None
    threads: Any = None
    budget: Any = None


def numba_engine(
    problem: Problem, estimators: Sequence[Estimator], parameters: Sequence[str], settings: Settings
) -> Sampler:
    """The engine of the CPU's vector units.

    Raises:
        MissingExtraError: without Numba.
        InputError: for another device.
    """
    import_extra("numba", extra="fast", purpose="the engine numba")
    if str(settings.device) != "cpu":
        raise InputError(
            f"device is {shown(settings.device)}: the engine numba runs on the cpu, use engine torch"
        )
    module = importlib.import_module("toyiwae.montecarlo.kernels.numba_sampler")
    precision = settings.precision or "float32"
    given = settings.threads is not None
    threads = settings.threads if given else _usual_threads()
    return module.NumbaSampler(
        problem, estimators, parameters, precision=precision, threads=threads, together=given
    )


def torch_engine(
    problem: Problem, estimators: Sequence[Estimator], parameters: Sequence[str], settings: Settings
) -> Sampler:
    """The slow and obvious engine, on CPUs and CUDA.

    Raises:
        MissingExtraError: without torch.
        InputError: for a device that is not there, or noise in single precision.
    """
    torch = import_extra("torch", extra="torch", purpose="toyiwae estimate")
    if settings.precision == "float32":
        raise InputError("precision is 'float32': the engine torch draws in float64, use engine numba")
    module = importlib.import_module("toyiwae.montecarlo.kernels.torch_sampler")
    device = torch_device(settings.device, torch)
    return module.TorchSampler(problem, estimators, parameters, device, settings.budget)


def triton_engine(
    problem: Problem, estimators: Sequence[Estimator], parameters: Sequence[str], settings: Settings
) -> Sampler:
    """The fused kernels of GPUs.

    Raises:
        MissingExtraError: without torch or Triton.
        InputError: for a device that is no GPU or not there, or noise in double precision.
    """
    torch = import_extra("torch", extra="torch", purpose="the engine triton")
    triton = import_extra("triton", extra="gpu", purpose="the engine triton")
    if settings.precision == "float64":
        raise InputError("precision is 'float64': the engine triton draws in float32, use engine torch")
    device = torch_device(settings.device, torch)
    if device.type == "cpu" and not triton.knobs.runtime.interpret:
        raise InputError(
            "device is 'cpu': the engine triton runs on a GPU, use device cuda, or engine numba or torch"
        )
    module = importlib.import_module("toyiwae.montecarlo.kernels.gpu")
    return module.TritonSampler(problem, estimators, parameters, device, settings.budget)


Engine = Callable[[Problem, Sequence[Estimator], Sequence[str], Settings], Sampler]

ENGINES: dict[str, Engine] = {"numba": numba_engine, "torch": torch_engine, "triton": triton_engine}


def sampler_for(
    problem: Problem, estimators: Sequence[Estimator], parameters: Sequence[str], settings: Settings
) -> Sampler:
    """The sampler of the engine that is asked for; "auto": Numba's on a CPU where it is installed, else torch's.

    Raises:
        InputError: for an unknown engine, device or precision, a pair that does not go together, or threads or a budget
            that are no whole numbers of at least 1.
        MissingExtraError: where the engine is not installed.
    """
    name = settings.engine
    if settings.precision is not None and settings.precision not in PRECISIONS:
        raise InputError(f"precision is {shown(settings.precision)}: expected {' or '.join(PRECISIONS)}")
    if name == "auto":
        on_cpu = str(settings.device).partition(":")[0] == "cpu"
        name = "numba" if on_cpu and importlib.util.find_spec("numba") else "torch"
        if name == "numba" and str(settings.device) != "cpu":
            raise InputError(f"device is {shown(settings.device)}: all CPU cores are one device, use cpu")
    if not isinstance(name, str) or name not in ENGINES:
        raise InputError(f"engine is {shown(name)}: {nearest(str(name), ['auto', *ENGINES])}")
    threads, budget = settings.threads, settings.budget
    if threads is not None:
        threads = arguments.whole_number(threads, "threads", maximum=_MOST_THREADS)
    if budget is not None:
        budget = arguments.whole_number(budget, "budget")
    return ENGINES[name](problem, estimators, parameters, replace(settings, threads=threads, budget=budget))


def torch_device(value: Any, torch: Any) -> Any:
    """A device of torch that is there.

    Raises:
        InputError: for any other.
    """
    try:
        device = torch.device(value)
    except (RuntimeError, TypeError):
        raise InputError(f"device is {shown(value)}: expected cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device is {shown(value)}: expected cpu, cuda or cuda:N")
    if device.type == "cpu" and device.index:
        raise InputError(f"device is {shown(value)}: all CPU cores are one device, use cpu")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not 0 <= (device.index or 0) < count:  # torch wraps an index above 127
            raise InputError(f"device is {shown(value)}: this machine has {count} CUDA devices, use cpu")
    return device


def _usual_threads() -> int:
    """As many as OpenMP would take: `OMP_NUM_THREADS` where it is a number, else this process's cores."""
    try:
        asked = int(os.environ.get("OMP_NUM_THREADS", "").partition(",")[0])
    except ValueError:
        asked = 0
    if asked > 0:
        return min(asked, _MOST_THREADS)
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    return len(affinity(0)) if affinity else os.cpu_count() or 1
