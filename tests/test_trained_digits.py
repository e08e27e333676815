"""Training on scikit-learn's digits, held to exact answers of the linear decoder, and the orderings of the theory."""

import numpy as np
import pytest

import toyiwae
from analysis import gradients, particles
from toyiwae import stats

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
sklearn = pytest.importorskip("sklearn.decomposition")

from toyiwae.networks.evaluation.evaluate import evaluate  # noqa: E402
from toyiwae.networks.members import Member  # noqa: E402
from toyiwae.oracle.closed_form.gaussian import condition  # noqa: E402
from toyiwae.problems.factor_analysis import probabilistic_pca  # noqa: E402

RATE = 1e-6
LATENTS = 8

pytestmark = pytest.mark.slow


def trained(model, members, **training):
    """A run on digits: grey for Gaussian pixels, otherwise binarised anew for each batch."""
    linear = model["kind"] == "linear_gaussian"
    data = {"binarisation": "grey" if linear else "dynamic"}
    settings = {"data": data, "model": model, "members": members, "training": {"batch": 100, **training}}
    return toyiwae.train(settings)


@pytest.fixture(scope="module")
def linear_run():
    """Probabilistic PCA with an encoder that is neither affine nor good: IWAE, and IWAE with DReG for the encoder."""
    members = [{"estimator": "iwae", "K": 16}, {"model": "iwae", "proposal": "dreg", "M": 2, "K": 8}]
    model = {"kind": "linear_gaussian", "latents": 6, "hidden": [12]}
    options = {"epochs": 40, "seeds": [3], "learning_rates": [1e-2], "dtype": "float64"}
    return trained(model, members, **options)


@pytest.fixture(scope="module")
def linear(linear_run):
    """Its evaluation."""
    return evaluate(linear_run, K=(1, 64, 6400), images=60, snr_replicates=1000)


def test_iwae_64_of_a_trained_linear_decoder_agrees_with_the_exact_average(linear):
    exact, (one, many, _) = linear.exact, range(3)
    threshold = stats.family_threshold(exact.z.size, RATE)
    message = (
        f"z = {exact.z}, a shift of {exact.detectable} nats would have been seen; stated error {exact.error}"
    )
    assert exact.error < 1e-7, message
    assert np.abs(exact.z).max() < threshold, message
    assert exact.detectable[:, many].max() < 0.05, message
    assert (
        exact.bound.mean(-1)[:, many] - exact.bound.mean(-1)[:, one] > 0.3
    ).all()  # the encoder is not the posterior
    assert (exact.log_p - exact.bound.mean(-1)[:, many] > 0.005).all()


def test_snrs_of_a_trained_linear_decoder_agree_with_the_exact_ones_image_by_image(linear):
    z = np.concatenate([found.z.ravel() for found in linear.exact_snr])
    detectable = np.concatenate([found.detectable.ravel() for found in linear.exact_snr])
    seen = f"shifts of {detectable.min():.2f} to {detectable.max():.2f} would have been seen"
    message = f"|z| up to {np.abs(z).max():.2f} of {z.size}; {seen}"
    assert z.size == 2 * 8 * 6
    assert np.abs(z).max() < stats.family_threshold(z.size, RATE), message
    assert np.median(detectable) < 0.4, message
    assert max(found.exact.max() for found in linear.exact_snr) > 1.0  # there is something to see


@pytest.mark.parametrize("proposal", ["mean_field", "full"])
def test_iwae_training_reaches_the_maximum_of_the_exact_likelihood(proposal):
    """The closed form of probabilistic PCA; a mean-field encoder is exact in one rotation, and training finds it."""
    model = {"kind": "linear_gaussian", "latents": LATENTS, "proposal": proposal}
    options = {"epochs": 121, "seeds": [1], "learning_rates": [5e-3], "schedule": "stages"}
    run = trained(model, [{"estimator": "iwae", "K": 16}], **options)
    x = run.images.train.astype(np.float64)
    problem = run.model.problem(x)
    cov = np.cov(x.T, bias=True)
    loading, noise_var = probabilistic_pca(cov, LATENTS)
    total = loading @ loading.T + noise_var * np.eye(len(cov))
    log_det = np.linalg.slogdet(2.0 * np.pi * total)[1]
    best = -0.5 * (log_det + np.trace(np.linalg.solve(total, cov)))
    pca = sklearn.PCA(LATENTS, svd_solver="full").fit(x)
    pca.noise_variance_ *= 1 - 1 / len(x)  # which divides by N − 1; so do its variances
    pca.explained_variance_ *= 1 - 1 / len(x)
    assert pca.score(x) == pytest.approx(best, abs=1e-9)
    found = condition(problem.model, x).log_evidence.mean()
    assert 0.0 <= best - found < 0.1, f"{found:.4f} nats after {run.step} steps; the maximum is {best:.4f}"


@pytest.fixture(scope="module")
def deep():
    """Bernoulli pixels: the ELBO and IWAE with 64 particles, before they have converged."""
    members = [{"estimator": "elbo", "M": 64, "K": 1}, {"estimator": "iwae", "K": 64}]
    return trained({"kind": "bernoulli_vae", "latents": 8, "hidden": [32]}, members, epochs=30, seeds=[2])


def test_the_elbos_proposal_has_more_effective_samples_than_iwaes(deep):
    """Of 64 particles, on test images that both see alike."""
    ess = evaluate(deep, K=(64,)).bounds.ess[:, 0]
    difference = ess[0] - ess[1]
    z = difference.mean() / (difference.std(ddof=1) / np.sqrt(len(difference)))
    assert len(difference) == 297
    assert z > stats.family_threshold(1, RATE, len(difference) - 1), (
        f"{ess.mean(-1)}: {z:.1f} standard errors"
    )


def change(few, many):
    """Of log SNR with more particles, in standard errors."""
    return (many.log_snr - few.log_snr) / np.hypot(many.log_snr_se, few.log_snr_se)


def test_more_particles_lower_the_encoders_snr_for_iwae_and_hardly_for_dreg(deep):
    """By the encoder's weights, with the same parameters (IWAE's) and images."""
    few, many = (
        gradients.encoder_snr(
            deep,
            1,
            [Member(rule, rule, 1, K, 0) for rule in ("iwae", "dreg")],
            images=20,
            replicates=400,
            seed=K,
        )
        for K in (4, 64)
    )
    threshold = stats.family_threshold(2, RATE, gradients.GROUPS - 1)
    message = f"IWAE, DReG: {few.snr} at K = 4, {many.snr} at 64: {change(few, many)} standard errors"
    assert change(few, many)[0] < -threshold, message
    less = (many.log_snr - few.log_snr)[1] - (many.log_snr - few.log_snr)[0]
    assert less / np.hypot(many.log_snr_se, few.log_snr_se).max() > threshold, message


def test_where_the_weights_have_a_fourth_moment_more_particles_raise_dregs_snr(linear_run):
    """Each image's gradient by the proposal's mean; on the deep network that moment is infinite."""
    x = gradients.seen(linear_run, linear_run.images.test[:12])
    found = {(rule, K): [] for rule in ("iwae", "dreg") for K in (4, 64)}
    for pool in particles.pools(linear_run.model.at(1), x, 2**16, seed=9):
        for (rule, K), own in found.items():
            own.append(particles.snr_at(pool, rule, K))
    mean = {key: np.mean([one.squared for one in own]) for key, own in found.items()}
    var = {key: np.sum([one.squared_se**2 for one in own]) / len(own) ** 2 for key, own in found.items()}
    threshold = stats.family_threshold(2, RATE, gradients.GROUPS - 1)
    for rule, sign in (("iwae", -1.0), ("dreg", 1.0)):
        few, many = (rule, 4), (rule, 64)
        z = sign * (mean[many] - mean[few]) / np.sqrt(var[many] + var[few])
        assert z > threshold, (
            f"{rule}: {mean[few]:.4f} at K = 4, {mean[many]:.4f} at 64 (squared): z = {z:.1f}"
        )
