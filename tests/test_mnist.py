"""The problem at MNIST's scale, on small images of our own: the fit, the proposals, and folders of IDX files."""

import re
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import chdtr, chdtrc

from toyiwae import InputError, Problem, mnist_problem
from toyiwae.oracle.closed_form.gaussian import condition
from toyiwae.oracle.closed_form.renyi import ClosedForms
from toyiwae.problems.factor_analysis import probabilistic_pca

RNG = np.random.default_rng(21)
GREY = np.clip(
    RNG.normal(size=(80, 4)) @ RNG.normal(size=(4, 30)) * 40 + RNG.normal(size=(80, 30)) * 25 + 110, 0, 255
)
IMAGES = GREY.astype(np.uint8).reshape(80, 5, 6)
INK = IMAGES.reshape(80, 30) / 255
MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"


def idx_folder(folder: Path, train: np.ndarray, test: np.ndarray) -> Path:
    """A folder with IDX files of these images."""
    for name, array in (("train-images-idx3-ubyte", train), ("t10k-images.idx3-ubyte", test)):
        (folder / name).write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, *array.shape) + array.tobytes())
    return folder


def variances(problem: Problem) -> np.ndarray:
    """The variances that the proposal was given."""
    assert problem.proposal.var is not None
    return problem.proposal.var


def test_the_fit_is_scikit_learns_up_to_the_rotation():
    """Its explained variances divide by N − 1, and those of maximum likelihood by N."""
    pca = pytest.importorskip("sklearn.decomposition").PCA(3, svd_solver="full").fit(INK)
    ours = 79 / 80
    fitted = SimpleNamespace(
        components_=pca.components_,
        mean_=pca.mean_,
        explained_variance_=pca.explained_variance_ * ours,
        noise_variance_=pca.noise_variance_ * ours,
    )
    problem = mnist_problem(IMAGES, 3)
    expected = ClosedForms(Problem.from_pca(fitted, INK)).log_evidence
    np.testing.assert_allclose(ClosedForms(problem).log_evidence, expected, rtol=1e-9)
    root = problem.model.loading
    np.testing.assert_allclose(problem.model.noise_cov, pca.noise_variance_ * ours * np.eye(30), rtol=1e-9)
    off_diagonal = (root.T @ root)[np.triu_indices(3, 1)]
    assert (
        np.abs(off_diagonal).max() > 0.1 * np.trace(root.T @ root) / 3
    )  # rotated, so the posterior is not diagonal


def test_the_likelihood_is_stationary():
    """Tipping and Bishop: S Σ⁻¹ W = W, and tr(Σ⁻¹ S) = D_x where the noise is at its best."""
    cov = np.cov(INK, rowvar=False, bias=True)
    loading, noise_var = probabilistic_pca(cov, 4)
    implied = loading @ loading.T + noise_var * np.eye(30)
    np.testing.assert_allclose(cov @ np.linalg.solve(implied, loading), loading, atol=1e-12)
    np.testing.assert_allclose(np.trace(np.linalg.solve(implied, cov)), 30, rtol=1e-12)
    assert np.all(loading[np.abs(loading).argmax(axis=0), range(4)] > 0)


def test_the_amortised_proposal_is_the_nearest_mean_field_one():
    problem = mnist_problem(IMAGES, 4)
    posterior = condition(problem.model, problem.data.x)
    assert problem.amortised
    np.testing.assert_allclose(problem.observations().proposal_mean, posterior.mean, atol=1e-10)
    np.testing.assert_allclose(variances(problem), 1 / np.diag(posterior.precision), rtol=1e-9)
    gaps = ClosedForms(problem).kl_to_posterior
    np.testing.assert_allclose(gaps, gaps[0], rtol=1e-8)
    assert gaps[0] > 0.1
    np.testing.assert_allclose(
        variances(mnist_problem(IMAGES, 4, proposal_var_factor=1.5)), 1.5 * variances(problem)
    )
    few = mnist_problem(IMAGES, 4, n_encoder_images=20)
    own = ClosedForms(few).kl_to_posterior
    np.testing.assert_allclose(own[:20], gaps[0], rtol=1e-8)
    assert own[20:].min() > gaps[0] * (1 + 1e-6)


def test_each_image_can_have_a_proposal_of_its_own():
    """Errors of means and of log-variances are standard normal in their units; 640 of them see a std off by 14 %."""
    shared = mnist_problem(IMAGES, 4)
    problem = mnist_problem(IMAGES, 4, per_image=True, per_image_std=0.2)
    assert problem.model == shared.model
    assert problem.proposal.per_observation
    mean, var = np.asarray(problem.proposal.mean), variances(problem)
    error = (mean - shared.observations().proposal_mean) / np.sqrt(variances(shared)) / 0.2
    errors = np.stack([error, np.log(var / variances(shared)) / 0.2])
    squares = float(np.sum(errors**2))
    rate = 1e-6 / 4
    assert min(chdtr(errors.size, squares), chdtrc(errors.size, squares)) > rate
    assert chdtrc(1, errors.sum() ** 2 / errors.size) > 2 * rate
    few = mnist_problem(IMAGES, 4, n_images=9, per_image=True, per_image_std=0.2)
    np.testing.assert_array_equal(variances(few), var[:9])
    assert few.n_rows == 9
    assert mnist_problem(IMAGES, 4, n_images=9, per_image=True, per_image_std=0.2, seed=1) != few


def test_folders_uint8_and_ink_give_the_same_problem(tmp_path):
    folder = idx_folder(tmp_path, IMAGES[:60], IMAGES[60:])
    problem = mnist_problem(folder, 3, n_images=12)
    assert problem == mnist_problem(str(folder), 3, n_images=12)
    assert problem == mnist_problem(IMAGES[:60], 3, test_images=IMAGES[60:], n_images=12)
    assert problem == mnist_problem(INK[:60], 3, test_images=INK[60:72].reshape(12, 5, 6))
    np.testing.assert_array_equal(problem.data.x, INK[60:72])


def test_booleans_are_ink():
    drawn = IMAGES > 110
    assert mnist_problem(drawn, 3) == mnist_problem(drawn.astype(float), 3)


REFUSED = {
    "not scaled": (
        {"images": GREY},
        "images has ink from 0 to 255: expected 0 to 1; divide by the largest, or give",
    ),
    "negative": ({"images": INK - 0.5}, "images has ink from -0.5 to 0.5"),
    "labels": (
        {"images": IMAGES[:, 0, 0]},
        "images has 80 entries: expected [N, pixels] or [N, height, width]",
    ),
    "nan": (
        {"images": np.where(INK == INK[2, 3], np.nan, INK)},
        "is nan: every entry must be a finite number",
    ),
    "too many latents": ({"latents": 30}, "latents is 30: expected at most 29"),
    "no latents": ({"latents": 0}, "latents is 0: expected a whole number of at least 1"),
    "too many images": ({"n_images": 81}, "n_images is 81: expected at most 80"),
    "too large an encoder": ({"n_encoder_images": 81}, "n_encoder_images is 81: expected at most 80"),
    "a factor of 0": (
        {"proposal_var_factor": 0.0},
        "proposal_var_factor is 0.0: expected a finite number greater",
    ),
    "a negative std": (
        {"per_image_std": -1.0},
        "per_image_std is -1.0: expected a finite number of at least 0",
    ),
    "other sizes": (
        {"test_images": INK[:, :9]},
        "test_images has shape 80×9 but images have 30 pixels: expected shape",
    ),
    "all alike": (
        {"images": np.ones((9, 30))},
        "images lie in at most 3 directions: expected fewer latents, or images that",
    ),
    "fewer images than latents": (
        {"images": IMAGES[:4], "latents": 10},
        "images lie in at most 10 directions: expected fewer latents, or images that",
    ),
    "all of one grey": (
        {"images": np.full((9, 30), 0.7)},
        "images lie in at most 3 directions: expected fewer latents, or images that",
    ),
    "no folder": ({"images": "elsewhere"}, "'elsewhere' is no folder: expected one with MNIST's files"),
    "a path of test images": (
        {"test_images": "elsewhere"},
        "test_images is 'elsewhere': expected an array; only images may be a folder",
    ),
    "an empty folder": (
        {"images": "."},
        "'.' holds no train-images-idx3-ubyte, raw or .gz: expected a folder with",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_bad_arguments_are_refused_in_one_line(fault, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments, message = REFUSED[fault]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        mnist_problem(**({"images": IMAGES, "latents": 3} | arguments))
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's files do not stand beside this clone")
def test_mnist_itself():
    """Every image has the KL(q‖p) that its precision implies: Σ ½ log P_ii − ½ log|P|."""
    problem = mnist_problem(MNIST, 50, n_images=20)
    assert problem.data.x.shape == (20, 784)
    precision = condition(problem.model, problem.data.x).precision
    expected = 0.5 * (np.log(np.diag(precision)).sum() - np.linalg.slogdet(precision)[1])
    np.testing.assert_allclose(ClosedForms(problem).kl_to_posterior, expected, rtol=1e-9)
    assert 5 < expected < 20
