"""Factor analysis and varimax: stationarity, known models, and scikit-learn as an independent check."""

import numpy as np
import pytest

from tests.test_makers import sklearn
from toyiwae.errors import PrecisionError
from toyiwae.problems.factor_analysis import factor_analysis, varimax


def test_the_likelihood_reaches_scikit_learns(images):
    """Without a floor to speak of, the same maximum; sklearn's own fixed point, found by another route."""
    theirs = (
        sklearn("decomposition").FactorAnalysis(6, svd_method="lapack", tol=1e-8, max_iter=5000).fit(images)
    )
    cov = np.cov(images, rowvar=False, bias=True)
    loading, noise_var = factor_analysis(cov, 6, 1e-12)
    implied = loading @ loading.T + np.diag(noise_var)
    np.testing.assert_allclose(implied, theirs.get_covariance(), atol=1e-6)


def test_the_fit_is_stationary_and_the_floor_binds_only_where_it_must(images):
    """KKT: the likelihood's slope in ψ is zero off the floor and negative on it, and zero in the loading."""
    cov = np.cov(images, rowvar=False, bias=True)
    floor = 1 / 256 / 12
    loading, noise_var = factor_analysis(cov, 8, floor, tolerance=1e-12)
    implied = loading @ loading.T + np.diag(noise_var)
    inner = np.linalg.solve(implied, np.linalg.solve(implied, cov - implied).T)  # of log-likelihood, times 2
    slope = np.diag(inner) * noise_var
    np.testing.assert_allclose(slope[noise_var > floor], 0, atol=1e-8)
    assert np.all(slope[noise_var == floor] < 0)
    np.testing.assert_allclose(inner @ loading * np.sqrt(noise_var)[:, None], 0, atol=1e-8)


def test_factors_of_a_known_model_are_recovered():
    rng = np.random.default_rng(1)
    true = rng.normal(size=(9, 2))
    noise_var = rng.uniform(0.2, 1.7, 9)
    loading, found = factor_analysis(true @ true.T + np.diag(noise_var), 2, 1e-6, tolerance=1e-13)
    np.testing.assert_allclose(found, noise_var, rtol=1e-9)
    np.testing.assert_allclose(loading @ loading.T, true @ true.T, atol=1e-9)


def test_varimax_is_scikit_learns_up_to_order_and_signs(images):
    rotated = sklearn("decomposition").FactorAnalysis(5, svd_method="lapack", rotation="varimax").fit(images)
    plain = sklearn("decomposition").FactorAnalysis(5, svd_method="lapack").fit(images).components_.T
    ours, theirs = varimax(plain), rotated.components_.T
    np.testing.assert_allclose(ours @ ours.T, plain @ plain.T, atol=1e-14)
    assert spread(ours) >= spread(theirs) * (1 - 1e-12)
    matched = np.abs(ours.T @ theirs) / np.linalg.norm(ours, axis=0)[:, None] / np.linalg.norm(theirs, axis=0)
    np.testing.assert_allclose(np.sort(matched.max(axis=0)), 1, atol=1e-3)
    assert np.all(np.diff(np.sum(ours**2, axis=0)) < 0)
    assert np.all(ours[np.argmax(np.abs(ours), axis=0), np.arange(5)] > 0)


def test_varimax_ignores_the_basis_it_starts_from():
    rng = np.random.default_rng(6)
    loading = rng.normal(size=(12, 3)) * np.array([0.4, 1.0, 2.1])
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    np.testing.assert_allclose(varimax(loading @ turn), varimax(loading), atol=1e-9)
    np.testing.assert_array_equal(varimax(-loading[:, :1]), np.abs(loading[:, :1]) * sign_of_largest(loading))


def test_a_fit_that_does_not_converge_says_so(images):
    cov = np.cov(images, rowvar=False, bias=True)
    with pytest.raises(PrecisionError, match="5 factors did not converge in 3 steps"):
        factor_analysis(cov, 5, 1e-4, max_steps=3)
    with pytest.raises(PrecisionError, match="varimax rotation of 4 factors did not converge"):
        varimax(np.random.default_rng(0).normal(size=(9, 4)), max_steps=1)


def sign_of_largest(loading: np.ndarray) -> np.ndarray:
    """Signs of the first column that make its largest entry positive."""
    first = loading[:, :1]
    return np.sign(first) * np.sign(first[np.argmax(np.abs(first))])


def spread(loading: np.ndarray) -> float:
    """The varimax criterion: variances of the squared loadings, summed."""
    return float(np.sum(np.var(loading**2, axis=0)))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """The digits, ink in [0, 1]: [1797, 64]."""
    return sklearn("datasets").load_digits().data / 16
