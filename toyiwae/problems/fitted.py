"""Models that were fitted elsewhere: factor analysis and probabilistic PCA as scikit-learn gives them.

    p(z) = N(0, I)    p(x|z) = N(W z + mean, diag(ψ))

Objects are read by their attributes; scikit-learn is not imported.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from toyiwae import checks
from toyiwae.errors import InputError
from toyiwae.problems.covariances import variances


class Factors(NamedTuple):
    """A fitted factor model: loading W [D_x, D_z], mean of the observations [D_x], noise variances ψ [D_x]."""

    loading: np.ndarray
    mean: np.ndarray
    noise_var: np.ndarray


class MeanField(NamedTuple):
    """The best mean-field proposal N(weight x + offset, diag(var)): [D_z, D_x], [D_z], [D_z]."""

    weight: np.ndarray
    offset: np.ndarray
    var: np.ndarray


def mean_field(factors: Factors) -> MeanField:
    """The diagonal Gaussian nearest to the posterior in KL(q‖p), for every x.

    With the posterior's precision `P = I + Wᵀ diag(ψ)⁻¹ W` its mean is the posterior's, `P⁻¹ Wᵀ diag(ψ)⁻¹ (x − mean)`,
    and its variances are `1 / P_ii`, not the posterior's marginal ones.

    References:
        barber2012bayesian
    """
    loading, mean, noise_var = factors
    precision = np.eye(loading.shape[1]) + loading.T @ (loading / noise_var[:, None])
    weight = np.linalg.solve(precision, loading.T / noise_var)
    return MeanField(weight, -weight @ mean, 1 / np.diag(precision))


def least_norm_encoder(x: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least-squares fit of target [n, D_z] on x [n, D_x]: weight [D_z, D_x] of least norm, offset [D_z]."""
    x_mean, target_mean = x.mean(axis=0), target.mean(axis=0)
    weight = np.linalg.lstsq(x - x_mean, target - target_mean, rcond=None)[0].T
    return weight, target_mean - weight @ x_mean


def factor_analysis_of(fitted: Any) -> Factors:
    """The factor model of a fitted `FactorAnalysis`: W = components_ᵀ, ψ = noise_variance_.

    Raises:
        InputError: if an attribute is missing or does not fit the others, or the object is a PCA.
    """
    if hasattr(fitted, "explained_variance_"):
        raise InputError(
            f"fitted is a {type(fitted).__name__} with explained_variance_: use Problem.from_pca"
        )
    components, mean, noise_var = _attributes(
        fitted, "FactorAnalysis", components_=2, mean_=1, noise_variance_=1
    )
    return _factors(components, mean, noise_var)


def pca_of(fitted: Any) -> Factors:
    """The factor model of a fitted `PCA`: W = components_ᵀ (explained_variance_ − noise_variance_)^½, ψ all equal.

    A direction's explained variance holds the noise too, so the loading's share is what is left of it.

    Raises:
        InputError: if an attribute is missing or does not fit the others, or no noise is left.

    References:
        tipping1999probabilistic
    """
    components, mean, explained, noise_var = _attributes(
        fitted, "PCA", components_=2, mean_=1, explained_variance_=1, noise_variance_=0
    )
    checks.axis(
        explained,
        0,
        len(components),
        "fitted.explained_variance_",
        f"there are {len(components)} components_",
    )
    if noise_var <= 1e-12 * explained.max():
        raise InputError(
            f"fitted.noise_variance_ is {noise_var:g}: fit fewer components than x has directions"
        )
    root = np.sqrt(np.maximum(explained - noise_var, 0.0))
    return _factors(components * root[:, None], mean, np.full(len(mean), noise_var))


def _attributes(fitted: Any, kind: str, **dimensions: int) -> list[np.ndarray]:
    """Attributes of a fitted object as arrays of so many dimensions."""
    for name in dimensions:
        if not hasattr(fitted, name):
            found = f"a {type(fitted).__name__} without {name}"
            raise InputError(f"fitted is {found}: expected a {kind} of scikit-learn after fit()")
    return [
        checks.real_array(getattr(fitted, name), f"fitted.{name}", (n,)) for name, n in dimensions.items()
    ]


def _factors(components: np.ndarray, mean: np.ndarray, noise_var: np.ndarray) -> Factors:
    dim_x, because = len(mean), f"fitted.mean_ has {checks.entries(len(mean))}"
    checks.axis(components, -1, dim_x, "fitted.components_", because)
    checks.axis(noise_var, 0, dim_x, "fitted.noise_variance_", because)
    return Factors(components.T, mean, variances(noise_var, "fitted.noise_variance_", dim_x))
