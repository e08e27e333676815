"""The same gradients by other people's libraries, where they are installed (extra `peers`)."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from toyiwae import Problem
from toyiwae.montecarlo.whitened import Whitened

LEAN, LIBRARY = 2**22, 2**20
"""Normals of a call: of the lean programs, and of the libraries."""

Call = Callable[[], float]
"""Runs once and returns its CPU-seconds."""


def peers(problem: Problem, particles: int) -> dict[str, tuple[int, Call]]:
    """Those that are there: name -> replicates of a call, the call."""
    found = {}
    if importlib.util.find_spec("jax"):
        found["JAX by hand"] = by_jax(problem, particles)
    if importlib.util.find_spec("numpyro"):
        found["NumPyro"] = _by_numpyro(problem, particles)
    if importlib.util.find_spec("pyro"):
        found["Pyro"] = _by_pyro(problem, particles)
    return found


def timed(call: Callable[[], object]) -> float:
    """CPU-seconds of a call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def by_jax(problem: Problem, particles: int) -> tuple[int, Call]:
    """First-order sums in float32 without autograd, compiled by JAX: of each row, then their mean."""
    import jax

    own = Whitened(problem)
    slope, curvature = (
        jax.numpy.asarray(part, "float32") for part in (own.slope[:, None], own.curvature[:, None])
    )
    count = max(1, LEAN // (problem.n_rows * particles * problem.dim_z))

    @jax.jit
    def sums(key: Any) -> Any:
        shape = (count, problem.n_rows, particles, problem.dim_z)
        noise = jax.random.normal(key, shape, "float32")
        weights = jax.nn.softmax((noise * (slope + curvature * noise)).sum(-1), -1)
        return ((weights[..., None, :] @ noise)[..., 0, :] * (slope[:, 0] + 1.0)).mean(1)

    keys = iter(jax.random.split(jax.random.key(1), 1000))
    return count, lambda: timed(lambda: sums(next(keys)).block_until_ready())


def _by_numpyro(problem: Problem, particles: int) -> tuple[int, Call]:
    """`vmap` of the gradient of `RenyiELBO(alpha=0)` by the proposal's mean, compiled."""
    import jax
    from numpyro import distributions, infer, param, sample

    normal = distributions.MultivariateNormal
    prior, roots, start, x = _of(problem, lambda array: jax.numpy.asarray(array, "float32"))

    def model() -> None:
        z = sample("z", normal(prior[0], scale_tril=roots[0]))
        sample("x", normal(prior[2] + prior[1] @ z, scale_tril=roots[1]), obs=x)

    def guide() -> None:
        sample("z", normal(param("mean", start), scale_tril=roots[2]))

    bound = infer.RenyiELBO(alpha=0.0, num_particles=particles)
    count = max(1, LIBRARY // (particles * problem.dim_z))

    @jax.jit
    def gradients(key: Any) -> Any:
        one = jax.grad(lambda mean, own: bound.loss(own, {"mean": mean}, model, guide))
        return jax.vmap(one, in_axes=(None, 0))(start, jax.random.split(key, count))

    keys = iter(jax.random.split(jax.random.key(1), 1000))
    return count, lambda: timed(lambda: gradients(next(keys)).block_until_ready())


def _by_pyro(problem: Problem, particles: int) -> tuple[int, Call]:
    """`RenyiELBO(alpha=0)` with vectorised particles, one replicate after the other: it has no `vmap`."""
    import pyro
    import torch

    normal = pyro.distributions.MultivariateNormal
    prior, roots, start, x = _of(problem, lambda array: torch.tensor(array, dtype=torch.float32))

    def model() -> None:
        z = pyro.sample("z", normal(prior[0], scale_tril=roots[0]))
        pyro.sample("x", normal(prior[2] + z @ prior[1].T, scale_tril=roots[1]), obs=x)

    def guide() -> None:
        pyro.sample("z", normal(pyro.param("mean", start), scale_tril=roots[2]))

    bound = pyro.infer.RenyiELBO(
        alpha=0.0, num_particles=particles, vectorize_particles=True, max_plate_nesting=0
    )
    count = max(1, min(20, LIBRARY // (particles * problem.dim_z)))

    def call() -> None:
        pyro.clear_param_store()
        for _ in range(count):
            bound.loss_and_grads(model, guide)

    return count, lambda: timed(call)


def _of(problem: Problem, place: Callable[[np.ndarray], Any]) -> tuple[Any, Any, Any, Any]:
    """Prior mean, loading and offset; Cholesky factors of prior, noise and proposal; the proposal's mean; x."""
    own, proposal = problem.model, problem.proposal
    mean = Whitened(problem).of_one_row().mean
    plain = tuple(place(np.asarray(a)) for a in (own.prior_mean, own.loading, own.offset))
    roots = tuple(
        place(np.linalg.cholesky(np.asarray(a))) for a in (own.prior_cov, own.noise_cov, proposal.cov)
    )
    return plain, roots, place(np.asarray(mean)), place(np.asarray(problem.data.x).reshape(-1))
