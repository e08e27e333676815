"""Gaussian algebra in NumPy float64: conditioning, divergences, and the moments of a ratio of two Gaussians.

Means are batched over observations, covariances shared by them. Everything goes through orthogonal factorisations of
square roots of precisions (QR, singular values), so that nearly singular covariances cost no more digits
than they must: neither a posterior covariance nor a marginal covariance is ever inverted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from scipy.linalg import solve_triangular

from toyiwae.errors import MissingMomentError, PrecisionError

_LOG_2PI = float(np.log(2 * np.pi))
_LARGEST_LOG = float(np.log(np.finfo(float).max))


@runtime_checkable
class LinearGaussian(Protocol):
    """What `condition` needs: p(z) = N(prior_mean, prior_cov), p(x|z) = N(loading z + offset, noise_cov)."""

    @property
    def prior_mean(self) -> np.ndarray: ...  # noqa: D102
    @property
    def prior_cov(self) -> np.ndarray: ...  # noqa: D102
    @property
    def loading(self) -> np.ndarray: ...  # noqa: D102
    @property
    def offset(self) -> np.ndarray: ...  # noqa: D102
    @property
    def noise_cov(self) -> np.ndarray: ...  # noqa: D102


@dataclass(frozen=True, eq=False)
class Posterior:
    """p(z|x) = N(mean, cov) and log p(x) of N observations.

    Attributes:
        mean: posterior means [N, D_z].
        root: G with cov = G Gᵀ [D_z, D_z].
        precision_root: F = G⁻¹, so that cov⁻¹ = Fᵀ F [D_z, D_z].
        log_evidence: log p(x) [N], in nats.
    """

    mean: np.ndarray
    root: np.ndarray
    precision_root: np.ndarray
    log_evidence: np.ndarray

    @property
    def cov(self) -> np.ndarray:
        """Covariance [D_z, D_z], the same for all observations."""
        return self.root @ self.root.T

    @property
    def precision(self) -> np.ndarray:
        """Inverse of the covariance [D_z, D_z]."""
        return self.precision_root.T @ self.precision_root


def condition(model: LinearGaussian, x: np.ndarray) -> Posterior:
    """Posterior and evidence of a linear-Gaussian model.

    Formula: posterior.

        cov⁻¹ = prior_cov⁻¹ + loadingᵀ noise_cov⁻¹ loading
        mean  = prior_mean + cov loadingᵀ noise_cov⁻¹ (x − loading prior_mean − offset)
        log p(x) = log N(x; loading prior_mean + offset, loading prior_cov loadingᵀ + noise_cov)

    With `z = prior_mean + C u`, C the Cholesky factor of `prior_cov`, the posterior mean is the least-squares
    solution of `u = 0`, `loading C u = x − loading prior_mean − offset`, whitened by the noise; the squared
    residual is the Mahalanobis distance of x, the triangular factor's determinant that of its covariance.

    Args:
        model: the five arrays of a `toyiwae.Model`.
        x: observations [N, D_x] or one observation [D_x].
    """
    x = np.atleast_2d(x)
    prior_chol, noise_chol = np.linalg.cholesky(model.prior_cov), np.linalg.cholesky(model.noise_cov)
    dim_z = len(prior_chol)
    response = solve_triangular(noise_chol, model.loading @ prior_chol, lower=True)
    difference = x - model.loading @ model.prior_mean - model.offset
    surprise = solve_triangular(noise_chol, difference.T, lower=True)
    right = np.vstack([np.zeros((dim_z, len(x))), surprise])
    basis, triangle = np.linalg.qr(np.vstack([np.eye(dim_z), response]))
    fitted = basis.T @ right
    residual = right - basis @ fitted
    log_det = sum(np.sum(np.log(np.abs(np.diag(factor)))) for factor in (noise_chol, triangle))
    root = prior_chol @ solve_triangular(triangle, np.eye(dim_z))
    return Posterior(
        mean=model.prior_mean + fitted.T @ root.T,
        root=root,
        precision_root=solve_triangular(prior_chol, triangle.T, lower=True, trans=1).T,
        log_evidence=-0.5 * np.sum(residual**2, axis=0) - log_det - 0.5 * x.shape[1] * _LOG_2PI,
    )


def log_density(x: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Gaussian log-density over the last axis: x [..., D], mean [..., D] or [D], cov [D, D]."""
    chol = np.linalg.cholesky(cov)
    whitened = _whiten(chol, x - mean)
    log_det = np.sum(np.log(np.diag(chol)))
    return np.asarray(-0.5 * np.sum(whitened**2, axis=-1) - log_det - 0.5 * len(cov) * _LOG_2PI)


def kl(q_mean: np.ndarray, q_cov: np.ndarray, p_mean: np.ndarray, p_cov: np.ndarray) -> np.ndarray:
    """KL(q‖p) = ½[tr(P⁻¹S) − D − log|S|/|P| + (m−μ)ᵀP⁻¹(m−μ)] of q = N(μ, S) and p = N(m, P), in nats.

    Args:
        q_mean: μ, one or many [..., D].
        q_cov: S [D, D].
        p_mean: m, one or many [..., D].
        p_cov: P [D, D].

    Returns:
        One value per observation [...].
    """
    return _ratio(p_mean, p_cov, q_mean, q_cov).kl_to_target


def renyi(
    order: float, p_mean: np.ndarray, p_cov: np.ndarray, q_mean: np.ndarray, q_cov: np.ndarray
) -> np.ndarray:
    """Rényi divergence D_α(p‖q) = log ∫ p^α q^{1−α} dz / (α−1), in nats; at α = 1 its limit KL(p‖q).

    Args:
        order: α, any real number for which the integral exists.
        p_mean: m, one or many [..., D].
        p_cov: P [D, D].
        q_mean: μ, one or many [..., D].
        q_cov: S [D, D].

    Returns:
        One value per observation [...].

    Raises:
        MissingMomentError: unless α P⁻¹ + (1−α) S⁻¹ is positive definite.

    References:
        li2016renyi
    """
    return _ratio(p_mean, p_cov, q_mean, q_cov).renyi(order)


@dataclass(frozen=True, eq=False)
class Ratio:
    """The weight w/Z = p(z)/q(z) under z ~ q, for a target p = N(m, P) and a proposal q = N(μ, S).

    In coordinates ε with z = μ + axes ε, q is N(0, I) and p is N(shift, diag(1/(1+β))), so

        log(w/Z) = ½ Σ_i [ log(1+β_i) + ε_i² − (1+β_i)(ε_i − d_i)² ]
        log E_q[(w/Z)^s] = ½ Σ_i [ s log(1+β_i) − log(1+sβ_i) − s(1−s) d_i² (1+β_i)/(1+sβ_i) ]

    which exists iff 1 + Re(s) β_i > 0 for all i, that is s P⁻¹ + (1−s) S⁻¹ ≻ 0.

    Attributes:
        beta: β, the eigenvalues of Lᵀ P⁻¹ L − I with S = L Lᵀ, falling [D].
        shift: d, the target's mean in these coordinates [..., D].
        axes: L U with the eigenvectors U; axes axesᵀ = S [D, D].
    """

    beta: np.ndarray
    shift: np.ndarray
    axes: np.ndarray

    @classmethod
    def between(
        cls, p_mean: np.ndarray, p_precision_root: np.ndarray, q_mean: np.ndarray, q_chol: np.ndarray
    ) -> Self:
        """The ratio of a target with precision FᵀF (`p_precision_root` = F) and a proposal with cov LLᵀ."""
        _, stretch, rotation = np.linalg.svd(p_precision_root @ q_chol)
        shift = _whiten(q_chol, p_mean - q_mean) @ rotation.T
        return cls((stretch - 1) * (stretch + 1), shift, q_chol @ rotation.T)

    @property
    def tail_index(self) -> float:
        """Tail index of the weights, −min β or 0: the moments of order below its inverse exist."""
        return max(0.0, -float(self.beta.min()))

    def exists(self, order: float | complex) -> bool:
        """Whether E_q[(w/Z)^order] is finite."""
        return bool(np.all(1 + np.real(order) * self.beta > 0))

    def require(self, order: float | complex) -> None:
        """Refuses an order whose moment does not exist.

        Raises:
            MissingMomentError: naming the moment and the condition that fails.
        """
        if self.exists(order):
            return
        real = float(np.real(order))
        beta = float(self.beta.min() if real > 0 else self.beta.max())
        side = "below" if real > 0 else "above"
        raise MissingMomentError(
            f"E_q[(w/Z)^{order:g}] does not exist: s·P⁻¹ + (1−s)·S⁻¹ must be positive definite, that is"
            f" 1 + s·β > 0, but β = {beta:.6g}; orders {side} {-1 / beta:.6g} exist"
        )

    def scaled_log_moment(self, order: float | complex) -> np.ndarray:
        """The bound (1/s) log E_q[w^s] less log Z, i.e. log E_q[(w/Z)^s] / s; at s = 0, E_q log(w/Z).

        Args:
            order: s, real or complex.

        Returns:
            One value per observation [...], to full relative accuracy also near s = 0 and near p = q.

        Raises:
            MissingMomentError: if the moment does not exist.
        """
        self.require(order)
        if order == 0:
            return np.asarray(-self.kl_to_target)
        spread = np.sum(_less_log1p(order * self.beta) / order - _less_log1p(self.beta))
        scale = (1 + self.beta) / (1 + order * self.beta)
        return np.asarray(0.5 * (spread - (1 - order) * np.sum(scale * self.shift**2, axis=-1)))

    def log_moment(self, order: float | complex) -> np.ndarray:
        """Logarithm of E_q[(w/Z)^s], real or complex s [...]; the branch continuous from 0 at s = 0.

        Raises:
            MissingMomentError: if the moment does not exist.
        """
        return np.asarray(order * self.scaled_log_moment(order))

    def moment(self, order: float | complex) -> np.ndarray:
        """E_q[(w/Z)^s] for real or complex s [...].

        Raises:
            MissingMomentError: if the moment does not exist.
            PrecisionError: if it is beyond the range of float64.
        """
        return np.asarray(np.exp(_in_range(self.log_moment(order), f"E_q[(w/Z)^{order:g}]")))

    @property
    def variance(self) -> np.ndarray:
        """Var_q[w/Z], the χ² divergence of p from q [...].

        Raises:
            MissingMomentError: if it is infinite (some β ≤ −1/2).
            PrecisionError: if it is beyond the range of float64.
        """
        return np.asarray(np.expm1(_in_range(self.log_moment(2.0), "E_q[(w/Z)^2]")))

    @property
    def kl_to_target(self) -> np.ndarray:
        """KL(q‖p) = −E_q log(w/Z) [...]."""
        spread = np.sum(_less_log1p(self.beta))
        return np.asarray(0.5 * (spread + np.sum((1 + self.beta) * self.shift**2, axis=-1)))

    @property
    def kl_from_target(self) -> np.ndarray:
        """KL(p‖q) = E_p log(w/Z) [...]."""
        return self.renyi(1.0)

    def renyi(self, order: float) -> np.ndarray:
        """D_α(p‖q) = log E_q[(w/Z)^α] / (α−1) [...]; at α = 1 its limit KL(p‖q).

        Formula: divergence.

        Raises:
            MissingMomentError: if the moment does not exist.
        """
        self.require(order)
        if order < 0.5:  # the form below loses its digits toward α = 0, this one toward α = 1
            return np.asarray(self.log_moment(order) / (order - 1))
        t, inverse = order - 1, -self.beta / (1 + self.beta)
        spread = np.sum(_less_log1p(inverse)) + (np.sum(_less_log1p(-t * inverse)) / t if t else 0.0)
        scale = order * (1 + self.beta) / (1 + order * self.beta)
        return np.asarray(0.5 * (spread + np.sum(scale * self.shift**2, axis=-1)))


def _ratio(p_mean: np.ndarray, p_cov: np.ndarray, q_mean: np.ndarray, q_cov: np.ndarray) -> Ratio:
    p_root = solve_triangular(np.linalg.cholesky(p_cov), np.eye(len(p_cov)), lower=True)
    return Ratio.between(p_mean, p_root, q_mean, np.linalg.cholesky(q_cov))


def _whiten(chol: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """chol⁻¹ v over the last axis of v [..., D]."""
    rows = np.reshape(vectors, (-1, len(chol)))
    return solve_triangular(chol, rows.T, lower=True).T.reshape(np.shape(vectors))


def _in_range(log_value: np.ndarray, name: str) -> np.ndarray:
    largest = float(np.max(np.real(log_value)))
    if largest > _LARGEST_LOG:
        raise PrecisionError(f"{name} is beyond the range of float64: its logarithm is {largest:.6g}")
    return log_value


def _less_log1p(x: np.ndarray) -> np.ndarray:
    """Computes x − log(1+x) to full relative accuracy; with r = x/(2+x) it is x r − 2(r³/3 + r⁵/5 + …)."""
    r = np.where(np.abs(x) < 0.1, x, 0.0) / (2 + x)
    series = sum(r**n / n for n in range(3, 17, 2))
    return np.where(np.abs(x) < 0.1, x * r - 2 * series, x - np.log1p(x))
