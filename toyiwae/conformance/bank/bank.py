"""The bank of problems: nothing in it is 0, 1, diagonal, square or symmetric, so that nothing hides.

Proposals are wide and narrow, near and far from the posterior; `M ≠ K`, `D_x ≠ D_z`. Evidences lie far from 1 on both
sides, since a constant in the log-weights must not matter: log p(x) is below −745 on one problem and above 709 on
another, where `exp` leaves float64, and the weights are as equal there as elsewhere: a log-sum-exp in float32 serves.
Numbers are rounded to four digits, so that the problems are the same on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

import numpy as np

from toyiwae.conformance.bank.nonlinear import NonlinearProblem
from toyiwae.oracle.closed_form.gaussian import condition
from toyiwae.problems.linear_gaussian import Data, Model, Problem, Proposal

P = TypeVar("P", Problem, NonlinearProblem)


@dataclass(frozen=True)
class Entry(Generic[P]):
    """A problem of the bank.

    Attributes:
        name: what reports call it.
        problem: the problem.
        cells: pairs (K, M) at which it is run.
        why: what it is there to show.
        rows: whether it has many rows and an amortised proposal (used with `--rows`).
    """

    name: str
    problem: P
    cells: tuple[tuple[int, int], ...]
    why: str
    rows: bool = False


_TWO_LATENTS = {
    "prior_mean": [0.7, -0.4],
    "prior_cov": [[1.3, 0.35], [0.35, 0.6]],
    "loading": [[0.9, 0.3], [-0.2, 1.2], [0.5, -0.6]],
    "offset": [0.3, -0.5, 0.8],
    "noise_cov": [[0.7, 0.12, -0.1], [0.12, 0.5, 0.08], [-0.1, 0.08, 1.4]],
}
_THREE_LATENTS = {
    "prior_mean": [-0.6, 0.3, 1.1],
    "prior_cov": [[0.8, 0.2, -0.15], [0.2, 1.6, 0.3], [-0.15, 0.3, 0.5]],
    "loading": [[0.7, -0.4, 0.9], [0.3, 0.8, -0.5]],
    "offset": [-0.9, 0.4],
    "noise_cov": [[0.4, -0.09], [-0.09, 0.9]],
}
_SMALL_NOISE = {
    "prior_mean": [0.08, -0.05],
    "prior_cov": [[0.012, 0.004], [0.004, 0.007]],
    "loading": [[0.6, 0.2], [-0.3, 0.7], [0.4, 0.5], [0.1, -0.8], [0.5, 0.3]],
    "offset": [0.04, -0.07, 0.02, 0.05, -0.03],
    "noise_cov": (np.diag([2.0, 3.1, 1.4, 2.6, 1.8]) * 1e-3 + 4e-4).tolist(),
}
_ONE_LATENT = {
    "prior_mean": [1.4],
    "prior_cov": [[2.3]],
    "loading": [[0.8], [-1.3]],
    "offset": [-0.6, 0.9],
    "noise_cov": [[0.6, 0.2], [0.2, 0.35]],
}


@cache
def bank() -> tuple[Entry[Problem], ...]:
    """All problems, those with rows last."""
    wide, narrow = [[1.5, 0.0], [0.25, 1.3]], [[0.94, 0.0], [0.1, 0.97]]
    third = [[1.25, 0.0, 0.0], [-0.2, 0.95, 0.0], [0.15, 0.1, 1.35]]
    return (
        Entry(
            "wide",
            _near(_TWO_LATENTS, [1.6, -0.7, 0.4], [0.5, -0.3], wide),
            ((5, 2), (5, 1), (2, 3), (1, 3), (13, 1)),
            "a proposal wider than the posterior, near it; K from 1 to 13",
        ),
        Entry(
            "narrow",
            _near(_TWO_LATENTS, [-0.2, -1.6, 2.1], [-0.4, 0.3], narrow),
            ((4, 3),),
            "a proposal narrower than the posterior in one direction: unbounded weights",
        ),
        Entry(
            "far",
            _near(_THREE_LATENTS, [1.9, -1.2], [1.1, -0.8, 0.6], third),
            ((6, 2),),
            "a proposal 1.5 standard deviations off, in three dimensions",
        ),
        Entry(
            "high evidence",
            _near(_SMALL_NOISE, [0.14, -0.15, 0.03, 0.12, -0.02], [-0.6, 0.4], wide),
            ((3, 2),),
            "p(x) above 1: constants that hide in the log-weights",
        ),
        Entry(
            "underflow",
            _near(_ONE_LATENT, [55.5, -26.4], [0.45], [[1.35]]),
            ((7, 2), (2, 1)),
            "log p(x) = −1010: exp of a log-weight is 0, clamps; one latent",
        ),
        Entry(
            "overflow",
            _near(*_many_observed(50, 2.0**-23), [-0.5], [[1.35]]),
            ((3, 1),),
            "log p(x) = 744: exp of a log-weight is infinite; many observed coordinates in small units",
        ),
        Entry("rows", _rows(), ((4, 3),), "three rows of data, an amortised proposal", rows=True),
    )


@cache
def nonlinear_bank() -> tuple[Entry[NonlinearProblem], ...]:
    """The problems with a nonlinear decoder, which only surrogates can be judged on."""
    linear = Problem(
        Model([0.6], [[1.7]], [[1.9], [-1.3]], [-0.4, 0.7], [[0.5, 0.15], [0.15, 0.35]]),
        Proposal([[1.9]], mean=[0.35]),
        Data([1.6, 0.2]),
    )
    why = "a nonlinear decoder: derivatives that are right for quadratic log-densities only"
    return (Entry("nonlinear", NonlinearProblem(linear), ((5, 2), (2, 1)), why),)


@cache
def posterior_problem() -> Problem:
    """A problem whose proposal is the posterior: every weight equals p(x)."""
    model = Model(**_TWO_LATENTS)
    x = np.array([1.1, 0.6, -0.8])
    posterior = condition(model, x)
    return Problem(model, Proposal(_symmetric(posterior.cov), mean=posterior.mean[0]), Data(x))


def _near(model: dict, x: list[float], shift: list[float], stretch: list[list[float]]) -> Problem:
    """A proposal `shift` posterior standard deviations off, with the posterior's root stretched."""
    made = Model(**model)
    posterior = condition(made, np.array(x))
    root = np.linalg.cholesky(_symmetric(posterior.cov))
    factor = root @ np.array(stretch)
    digits = 4 if posterior.cov.max() > 0.05 else 6
    mean = np.round(posterior.mean[0] + root @ np.array(shift), digits)
    return Problem(made, Proposal(np.round(_symmetric(factor @ factor.T), digits), mean=mean), Data(x))


def _many_observed(dim: int, unit: float) -> tuple[dict, list[float]]:
    """A model of one latent and `dim` observed coordinates, and x near its mean, in a unit that is a power of 2."""
    i = np.arange(1.0, dim + 1)
    across, offset = np.round(0.3 * np.cos(1.1 * i), 4), np.round(1.5 * np.sin(1.3 * i), 4)
    loading = np.round(0.25 * np.cos(0.7 * i) + 0.1, 4)
    x = offset + np.round(1.2 * loading + 0.7 * np.sin(2.9 * i), 4)
    noise_cov = np.diag(np.round(1.0 + 0.5 * np.sin(i), 4)) + np.outer(across, across)
    model = {"prior_mean": [0.8], "prior_cov": [[1.7]], "loading": (unit * loading[:, None]).tolist()}
    model |= {"offset": (unit * offset).tolist(), "noise_cov": (unit**2 * noise_cov).tolist()}
    return model, (unit * x).tolist()


def _rows() -> Problem:
    model = Model(**_TWO_LATENTS)
    x = np.array([[1.6, -0.7, 0.4], [-0.5, 0.9, 1.7], [2.2, 0.3, -0.6]])
    posterior = condition(model, x)
    gain = _symmetric(posterior.cov) @ model.loading.T @ np.linalg.inv(model.noise_cov)
    weight = np.round(gain + np.array([[0.06, -0.03, 0.02], [-0.04, 0.05, 0.03]]), 4)
    offset = np.round(posterior.mean[0] - gain @ x[0] + [0.15, -0.1], 4)
    root = np.linalg.cholesky(_symmetric(posterior.cov)) @ np.array([[1.3, 0.0], [0.2, 1.15]])
    return Problem(
        model, Proposal(np.round(_symmetric(root @ root.T), 4), weight=weight, offset=offset), Data(x)
    )


def _symmetric(matrix: np.ndarray) -> np.ndarray:
    return 0.5 * (matrix + matrix.T)
