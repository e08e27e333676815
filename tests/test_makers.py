"""The makers: structure, determinism, and scikit-learn as an independent check."""

import sys

import numpy as np
import pytest
from scipy.special import chdtr, chdtrc

from toyiwae import InputError, digits_problem, paper_problem
from toyiwae.errors import MissingExtraError
from toyiwae.oracle.closed_form.gaussian import condition
from toyiwae.oracle.closed_form.renyi import ClosedForms
from toyiwae.problems import ready
from toyiwae.problems.linear_gaussian import Model, Problem

FAMILY_RATE = 1e-6


def assert_unit_normal(samples: np.ndarray, tests: int = 2) -> None:
    """Sum and sum of squares against N(0, 1), two-sided, at `FAMILY_RATE` for all tests together.

    With 440 samples it sees a mean of 0.25 or a standard deviation off by 17 %.
    """
    rate = FAMILY_RATE / (2 * tests)
    squares = np.sum(samples**2)
    assert chdtrc(1, samples.sum() ** 2 / samples.size) > 2 * rate
    assert min(chdtr(samples.size, squares), chdtrc(samples.size, squares)) > rate


# The paper's problem


def test_the_default_is_the_papers_problem():
    problem = paper_problem()
    assert (problem.dim_z, problem.dim_x, problem.n_rows) == (20, 20, 1024)
    assert problem == paper_problem(D=20, N=1024, perturbation_std=0.01, seed=0)
    assert sum(np.prod(problem.parameters[name]) for name in problem.mean_parameters) == 440
    for array in (problem.model.prior_cov, problem.model.loading, problem.model.noise_cov):
        np.testing.assert_array_equal(array, np.eye(20))
    np.testing.assert_array_equal(problem.model.offset, np.zeros(20))
    np.testing.assert_array_equal(problem.proposal.cov, np.eye(20) * 2 / 3)


def test_at_the_optimum_the_proposals_mean_is_the_posteriors():
    problem = paper_problem(D=3, N=50, perturbation_std=0.0, seed=4)
    np.testing.assert_array_equal(problem.model.prior_mean, problem.data.x.mean(axis=0))
    posterior = condition(problem.model, problem.data.x)
    np.testing.assert_allclose(posterior.cov, np.eye(3) / 2, atol=1e-15)
    np.testing.assert_allclose(posterior.mean, (problem.data.x + problem.model.prior_mean) / 2, rtol=1e-13)
    np.testing.assert_allclose(posterior.mean, problem.rows().proposal_mean, rtol=1e-13)


def test_noise_on_the_parameters_has_the_stated_size():
    optimum, problem = paper_problem(perturbation_std=0.0), paper_problem(perturbation_std=0.01)
    assert problem.data == optimum.data
    moved = {**problem.tables()["model"], **problem.tables()["proposal"]}
    best = {**optimum.tables()["model"], **optimum.tables()["proposal"]}
    noise = [moved[name] - best[name] for name in ("prior_mean", "weight", "offset")]
    assert_unit_normal(np.concatenate([array.ravel() for array in noise]) / 0.01)
    assert len({array.ravel()[0] for array in noise}) == 3


def test_the_data_come_from_the_model():
    x = paper_problem(seed=3).data.x
    whitened = (x - x.mean(axis=0)) / np.sqrt(2)
    assert_unit_normal(whitened.ravel() * np.sqrt(1024 / 1023), tests=4)
    correlations = (whitened.T @ whitened)[np.triu_indices(20, 1)] / np.sqrt(1024)
    assert_unit_normal(correlations, tests=4)
    assert np.std(x.mean(axis=0)) > 0.3  # the true mean is drawn, not zero


def test_one_offset_for_each_parameter():
    problem = paper_problem(D=4, N=10, perturbation_std={"proposal_weight": 0.3}, seed=2)
    same = paper_problem(D=4, N=10, perturbation_std=0.3, seed=2)
    optimum = paper_problem(D=4, N=10, perturbation_std=0, seed=2)
    assert problem.model == optimum.model
    np.testing.assert_array_equal(problem.proposal.weight, same.proposal.weight)
    np.testing.assert_array_equal(problem.proposal.offset, optimum.proposal.offset)


def test_seeds_are_local_and_matter():
    np.random.seed(3)  # noqa: NPY002
    expected = np.random.standard_normal()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    one, again, other = (paper_problem(D=2, N=5, seed=seed) for seed in (0, 0, 1))
    assert np.random.standard_normal() == expected  # noqa: NPY002
    assert one == again
    assert not np.any(one.data.x == other.data.x)
    np.testing.assert_allclose(one.data.x[0], [1.464183626264786, -1.643726300687597], rtol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"D": 0}, "D is 0: expected a whole number of at least 1"),
        ({"N": -3}, "N is -3: expected a whole number of at least 1"),
        ({"seed": -1}, "seed is -1: expected a whole number of at least 0"),
        ({"perturbation_std": -0.1}, "perturbation_std is -0.1: expected a finite number of at least 0"),
        ({"perturbation_std": np.nan}, "perturbation_std is nan: expected a finite number of at least 0"),
        ({"perturbation_std": {"proposal_weigth": 1.0}}, "did you mean proposal_weight?"),
        ({"perturbation_std": {"prior_mean": -1.0}}, "perturbation_std['prior_mean'] is -1.0: expected a"),
    ],
)
def test_bad_arguments_of_the_papers_problem_are_refused(arguments, message):
    with pytest.raises(InputError) as caught:
        paper_problem(**arguments)
    assert message in str(caught.value)


# Digits


def test_digits_are_the_same_on_every_call():
    problem = digits_problem()
    ready._digits_factors.cache_clear()
    assert digits_problem() == problem
    assert (problem.dim_z, problem.dim_x, problem.n_rows) == (10, 64, 100)
    assert problem.amortised


def test_digits_are_scikit_learns_images(images):
    problem = digits_problem(n_latents=3, n_images=None, n_encoder_images=50)
    np.testing.assert_array_equal(problem.data.x, images[50:])
    np.testing.assert_array_equal(digits_problem(3, 7, 50).data.x, images[50:57])


def test_evidence_of_digits_agrees_with_scikit_learn(images):
    problem = digits_problem(n_images=None, n_encoder_images=1)
    theirs = sklearn("decomposition").FactorAnalysis(10)
    theirs.mean_, theirs.components_ = problem.model.offset, problem.model.loading.T
    theirs.noise_variance_ = np.diag(problem.model.noise_cov)
    expected = theirs.score_samples(images[1:])
    np.testing.assert_allclose(ClosedForms(problem).log_evidence, expected, rtol=1e-9)


def test_evidence_agrees_with_probabilistic_pca(images):
    pca = sklearn("decomposition").PCA(5, svd_solver="full").fit(images)
    loading = pca.components_.T * np.sqrt(pca.explained_variance_ - pca.noise_variance_)
    model = Model(np.zeros(5), np.eye(5), loading, pca.mean_, pca.noise_variance_ * np.eye(64))
    value = condition(model, images[:200]).log_evidence
    np.testing.assert_allclose(value, pca.score_samples(images[:200]), rtol=1e-9)


def test_the_noise_floor_holds_the_constant_pixels(images):
    problem = digits_problem()
    noise_var = np.diag(problem.model.noise_cov)
    constant = np.flatnonzero(np.ptp(images, axis=0) == 0)
    assert len(constant) == 3
    np.testing.assert_allclose(noise_var[constant], ready.ROUNDING_STD**2)
    assert noise_var.min() == pytest.approx(1 / 256 / 12)
    np.testing.assert_allclose(np.diag(digits_problem(noise_floor_std=0.1).model.noise_cov).min(), 0.01)


def test_the_proposal_is_mean_field_and_the_posterior_is_not():
    problem = digits_problem()
    precision = condition(problem.model, problem.data.x).precision
    np.testing.assert_allclose(np.diag(problem.proposal.cov), 1 / np.diag(precision))
    assert np.count_nonzero(problem.proposal.cov) == 10
    std = np.sqrt(np.diag(np.linalg.inv(precision)))
    correlation = np.linalg.inv(precision) / std / std[:, None]
    assert np.abs(correlation[np.triu_indices(10, 1)]).max() > 0.2
    forms = ClosedForms(problem)
    slope = np.diag(forms.kl_to_posterior_gradients()["proposal_chol"].mean(axis=0))
    np.testing.assert_allclose(slope, 0, atol=1e-12)  # no diagonal covariance is nearer


def test_the_encoder_is_exact_on_its_own_images_only(images):
    problem = digits_problem()
    own = Problem(problem.model, problem.proposal, type(problem.data)(images[:40]))
    exact = condition(problem.model, images[:40]).mean
    np.testing.assert_allclose(own.rows().proposal_mean, exact, atol=1e-10)
    floor = ClosedForms(own).kl_to_posterior
    np.testing.assert_allclose(floor, floor[0], rtol=1e-9)
    gaps = ClosedForms(problem).kl_to_posterior
    assert gaps.min() > floor[0]
    assert np.quantile(gaps, 0.9) > 2 * np.quantile(gaps, 0.1)
    assert 0.3 < np.median(gaps) < 3
    enough = ClosedForms(digits_problem(n_encoder_images=400)).kl_to_posterior
    np.testing.assert_allclose(np.median(enough), floor[0], rtol=1e-3)


def test_weights_have_finite_variance_only_for_a_widened_proposal():
    assert ClosedForms(digits_problem()).ratio.tail_index > 0.5
    wide = digits_problem(proposal_var_factor=1.25)
    assert ClosedForms(wide).ratio.tail_index < 0.5
    np.testing.assert_allclose(wide.proposal.cov, 1.25 * digits_problem().proposal.cov)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_latents": 0}, "n_latents is 0: expected a whole number of at least 1"),
        ({"n_latents": 21}, "n_latents is 21: expected at most 20"),
        ({"n_images": 1758}, "n_images is 1758: expected at most 1757"),
        ({"n_encoder_images": 1797}, "n_encoder_images is 1797: expected at most 1796"),
        ({"noise_floor_std": 0.0}, "noise_floor_std is 0.0: expected a finite number greater than 0"),
        ({"proposal_var_factor": -1.0}, "proposal_var_factor is -1.0: expected a finite number greater"),
    ],
)
def test_bad_arguments_of_the_digits_are_refused(arguments, message):
    with pytest.raises(InputError) as caught:
        digits_problem(**arguments)
    assert message in str(caught.value)


def test_missing_scikit_learn_is_one_line(monkeypatch):
    ready._digits_factors.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "sklearn"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent, *sys.meta_path])
    with pytest.raises(MissingExtraError, match=r"digits_problem\(\) needs sklearn.*toyiwae\[analysis\]"):
        digits_problem()


class Absent:
    """A finder of modules for which scikit-learn is not installed."""

    @staticmethod
    def find_spec(name: str, *_: object) -> None:
        """Refuses sklearn and leaves the rest to the other finders."""
        if name.partition(".")[0] == "sklearn":
            raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")


def sklearn(module: str):
    """A module of scikit-learn; skips where it is not installed."""
    return pytest.importorskip(f"sklearn.{module}")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """The digits, ink in [0, 1]: [1797, 64]."""
    return sklearn("datasets").load_digits().data / 16
