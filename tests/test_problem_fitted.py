"""Problems from models that were fitted elsewhere: the density against SciPy's and scikit-learn's, and every slip."""

import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from toyiwae import InputError, Problem, Proposal
from toyiwae.oracle.closed_form.renyi import ClosedForms

RNG = np.random.default_rng(12)
DIM_X, DIM_Z = 6, 2
MEAN, X = RNG.normal(size=DIM_X), RNG.normal(size=(9, DIM_X)) * 1.4
BASIS = np.linalg.qr(RNG.normal(size=(DIM_X, DIM_X)))[0]
FACTORS = SimpleNamespace(
    components_=RNG.normal(size=(DIM_Z, DIM_X)) + 1.0,
    mean_=MEAN,
    noise_variance_=RNG.uniform(0.3, 1.2, DIM_X),
)
PCA = SimpleNamespace(
    components_=BASIS[:, :DIM_Z].T,
    mean_=MEAN,
    explained_variance_=np.array([3.1, 1.7]),
    noise_variance_=np.array(0.6),
)


def log_normal(cov: Any) -> np.ndarray:
    """SciPy's log N(x; mean, cov) of every x."""
    return multivariate_normal.logpdf(X, MEAN, cov)


def but(fitted: SimpleNamespace, **changes: object) -> SimpleNamespace:
    """A fitted object with other attributes; None takes one away."""
    return SimpleNamespace(**{k: v for k, v in {**vars(fitted), **changes}.items() if v is not None})


def test_evidence_of_factor_analysis_is_scipys():
    problem = Problem.from_factor_analysis(FACTORS, X)
    cov = FACTORS.components_.T @ FACTORS.components_ + np.diag(FACTORS.noise_variance_)
    expected = log_normal(cov)
    np.testing.assert_allclose(ClosedForms(problem).log_evidence, expected, rtol=1e-12)


def test_evidence_of_pca_is_scipys():
    """The covariance of x has the explained variances along the components, and the noise along all others."""
    cov = (BASIS * np.array([3.1, 1.7, 0.6, 0.6, 0.6, 0.6])) @ BASIS.T
    forms = ClosedForms(Problem.from_pca(PCA, X))
    np.testing.assert_allclose(
        forms.log_evidence,
        log_normal(cov),
        rtol=1e-12,
    )
    np.testing.assert_allclose(forms.kl_to_posterior, 0, atol=1e-12)  # its posterior is diagonal


@pytest.mark.parametrize("kind", ["FactorAnalysis", "PCA"])
def test_evidence_is_scikit_learns(kind):
    decomposition = pytest.importorskip("sklearn.decomposition")
    x = np.random.default_rng(3).normal(size=(60, 7)) @ np.random.default_rng(4).normal(size=(7, 7)) + 0.4
    fitted = getattr(decomposition, kind)(3).fit(x)
    problem = (Problem.from_pca if kind == "PCA" else Problem.from_factor_analysis)(fitted, x[:20])
    np.testing.assert_allclose(ClosedForms(problem).log_evidence, fitted.score_samples(x[:20]), rtol=1e-9)


def test_the_default_proposal_is_the_nearest_mean_field_one():
    """No diagonal Gaussian is nearer: zero slope in every mean and variance, and a distance that is not zero."""
    problem = Problem.from_factor_analysis(FACTORS, X)
    forms = ClosedForms(problem)
    np.testing.assert_allclose(problem.observations().proposal_mean, forms.posterior.mean, rtol=1e-12)
    slopes = forms.kl_to_posterior_gradients()
    np.testing.assert_allclose(np.diagonal(slopes["proposal_chol"], axis1=1, axis2=2), 0, atol=1e-12)
    assert problem.proposal.var is not None
    assert forms.kl_to_posterior.min() > 0.01
    own = Proposal(0.5, mean=[0.1, 0.2])
    assert Problem.from_factor_analysis(FACTORS, X[0], own).proposal == own


FA, PPCA = Problem.from_factor_analysis, Problem.from_pca
REFUSED = {
    "not fitted": (
        FA,
        but(FACTORS, components_=None),
        "without components_: expected a FactorAnalysis of scikit-learn",
    ),
    "PCA as factors": (FA, PCA, "fitted is a SimpleNamespace with explained_variance_: use Problem.from_pca"),
    "factors as PCA": (
        PPCA,
        FACTORS,
        "without explained_variance_: expected a PCA of scikit-learn after fit()",
    ),
    "transposed": (
        FA,
        but(FACTORS, components_=FACTORS.components_.T),
        "expected shape 2×6 (its transpose would fit",
    ),
    "no noise": (
        PPCA,
        but(PCA, noise_variance_=0.0),
        "fitted.noise_variance_ is 0: fit fewer components than x has",
    ),
    "negative": (
        FA,
        but(FACTORS, noise_variance_=-FACTORS.noise_variance_),
        "fitted.noise_variance_[0] is -",
    ),
    "too many": (PPCA, but(PCA, explained_variance_=np.ones(3)), "has 3 entries but there are 2 components_"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_objects_that_do_not_fit_are_refused_in_one_line(fault):
    maker, fitted, message = REFUSED[fault]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        maker(fitted, X)
    assert len(str(caught.value).splitlines()) == 1


def test_a_guides_scale_and_factor_make_a_covariance():
    """Pyro's AutoMultivariateNormal keeps L = diag(scale) scale_tril, in float32."""
    loc, scale = np.array([0.3, -0.2, 0.5], np.float32), np.array([0.6, 0.5, 0.8], np.float32)
    tril = np.array([[1.0, 0.0, 0.0], [0.7, 1.0, 0.0], [-0.4, 0.5, 1.0]], np.float32)
    proposal = Proposal.from_scale_tril(loc, tril, scale)
    np.testing.assert_allclose(np.sqrt(np.diag(proposal.cov)), [0.6, 0.61032778, 0.94994737], rtol=1e-6)
    np.testing.assert_allclose(proposal.cov[0, 1], 0.6 * 0.5 * 0.7, rtol=1e-6)
    np.testing.assert_array_equal(proposal.cov, proposal.cov.T)
    whole = Proposal.from_scale_tril(loc, scale.astype(float)[:, None] * tril)
    np.testing.assert_allclose(whole.cov, proposal.cov, rtol=1e-14)
    many = Proposal.from_scale_tril([loc] * 4, [tril] * 4, [scale] * 4)
    np.testing.assert_allclose(many.cov, [proposal.cov] * 4, rtol=1e-14)
    with pytest.raises(InputError, match=r"^scale_tril is not lower-triangular: expected L of cov = L Lᵀ"):
        Proposal.from_scale_tril(loc, tril.T)
    with pytest.raises(
        InputError, match=r"^scale has 2 entries but scale_tril has shape 3×3: expected 3 entries$"
    ):
        Proposal.from_scale_tril(loc, tril, scale[:2])
