"""A linear-Gaussian problem in whitened noise: log-weights, and gradients from sums of weighted noise.

With `cov = LLᵀ`, posterior precision P⁻¹, `LᵀP⁻¹L − I = U diag(β) Uᵀ`, `T = LU` and `g` the slope at the
proposal's mean, particles are `z = μ_q + Tη`, `η ~ N(0, I)`: the standard reparameterisation
`z = μ_q + Lε` with `ε = Uη`. Then

    log w = log w(μ_q) + gᵀη − ½ Σ_i β_i η_i²
    ∂ log w/∂z = J(g − β∘η),    ∇_μ log q = Jη,    ∇_L log q = tril J(ηηᵀ − I)Uᵀ,      J = L⁻ᵀU

and the gradients of log p(x, z) are affine or bilinear in z. So a gradient estimator needs of its particles
only Σ c, Σ c η and, for `loading` and `proposal_chol`, Σ c ηηᵀ, for each of its three coefficients c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from toyiwae.problems.linear_gaussian import Problem

Tensor = torch.Tensor

MODEL_PARAMETERS = ("prior_mean", "loading", "offset")
SECOND_ORDER = ("loading", "proposal_chol")
"""Parameters whose gradients need Σ c ηηᵀ."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over all groups and particles, for the coefficients model, path, score in this order.

    Attributes:
        zeroth: Σ c `[R, n, 3]`.
        first: Σ c η `[R, n, 3, D]`.
        second: Σ c ηηᵀ over the rows too `[R, 3, D, D]`, or None where no gradient needs it.
    """

    zeroth: Tensor
    first: Tensor
    second: Tensor | None

    @classmethod
    def of(cls, coefficients: Tensor, noise: Tensor, second: bool) -> Sums:
        """The sums of C coefficients `[R, n, C, M, K]` over noise `[R, n, M, K, D]`."""
        flat, rolled = coefficients.flatten(3), noise.flatten(2, 3)
        pairs = None
        if second:
            rows = rolled.flatten(1, 2)
            parts = [(rows * part.flatten(1)[..., None]).mT @ rows for part in flat.unbind(2)]
            pairs = torch.stack(parts, dim=1)
        return cls(flat.sum(-1), flat @ rolled, pairs)

    def __add__(self, other: Sums) -> Sums:
        """The sums over both sets of particles."""
        second = None if self.second is None or other.second is None else self.second + other.second
        return Sums(self.zeroth + other.zeroth, self.first + other.first, second)

    def part(self, index: int) -> Sums:
        """The sums of estimator `index`, where the coefficients of several stand in a row."""
        three = slice(3 * index, 3 * index + 3)
        second = None if self.second is None else self.second[:, three]
        return Sums(self.zeroth[:, :, three], self.first[:, :, three], second)


class Whitened:
    """One problem's constants of the formulas above, as float64 tensors on a device.

    Attributes:
        n_rows: N.
        rotation: U `[D, D]`.
    """

    def __init__(self, problem: Problem, device: torch.device):
        """Computes the constants; NumPy in float64."""
        problem.require_shared_proposal("Monte Carlo")
        model, rows = problem.model, problem.rows()
        chol = np.linalg.cholesky(problem.proposal.cov)
        prior_precision, noise_precision = np.linalg.inv(model.prior_cov), np.linalg.inv(model.noise_cov)
        loaded = noise_precision @ model.loading
        beta, rotation = _eigen(chol.T @ (prior_precision + model.loading.T @ loaded) @ chol)
        turned = chol @ rotation
        displaced = rows.proposal_mean - model.prior_mean
        residual = rows.x - model.offset - rows.proposal_mean @ model.loading.T
        pulled = displaced @ prior_precision
        slope = (residual @ loaded - pulled) @ turned
        exact = 8 * problem.dim_z * np.finfo(float).eps
        exact *= max(np.linalg.cond(model.prior_cov), np.linalg.cond(model.noise_cov))
        beta = np.where(np.abs(beta) <= exact * (1.0 + np.abs(beta)), 0.0, beta)
        size = (np.abs(residual) @ np.abs(loaded) + np.abs(displaced) @ np.abs(prior_precision)) @ np.abs(
            turned
        )
        slope = np.where(np.abs(slope) <= exact * size, 0.0, slope)
        base = _log_normal(displaced, model.prior_cov) + _log_normal(residual, model.noise_cov)
        base += np.log(np.diag(chol)).sum() + 0.5 * problem.dim_z * math.log(2.0 * math.pi)

        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(array, dtype=torch.float64, device=device)

        self.n_rows, self.shapes = problem.n_rows, problem.parameters
        self.rotation, self._turned = tensor(rotation), tensor(turned)
        self._base, self._slope, self._beta = tensor(base), tensor(slope), tensor(beta)
        self._curvature = -0.5 * self._beta
        self._jacobian = tensor(np.linalg.solve(chol.T, rotation))
        self._prior_pull, self._prior_map = tensor(pulled), tensor(prior_precision @ turned)
        self._noise_pull, self._noise_map = tensor(residual @ noise_precision), tensor(loaded @ turned)
        self._x, self._mean = tensor(rows.x), tensor(rows.proposal_mean)

    def log_weights(self, noise: Tensor, rows: slice) -> Tensor:
        """`log w` `[R, n, M, K]` of noise η `[R, n, M, K, D]`, for n rows of data."""
        slope, base = self._slope[rows, None, None, :], self._base[rows, None, None]
        return (noise * torch.addcmul(slope, self._curvature, noise)).sum(-1) + base

    def gradient(self, name: str, sums: Sums, rows: slice) -> Tensor:
        """The rows' part of one parameter's gradient of the average over all rows: `[R, *shape]`.

        Args:
            name: the parameter.
            sums: one estimator's sums over the particles of these rows.
            rows: which rows.
        """
        return _GRADIENTS[name](self, sums, rows) / self.n_rows

    def _prior_mean(self, sums: Sums, rows: slice) -> Tensor:
        zeroth, first = sums.zeroth[:, :, 0], sums.first[:, :, 0]
        return zeroth @ self._prior_pull[rows] + first.sum(1) @ self._prior_map.mT

    def _offset(self, sums: Sums, rows: slice) -> Tensor:
        zeroth, first = sums.zeroth[:, :, 0], sums.first[:, :, 0]
        return zeroth @ self._noise_pull[rows] - first.sum(1) @ self._noise_map.mT

    def _loading(self, sums: Sums, rows: slice) -> Tensor:
        """`Σ c R⁻¹(x − c₀ − Wz)zᵀ` with `z = μ_q + Tη` multiplied out."""
        assert sums.second is not None
        zeroth, first, second = sums.zeroth[:, :, 0, None], sums.first[:, :, 0], sums.second[:, 0]
        pull, mean, turned = self._noise_pull[rows], self._mean[rows], self._turned
        constant = (zeroth * pull).mT @ mean + (pull.mT @ first) @ turned.mT
        return constant - self._noise_map @ (first.mT @ mean + second @ turned.mT)

    def _mean_of_row(self, sums: Sums, rows: slice) -> Tensor:
        """Gradient by each row's proposal mean `[R, n, D]`."""
        path = sums.zeroth[:, :, 1, None] * self._slope[rows] - self._beta * sums.first[:, :, 1]
        return (path + sums.first[:, :, 2]) @ self._jacobian.mT

    def _proposal_mean(self, sums: Sums, rows: slice) -> Tensor:
        return self._mean_of_row(sums, rows).sum(1)

    def _proposal_weight(self, sums: Sums, rows: slice) -> Tensor:
        return self._mean_of_row(sums, rows).mT @ self._x[rows]

    def _proposal_chol(self, sums: Sums, rows: slice) -> Tensor:
        assert sums.second is not None
        outer = self._slope[rows].mT @ sums.first[:, :, 1]
        inner = outer - self._beta[:, None] * sums.second[:, 1] + sums.second[:, 2]
        inner = inner - torch.diag_embed(sums.zeroth[:, :, 2].sum(1)[:, None].expand(-1, len(self._beta)))
        return torch.tril(self._jacobian @ inner @ self.rotation.mT)


_GRADIENTS = {
    "prior_mean": Whitened._prior_mean,
    "loading": Whitened._loading,
    "offset": Whitened._offset,
    "proposal_mean": Whitened._proposal_mean,
    "proposal_weight": Whitened._proposal_weight,
    "proposal_offset": Whitened._proposal_mean,
    "proposal_chol": Whitened._proposal_chol,
}


def _eigen(precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """β and U of the whitened precision; U is the identity where only round-off is off the diagonal.

    Without that, round-off would choose the axes of a problem that has none of its own, differently from one
    machine to the next.
    """
    diagonal = np.diag(precision)
    if np.abs(precision - np.diag(diagonal)).max() <= 1e-14 * diagonal.max():
        return diagonal - 1.0, np.eye(len(precision))
    values, vectors = np.linalg.eigh((precision + precision.T) / 2.0)
    largest = np.abs(vectors).argmax(axis=0)
    return values - 1.0, vectors * np.sign(vectors[largest, np.arange(len(values))])


def _log_normal(centred: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Log-density of N(0, cov) at each row."""
    chol = np.linalg.cholesky(cov)
    white = np.linalg.solve(chol, centred.T)
    constant = np.log(np.diag(chol)).sum() + 0.5 * len(cov) * math.log(2.0 * math.pi)
    return -0.5 * (white * white).sum(axis=0) - constant
