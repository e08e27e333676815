"""Users' log-densities: gradients beside closed forms, chunks and replicates beside one pass, the page's example."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.members import every_family, every_member
from tests.problems import random_problem
from toyiwae import montecarlo
from toyiwae.errors import InputError
from toyiwae.surrogate import Densities, gradients, replicates

M, K = 2, 4
ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/networks.md").read_text(encoding="utf-8")


def gaussian(problem):
    """A linear-Gaussian problem by torch.distributions: densities, θ and φ."""
    model, proposal = problem.model, problem.proposal
    x = torch.tensor(problem.data.x)[:, None]
    normal = torch.distributions.MultivariateNormal
    prior_cov, noise_cov = torch.tensor(model.prior_cov), torch.tensor(model.noise_cov)

    def log_joint(theta, z):
        mean = z @ theta["loading"].mT + theta["offset"]
        return normal(theta["prior_mean"], prior_cov).log_prob(z) + normal(mean, noise_cov).log_prob(x)

    def log_q(phi, z):
        chol = torch.tril(phi["proposal_chol"])
        noise = torch.linalg.solve_triangular(chol, (z - phi["proposal_mean"]).mT, upper=False)
        log_det = chol.diagonal().log().sum()
        return -0.5 * noise.square().sum(-2) - log_det - 0.5 * len(chol) * math.log(2.0 * math.pi)

    def sample(phi, noise):
        return phi["proposal_mean"] + noise @ torch.tril(phi["proposal_chol"]).mT

    theta = {name: torch.tensor(getattr(model, name)) for name in ("prior_mean", "loading", "offset")}
    phi = {"proposal_mean": proposal.mean, "proposal_chol": np.linalg.cholesky(proposal.cov)}
    phi = {name: torch.tensor(value) for name, value in phi.items()}
    return Densities(log_joint, log_q, sample), theta, phi


@pytest.fixture(scope="module")
def setting():
    problem = random_problem(4, rows=3)
    noise = torch.randn(5, 3, M * K, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return problem, gaussian(problem), noise


def close(found, expected, tolerance=1e-12):
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=0, atol=tolerance * float(value.abs().max() + 1e-300)
        )


@every_member
def test_gradients_are_the_closed_forms(setting, member):
    """`montecarlo.gradients_of` forms them from whitened noise, without autograd."""
    problem, (densities, theta, phi), noise = setting
    if member.min_particles > K:
        pytest.skip("K is too small")
    chunk = montecarlo.gradients_of(noise.unflatten(-2, (M, K)), problem, member, parameters="all")
    expected = {name: torch.from_numpy(value) for name, value in chunk.gradients[member.name].items()}
    found = replicates(densities, theta, phi, noise, M=M, K=K, model=member)
    scale = max(float(value.abs().max()) for value in expected.values())
    for name, value in expected.items():
        torch.testing.assert_close((found.theta | found.phi)[name], value, rtol=0, atol=1e-12 * scale)
    if member.name == "iwae":
        torch.testing.assert_close(found.value.mean(-1), torch.from_numpy(chunk.values), rtol=1e-12, atol=0)


@every_family
def test_chunks_and_replicates_give_the_gradients_of_one_pass(setting, member):
    _, (densities, theta, phi), noise = setting
    together = replicates(densities, theta, phi, noise, M=M, K=K, model=member, proposal="iwae", chunk_size=2)
    for r in range(2):
        rules = {"M": M, "K": K, "model": member, "proposal": "iwae"}
        whole = gradients(densities, theta, phi, noise[r], **rules)
        for chunk in (3, 8):
            parts = gradients(
                densities, theta, phi, lambda where, r=r: noise[r][:, where], chunk=chunk, **rules
            )
            close(parts.theta | parts.phi, whole.theta | whole.phi)
            torch.testing.assert_close(parts.value, whole.value)
        close({k: v[r] for k, v in (together.theta | together.phi).items()}, whole.theta | whole.phi)
        torch.testing.assert_close(together.value[r], whole.value)


def test_particles_that_do_not_depend_on_the_proposal():
    """A Bernoulli latent: VIMCO's mean over all 2² pairs is the slope of L_2; a rule with a path part is refused."""
    theta, phi = {"prior": torch.tensor(0.3), "slope": torch.tensor(1.2)}, {"logit": torch.tensor(-0.4)}

    def bernoulli(logit, z):
        return z * logit - torch.nn.functional.softplus(logit)

    def log_joint(theta, z):
        return bernoulli(theta["prior"], z) - 0.5 * (0.7 - theta["slope"] * z) ** 2

    densities = Densities(log_joint, lambda phi, z: bernoulli(phi["logit"], z), lambda phi, noise: noise)
    leaves = {k: v.clone().requires_grad_(True) for k, v in (theta | phi).items()}
    bound, sums = torch.zeros(()), dict.fromkeys(leaves, 0.0)
    for pair in ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)):
        z = torch.tensor(pair)
        mass = bernoulli(leaves["logit"], z).sum().exp()
        share = mass.item()
        log_w = log_joint(leaves, z) - bernoulli(leaves["logit"], z)
        bound = bound + mass * (torch.logsumexp(log_w, 0) - math.log(2.0))
        found = gradients(densities, theta, phi, z, K=2, model="vimco_arithmetic")
        sums = {k: sums[k] + share * v for k, v in (found.theta | found.phi).items()}
    close(sums, dict(zip(leaves, torch.autograd.grad(bound, list(leaves.values())), strict=True)), 1e-5)
    with pytest.raises(
        InputError, match="'iwae' differentiates through the particles, which do not depend on phi"
    ):
        gradients(densities, theta, phi, torch.ones(2), K=2)


def test_what_does_not_fit_is_refused(setting):
    _, (densities, theta, phi), noise = setting
    with pytest.raises(
        InputError, match=r"log-weights have shape \(3, 8\): expected \[..., 6\], particles M·K last"
    ):
        gradients(densities, theta, phi, noise[0], M=2, K=3)
    with pytest.raises(InputError, match="iwaee"):
        gradients(densities, theta, phi, noise[0], M=M, K=K, model="iwaee")


def test_the_documented_example(capsys):
    """The example's own z-scores, of three gradients at two K, at a family-wise rate of 1e-6."""
    names = {}
    (block,) = (
        b for b in re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if "quadrature" in b
    )
    exec(compile(block, "docs/networks.md", "exec"), names)
    assert len(names["z_scores"]) == 6
    assert max(map(abs, names["z_scores"])) < names["threshold"]


MILLION = """
import torch
from tests.memory import peak_gib
from toyiwae.surrogate import Densities, gradients
half = torch.distributions.Normal(0.0, 1.0)
weight, x = torch.randn(20, 200, generator=torch.Generator().manual_seed(1)), torch.ones(200)
densities = Densities(
    lambda theta, z: half.log_prob(z).sum(-1) - ((torch.tanh(z @ weight) - theta["x"]) ** 2).sum(-1),
    lambda phi, z: torch.distributions.Normal(phi["mean"], 1.0).log_prob(z).sum(-1),
    lambda phi, noise: phi["mean"] + noise,
)
def noise(where):
    return torch.randn(where.stop - where.start, 20, generator=torch.Generator().manual_seed(where.start))
found = gradients(densities, {"x": x}, {"mean": torch.zeros(20)}, noise, K=10**6, model="dreg", chunk=20_000)
print(float(found.value), float(found.phi["mean"].norm()), peak_gib())
"""


@pytest.mark.slow
def test_a_million_particles_fit_into_a_gigabyte():
    """Held at once, their activations alone would take 2.4 GB."""
    command = [sys.executable, "-c", MILLION]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=True)
    value, norm, gigabytes = map(float, run.stdout.split())
    assert math.isfinite(value)
    assert norm > 0.0
    assert gigabytes < 1.0
