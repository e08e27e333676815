"""A linear-Gaussian problem in whitened noise: log-weights, and gradients from sums of weighted noise.

With `cov = LLᵀ`, posterior N(m, P), `LᵀP⁻¹L − I = U diag(β) Uᵀ`, `T = LU` and `h = TᵀP⁻¹(μ_q − m)`, all of them the
oracle's own numbers (`toyiwae.oracle.whitened`), particles are `z = μ_q + Tη`, `η ~ N(0, I)`: the standard
reparameterisation `z = μ_q + Lε` with `ε = Uη`. Then

    log w = log p(x) + c₀ − hᵀη − ½ Σ_i β_i η_i²,    c₀ = ½ Σ_i [log(1+β_i) − h_i²/(1+β_i)]
    ∂ log w/∂z = −J(h + β∘η),    ∇_μ log q = Jη,    ∇_L log q = tril J(ηηᵀ − I)Uᵀ,      J = L⁻ᵀU

and the gradients of log p(x, z) are affine or bilinear in z. So a gradient estimator needs of its particles
only Σ c, Σ c η and, for `loading` and `proposal_chol`, Σ c ηηᵀ, for each of its three coefficients c. Where every row
has a covariance of its own, T, U, J and β are one for each row.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from toyiwae.oracle.whitened.evidence import log_evidence
from toyiwae.oracle.whitened.model import rounded
from toyiwae.oracle.whitened.own_covariances import whiten
from toyiwae.problems.linear_gaussian import Problem

Tensor = torch.Tensor

SECOND_ORDER = ("loading", "proposal_chol")
"""Parameters whose gradients need Σ c ηηᵀ."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Sums over all groups and particles, for the coefficients model, path, score in this order.

    Attributes:
        zeroth: Σ c `[R, n, 3]`.
        first: Σ c η `[R, n, 3, D]`.
        second: Σ c ηηᵀ over the rows too `[R, 3, D, D]`, or of each row `[R, n, 3, D, D]`; None where none needs it.
    """

    zeroth: Tensor
    first: Tensor
    second: Tensor | None

    @classmethod
    def of(cls, coefficients: Tensor, noise: Tensor, second: bool, *, own: bool = False) -> Sums:
        """The sums of C coefficients `[R, n, C, M, K]` over noise `[R, n, M, K, D]`; `own`: of every row apart."""
        flat, rolled = coefficients.flatten(3), noise.flatten(2, 3)
        pairs = None
        if second and own:
            parts = [(rolled * part[..., None]).mT @ rolled for part in flat.unbind(2)]
            pairs = torch.stack(parts, dim=2)
        elif second:
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
        second = None if self.second is None else self.second[..., three, :, :]
        return Sums(self.zeroth[:, :, three], self.first[:, :, three], second)


class Whitened:
    """One problem's constants of the formulas above, as float64 tensors on a device.

    Attributes:
        n_rows: N.
        own: whether every row has a covariance of its own.
        rotation: U `[1, D, D]`, or `[N, D, D]` of every row.
    """

    def __init__(self, problem: Problem, device: torch.device):
        """Takes the constants from the oracle."""
        whitened = whiten(problem)
        model = whitened.model
        beta, h = whitened.beta, whitened.h
        self.own = beta.ndim == 2
        axes = np.stack(whitened.axes) if self.own else np.stack(whitened.axes)[:, None]  # [3, 1 or N, D, D]
        largest = np.abs(axes[0]).argmax(axis=1)[:, None]
        signs = np.sign(
            np.take_along_axis(axes[0], largest, axis=1)
        )  # [1 or N, 1, D]: not up to a library's whim
        rotation, root, jacobian = axes * signs
        centre = 0.5 * (np.log1p(beta) - h * h / (1.0 + beta)).sum(axis=1)
        prior, noise = model.at_means(whitened.x, whitened.mean)

        def tensor(array: np.ndarray) -> Tensor:
            return torch.tensor(array, dtype=torch.float64, device=device)

        self.n_rows, self.records = problem.n_rows, problem.parameters
        self.rotation, self._root, self._jacobian = tensor(rotation), tensor(root), tensor(jacobian)
        self._base, self._slope = tensor(log_evidence(whitened).value + centre), tensor(-h * signs[:, 0])
        self._beta = tensor(np.atleast_2d(beta))  # [1 or N, D]
        self._prior, self._noise = tensor(prior), tensor(noise)
        self._prior_precision, self._noise_loading = (
            tensor(rounded(a)) for a in (model.prior_precision, model.noise_loading)
        )
        self._x, self._mean = tensor(whitened.x), tensor(whitened.mean)

    def log_weights(self, noise: Tensor, rows: slice) -> Tensor:
        """`log w` `[R, n, M, K]` of noise η `[R, n, M, K, D]`, for n rows of data."""
        slope, base = self._slope[rows, None, None, :], self._base[rows, None, None]
        curvature = -0.5 * self._of(self._beta, rows)[:, None, None, :]
        return (noise * torch.addcmul(slope, curvature, noise)).sum(-1) + base

    def gradient(self, name: str, sums: Sums, rows: slice) -> Tensor:
        """The rows' part of one parameter's gradient of the average over all rows: `[R, *shape]`.

        Args:
            name: the parameter.
            sums: one estimator's sums over the particles of these rows.
            rows: which rows.
        """
        found = _GRADIENTS[name](self, sums, rows)
        record = self.records.record(name)
        if record.own:  # so far of the rows apart
            total = found.new_zeros((len(found), *record.shape))
            total[:, rows] = found
            found = total
        elif record.moves == "mean" and not record.amortised:
            found = found.sum(1)
        return found / self.n_rows

    def _of(self, array: Tensor, rows: slice) -> Tensor:
        """What some rows have of an array that all rows share, or of which each has its own."""
        return array[rows] if self.own else array

    def _mapped(self, matrix: Tensor, vectors: Tensor, rows: slice) -> Tensor:
        """The rows' matrix times vectors `[R, n, D]`."""
        return (matrix[rows] @ vectors[..., None])[..., 0] if self.own else vectors @ matrix[0].mT

    def _displacement(self, sums: Sums, rows: slice) -> Tensor:
        """`Σ c (z − μ_q)` of each row, for the model: `[R, n, D]`."""
        return self._mapped(self._root, sums.first[:, :, 0], rows)

    def _prior_mean(self, sums: Sums, rows: slice) -> Tensor:
        return (
            sums.zeroth[:, :, 0] @ self._prior[rows]
            + self._displacement(sums, rows).sum(1) @ self._prior_precision
        )

    def _offset(self, sums: Sums, rows: slice) -> Tensor:
        moved = self._displacement(sums, rows).sum(1) @ self._noise_loading.mT
        return sums.zeroth[:, :, 0] @ self._noise[rows] - moved

    def _loading(self, sums: Sums, rows: slice) -> Tensor:
        """`Σ c R⁻¹(x − o − Wz)zᵀ` with `z = μ_q + Tη` multiplied out."""
        assert sums.second is not None
        moved, noise, mean = self._displacement(sums, rows), self._noise[rows], self._mean[rows]
        root = self._of(self._root, rows)
        second = sums.second[..., 0, :, :]
        squares = (root @ second @ root.mT).sum(1) if self.own else root[0] @ second @ root[0].mT
        constant = (sums.zeroth[:, :, 0, None] * noise).mT @ mean + noise.mT @ moved
        return constant - self._noise_loading @ (moved.mT @ mean + squares)

    def _proposal_mean(self, sums: Sums, rows: slice) -> Tensor:
        """Gradient by each row's proposal mean `[R, n, D]`."""
        path = (
            sums.zeroth[:, :, 1, None] * self._slope[rows] - self._of(self._beta, rows) * sums.first[:, :, 1]
        )
        return self._mapped(self._jacobian, path + sums.first[:, :, 2], rows)

    def _proposal_weight(self, sums: Sums, rows: slice) -> Tensor:
        return self._proposal_mean(sums, rows).mT @ self._x[rows]

    def _proposal_offset(self, sums: Sums, rows: slice) -> Tensor:
        return self._proposal_mean(sums, rows).sum(1)

    def _proposal_chol(self, sums: Sums, rows: slice) -> Tensor:
        """Gradient by the Cholesky factor: of all rows `[R, D, D]`, or of each its own `[R, n, D, D]`."""
        assert sums.second is not None
        beta, jacobian, rotation = (self._of(a, rows) for a in (self._beta, self._jacobian, self.rotation))
        slope, first, zeroth = self._slope[rows], sums.first[:, :, 1], sums.zeroth[:, :, 2]
        if self.own:
            outer = slope[..., None] * first[..., None, :]
        else:
            outer, zeroth = slope.mT @ first, zeroth.sum(1)
            beta, jacobian, rotation = beta[0], jacobian[0], rotation[0]
        inner = outer - beta[..., None] * sums.second[..., 1, :, :] + sums.second[..., 2, :, :]
        inner = inner - torch.diag_embed(zeroth[..., None].expand(*zeroth.shape, slope.shape[1]))
        return torch.tril(jacobian @ inner @ rotation.mT)


_GRADIENTS = {
    "prior_mean": Whitened._prior_mean,
    "loading": Whitened._loading,
    "offset": Whitened._offset,
    "proposal_mean": Whitened._proposal_mean,
    "proposal_weight": Whitened._proposal_weight,
    "proposal_offset": Whitened._proposal_offset,
    "proposal_chol": Whitened._proposal_chol,
}
