"""Users' log-densities in torch: coefficients -> gradients, with any registered estimator and any number of particles.

    Δθ = Σ a ∇θ log p(x, z)        Δφ = Σ b (∂ log w/∂z)(∂z/∂φ) + c ∇φ log q(z|x)

Three functions say what is differentiated, with parameters as dictionaries of tensors:

    sample(phi, noise) -> z        particles, a tensor or a tuple of tensors, each [..., T, ·] or of any other shape
    log_joint(theta, z)            log p(x, z) [..., T], leading axes for observations
    log_q(phi, z)                  log q(z|x)  [..., T]

Particles m, k are numbered `t = mK + k` along T = M·K. Parameters are detached one by one, never densities: with
several stochastic layers `log q(z2|z1)` keeps its dependence on z1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toyiwae import arguments, estimators
from toyiwae.errors import InputError
from toyiwae.estimators import Estimator
from toyiwae.extras import import_extra
from toyiwae.forms import Coefficients

import_extra("torch", extra="torch", purpose="toyiwae.surrogate")

import torch  # noqa: E402

Tensor = torch.Tensor
Parameters = Mapping[str, Tensor]


@dataclass(frozen=True)
class Densities:
    """What is differentiated.

    Attributes:
        log_joint: `log p(x, z)` `[..., T]` of θ and particles.
        log_q: `log q(z|x)` `[..., T]` of φ and particles.
        sample: particles of φ and noise; for latents without a path derivative, particles that do not depend on φ.
    """

    log_joint: Callable[[Parameters, Any], Tensor]
    log_q: Callable[[Parameters, Any], Tensor]
    sample: Callable[[Parameters, Any], Any]


@dataclass(frozen=True, eq=False)
class Surrogate:
    """Values and gradients, to ascend.

    Attributes:
        value: the model's estimator's own value `[...]` of each observation.
        theta: parameter of the model -> gradient of the mean over observations.
        phi: parameter of the proposal -> the same.
        log_w: log-weights `[..., M, K]`.
    """

    value: Tensor
    theta: dict[str, Tensor]
    phi: dict[str, Tensor]
    log_w: Tensor


@dataclass(frozen=True)
class Rules:
    """The estimators of both parts, and their particles.

    Attributes:
        model: estimator of θ's gradient.
        proposal: estimator of φ's gradient.
        M: groups.
        K: particles of each.
    """

    model: Estimator
    proposal: Estimator
    M: int
    K: int

    @classmethod
    def of(cls, model: str | Estimator, proposal: str | Estimator | None, M: Any, K: Any) -> Rules:
        """The rules by names; the proposal's is the model's if None."""
        first = estimators.get(model)
        second = first if proposal in (None, model) else estimators.get(proposal)
        return cls(first, second, arguments.whole_number(M, "M"), arguments.whole_number(K, "K"))

    def grouped(self, log_w: Tensor) -> Tensor:
        """Log-weights `[..., T]` as `[..., M, K]`.

        Raises:
            InputError: another number of particles.
        """
        if log_w.ndim < 1 or log_w.shape[-1] != self.M * self.K:
            expected = f"[..., {self.M * self.K}], particles M·K last"
            raise InputError(f"log-weights have shape {tuple(log_w.shape)}: expected {expected}")
        return log_w.unflatten(-1, (self.M, self.K))

    def coefficients(self, log_w: Tensor, axes: int = 0) -> tuple[Tensor, Tensor, Tensor]:
        """a, b and c `[..., T]` of the mean over observations; the first `axes` axes are no observations."""
        grouped = self.grouped(log_w)
        first: Coefficients = self.model(grouped)
        second = first if self.proposal is self.model else self.proposal(grouped)
        count = max(1, log_w[(0,) * axes].numel() // log_w.shape[-1])
        a, b, c = (part.flatten(-2) / count for part in (first.model, second.path, second.score))
        return a, b, c


@torch.enable_grad()
def gradients(
    densities: Densities,
    theta: Parameters,
    phi: Parameters,
    noise: Any,
    *,
    K: int,
    M: int = 1,
    model: str | Estimator = "iwae",
    proposal: str | Estimator | None = None,
    chunk: int | None = None,
) -> Surrogate:
    """Gradients by two backward passes; in chunks, in memory that K does not enter but for the log-weights.

    Args:
        densities: what is differentiated.
        theta: the model's parameters.
        phi: the proposal's; a tensor may be in both.
        noise: handed to `sample`; or a function of a slice of the particles' axis that gives the same noise whenever it
            is asked, which `chunk` needs.
        K: particles inside the log.
        M: groups outside.
        model: estimator of θ's gradient.
        proposal: that of φ's; by default the same.
        chunk: particles at a time; by default all at once. A first pass without gradients keeps their log-weights, a
            second draws the same noise again.

    Raises:
        InputError: an unknown estimator, log-densities of another shape, or an estimator with a path part where
            particles do not depend on φ.
    """
    rules = Rules.of(model, proposal, M, K)
    own_theta, own_phi = _leaves(theta), _leaves(phi)
    total = rules.M * rules.K
    size = total if chunk is None else arguments.whole_number(chunk, "chunk")
    pieces = [slice(first, min(first + size, total)) for first in range(0, total, size)]
    drawn = noise if callable(noise) else lambda piece: noise
    if len(pieces) == 1:
        log_w, graph = _graph(densities, own_theta, own_phi, drawn(pieces[0]))
        return _result(rules, log_w, *_slopes(rules, own_theta, own_phi, graph, rules.coefficients(log_w)))
    with torch.no_grad():
        log_w = torch.cat([_graph(densities, theta, phi, drawn(piece))[0] for piece in pieces], -1)
    made = rules.coefficients(log_w)
    sums: list[dict[str, Tensor]] = [{}, {}]
    for piece in pieces:
        _, graph = _graph(densities, own_theta, own_phi, drawn(piece))
        found = _slopes(rules, own_theta, own_phi, graph, tuple(part[..., piece] for part in made))
        sums = [
            {k: v + old.get(k, 0.0) for k, v in new.items()} for new, old in zip(found, sums, strict=True)
        ]
    return _result(rules, log_w, *sums)


def replicates(
    densities: Densities,
    theta: Parameters,
    phi: Parameters,
    noise: Tensor,
    *,
    K: int,
    M: int = 1,
    model: str | Estimator = "iwae",
    proposal: str | Estimator | None = None,
    chunk_size: int | None = None,
) -> Surrogate:
    """Independent replicates side by side, by `torch.func.vmap` of the gradient: for small models.

    Args:
        densities: functions that `vmap` can take.
        theta: as for `gradients`.
        phi: as for `gradients`.
        noise: `[R, ...]`; each replicate's is handed to `sample`.
        K: as for `gradients`.
        M: as for `gradients`.
        model: as for `gradients`.
        proposal: as for `gradients`.
        chunk_size: replicates at a time; by default all.

    Returns:
        Values, gradients and log-weights with a leading axis R.

    Raises:
        InputError: as `gradients`, but for particles that do not depend on φ: their path part is zero.
    """
    rules = Rules.of(model, proposal, M, K)
    theta, phi = ({name: value.detach() for name, value in part.items()} for part in (theta, phi))

    def log_w_of(own: Tensor) -> Tensor:
        z = densities.sample(phi, own)
        return densities.log_joint(theta, z) - densities.log_q(phi, z)

    def loss(leaves: tuple[Parameters, Parameters], own: Tensor, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        z = densities.sample(leaves[1], own)
        held = _detached(z)
        path = densities.log_joint(theta, z) - densities.log_q(phi, z)
        score, joint = densities.log_q(leaves[1], held), densities.log_joint(leaves[0], held)
        return (a * joint + b * path + c * score).sum()

    options: dict[str, Any] = {"chunk_size": chunk_size}
    with torch.no_grad():
        log_w = torch.func.vmap(log_w_of, **options)(noise)
    slopes = torch.func.vmap(torch.func.grad(loss), (None, 0, 0, 0, 0), **options)
    found = slopes((theta, phi), noise, *rules.coefficients(log_w, axes=1))
    return _result(rules, log_w, *found)


def _leaves(parameters: Parameters) -> dict[str, Tensor]:
    """The same numbers, to differentiate by."""
    return {name: value.detach().requires_grad_(True) for name, value in parameters.items()}


def _graph(densities: Densities, theta: Parameters, phi: Parameters, noise: Any) -> tuple[Tensor, list[Any]]:
    """Detached log-weights `[..., T]`, and z, log p, log q with its parameters held, log q with z held."""
    z = densities.sample(phi, noise)
    joint = densities.log_joint(theta, z)
    path = densities.log_q({name: value.detach() for name, value in phi.items()}, z)
    if joint.shape != path.shape:
        shapes = f"{tuple(joint.shape)} and {tuple(path.shape)}"
        raise InputError(f"log_joint and log_q have shapes {shapes}: expected the same, [..., T]")
    return (joint - path).detach(), [z, joint, path, densities.log_q(phi, _detached(z))]


def _slopes(
    rules: Rules, theta: Parameters, phi: Parameters, graph: list[Any], made: tuple[Tensor, ...]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Two backward passes: by θ with a, and by φ with b along the path and c on the score."""
    z, joint, path, score = graph
    a, b, c = (part.to(joint.dtype) for part in made)
    moved = any(part.requires_grad for part in _parts(z))
    if not moved and bool((b != 0.0).any()):
        raise InputError(
            f"estimator {rules.proposal.name!r} differentiates through the particles, which do not depend on phi:"
            " choose one with a score part alone"
        )
    by_theta = _grad([joint], theta, [a])
    by_phi = _grad([joint, path, score] if moved else [score], phi, [b, -b, c] if moved else [c])
    return by_theta, by_phi


def _grad(outputs: list[Tensor], inputs: Parameters, upstream: list[Tensor]) -> dict[str, Tensor]:
    """Gradients by parameters, zero where nothing depends on one."""
    with_graph = [(y, g) for y, g in zip(outputs, upstream, strict=True) if y.requires_grad]
    if not inputs or not with_graph:
        return {name: torch.zeros_like(value) for name, value in inputs.items()}
    ys, gs = zip(*with_graph, strict=True)
    found = torch.autograd.grad(ys, list(inputs.values()), gs, retain_graph=True, allow_unused=True)
    return {
        name: torch.zeros_like(value) if slope is None else slope
        for (name, value), slope in zip(inputs.items(), found, strict=True)
    }


def _parts(z: Any) -> tuple[Tensor, ...]:
    return tuple(z) if isinstance(z, (tuple, list)) else (z,)


def _detached(z: Any) -> Any:
    return tuple(part.detach() for part in z) if isinstance(z, (tuple, list)) else z.detach()


def _result(rules: Rules, log_w: Tensor, theta: dict[str, Tensor], phi: dict[str, Tensor]) -> Surrogate:
    grouped = rules.grouped(log_w)
    return Surrogate(rules.model.value_of(grouped), theta, phi, grouped)
