"""One training step's gradients: any registered estimators, for all members of a stack at once.

    log w  ->  (a, b, c) of each member  ->  one backward pass

Where the particles of a batch do not fit into memory they come in chunks, twice: a first pass keeps their log-weights
alone, a second draws the same noise again and goes backward.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import torch

from toyiwae import estimators, weights
from toyiwae.errors import InputError
from toyiwae.estimators import Estimator
from toyiwae.memory import keep_freed
from toyiwae.networks import kernels
from toyiwae.networks.compiled import CompiledModel
from toyiwae.networks.latent import LatentModel
from toyiwae.networks.members import Member, particles_of, refuse_path
from toyiwae.networks.noise import Noise, block
from toyiwae.networks.portions import all_together, blocks, chunk_size, images_together
from toyiwae.networks.two_layers import TwoLayerModel
from toyiwae.networks.users import ModuleModel

Tensor = torch.Tensor

ALL = slice(None)

StackedModel = LatentModel | TwoLayerModel | CompiledModel
"""A model with a member axis."""


@dataclass(frozen=True, eq=False)
class StepResult:
    """What a step gives.

    Attributes:
        gradients: parameter -> gradient `[E, ...]` of the batch's mean, to ascend.
        bound: the model's estimator's own value, the mean over the batch `[E]`.
        ess: effective sample size of a group's weights, the mean over groups and the batch `[E]`.
    """

    gradients: dict[str, Tensor]
    bound: Tensor
    ess: Tensor


@torch.no_grad()
def step(
    model: StackedModel | ModuleModel,
    members: Sequence[Member],
    x: Tensor,
    noise: Noise,
    *,
    chunk: int | None = None,
    together: bool | None = None,
    own: slice = ALL,
) -> StepResult:
    """Gradients of one batch for every member.

    Args:
        model: with E members' parameters; a user's module has one.
        members: E of them, all with the same M·K.
        x: images `[E, B, D_x]`, in the model's dtype.
        noise: of this step; its seeds are the members'.
        chunk: particles of each image held at once, rounded up to whole blocks of noise; by default all where
            `BUDGET` takes those of one image. Results depend on it in round-off only.
        together: all members in one pass, or one after another; by default what is faster: on a CPU large members
            come one after another, whose numbers stay in its cache. Results depend on it in round-off only.
        own: which images of the batch are handled, at least one, where several processes share it. They get the
            noise that they have in the whole batch; gradients are then these images' part of the whole batch's mean,
            which the parts add up to, and bound and effective sample size means over these images.

    Raises:
        InputError: members that do not fit the model or each other, an estimator that needs reparameterised particles.
    """
    if isinstance(model, ModuleModel):
        return _module_step(model, members, x, noise, chunk, own)
    plan = plan_of(tuple(members), model.reparameterised)
    if x.ndim != 3 or len(x) != len(members) or x.shape[-1] != model.dim_x:
        raise InputError(f"x has shape {tuple(x.shape)}: expected [{len(members)}, B, {model.dim_x}]")
    if together is None:
        alike = all_together(model, plan.particles, x[:, own].shape[1], x.device)
        together = alike or isinstance(model, CompiledModel)
    if together or len(members) == 1:
        return _pass(model, plan, x, noise, chunk, own)
    parts = [
        step(model.at(e), members[e : e + 1], x[e : e + 1], noise.of(e), chunk=chunk, own=own)
        for e in range(len(members))
    ]
    gradients = {name: torch.cat([part.gradients[name] for part in parts]) for name in parts[0].gradients}
    return StepResult(gradients, *(torch.cat([getattr(p, key) for p in parts]) for key in ("bound", "ess")))


def _pass(
    model: StackedModel, plan: Plan, x: Tensor, noise: Noise, chunk: int | None, own: slice
) -> StepResult:
    """All members at once: some images after others, or twice some particles of all of them after others."""
    if x.device.type == "cpu":
        keep_freed()
    images, x = x.shape[1], x[:, own]
    encoded = model.encode(x)
    gradients, upstream = {}, torch.zeros_like(encoded.stats)

    def add(found: Any, made: tuple[Tensor, ...], some: slice) -> None:
        slopes, statistics = model.backward(found, *made)
        upstream[:, some] += statistics
        for name, slope in slopes.items():
            gradients[name] = gradients[name].add_(slope) if name in gradients else slope

    def weigh(where: slice) -> Any:
        return model.weigh(x, encoded.stats, model.draw(noise, plan.particles, images, where)[:, :, own])

    chunks = _chunks(model, plan.particles, x, images, chunk)
    if len(chunks) == 1:
        drawn, parts = model.draw(noise, plan.particles, images)[:, :, own], []
        for some in _parts(model, plan.particles, x):
            found = model.weigh(x[:, some], encoded.stats[:, some], drawn[:, :, some])
            if found.log_w.shape[2] == x.shape[1] and plan.fuses(found.log_w):
                made, metrics = plan.fused(found.log_w, images)
                add(found, made, some)
                return StepResult(gradients | model.encode_backward(encoded, upstream), *metrics)
            add(found, plan.coefficients(found.log_w, images), some)
            parts.append(found.log_w)
        log_w = torch.cat(parts, dim=2)
    else:
        log_w = torch.cat([weigh(where).log_w for where in chunks], dim=1)
        made = plan.coefficients(log_w, images)
        for where in chunks:
            add(weigh(where), tuple(array[:, where] for array in made), slice(None))
    gradients |= model.encode_backward(encoded, upstream)
    return StepResult(gradients, *plan.metrics(log_w))


def _module_step(
    model: ModuleModel, members: Sequence[Member], x: Tensor, noise: Noise, chunk: int | None, own: slice
) -> StepResult:
    """The step of a user's module.

    Raises:
        InputError: more than one member.
    """
    if len(members) != 1 or len(x) != 1:
        raise InputError(f"a module of yours is trained alone: expected one member, not {len(members)}")
    found = model.gradients(members[0], x[0], noise, chunk, own)
    part = x[:, own].shape[1] / x.shape[1]
    gradients = {name: (slope + found.phi[name])[None] * part for name, slope in found.theta.items()}
    return StepResult(gradients, found.value.mean()[None], weights.ess(found.log_w).mean()[None])


Group = tuple[Estimator, Estimator, int, tuple[int, ...]]
"""The model's rule, the proposal's rule, M, and the members that have them."""


@dataclass(frozen=True)
class Plan:
    """Which estimators get which members' log-weights.

    Attributes:
        particles: T = M·K.
        groups: (model's rule, proposal's rule, M) with the members, in order, that have them.
    """

    particles: int
    groups: tuple[Group, ...]

    def coefficients(self, log_w: Tensor, images: int) -> tuple[Tensor, Tensor, Tensor]:
        """a, b and c `[E, T, b]` of the mean over so many images, from log-weights `[E, T, b]` of some of them."""
        parts = torch.empty((3, *log_w.shape), dtype=log_w.dtype, device=log_w.device)
        for group in self.groups:
            _put_coefficients(group, log_w, images, parts)
        return parts[0], parts[1], parts[2]

    def fuses(self, log_w: Tensor) -> bool:
        """Whether `fused` takes log-weights: in float32 on a GPU."""
        return log_w.dtype == torch.float32 and kernels.usable(log_w)

    def fused(
        self, log_w: Tensor, images: int
    ) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
        """`coefficients` and `metrics`, one launch for every group of members with polynomials as rules."""
        forms = kernels.load("forms")
        parts = torch.empty((3, *log_w.shape), dtype=log_w.dtype, device=log_w.device)
        found = torch.empty((2, len(log_w), log_w.shape[2]), dtype=log_w.dtype, device=log_w.device)
        for group in self.groups:
            by_model, by_proposal, groups, members = group
            if forms.fusible(by_model, by_proposal, groups, self.particles // groups):
                which = _positions(members, log_w.device)
                forms.evaluate(by_model, by_proposal, groups, log_w, which, parts, found, 1.0 / images)
            else:
                _put_coefficients(group, log_w, images, parts)
                _put_metrics(group, log_w, found)
        bound, ess = found.mean(-1)
        return (parts[0], parts[1], parts[2]), (bound, ess)

    def metrics(self, log_w: Tensor) -> tuple[Tensor, Tensor]:
        """Bound and effective sample size of each member `[E]`, means over the images given."""
        found = torch.empty((2, len(log_w), log_w.shape[2]), dtype=log_w.dtype, device=log_w.device)
        for group in self.groups:
            _put_metrics(group, log_w, found)
        bound, ess = found.mean(-1)
        return bound, ess


def _put_coefficients(group: Group, log_w: Tensor, images: int, parts: Tensor) -> None:
    """Writes some members' a, b and c of the mean over so many images into `[3, E, T, b]`."""
    by_model, by_proposal, groups, members = group
    own, where = _grouped(log_w, members, groups), _index(members, log_w.device)
    made = by_model(own)
    other = made if by_proposal is by_model else by_proposal(own)
    for part, array in zip(parts, (made.model, other.path, other.score), strict=True):
        part[where] = array.flatten(-2).mT / images


def _put_metrics(group: Group, log_w: Tensor, found: Tensor) -> None:
    """Writes some members' bound and effective sample size of each image into `[2, E, b]`."""
    by_model, _, groups, members = group
    own, where = _grouped(log_w, members, groups), _index(members, log_w.device)
    found[0, where] = by_model.value_of(own)
    found[1, where] = weights.ess(own).mean(-1)


def _index(members: tuple[int, ...], device: torch.device) -> slice | Tensor:
    """Members as a slice where they are neighbours: taking these needs no copy."""
    neighbours = len(members) == members[-1] - members[0] + 1
    return slice(members[0], members[-1] + 1) if neighbours else _positions(members, device)


@cache
def _positions(members: tuple[int, ...], device: torch.device) -> Tensor:
    """Members on the device, where they stay: recorded launches read them."""
    return torch.tensor(members, device=device)


def _grouped(log_w: Tensor, members: tuple[int, ...], groups: int) -> Tensor:
    """Log-weights `[e, B, M, K]` of some members."""
    return log_w[_index(members, log_w.device)].mT.unflatten(-1, (groups, -1))


@lru_cache(maxsize=64)
def plan_of(members: tuple[Member, ...], reparameterised: bool) -> Plan:
    """The members by estimators and groups.

    Raises:
        InputError: other numbers of particles, or a path part without reparameterised particles.
    """
    particles = particles_of(members)
    if not reparameterised:
        refuse_path(members, "binary latents have no path derivative")
    alike: dict[tuple[str, str, int], list[int]] = {}
    for index, member in enumerate(members):
        alike.setdefault((member.model, member.proposal, member.M), []).append(index)
    groups = []
    for (by_model, by_proposal, count), indices in alike.items():
        rule = estimators.get(by_model)
        other = rule if by_proposal == by_model else estimators.get(by_proposal)
        groups.append((rule, other, count, tuple(indices)))
    return Plan(particles, tuple(groups))


def _chunks(model: StackedModel, particles: int, x: Tensor, drawn: int, chunk: int | None) -> list[slice]:
    """The particles' axis in pieces of whole blocks of noise for so many images: one where an image's particles fit."""
    members, images = x.shape[:2]
    if chunk is None:
        size = chunk_size(model, particles, members, images, drawn, x.element_size(), x.device)
    else:
        size = blocks(chunk, particles, block((drawn, model.dim_z)))
    return [slice(first, min(first + size, particles)) for first in range(0, particles, size)]


def _parts(model: StackedModel, particles: int, x: Tensor) -> list[slice]:
    """The images' axis in pieces of about the same size."""
    members, images = x.shape[:2]
    size = images_together(model, particles, members, images, x.element_size(), x.device)
    return [slice(first, min(first + size, images)) for first in range(0, images, size)]
