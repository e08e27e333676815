"""A user's surrogate loss in torch, evaluated on problems whose truth is known.

    value, surrogate = function(log_joint, log_q, sample, K=K, M=M)

R replicates of N rows of data are B = R·N independent copies of the problem, side by side on the first axis. The
parameters of every replicate are leaves of their own, `[R, *shape]`, so one backward pass of the sum over all copies
gives every replicate's gradient. Everything is float64, on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from toyiwae.errors import InputError
from toyiwae.extras import import_extra
from toyiwae.problems.linear_gaussian import Problem

import_extra("torch", extra="torch", purpose="surrogate losses")

import torch  # noqa: E402

Tensor = torch.Tensor

DECODERS: dict[str, Callable[[Tensor], Tensor]] = {"linear": lambda z: z, "tanh": torch.tanh}
"""What is done to z before it is loaded: the mean of x is `loading f(z) + offset`."""

PARTS = ("model", "proposal")


class Sampler:
    """Reparameterised particles: `sample(M, K)` is `[B, M, K, D]`; every call draws new ones.

    Attributes:
        generator: where the noise comes from, for random numbers of the user's own.
    """

    def __init__(self, graph: Graph, seed: int, others: int | None):
        """Seeds the noise; `others` seeds that of all replicates but the first differently."""
        self._graph = graph
        self.generator = torch.Generator().manual_seed(seed)
        self._others = None if others is None else torch.Generator().manual_seed(others)

    def __call__(self, *shape: Any) -> Tensor:
        """Particles `z = mean + L ε` `[B, *shape, D]`, with gradients by the proposal's parameters.

        Raises:
            InputError: sizes that are not whole numbers of at least 1.
        """
        sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
        if not all(isinstance(size, int) and size >= 1 for size in sizes):
            raise InputError(f"sample: sizes are {sizes!r}: expected whole numbers, as in sample(M, K)")
        graph = self._graph
        numbers = (graph.copies, math.prod(sizes), graph.dim)
        noise = torch.randn(numbers, generator=self.generator, dtype=torch.float64)
        if self._others is not None:
            apart = torch.randn(numbers, generator=self._others, dtype=torch.float64)
            noise[graph.rows :] = apart[graph.rows :]
        parameters = graph.parameters(detach=False)
        z = parameters["mean"][:, None] + noise @ parameters["chol"].mT
        return z.reshape(graph.copies, *sizes, graph.dim)


class Graph:
    """B copies of a problem as an autograd graph.

    Attributes:
        leaves: parameter -> leaf `[R, *shape]`.
        sample: the sampler.
        rows, copies, dim: N, B and D.
    """

    def __init__(
        self, problem: Problem, replicates: int, seed: int, decoder: str = "linear", others: int | None = None
    ):
        """Makes the leaves; draws nothing yet."""
        model, proposal = problem.model, problem.proposal
        values = {name: getattr(model, name) for name in ("prior_mean", "loading", "offset")}
        names = ("weight", "offset") if problem.amortised else ("mean",)
        values |= {f"proposal_{name}": getattr(proposal, name) for name in names}
        values["proposal_chol"] = np.linalg.cholesky(proposal.cov)
        self.rows, self.dim, self.copies = problem.n_rows, problem.dim_z, problem.n_rows * replicates
        self.leaves = {
            name: _tensor(value).repeat(replicates, *[1] * value.ndim) for name, value in values.items()
        }
        for leaf in self.leaves.values():
            leaf.requires_grad_(True)
        self._decoder = DECODERS[decoder]
        self._x = _tensor(problem.rows().x).repeat(replicates, 1)
        self._prior, self._noise = _Normal(model.prior_cov), _Normal(model.noise_cov)
        self._known: dict[bool, dict[str, Tensor]] = {}
        self.sample = Sampler(self, seed, others)

    def parameters(self, *, detach: bool) -> dict[str, Tensor]:
        """The parameters of every copy `[B, *shape]`: the model's, and the proposal's `mean` and `chol`."""
        if detach not in self._known:
            found = {
                name: (leaf.detach() if detach else leaf).repeat_interleave(self.rows, 0)
                for name, leaf in self.leaves.items()
            }
            found["chol"] = torch.tril(found["proposal_chol"])
            if "proposal_mean" in found:
                found["mean"] = found["proposal_mean"]
            else:
                turned = found["proposal_weight"] @ self._x[..., None]
                found["mean"] = turned[..., 0] + found["proposal_offset"]
            self._known[detach] = found
        return self._known[detach]

    def log_joint(self, z: Any, *, detach: bool = False) -> Tensor:
        """`log p(x, z)` `[B, ...]` of particles `[B, ..., D]`.

        Args:
            z: particles.
            detach: hold the model's parameters constant, so that gradients pass through z alone.

        Raises:
            InputError: another shape, or no tensor.
        """
        flat, found = self._flat(z, "log_joint"), self.parameters(detach=detach)
        mean = self._decoder(flat) @ found["loading"].mT + found["offset"][:, None]
        log_prior = self._prior(flat - found["prior_mean"][:, None])
        return (log_prior + self._noise(self._x[:, None] - mean)).reshape(z.shape[:-1])

    def log_q(self, z: Any, *, detach: bool = False) -> Tensor:
        """`log q(z|x)` `[B, ...]` of particles `[B, ..., D]`; `detach` as in `log_joint`.

        Raises:
            InputError: another shape, or no tensor.
        """
        flat, found = self._flat(z, "log_q"), self.parameters(detach=detach)
        chol = found["chol"]
        centred = flat - found["mean"][:, None]
        noise = torch.linalg.solve_triangular(chol, centred.mT, upper=False)
        log_det = chol.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1, keepdim=True)
        log_density = -0.5 * noise.square().sum(-2) - log_det - 0.5 * self.dim * math.log(2.0 * math.pi)
        return log_density.reshape(z.shape[:-1])

    def _flat(self, z: Any, name: str) -> Tensor:
        """The particles as `[B, n, D]`."""
        if not isinstance(z, torch.Tensor):
            raise InputError(f"{name} was given a {type(z).__name__}: expected a tensor [B, ..., D]")
        if z.ndim < 2 or z.shape[0] != self.copies or z.shape[-1] != self.dim:
            expected = f"[{self.copies}, ..., {self.dim}]"
            raise InputError(f"{name} was given z of shape {list(z.shape)}: expected {expected}")
        return z.to(torch.float64).reshape(self.copies, -1, self.dim)


class _Normal:
    """Log-density of N(0, cov)."""

    def __init__(self, cov: np.ndarray):
        chol = np.linalg.cholesky(cov)
        self._root = _tensor(np.linalg.inv(chol).T)
        self._constant = float(np.log(np.diag(chol)).sum() + 0.5 * len(cov) * np.log(2.0 * np.pi))

    def __call__(self, centred: Tensor) -> Tensor:
        return -0.5 * (centred @ self._root).square().sum(-1) - self._constant


def replicates(
    function: Callable[..., Any],
    problem: Problem,
    *,
    K: int,
    M: int,
    replicates: int,
    seed: int,
    decoder: str = "linear",
    others: int | None = None,
) -> tuple[Tensor | None, dict[str, Tensor]]:
    """Values and gradients of independent replicates of a surrogate.

    Args:
        function: called as `function(log_joint, log_q, sample, K=K, M=M)`; returns the value `[B]`, or the value and a
            surrogate `[B]` whose gradient is the estimate, or the value and such surrogates by part, `"model"` and
            `"proposal"`.
        problem: linear-Gaussian, or the arrays of a problem with another decoder.
        K: particles inside the logarithm.
        M: groups outside.
        replicates: R.
        seed: same seed, same numbers.
        decoder: key of `DECODERS`.
        others: another seed for the noise of all replicates but the first.

    Returns:
        Values `[R]`, and gradients `[R, *shape]` by parameter, averaged over rows of data.

    Raises:
        InputError: an answer of another kind or shape.
    """
    graph = Graph(problem, replicates, seed, decoder, others)
    with torch.enable_grad():
        answer = function(graph.log_joint, graph.log_q, graph.sample, K=K, M=M)
    value, losses = _read(answer, graph.copies)
    with torch.enable_grad():  # whatever the user's function has left it at
        gradients = _gradients(graph, losses)
    if value is not None:
        value = value.detach().reshape(replicates, graph.rows).mean(1)
    return value, gradients


def _gradients(graph: Graph, losses: dict[str, Tensor]) -> dict[str, Tensor]:
    """Gradients of each part's loss by its parameters; zero where it does not depend on them."""
    found: dict[str, Tensor] = {}
    for loss in {id(loss): loss for loss in losses.values()}.values():
        names = [name for name in graph.leaves if losses.get(_part(name)) is loss]
        leaves = [graph.leaves[name] for name in names]
        slopes = torch.autograd.grad(loss.sum() / graph.rows, leaves, retain_graph=True, allow_unused=True)
        for name, leaf, slope in zip(names, leaves, slopes, strict=True):
            found[name] = (torch.zeros_like(leaf) if slope is None else slope).to(loss.dtype)
    return found


def _part(name: str) -> str:
    return PARTS[name.startswith("proposal")]


def _read(answer: Any, copies: int) -> tuple[Tensor | None, dict[str, Tensor]]:
    """The value and the losses by part."""
    value, loss = (answer, answer) if isinstance(answer, torch.Tensor) else _pair(answer)
    losses: dict[str, Any] = dict(loss) if isinstance(loss, Mapping) else {part: loss for part in PARTS}
    unknown = [key for key in losses if key not in PARTS]
    if unknown or not losses:
        raise InputError(f"the surrogates have the keys {[*losses]}: expected 'model' and 'proposal'")
    for part, tensor in losses.items():
        name = f"the surrogate of the {part}" if isinstance(loss, Mapping) else "the surrogate"
        _check(name, tensor, copies)
        if not tensor.requires_grad:
            raise InputError(f"{name} has no gradient: it depends on no parameter")
    if value is None:
        return None, losses
    value = torch.as_tensor(value) if isinstance(value, np.ndarray) else value
    _check("the value", value, copies)
    return value, losses


def _pair(answer: Any) -> tuple[Any, Any]:
    if isinstance(answer, (tuple, list)) and len(answer) == 2:
        return answer[0], answer[1]
    many = f" of {len(answer)}" if isinstance(answer, (tuple, list)) else ""
    raise InputError(
        f"it returned a {type(answer).__name__}{many}: expected the value [B], or the value and a surrogate [B], or the"
        " value and {'model': [B], 'proposal': [B]}"
    )


def _check(name: str, tensor: Any, copies: int) -> None:
    """A tensor `[B]` of real numbers."""
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point():
        kind = f"{tensor.dtype} tensor" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise InputError(f"{name} is a {kind}: expected a tensor of real numbers")
    if tensor.shape != (copies,):
        hint = "do not average over the first axis" if tensor.ndim == 0 else "average over the M groups"
        raise InputError(f"{name} has shape {list(tensor.shape)}: expected [{copies}]; {hint}")


def _tensor(array: np.ndarray) -> Tensor:
    return torch.tensor(array, dtype=torch.float64)
