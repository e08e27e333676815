"""A user's own torch module as a model: `log_joint(x, z)` and `encode(x)`, one member, two backward passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from toyiwae.checks import shown
from toyiwae.errors import InputError
from toyiwae.estimators import usercode
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.surrogate import Densities, Surrogate, gradients

Tensor = torch.Tensor

BLOCK = 64
"""Particles that are drawn together."""

_MIXING = (torch.nn.modules.batchnorm._BatchNorm, torch.nn.modules.dropout._DropoutNd)


class ModuleModel:
    """A module with two methods, for B images and n particles of each.

        encode(x [B, …]) -> a torch Distribution of z with batch shape [B]
        log_joint(x, z [n, B, …]) -> log p(x, z) [n, B]

    Attributes:
        parameters: name -> view `[1, …]` of the module's parameters: what changes them changes the module.
    """

    def __init__(self, module: torch.nn.Module):
        """Takes the module as it is.

        Raises:
            InputError: a method that is missing, layers that mix the batch or draw random numbers of their own.
        """
        for name in ("encode", "log_joint"):
            if not callable(getattr(module, name, None)):
                raise InputError(
                    f"{type(module).__name__} has no method {name}: expected encode(x) and log_joint(x, z)"
                )
        for name, layer in module.named_modules():
            if isinstance(layer, _MIXING):
                raise InputError(
                    f"{name} is a {type(layer).__name__}: particles must neither depend on the rest of the batch nor on"
                    " random numbers that cannot be drawn again"
                )
        self.parameters = {
            name: value.detach()[None] for name, value in module.named_parameters() if value.requires_grad
        }
        self._caller = _Caller(module)

    def gradients(
        self, member: Member, x: Tensor, noise: Noise, chunk: int | None = None, own: slice = slice(None)
    ) -> Surrogate:
        """Gradients of the mean over a batch; a parameter that both methods use gets the sum of both parts.

        Args:
            member: whose rules.
            x: images `[B, …]`.
            noise: of the step.
            chunk: particles of each image held at once, rounded up to a multiple of `BLOCK`; by default all.
            own: which images are meant, with their particles of the whole batch; the mean is over these.

        Raises:
            InputError: an encoder whose answer is no distribution, or one that is not reparameterised where the
                estimator needs that.
        """

        def sample(phi: Any, where: slice) -> Tensor:
            q = self._encoded(phi, x)  # of the whole batch: torch draws its particles together
            starts = range(where.start, where.stop, BLOCK)
            draws = [_drawn(q, noise, first // BLOCK, min(BLOCK, where.stop - first)) for first in starts]
            return torch.cat(draws)[:, own]

        densities = Densities(
            lambda theta, z: self._call(theta, "log_joint", x[own], z).mT,
            lambda phi, z: self._encoded(phi, x[own]).log_prob(z).mT,
            sample,
        )
        now = {name: value[0] for name, value in self.parameters.items()}
        rules: dict[str, Any] = {
            "model": member.model,
            "proposal": member.proposal,
            "M": member.M,
            "K": member.K,
        }
        size = None if chunk is None else -(-chunk // BLOCK) * BLOCK
        return gradients(densities, now, now, lambda where: where, chunk=size, **rules)

    @torch.no_grad()
    def log_weights(self, x: Tensor, noise: Noise, particles: int) -> Tensor:
        """Log-weights `[T]` of one image `[…]`, in float64.

        Args:
            x: the image.
            noise: of this image.
            particles: T, drawn in blocks.
        """
        own, image, found = {name: value[0] for name, value in self.parameters.items()}, x[None], []
        q = self._encoded(own, image)
        for first in range(0, particles, BLOCK):
            z = _drawn(q, noise, first // BLOCK, min(BLOCK, particles - first))
            found.append((self._call(own, "log_joint", image, z) - q.log_prob(z))[:, 0].to(torch.float64))
        return torch.cat(found)

    def encoder_parameters(self, x: Tensor, noise: Noise) -> list[str]:
        """Names of the parameters on which `log q(z|x)` depends, z held.

        Args:
            x: images `[B, …]`.
            noise: of the particles at which it is looked at.

        Raises:
            InputError: none of those that are trained.
        """
        phi = {name: value[0].clone().requires_grad_() for name, value in self.parameters.items()}
        with torch.enable_grad():
            q = self._encoded(phi, x)
            z = _drawn(q, noise, 0, 1).detach()  # another tensor than that whose density q may keep
            log_q = q.log_prob(z).sum()
        names: list[str] = []
        if log_q.requires_grad:
            slopes = torch.autograd.grad(log_q, list(phi.values()), allow_unused=True)
            names = [name for name, slope in zip(phi, slopes, strict=True) if slope is not None]
        if not names:
            raise InputError("encode uses no parameter that is trained: expected snr_replicates to be 0")
        return names

    @torch.no_grad()
    def proposal_means(self, x: Tensor) -> Tensor:
        """`E_q[z]` of images `[B, …]`, flat `[B, D]`."""
        return self._encoded({name: value[0] for name, value in self.parameters.items()}, x).mean.flatten(1)

    def _encoded(self, phi: Any, x: Tensor) -> torch.distributions.Distribution:
        q = self._call(phi, "encode", x)
        if not isinstance(q, torch.distributions.Distribution) or q.batch_shape != x.shape[:1]:
            shape = f" of batch shape {tuple(q.batch_shape)}" if hasattr(q, "batch_shape") else ""
            raise InputError(
                f"encode returned a {type(q).__name__}{shape}: expected a Distribution, ({len(x)},)"
            )
        return q

    def _call(self, parameters: Any, method: str, *args: Tensor) -> Any:
        named = {f"module.{name}": value for name, value in parameters.items()}
        return torch.func.functional_call(self._caller, named, (method, *args))


def module_of(
    spec: str,
    data_mean: Any,
    seed: int,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> ModuleModel:
    """The module that a function in a user's file makes.

    Args:
        spec: "FILE.py:NAME"; NAME takes the training images' mean `[D_x]`.
        data_mean: that mean.
        seed: of torch's generator while it runs, so that it begins with the same weights each time.
        device: where the parameters go.
        dtype: of the parameters.

    Raises:
        InputError: no such file or function, an error in it, or an answer that is no module or one that is refused.
    """
    path, _, name = spec.partition(".py:")
    file, wanted = (
        Path(f"{path}.py"),
        "expected FILE.py:NAME, a function of the training mean that returns a module",
    )
    if not name or not file.is_file():
        raise InputError(f"file is {shown(spec)}: {wanted}")
    try:
        make = getattr(usercode.execute(file), name, None)
        if not callable(make):
            raise InputError(f"{str(file)!r} defines no function {name!r}: {wanted}")
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            made = usercode.run(lambda: make(torch.as_tensor(data_mean, dtype=dtype)))
    except usercode.UserCodeError as error:
        raise InputError(f"running {spec} failed: {error}") from error.__cause__
    if not isinstance(made, torch.nn.Module):
        raise InputError(f"{spec} returned a {type(made).__name__}: expected a torch.nn.Module")
    return ModuleModel(made.to(device=device, dtype=dtype))


class _Caller(torch.nn.Module):
    """Calls any method of a module, so that it can be called with other parameters."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, method: str, *args: Tensor) -> Any:
        """The method's answer."""
        return getattr(self.module, method)(*args)


def _drawn(q: torch.distributions.Distribution, noise: Noise, number: int, count: int) -> Tensor:
    """A block of particles `[n, B, …]`: distributions read torch's own generator, which is put back afterwards."""
    device, key = torch.device(noise.device), noise.key("particles", number)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(key)
        else:  # torch.manual_seed would seed the generators of all devices, and they would stay so
            torch.default_generator.manual_seed(key)
        return q.rsample((count,)) if q.has_rsample else q.sample((count,))
