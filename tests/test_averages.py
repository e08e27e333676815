"""Averages are over images: ragged batches, several processes, padding; each beside an exact log-evidence."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

import toyiwae
from tests.problems import random_problem
from toyiwae import weights
from toyiwae.networks.averages import ImageAverage
from toyiwae.oracle.closed_form.gaussian import condition
from toyiwae.problems.linear_gaussian import Problem

IMAGES, BATCH, PROCESSES, K = 10, 4, 2, 3


def assert_documented(*values) -> None:
    """The page of the docs shows these numbers."""
    page = (Path(__file__).resolve().parents[1] / "docs/networks.md").read_text(encoding="utf-8")
    for value in values:
        assert f"| {value:.4f} |".replace("-", "−") in page


def problem() -> Problem:
    """Ten observations whose proposal is the posterior: then log w = log p(x) for every particle, without noise."""
    base = random_problem(11, 2, 3, rows=IMAGES, amortised=True)
    posterior = condition(base.model, base.data.x)
    return Problem(base.model, toyiwae.Proposal(cov=posterior.cov, mean=posterior.mean), base.data)


def log_likelihoods(images: np.ndarray) -> torch.Tensor:
    """IWAE-K of some of the observations, from particles: log p(x) + log p(z) − log q(z|x), in closed form here."""
    given = problem()
    model, own = given.model, given.observations()
    z = (
        np.asarray(own.proposal_mean)[images][:, None]
        + np.random.default_rng(3).standard_normal((len(images), K, 2))
        @ np.linalg.cholesky(np.asarray(given.proposal.cov)).T
    )

    def log_normal(x, mean, cov):
        error = np.linalg.solve(np.linalg.cholesky(cov), (x - mean)[..., None])[..., 0]
        return -0.5 * (error**2).sum(-1) - 0.5 * np.linalg.slogdet(2 * np.pi * cov)[1]

    x = given.data.x[images][:, None]
    log_w = log_normal(z, model.prior_mean, model.prior_cov)
    log_w += log_normal(x, z @ model.loading.T + model.offset, model.noise_cov)
    log_w -= log_normal(z, np.asarray(own.proposal_mean)[images][:, None], np.asarray(given.proposal.cov))
    return torch.from_numpy(weights.log_mean_exp(log_w))


def part(process: int) -> tuple[torch.Tensor, int]:
    """Total and count of one process's share, every second image, padded to whole batches by images it repeats."""
    own = np.arange(process, IMAGES, PROCESSES)
    padded = np.resize(own, -(-len(own) // BATCH) * BATCH)
    average = ImageAverage.empty()
    for start in range(0, len(padded), BATCH):
        real = np.arange(start, start + BATCH) < len(own)
        average = average.add(log_likelihoods(padded[start : start + BATCH]), real)
    return average.total, average.count


@pytest.fixture(scope="module")
def exact() -> float:
    """The mean log-evidence of the ten."""
    value = toyiwae.exact(problem(), K=1, parameters=[]).log_evidence
    by_image = log_likelihoods(np.arange(IMAGES))
    np.testing.assert_allclose(by_image.mean(), value, rtol=1e-12)
    assert by_image.std() > 0.5  # else wrong averages would be right
    return value


def test_ragged_batches(exact):
    average = ImageAverage.empty()
    means = []
    for start in range(0, IMAGES, BATCH):
        values = log_likelihoods(np.arange(IMAGES)[start : start + BATCH])
        average = average.add(values)
        means.append(values.mean())
        again = ImageAverage.empty().add_mean(values.mean(), len(values))
        torch.testing.assert_close(again.total, values.sum())
    assert average.count == IMAGES
    np.testing.assert_allclose(average.mean, exact, rtol=1e-12)
    assert abs(np.mean(means) - exact) > 0.01  # the mean of batches' means
    assert_documented(exact, np.mean(means))


@pytest.mark.parametrize("apart", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_processes_with_padding(apart, exact):
    """In this process, and in two of their own."""
    if apart:
        with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("spawn")) as pool:
            parts = list(pool.map(part, range(PROCESSES)))
    else:
        parts = [part(process) for process in range(PROCESSES)]
    whole = ImageAverage.empty()
    for total, count in parts:
        whole = whole.merge(ImageAverage(total, count))
    assert whole.count == IMAGES
    np.testing.assert_allclose(whole.mean, exact, rtol=1e-12)
    padded = [log_likelihoods(np.resize(np.arange(p, IMAGES, PROCESSES), 8)).mean() for p in range(PROCESSES)]
    assert abs(np.mean(padded) - exact) > 0.01  # padding that counts
    assert_documented(np.mean(padded))


def test_padding_may_hold_anything():
    values = torch.tensor([[1.0, 2.0, torch.nan], [3.0, 5.0, torch.inf]])
    average = ImageAverage.empty(2).add(values, [True, True, False])
    assert average.mean.tolist() == [1.5, 4.0]
    assert ImageAverage.empty(2).mean.isnan().all()
