"""The papers' stack on a GPU: time of a step as one CUDA graph, beside launches one by one and `torch.compile`.

    python -m analysis.benchmarks.graph [--members 20] [--batch 20] [--products tf32,bfloat16] [--profile] > graph.json

Five methods at T = 64, 784-200-200-50 and its mirror, whole steps: images, binarisation, noise, gradients, Adam; all
ways in turns in one call. Before any timing the kernels have to agree with their twins, and the graph with the same
steps launched one by one. The goal is 122 µs a step of 20 members at batch 20 (the papers' table in 20 minutes); one
hour is 366 µs. Without a GPU it says so in one line; `--device cpu` runs a tiny size without compiling, as a trial.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import itertools
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from analysis.benchmarks.graph_checks import of_kernels
from analysis.benchmarks.networks import HIDDEN, LATENTS, PIXELS, network
from analysis.benchmarks.timing import Timing
from analysis.studies._trained import methods
from toyiwae.errors import InputError
from toyiwae.networks import models
from toyiwae.networks.captured import WARM, Captured
from toyiwae.networks.compiled import compiled
from toyiwae.networks.counters import Counters
from toyiwae.networks.data.batches import DeviceBatches
from toyiwae.networks.data.images import of_arrays
from toyiwae.networks.members import Member
from toyiwae.networks.optim import DeviceAdam
from toyiwae.networks.products import PRODUCTS
from toyiwae.networks.resident import ResidentStep

METHODS = len(methods())

GOAL, HOUR = 122.0, 366.0  # µs a step of 20 members at batch 20
TURNS, SECONDS = 7, 0.5
TINY = {"particles": 9, "pixels": 30, "hidden": (12, 12), "latents": 4, "batch": 6, "members": 5}


def run() -> Iterator[Timing]:
    """Steps per second by graph, eager and compiled; the limit is the goal's."""
    if not torch.cuda.is_available():
        print("  skipped: this machine has no GPU that torch can use", file=sys.stderr)
        return
    for row in measured(torch.device("cuda"))["rows"]:
        label = f"{row['members']} x {row['batch']}, {row['products']}, {row['how']}"
        yield Timing(label, 1e6 / row["microseconds"], "steps/s", GOAL / row["microseconds"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints one JSON document; 2 where there is no GPU and none was renounced."""
    parser = argparse.ArgumentParser(prog="python -m analysis.benchmarks.graph")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu for a tiny size")
    parser.add_argument("--members", type=int, default=20, help="a multiple of 5")
    parser.add_argument("--batch", type=int, default=20)
    parser.add_argument("--products", default=",".join(PRODUCTS))
    parser.add_argument("--profile", action="store_true", help="time of each kernel of a step, too")
    chosen = parser.parse_args(arguments)
    if chosen.device != "cpu" and not torch.cuda.is_available():
        print(
            "error: this machine has no GPU that torch can use: give --device cpu for a tiny size",
            file=sys.stderr,
        )
        return 2
    options = {"members": chosen.members, "batch": chosen.batch, "products": chosen.products.split(",")}
    tiny = {**TINY, "products": ["float32"]} if chosen.device == "cpu" else options
    print(json.dumps(measured(torch.device(chosen.device), profile=chosen.profile, **tiny), indent=1))
    return 0


def measured(
    device: torch.device,
    *,
    members: int = 20,
    batch: int = 20,
    products: Sequence[str] = PRODUCTS,
    profile: bool = False,
    **sizes: Any,
) -> dict[str, Any]:
    """What `main` prints.

    Raises:
        InputError: members that the five methods cannot be spread over.
        RuntimeError: kernels or graph are wrong.
    """
    if members < 1 or members % METHODS:
        raise InputError(f"members is {members}: expected a multiple of {METHODS}")
    found = {"device": name_of(device), "torch": torch.__version__, "triton": _version("triton")}
    found |= {"date": datetime.date.today().isoformat(), "goal_microseconds": GOAL, "hour_microseconds": HOUR}
    found["checks"] = of_kernels(device) | {"graph": graph_check(device, batch, **sizes)}
    rows = []
    for precision in products:
        for count in (members, 1):
            compiles = device.type == "cuda"
            chosen = [how for how, way in WAYS.items() if compiles or not way["compile"]]
            ways = {how: Stack(device, count, batch, precision, how, **sizes) for how in chosen}
            calls: dict[str, Callable[[], object]] = dict(ways)
            if count == 1 and precision != "bfloat16" and compiles:
                calls["by hand, autograd, torch.compile"] = by_hand(device, batch, precision, **sizes)
            work = ways["graph"].operations
            for how, seconds in in_turns(calls, device).items():
                row = {"members": count, "batch": batch, "products": precision, "how": how}
                rows.append(row | {"microseconds": 1e6 * seconds, "tflops": work / seconds / 1e12})
            if profile:
                found[f"kernels, {count} members, {precision}"] = profiled(ways["launches"], device)
    return found | {"rows": rows}


WAYS = {
    "launches": {"graph": False, "compile": False},
    "compiled": {"graph": False, "compile": True},
    "graph": {"graph": True, "compile": False},
    "graph, compiled": {"graph": True, "compile": True},
}
"""How a step is made."""


class Stack:
    """The step of a stack; each call makes one.

    Attributes:
        operations: floating-point operations of a step's products.
        parameters: of the model.
    """

    def __init__(
        self,
        device: torch.device,
        members: int,
        batch: int,
        products: str,
        how: str,
        *,
        particles: int = 64,
        pixels: int = PIXELS,
        hidden: tuple[int, ...] = HIDDEN,
        latents: int = LATENTS,
    ):
        """Of random images and weights."""
        rules = [row for row in methods(particles) if members > 1 or row["K"] == particles][:members]
        seeds = range(max(1, members // len(rules)))
        names = [(row["estimator"], row["M"], row["K"]) for row in rules]
        stack = [Member(name, name, M, K, seed) for name, M, K in names for seed in seeds]
        own = tuple(member.seed for member in stack)
        ink = np.random.default_rng(1).integers(0, 256, (10 * batch, pixels)).astype(np.uint8)
        noise = Counters(own, device=device)
        options = {"latents": latents, "hidden": hidden, "products": products, "device": device}
        model = models.bernoulli_vae(own, ink.mean(0) / 255, **options)
        self.parameters = model.parameters
        images = of_arrays("random", ink, ink[:1]).binarised("dynamic")
        batches = DeviceBatches(images, noise, batch)
        batches.turn(0)
        adam = DeviceAdam(model.parameters, [1e-3] * members)
        taken = compiled(model) if WAYS[how]["compile"] else model
        step = ResidentStep(taken, stack, batches, adam, noise)
        self._call = Captured(partial(step, batch), device, graph=bool(WAYS[how]["graph"]))
        encoder, decoder = (
            sum(a * b for a, b in itertools.pairwise(sizes))
            for sizes in ((pixels, *hidden, 2 * latents), (latents, *hidden[::-1], pixels))
        )
        self.operations = 6.0 * members * batch * (encoder + particles * decoder)

    @property
    def recorded(self) -> bool:
        """Whether steps replay a graph."""
        return self._call.recorded

    def __call__(self) -> None:
        """One step."""
        self._call()


def graph_check(device: torch.device, batch: int, **sizes: Any) -> float:
    """The largest relative difference of parameters after some steps, launched one by one and by a graph.

    Raises:
        RuntimeError: it is more than rounding makes.
    """
    stacks = [Stack(device, METHODS, batch, "float32", how, **sizes) for how in ("launches", "graph")]
    for stack in stacks:
        for _ in range(WARM + 4):
            stack()
    pairs = [(value, stacks[1].parameters[name]) for name, value in stacks[0].parameters.items()]
    found = max(float((one - other).abs().max() / one.abs().max()) for one, other in pairs)
    if not found <= 1e-6:
        raise RuntimeError(
            f"a graph's parameters differ by {found:.2g} from those of the same steps launched"
        )
    return found


def by_hand(
    device: torch.device,
    batch: int,
    products: str,
    *,
    particles: int = 64,
    pixels: int = PIXELS,
    hidden: tuple[int, ...] = HIDDEN,
    latents: int = LATENTS,
) -> Callable[[], object]:
    """One IWAE as one writes it in torch: autograd, `torch.compile`, fused Adam; images are there already."""
    encoder = network((pixels, *hidden, 2 * latents)).to(device)
    decoder = network((latents, *hidden[::-1], pixels)).to(device)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3, eps=1e-4, fused=True)
    x = (torch.rand(batch, pixels, device=device) < 0.3).float()

    def loss(noise: torch.Tensor) -> torch.Tensor:
        mean, log_std = encoder(x).chunk(2, -1)
        z = mean + log_std.exp() * noise
        logits = decoder(z)
        log_p = (x * logits - torch.nn.functional.softplus(logits)).sum(-1)
        log_w = log_p - 0.5 * z.square().sum(-1) + 0.5 * noise.square().sum(-1) + log_std.sum(-1)
        return math.log(particles) - torch.logsumexp(log_w, 0).mean()

    fused = torch.compile(loss, dynamic=False)

    def call() -> None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high" if products == "tf32" else "highest")
        optimiser.zero_grad()
        fused(torch.randn(particles, batch, latents, device=device)).backward()
        optimiser.step()
        torch.set_float32_matmul_precision(before)

    return call


def in_turns(calls: dict[str, Callable[[], object]], device: torch.device) -> dict[str, float]:
    """Seconds of each call on the clock, the median over turns; whatever the device still does is waited for."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        timed(call, WARM + 3, device)
    turns, least = (TURNS, SECONDS) if device.type == "cuda" else (1, 0.0)
    counts = {name: 1 + int(least / timed(call, 3, device)) for name, call in calls.items()}
    for _ in range(turns):
        for name, call in calls.items():
            seconds[name].append(timed(call, counts[name], device))
    return {name: statistics.median(found) for name, found in seconds.items()}


def timed(call: Callable[[], object], count: int, device: torch.device) -> float:
    """Seconds of one of so many calls."""
    _wait(device)
    began = time.perf_counter()
    for _ in range(count):
        call()
    _wait(device)
    return (time.perf_counter() - began) / count


def profiled(call: Callable[[], object], device: torch.device, steps: int = 10) -> list[dict[str, Any]]:
    """Launches and µs a step of every kernel, longest first."""
    kind = "cuda" if device.type == "cuda" else "cpu"
    activity = {"cuda": torch.profiler.ProfilerActivity.CUDA, "cpu": torch.profiler.ProfilerActivity.CPU}[
        kind
    ]
    with torch.profiler.profile(activities=[activity]) as profile:
        timed(call, steps, device)
    own = "self_device_time_total" if kind == "cuda" else "self_cpu_time_total"
    rows = [
        {"kernel": one.key[:120], "launches": one.count / steps, "microseconds": getattr(one, own) / steps}
        for one in profile.key_averages()
    ]
    return sorted((row for row in rows if row["microseconds"]), key=lambda row: -row["microseconds"])


def name_of(device: torch.device) -> str:
    """What the device is."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _version(package: str) -> str | None:
    return importlib.import_module(package).__version__ if importlib.util.find_spec(package) else None


if __name__ == "__main__":
    sys.exit(main())
