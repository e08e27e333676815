"""Members of a stack: each a run with its own estimators, groups, particles, seed and learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toyiwae import arguments, estimators
from toyiwae.checks import shown
from toyiwae.errors import InputError
from toyiwae.estimators import Estimator


@dataclass(frozen=True)
class Member:
    """One run of a stack.

    Attributes:
        model: the estimator of the decoder's gradient, `"iwae"` or `"ciwae:0.5"`.
        proposal: that of the encoder's; the same name where there is one rule.
        M: groups.
        K: particles of a group.
        seed: of initialisation, noise, binarisation and the order of images.
        learning_rate: Adam's, before the schedule.

    Raises:
        InputError: an unknown estimator, counts that are not whole or too small for it, a rate that is not positive.
    """

    model: str
    proposal: str
    M: int
    K: int
    seed: int
    learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        """Checks the fields."""
        for name, least in (("M", 1), ("K", 1), ("seed", 0)):
            arguments.whole_number(getattr(self, name), name, minimum=least)
        for name in {self.model, self.proposal}:
            estimators.get(name).check_particles(self.K)
        if not 0.0 < self.learning_rate < float("inf"):
            rate = shown(self.learning_rate)
            raise InputError(f"learning_rate is {rate}: expected a number greater than 0")

    @property
    def particles(self) -> int:
        """T = M·K."""
        return self.M * self.K

    @property
    def rules(self) -> tuple[Estimator, Estimator]:
        """The estimators of the model's and of the proposal's gradient."""
        return estimators.get(self.model), estimators.get(self.proposal)


def particles_of(members: Sequence[Member]) -> int:
    """T = M·K, the same for all members of a stack.

    Raises:
        InputError: no member, or members with other numbers of particles.
    """
    counts = sorted({member.particles for member in members})
    if not counts:
        raise InputError("a stack has no members: expected at least one")
    if len(counts) > 1:
        raise InputError(
            f"members have M·K = {', '.join(map(str, counts))}: expected the same for all of a stack"
        )
    return counts[0]


def has_path(rule: Estimator) -> bool:
    """Whether an estimator's path coefficients are not all zero, so that particles must be reparameterised."""
    log_w = np.linspace(-1.0, 2.0, 3 * max(4, rule.min_particles)).reshape(3, -1)
    return bool(np.any(rule(log_w**2).path))


def refuse_path(members: Sequence[Member], why: str) -> None:
    """Refuses estimators with a path part where particles are not reparameterised.

    Raises:
        InputError: naming the estimator.
    """
    for member in members:
        if has_path(member.rules[1]):
            raise InputError(
                f"proposal = {shown(member.proposal)} differentiates through the particles: {why}; choose an estimator"
                " with a score part alone, such as vimco_arithmetic"
            )
