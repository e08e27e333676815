"""Handwritten digits at MNIST's scale: probabilistic PCA in closed form, with exact answers for every image."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from toyiwae import checks
from toyiwae.arguments import whole_number
from toyiwae.errors import InputError
from toyiwae.problems.factor_analysis import probabilistic_pca
from toyiwae.problems.fitted import Factors, least_norm_encoder, mean_field
from toyiwae.problems.idx import find_idx, read_idx
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal

_BLOCK = 4096


def mnist_problem(
    images: Any,
    latents: int = 50,
    *,
    test_images: Any = None,
    n_images: int | None = None,
    n_encoder_images: int | None = None,
    per_image: bool = False,
    per_image_std: float = 0.1,
    proposal_var_factor: float = 1.0,
    seed: int = 0,
) -> Problem:
    """Probabilistic PCA of images with a mean-field proposal, amortised or with its own numbers for each image.

        p(z) = N(0, I)    p(x|z) = N(W z + mean, σ² I)    q(z|x) = N(weight x + offset, diag(var))

    The model is the maximum-likelihood one of the training images, rotated at random: the likelihood is blind to the
    rotation, but in the canonical basis the posterior is diagonal and a mean-field proposal exact. The proposal is the
    mean-field one nearest in KL(q‖p): the posterior's mean, which is affine in x, and variances 1/P_ii of its precision
    P. All images then have the same gap; an encoder fitted to few images, or `per_image`, makes gaps differ.

    Args:
        images: training images, [N, pixels] or [N, height, width], ink in [0, 1], as uint8 or as booleans; or a folder
            with MNIST's IDX files, raw or gzipped.
        latents: dimension of z, less than the pixels.
        test_images: images that the problem holds; by default the folder's test images, or `images`.
        n_images: how many of these, from the first; ``None`` for all.
        n_encoder_images: the encoder is the least-squares one of least norm of the first so many training images, as
            in `digits_problem`; ``None`` for the exact posterior mean. On MNIST 300 images add 0.3 to 1.6 nats to most
            images' gaps, 600 hardly any.
        per_image: whether each image has means and variances of its own, `proposal.mean` and `proposal.var` [N, D_z],
            as a trained encoder gives them: the amortised ones with errors that are independent for each image.
        per_image_std: their size: the standard deviation of the errors of a mean, in standard deviations of the
            proposal, and of the logarithm of a variance.
        proposal_var_factor: widens (> 1) or narrows the proposal.
        seed: of the rotation and of the errors; no global seed is read or set.

    Returns:
        A problem of `n_images` observations; the same on every call. `exact(problem, K=..., parameters=[])` gives its
        bounds, gaps and sample sizes; gradients, which it gives unless told otherwise, take far longer: minutes for
        thousands of images.

    Raises:
        InputError: for images that are not in [0, 1] or of different sizes, a folder without them, damaged files,
            counts below 1, not whole or beyond the images there are, and reals out of range.

    References:
        tipping1999probabilistic
    """
    train, held = _images(images, test_images)
    dim_x = train.shape[1]
    latents = whole_number(latents, "latents", maximum=dim_x - 1)
    count = len(held) if n_images is None else whole_number(n_images, "n_images", maximum=len(held))
    error_std = checks.real(per_image_std, "per_image_std", 0.0)
    factor = checks.real(proposal_var_factor, "proposal_var_factor", 0.0, above=True)
    rotation_seed, error_seed = np.random.SeedSequence(whole_number(seed, "seed", minimum=0)).spawn(2)
    mean, cov = _moments(train)
    loading, noise_var = probabilistic_pca(cov, latents)
    if noise_var <= 1e-12 * (np.trace(cov) + mean @ mean):  # rounding of the covariance
        raise InputError(
            f"images lie in at most {latents} directions: expected fewer latents, or images that differ more"
        )
    loading = loading @ _rotation(np.random.default_rng(rotation_seed), latents)
    weight, offset, var = mean_field(Factors(loading, mean, np.full(dim_x, noise_var)))
    if n_encoder_images is not None:
        first = _ink(train[: whole_number(n_encoder_images, "n_encoder_images", maximum=len(train))])
        weight, offset = least_norm_encoder(first, first @ weight.T + offset)
    x, var = _ink(held[:count]), factor * var
    proposal = Proposal(var=var, weight=weight, offset=offset)
    if per_image:
        errors = (
            error_std * np.random.default_rng(error_seed).standard_normal((len(held), 2, latents))[:count]
        )
        own = x @ weight.T + offset + np.sqrt(var) * errors[:, 0]
        proposal = Proposal(mean=own, var=var * np.exp(errors[:, 1]))
    return Problem(Model(np.zeros(latents), 1.0, loading, mean, noise_var), proposal, Data(x))


def _images(images: Any, test_images: Any) -> tuple[np.ndarray, np.ndarray]:
    """Training images and those to evaluate, [N, pixels] each, uint8 or ink in [0, 1]."""
    if isinstance(images, (str, os.PathLike)):
        train = flat_images(read_idx(find_idx(images, "train")), "images")
        held = read_idx(find_idx(images, "t10k")) if test_images is None else test_images
    else:
        train = flat_images(images, "images")
        held = train if test_images is None else test_images
    held = flat_images(held, "test_images")
    checks.axis(held, -1, train.shape[1], "test_images", f"images have {train.shape[1]} pixels")
    return train, held


def flat_images(images: Any, field: str) -> np.ndarray:
    """Images as [N, pixels], uint8 or ink in [0, 1]; InputError for others."""
    array = np.asarray(images)
    if array.dtype == bool:
        array = 255 * array.astype(np.uint8)
    if isinstance(images, (str, os.PathLike)):
        raise InputError(
            f"{field} is {checks.shown(str(images))}: expected an array; only images may be a folder"
        )
    if array.dtype != np.uint8:
        array = checks.real_array(images, field, (2, 3))
        if array.min() < 0 or array.max() > 1:
            span = f"{array.min():g} to {array.max():g}"
            raise InputError(
                f"{field} has ink from {span}: expected 0 to 1; divide by the largest, or give uint8"
            )
    elif array.ndim not in (2, 3) or not array.size:
        raise InputError(
            f"{field} has {checks.shape_text(array.shape)}: expected [N, pixels] or [N, height, width]"
        )
    return array.reshape(len(array), -1)


def _ink(images: np.ndarray) -> np.ndarray:
    """Images in [0, 1], float64."""
    return images / 255 if images.dtype == np.uint8 else images


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean [D_x] and covariance [D_x, D_x] (over N) of images, a block at a time."""
    total, squares = np.zeros(images.shape[1]), np.zeros((images.shape[1],) * 2)
    for start in range(0, len(images), _BLOCK):
        block = _ink(images[start : start + _BLOCK])
        total += block.sum(axis=0)
        squares += block.T @ block
    mean = total / len(images)
    return mean, squares / len(images) - np.outer(mean, mean)


def _rotation(generator: np.random.Generator, dim: int) -> np.ndarray:
    """A rotation [dim, dim], uniformly at random; the signs make it the same for every linear algebra library."""
    q, r = np.linalg.qr(generator.standard_normal((dim, dim)))
    return q * np.sign(np.diag(r))
