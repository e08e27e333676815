"""Makers of ready problems: the paper's toy problem, and handwritten digits with exact answers."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import numpy as np

from toyiwae import checks
from toyiwae.arguments import whole_number
from toyiwae.extras import import_extra
from toyiwae.problems.factor_analysis import factor_analysis, varimax
from toyiwae.problems.fitted import least_norm_encoder
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal

GREY_LEVELS = 16
"""Ink of a full pixel in scikit-learn's digits, which `digits_problem` divides by."""

ROUNDING_STD = 1 / (GREY_LEVELS * math.sqrt(12))
"""Standard deviation of rounding a pixel to its grey level (uniform over one level)."""

PERTURBED = ("prior_mean", "proposal_weight", "proposal_offset")
"""What `paper_problem` perturbs."""


def paper_problem(
    D: int = 20, N: int = 1024, perturbation_std: float | Mapping[str, float] = 0.01, seed: int = 0
) -> Problem:
    """The toy problem of Rainforth et al. (2018), the default problem of this package.

        p(z) = N(μ, I)    p(x|z) = N(z, I)    q(z|x) = N(A x + b, (2/3) I)

    A true mean is drawn from N(0, I) and N observations from the model with that mean. The parameters are the
    optimum `μ* = mean of the data`, `A* = I/2`, `b* = μ*/2`, each entry perturbed by independent noise N(0,
    std²). The observations do not depend on `perturbation_std`, and the noise is the same draw at any std.

    Args:
        D: dimension of z and of x.
        N: number of observations.
        perturbation_std: one standard deviation for all parameters, or one each by the names in `PERTURBED`
            (those left out stay at the optimum).
        seed: of NumPy's generator; no global seed is read or set.

    Returns:
        A problem of N observations with an amortised proposal.

    Raises:
        InputError: for sizes below 1 or not whole, a negative standard deviation or seed, an unknown name.

    References:
        rainforth2018tighter
    """
    D, N = whole_number(D, "D"), whole_number(N, "N")
    std = _perturbations(perturbation_std)
    data_seed, noise_seed = np.random.SeedSequence(whole_number(seed, "seed", minimum=0)).spawn(2)
    generator = np.random.default_rng(data_seed)
    true_mean = generator.standard_normal(D)
    latent = true_mean + generator.standard_normal((N, D))
    x = latent + generator.standard_normal((N, D))
    best_mean = x.mean(axis=0)
    optimum = {"prior_mean": best_mean, "proposal_weight": np.eye(D) / 2, "proposal_offset": best_mean / 2}
    noise = np.random.default_rng(noise_seed)
    perturbed = {
        name: value + std[name] * noise.standard_normal(value.shape) for name, value in optimum.items()
    }
    model = Model(
        prior_mean=perturbed["prior_mean"],
        prior_cov=np.eye(D),
        loading=np.eye(D),
        offset=np.zeros(D),
        noise_cov=np.eye(D),
    )
    cov = np.eye(D) * 2 / 3
    proposal = Proposal(cov=cov, weight=perturbed["proposal_weight"], offset=perturbed["proposal_offset"])
    return Problem(model, proposal, Data(x))


def digits_problem(
    n_latents: int = 10,
    n_images: int | None = 100,
    n_encoder_images: int = 40,
    noise_floor_std: float = ROUNDING_STD,
    proposal_var_factor: float = 1.0,
) -> Problem:
    """Factor analysis of scikit-learn's handwritten digits with an amortised mean-field proposal.

    The model is fitted by maximum likelihood to all 1,797 images (8×8 pixels, ink scaled to [0, 1]), under a
    floor on the noise that holds for the three pixels without any ink and a few with hardly any, and
    rotated by varimax: in the canonical basis the posterior would be diagonal and a mean-field proposal
    exact.

    The proposal has the diagonal covariance nearest in KL(q‖p), `1/diag(P⁻¹)`, times `proposal_var_factor`.
    Its encoder maximises the ELBO of the first `n_encoder_images` images; fewer images than pixels leave it
    undetermined, and the solution of least norm is taken, which gradient ascent from zero finds. On further
    images it errs, the more so the more ink lies where the training images had none, so gaps differ from
    image to image; with some 60 training images or more it is all but exact.

    Args:
        n_latents: number of factors, 1 to 20.
        n_images: how many images the problem holds, those after the encoder's; ``None`` for all of them.
        n_encoder_images: how many images the encoder was fitted to.
        noise_floor_std: least standard deviation of a pixel's noise; by default that of rounding to a level.
        proposal_var_factor: widens (> 1) or narrows the proposal; with 10 latents the weights have infinite
            variance at 1.0 and finite variance at 1.25.

    Returns:
        A problem of `n_images` images of 64 pixels; the same on every call.

    Raises:
        InputError: for counts below 1, not whole, or beyond the 1,797 images, and reals that are not
        positive. MissingExtraError: if scikit-learn is not installed; the message names the extra.
    """
    n_latents = whole_number(n_latents, "n_latents", maximum=20)
    floor_std = checks.real(noise_floor_std, "noise_floor_std", 0.0, above=True)
    factor = checks.real(proposal_var_factor, "proposal_var_factor", 0.0, above=True)
    images, mean, loading, noise_var = _digits_factors(n_latents, floor_std)
    first = whole_number(n_encoder_images, "n_encoder_images", maximum=len(images) - 1)
    rest = len(images) - first
    count = rest if n_images is None else whole_number(n_images, "n_images", maximum=rest)
    precision = np.eye(n_latents) + loading.T @ (loading / noise_var[:, None])
    posterior_weight = np.linalg.solve(precision, loading.T / noise_var)
    weight, offset = least_norm_encoder(images[:first], (images[:first] - mean) @ posterior_weight.T)
    zero, one = np.zeros(n_latents), np.eye(n_latents)
    model = Model(zero, one, loading, offset=mean, noise_cov=np.diag(noise_var))
    proposal = Proposal(np.diag(factor / np.diag(precision)), weight=weight, offset=offset)
    return Problem(model, proposal, Data(images[first : first + count]))


def _perturbations(value: float | Mapping[str, float]) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return dict.fromkeys(PERTURBED, checks.real(value, "perturbation_std", 0.0))
    checks.keys(value, "perturbation_std", [], PERTURBED)
    return {name: checks.real(value.get(name, 0.0), f"perturbation_std[{name!r}]", 0.0) for name in PERTURBED}


@functools.lru_cache(maxsize=4)
def _digits_factors(
    n_latents: int, floor_std: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Images [1797, 64], their mean [64], varimax loading [64, D_z] and noise variances [64]."""
    datasets = import_extra("sklearn.datasets", extra="analysis", purpose="digits_problem()")
    images = datasets.load_digits().data / GREY_LEVELS
    loading, noise_var = factor_analysis(np.cov(images, rowvar=False, bias=True), n_latents, floor_std**2)
    return images, images.mean(axis=0), varimax(loading), noise_var
