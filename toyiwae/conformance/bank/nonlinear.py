"""A problem with a nonlinear decoder, for surrogates: what only a nonlinear decoder shows, no linear problem can.

    p(z) = N(prior_mean, prior_cov)      p(x|z) = N(loading tanh(z) + offset, noise_cov)      q(z|x) = N(mean, cov)

One latent, one row of data; its truth comes from quadrature.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

import numpy as np

from toyiwae.problems.density import QuadratureProblem
from toyiwae.problems.linear_gaussian import Problem


@dataclass(frozen=True, eq=False)
class NonlinearProblem:
    """The nonlinear problem; it offers what the suite asks of a `Problem`.

    Attributes:
        arrays: the linear problem that it has its arrays from.
        decoder: what is done to z before it is loaded, as surrogates know it.
    """

    arrays: Problem
    decoder: ClassVar[str] = "tanh"
    n_rows: ClassVar[int] = 1

    @property
    def dim_z(self) -> int:
        """Dimension of the latent."""
        return self.arrays.dim_z

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the parameters, the model's first."""
        return self.arrays.parameters

    @property
    def content_hash(self) -> str:
        """A hash of the arrays and the decoder."""
        return sha256(f"{self.decoder} {self.arrays.content_hash}".encode()).hexdigest()

    def log_joint(self, z: np.ndarray) -> np.ndarray:
        """Log p(x, z) `[n]` of latents `[n, 1]`."""
        model = self.arrays.model
        both = ((z - model.prior_mean, model.prior_cov), (self._misfit(z), model.noise_cov))
        return sum(
            -0.5 * (y * np.linalg.solve(cov, y.T).T).sum(-1) - 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1]
            for y, cov in both
        )  # pyright: ignore[reportReturnType]

    def quadrature(self) -> QuadratureProblem:
        """The same problem as log-densities; a matrix parameter is flattened by rows."""
        model, proposal = self.arrays.model, self.arrays.proposal

        def prior_mean(z: np.ndarray) -> np.ndarray:
            return np.linalg.solve(model.prior_cov, (z - model.prior_mean).T).T

        def offset(z: np.ndarray) -> np.ndarray:
            return np.linalg.solve(model.noise_cov, self._misfit(z).T).T

        def loading(z: np.ndarray) -> np.ndarray:
            return (offset(z)[:, :, None] * np.tanh(z)[:, None, :]).reshape(len(z), -1)

        def along_z(z: np.ndarray) -> np.ndarray:
            return (offset(z) @ model.loading) * (1.0 - np.tanh(z) ** 2) - prior_mean(z)

        gradients = {"prior_mean": prior_mean, "loading": loading, "offset": offset}
        return QuadratureProblem(self.log_joint, proposal.mean, proposal.cov, along_z, gradients)

    def _misfit(self, z: np.ndarray) -> np.ndarray:
        model = self.arrays.model
        return self.arrays.data.x - np.tanh(z) @ model.loading.T - model.offset
