"""The linear decoder: every estimate of an evaluation beside its exact value, image by image.

Each image has the mean and covariance that the encoder gives it, so the problem has as many proposals as images, and
`toyiwae.exact` knows log p(x), bounds, effective sample sizes and the moments of gradients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from toyiwae import estimators, stats, truth
from toyiwae.networks.evaluation.bounds import ImageBounds
from toyiwae.networks.evaluation.diagnostics import proposal_moments
from toyiwae.networks.latent import LatentModel
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.oracle.closed_form.gaussian import condition

Tensor = torch.Tensor

RATE = 1e-6
"""Family-wise rate at which agreement is judged."""


@dataclass(frozen=True, eq=False)
class ExactBounds:
    """Exact values for E members, nK numbers of particles and N images.

    Attributes:
        log_p: log p(x), the mean over images `[E]`.
        bound: L_K `[E, nK, N]`.
        ess: expected effective sample sizes `[E, nK, N]`.
        error: largest bound on the error of any of these.
        z: estimate of the mean over images of each bound less its exact value, in standard errors `[E, nK]`.
        detectable: the shift of that mean, in nats, that would have been seen with probability 0.999 `[E, nK]`.
    """

    log_p: np.ndarray
    bound: np.ndarray
    ess: np.ndarray
    error: float
    z: np.ndarray
    detectable: np.ndarray


@dataclass(frozen=True, eq=False)
class ExactSnr:
    """Signal-to-noise ratios of the gradients by each image's proposal mean `[B, D]`, of one member.

    Attributes:
        estimated, se: over replicates.
        exact: NaN where the estimator's variance has no exact value.
        z: in standard errors.
        detectable: the shift of each that would have been seen with probability 0.999.
    """

    estimated: np.ndarray
    se: np.ndarray
    exact: np.ndarray
    z: np.ndarray
    detectable: np.ndarray


def exact_bounds(model: LatentModel, x: Tensor, found: ImageBounds) -> ExactBounds:
    """The exact values of what `image_bounds` has estimated, for the same images `[E, N, D_x]`."""
    parts = []
    for e in range(len(x)):
        problem = model.problem(x[e], e)
        answer = truth.exact(problem, K=found.K, parameters=[])
        rows = [cell.per_row or {"gap": [cell.gap], "ess": [cell.ess]} for cell in answer.results]
        gaps, sizes = (np.array([row[name] for row in rows]) for name in ("gap", "ess"))
        log_p = condition(problem.model, problem.data.x).log_evidence
        error = max(max(cell.gap_error or 0.0, cell.ess_error or 0.0) for cell in answer.results)
        parts.append((log_p.mean(), log_p - gaps, sizes, max(error, answer.log_evidence_error or 0.0)))
    log_p, bound, ess, errors = (np.array(column) for column in zip(*parts, strict=True))
    se = np.sqrt((found.bound_se**2).sum(-1)) / found.bound.shape[-1]
    z = stats.z_score(found.bound.mean(-1), bound.mean(-1), se, errors.max())
    detectable = stats.smallest_detectable_shift(1, tests=z.size, rate=RATE) * se
    return ExactBounds(log_p, bound, ess, float(errors.max()), np.asarray(z), detectable)


def exact_snr(
    model: LatentModel, members: Sequence[Member], x: Tensor, noise: Noise, replicates: int
) -> list[ExactSnr]:
    """Estimated and exact signal-to-noise ratios of each member, for a batch `[E, B, D_x]` of few images."""
    moments = proposal_moments(model, members, x, noise, replicates)
    snr, se = (getattr(moments, name)[..., : model.dim_z] for name in ("snr", "snr_se"))
    found = []
    for e, member in enumerate(members):
        answer = truth.exact(
            model.problem(x[e], e),
            K=member.K,
            M=member.M,
            estimators=[estimators.get(member.proposal)],
            parameters=["proposal_mean"],
        )
        exact = answer.results[0].gradients[member.proposal].parameters["proposal_mean"].snr
        exact = np.full(snr[e].shape, np.nan) if exact is None else np.asarray(exact, dtype=np.float64)
        z = stats.z_score(snr[e], exact, se[e])
        detectable = se[e] * stats.smallest_detectable_shift(1, tests=snr.size, rate=RATE)
        found.append(ExactSnr(snr[e], se[e], exact, np.asarray(z), detectable))
    return found
