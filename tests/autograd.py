"""A linear-Gaussian problem as an autograd graph: leaves, particles, densities of torch."""

import numpy as np
import torch

from toyiwae.problems.linear_gaussian import Problem


class Graph:
    """One replicate: parameters are leaves, particles `z = μ_q + Lε` carry gradients.

    Attributes:
        leaves: parameter -> leaf tensor.
        z: particles [N, M, K, D_z].
    """

    def __init__(self, problem: Problem, noise: np.ndarray):
        """Builds the graph of noise ε [N, M, K, D_z]."""
        model, proposal = problem.model, problem.proposal
        values = {name: getattr(model, name) for name in ("prior_mean", "loading", "offset")}
        names = ("weight", "offset") if problem.amortised else ("mean",)
        values |= {f"proposal_{name}": getattr(proposal, name) for name in names}
        values["proposal_chol"] = np.linalg.cholesky(proposal.cov)
        self.leaves = {name: torch.tensor(value, requires_grad=True) for name, value in values.items()}
        self._prior_cov, self._noise_cov = torch.tensor(model.prior_cov), torch.tensor(model.noise_cov)
        self._x = torch.tensor(np.atleast_2d(problem.data.x))[:, None, None, :]
        chol = torch.tril(self.leaves["proposal_chol"])
        self.z = self._proposal_mean(self.leaves) + torch.tensor(noise) @ chol.mT

    def log_p(self, z: torch.Tensor, *, frozen: bool = False) -> torch.Tensor:
        """`log p(x, z)`; frozen: with the parameters detached."""
        leaves = self._leaves(frozen)
        normal = torch.distributions.MultivariateNormal
        mean = z @ leaves["loading"].mT + leaves["offset"]
        prior, likelihood = normal(leaves["prior_mean"], self._prior_cov), normal(mean, self._noise_cov)
        return prior.log_prob(z) + likelihood.log_prob(self._x)

    def log_q(self, z: torch.Tensor, *, frozen: bool = False) -> torch.Tensor:
        """`log q(z|x)`; frozen: with the parameters detached."""
        leaves = self._leaves(frozen)
        chol = torch.tril(leaves["proposal_chol"])
        mean = self._proposal_mean(leaves)
        return torch.distributions.MultivariateNormal(mean, scale_tril=chol).log_prob(z)

    def log_w(self) -> torch.Tensor:
        """`log w` with its total derivative."""
        return self.log_p(self.z) - self.log_q(self.z)

    def path(self) -> torch.Tensor:
        """`log w` with its derivative through the particles alone."""
        return self.log_p(self.z, frozen=True) - self.log_q(self.z, frozen=True)

    def gradients(self, objective: torch.Tensor) -> dict[str, np.ndarray]:
        """Gradients of a sum of terms per row, group or particle, averaged over rows."""
        leaves = list(self.leaves.values())
        found = torch.autograd.grad(objective.sum() / len(self._x), leaves, allow_unused=True)
        return {
            name: np.zeros(leaf.shape) if value is None else value.numpy()
            for (name, leaf), value in zip(self.leaves.items(), found, strict=True)
        }

    def _leaves(self, frozen: bool) -> dict[str, torch.Tensor]:
        return {name: leaf.detach() if frozen else leaf for name, leaf in self.leaves.items()}

    def _proposal_mean(self, leaves: dict[str, torch.Tensor]) -> torch.Tensor:
        if "proposal_mean" in leaves:
            return leaves["proposal_mean"]
        return self._x @ leaves["proposal_weight"].mT + leaves["proposal_offset"]
