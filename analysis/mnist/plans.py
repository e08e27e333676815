"""What is computed at which size: a quick look, two hours of a CPU, or the paper's whole table on a GPU.

Stacks of the paper's scale hold up to five rules × four seeds = 20 members. One product of a step is then
`[20, 1280, 200] @ [20, 200, 784]`, 8 GFLOP, enough to keep a GPU busy between launches; more members would only take
longer. Memory is no limit: 1,280 particles × 784 logits × 20 members × 4 bytes are 80 MB. The first stack has five of
the table's methods, each further one adds a row or points of a figure, and several devices take a stack each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from analysis.studies._trained import methods
from toyiwae.checks import nearest
from toyiwae.errors import InputError
from toyiwae.networks.optim import EPOCHS, STAGES

PARTICLES = 64
BATCH = 20

Rule = Mapping[str, Any]
"""A rule of a settings file: estimator, M and K."""


@dataclass(frozen=True)
class Plan:
    """Sizes of everything.

    Attributes:
        name: "quick", "full" or "table".
        stacks: name -> the rules of its members, each trained with every seed.
        home: of everything below the folder of results.
        seeds: of the members.
        epochs: how often each training image is used at most.
        model: arguments of the Bernoulli VAE, as a settings file has them.
        schedule: "constant" or "stages".
        milestones: epochs after which there is a checkpoint in any case.
        device: where the deep model is trained and evaluated.
        latents: of the linear decoder.
        linear_images: test images with an exact gap.
        encoder_images: images that its encoder is fitted to.
        linear_k: K of the gaps.
        train: training images; None for all.
        test: images of the evaluation, as many as there are at most.
        largest_k: of the estimate of log p(x).
        curve_images, curve_points: test images of the curves, and at how many checkpoints.
        snr_images, snr_replicates, snr_points: training images of a batch whose gradient is drawn so often, and at how
            many checkpoints.
        metrics_every, checkpoint_every: steps.
        minutes: of training in one call; None for no limit.
    """

    name: str
    stacks: Mapping[str, tuple[Rule, ...]]
    home: str
    seeds: tuple[int, ...]
    epochs: int
    model: Mapping[str, Any]
    test: int
    largest_k: int
    curve_images: int
    curve_points: int
    snr_images: int
    snr_replicates: int
    snr_points: int
    metrics_every: int
    checkpoint_every: int
    schedule: str = "constant"
    milestones: tuple[int, ...] = ()
    device: str = "cpu"
    latents: int = 50
    linear_images: int = 10_000
    encoder_images: int = 300
    linear_k: tuple[int, ...] = (1, 64, 5000)
    train: int | None = None
    minutes: float | None = None

    def settings(self, stack: str, data: str = "mnist") -> dict[str, Any]:
        """The tables of a stack's settings file, for the images of that name."""
        training: dict[str, Any] = {"epochs": self.epochs, "batch": BATCH, "seeds": list(self.seeds)}
        if self.schedule != "constant":
            training["schedule"] = self.schedule
        if self.device != "cpu":
            training["device"] = self.device
        images = {"name": data, "binarisation": "dynamic"}
        output = {"metrics_every": self.metrics_every, "checkpoint_every": self.checkpoint_every, "keep": 0}
        return {
            "data": images | ({} if self.train is None else {"train": self.train}),
            "model": {"kind": "bernoulli_vae", **self.model},
            "members": [dict(rule) for rule in self.stacks[stack]],
            "training": training,
            "output": output,
        }


def rule(estimator: str, groups: int = 1) -> Rule:
    """A rule with 64 particles in so many groups."""
    return MappingProxyType({"estimator": estimator, "M": groups, "K": PARTICLES // groups})


def split(*groups: int) -> tuple[Rule, ...]:
    """The two rules that groups make a difference to, at so many groups."""
    return tuple(rule(name, count) for name in ("iwae", "piwae") for count in groups)


def complete(*betas: float) -> tuple[Rule, ...]:
    """CIWAE at so many β."""
    return tuple(rule(f"ciwae:{beta:g}") for beta in betas)


STAGE_ENDS = tuple((3 ** (stage + 1) - 1) // 2 for stage in range(STAGES))
"""Epochs at which Burda's stages end: 1, 4, 13, 40, 121, 364, 1093, 3280."""

QUICK = Plan(
    name="quick",
    stacks={"deep": (*methods(PARTICLES), *complete(0.05), *split(4, 16))},
    home="quick",
    seeds=(1, 2),
    epochs=1,
    model={"hidden": [100], "latents": 20},
    train=2000,
    test=60,
    largest_k=500,
    curve_images=40,
    curve_points=5,
    snr_images=4,
    snr_replicates=40,
    snr_points=2,
    metrics_every=5,
    checkpoint_every=20,
    linear_images=200,
)

FULL = Plan(
    name="full",
    stacks={"deep": tuple(methods(PARTICLES))},
    home="",
    seeds=(1,),
    epochs=20,
    model={"products": "bfloat16"},
    test=1000,
    largest_k=5000,
    curve_images=500,
    curve_points=11,
    snr_images=4,
    snr_replicates=1000,
    snr_points=3,
    metrics_every=100,
    checkpoint_every=500,
    minutes=110.0,
)

TABLE = Plan(
    name="table",
    stacks={
        "methods": tuple(methods(PARTICLES)),
        "splits": (*complete(0.05), *split(4, 16)),
        "ends": (*complete(0.2), *split(2, 32)),
        "betas": complete(0.01, 0.1, 0.75, 0.9),
    },
    home="table",
    seeds=(1, 2, 3, 4),
    epochs=EPOCHS,
    model={"products": "tf32"},
    schedule="stages",
    milestones=STAGE_ENDS,
    device="cuda",
    test=10_000,
    largest_k=5000,
    curve_images=1000,
    curve_points=16,
    snr_images=BATCH,
    snr_replicates=1000,
    snr_points=8,
    metrics_every=3000,
    checkpoint_every=164 * 3000,
)


@dataclass(frozen=True)
class Wish:
    """What a call asks for.

    Attributes:
        quick: the quick look.
        device: "cpu", "cuda" or "cuda:N"; None for a GPU where there is one.
        stacks: names of those to train and to show; all if empty.
        epochs: after how many to stop in this call, counted from the first.
        minutes: of training in this call, 0 for none; None for the plan's own.
    """

    quick: bool = True
    device: str | None = None
    stacks: tuple[str, ...] = field(default=())
    epochs: int | None = None
    minutes: float | None = None


def chosen(wish: Wish, has_cuda: bool) -> Plan:
    """The plan: quick, or the paper's scale on a GPU, or two hours of a CPU.

    Args:
        wish: what was asked for.
        has_cuda: whether there is a GPU.

    Raises:
        InputError: a stack that the plan does not have.
    """
    device = wish.device or ("cuda" if has_cuda and not wish.quick else "cpu")
    plan = QUICK if wish.quick else (FULL if device == "cpu" else TABLE)
    plan = replace(plan, device=device)
    for name in wish.stacks:
        if name not in plan.stacks:
            raise InputError(f"--stack is {name!r}: {nearest(name, plan.stacks)}")
    kept = {name: rules for name, rules in plan.stacks.items() if not wish.stacks or name in wish.stacks}
    return replace(plan, stacks=kept, minutes=plan.minutes if wish.minutes is None else wish.minutes)
