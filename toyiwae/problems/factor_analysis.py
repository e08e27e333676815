"""Maximum-likelihood factor analysis (with a floor on the noise) and probabilistic PCA of a covariance; varimax."""

from __future__ import annotations

import numpy as np

from toyiwae.errors import PrecisionError


def factor_analysis(
    cov: np.ndarray, n_factors: int, floor_var: float, *, tolerance: float = 1e-9, max_steps: int = 20_000
) -> tuple[np.ndarray, np.ndarray]:
    """Loading W and noise variances ψ ≥ floor that maximise `−log|Σ| − tr(Σ⁻¹ cov)`, Σ = W Wᵀ + diag(ψ).

    For a given ψ the best W is known: with the eigenpairs (λ, u) of ψ^{-1/2} cov ψ^{-1/2}, its columns are
    `ψ^{1/2} u (λ − 1)₊^{1/2}` of the largest λ. There the likelihood's slope in ψ_i is that of
    `diag(cov − W Wᵀ)_i − ψ_i`, so `ψ ← max(floor, diag(cov − W Wᵀ))` is a scaled projected-gradient step. The
    floor excludes the Heywood cases ψ_i → 0, on which unconstrained iterations crawl.

    Args:
        cov: covariance of the observations [D_x, D_x]; constant coordinates (zero rows) are allowed.
        n_factors: number of columns of W, less than D_x.
        floor_var: least noise variance, > 0.
        tolerance: largest relative change of a ψ_i in the last step.
        max_steps: steps to give up after.

    Returns:
        Loading [D_x, n_factors] (columns orthogonal in the metric ψ⁻¹, by falling λ), noise variances [D_x].

    Raises:
        PrecisionError: if ψ still changes after `max_steps`.

    References:
        lawley1940estimation, barber2012bayesian
    """
    noise_var = np.maximum(np.diag(cov), floor_var)
    for _ in range(max_steps):
        std = np.sqrt(noise_var)
        eigenvalues, vectors = np.linalg.eigh(cov / std[:, None] / std)
        root = np.sqrt(np.maximum(eigenvalues[::-1][:n_factors] - 1, 0.0))
        loading = std[:, None] * vectors[:, ::-1][:, :n_factors] * root
        previous, noise_var = noise_var, np.maximum(np.diag(cov) - np.sum(loading**2, axis=1), floor_var)
        if np.max(np.abs(noise_var / previous - 1)) <= tolerance:
            return loading, noise_var
    raise PrecisionError(f"factor analysis with {n_factors} factors did not converge in {max_steps} steps")


def probabilistic_pca(cov: np.ndarray, n_factors: int) -> tuple[np.ndarray, float]:
    """Loading W and noise variance σ² that maximise `−log|Σ| − tr(Σ⁻¹ cov)`, Σ = W Wᵀ + σ² I, in closed form.

    With the eigenpairs (λ, u) of cov, σ² is the mean of all but the largest λ and W's columns are `u (λ − σ²)^½` of
    these, each with its largest entry positive.

    Args:
        cov: covariance of the observations [D_x, D_x].
        n_factors: number of columns of W, less than D_x.

    Returns:
        Loading [D_x, n_factors] by falling λ, noise variance.

    References:
        tipping1999probabilistic
    """
    eigenvalues, vectors = np.linalg.eigh(cov)
    noise_var = float(np.maximum(eigenvalues[:-n_factors], 0.0).mean())
    root = np.sqrt(np.maximum(eigenvalues[: -n_factors - 1 : -1] - noise_var, 0.0))
    return _largest_positive(vectors[:, : -n_factors - 1 : -1] * root), noise_var


def varimax(loading: np.ndarray, *, tolerance: float = 1e-12, max_steps: int = 2_000) -> np.ndarray:
    """The loading [D_x, D_z] rotated so that the squared loadings of each factor vary most.

    The likelihood is blind to the rotation; this one picks a basis in which a factor touches few
    observations. Factors come by falling sum of squares, each with its largest loading positive, so that
    the result does not depend on the order and signs that a linear algebra library happens to return.

    Raises:
        PrecisionError: if the rotation still changes after `max_steps`.

    References:
        kaiser1958varimax
    """
    rotation = np.eye(loading.shape[1])
    for _ in range(max_steps):
        rotated = loading @ rotation
        slope = loading.T @ (rotated**3 - rotated * np.mean(rotated**2, axis=0))
        left, _, right = np.linalg.svd(slope)
        previous, rotation = rotation, left @ right
        if np.max(np.abs(rotation - previous)) <= tolerance:
            break
    else:
        raise PrecisionError(f"varimax rotation of {loading.shape[1]} factors did not converge")
    rotated = loading @ rotation
    rotated = rotated[:, np.argsort(-np.sum(rotated**2, axis=0), kind="stable")]
    return _largest_positive(rotated)


def _largest_positive(columns: np.ndarray) -> np.ndarray:
    """The columns with signs that make the largest entry of each positive."""
    largest = np.argmax(np.abs(columns), axis=0)
    return columns * np.where(columns[largest, np.arange(columns.shape[1])] < 0, -1.0, 1.0)
