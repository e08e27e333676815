"""DiscreteProblem: binary latents with a linear-Gaussian emission and a factorised Bernoulli proposal.

    p(z) = Π_i Bernoulli(z_i; σ(prior_logit_i)),  z ∈ {0, 1}^D      p(x|z) = N(loading z + offset, noise_cov)
    q(z|x) = Π_i Bernoulli(z_i; σ(logit_i))   or, amortised, with logits weight x + offset

σ is the logistic function. A record of checked arrays, nothing computed; the latents are few enough for all
their states to be enumerated. No path derivative exists here: only score-function estimators apply.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from toyiwae import checks
from toyiwae.errors import InputError
from toyiwae.problems.covariances import covariance
from toyiwae.problems.linear_gaussian import Data
from toyiwae.problems.parameter import Parameter, Parameters
from toyiwae.problems.record import Record, Sections

MOST_LATENTS = 12
"""Most latents a DiscreteProblem may have (4,096 states)."""


@dataclass(frozen=True, eq=False, init=False)
class DiscreteModel(Record):
    """The model p(z) p(x|z) with binary latents; read-only float64 arrays.

    Attributes:
        prior_logit: log-odds that a latent is 1 [D].
        loading: shift of the observation's mean by each latent [D_x, D].
        offset: mean of the observation where all latents are 0 [D_x].
        noise_cov: covariance of the observation given the latents [D_x, D_x].

    Raises:
        InputError: naming the field, the value, and what would be right.
    """

    prior_logit: np.ndarray
    loading: np.ndarray
    offset: np.ndarray
    noise_cov: np.ndarray

    def __init__(self, prior_logit: Any, loading: Any, offset: Any, noise_cov: Any) -> None:
        """Takes arrays or nested lists, checks every field and that their dimensions agree."""
        prior_logit = checks.vector(prior_logit, "model.prior_logit")
        loading = checks.matrix(loading, "model.loading")
        offset = checks.vector(offset, "model.offset")
        noise_cov = covariance(noise_cov, "model.noise_cov", len(offset))
        (dim_z,), (dim_x,) = prior_logit.shape, offset.shape
        if dim_z > MOST_LATENTS:
            raise InputError(
                f"model.prior_logit has {checks.entries(dim_z)}: expected at most {MOST_LATENTS} latents"
            )
        latent = f"model.prior_logit has {checks.entries(dim_z)}"
        observed = f"model.offset has {checks.entries(dim_x)}"
        checks.shape(loading, (dim_x, dim_z), "model.loading", f"{observed} and {latent}")
        checks.shape(noise_cov, (dim_x, dim_x), "model.noise_cov", observed)
        self._set(prior_logit=prior_logit, loading=loading, offset=offset, noise_cov=noise_cov)


@dataclass(frozen=True, eq=False, init=False)
class DiscreteProposal(Record):
    """The factorised Bernoulli proposal q(z|x), with one vector of logits, or logits that are affine in x.

    Attributes:
        logit: log-odds that a latent is 1 [D]; or
        weight: slope of the log-odds in x [D, D_x], with
        offset: their intercept [D].

    Raises:
        InputError: naming the field, the value, and what would be right.
    """

    logit: np.ndarray | None = None
    weight: np.ndarray | None = None
    offset: np.ndarray | None = None
    optional: ClassVar = ("logit", "weight", "offset")

    def __init__(self, logit: Any = None, weight: Any = None, offset: Any = None) -> None:
        """Takes arrays or nested lists, checks every field and that their dimensions agree."""
        if checks.one_of("proposal", {"logit": logit}, {"weight": weight, "offset": offset}) == 0:
            self._set(logit=checks.vector(logit, "proposal.logit"), weight=None, offset=None)
            return
        weight = checks.matrix(weight, "proposal.weight")
        offset = checks.vector(offset, "proposal.offset")
        because = f"proposal.weight has shape {len(weight)}×{weight.shape[1]}"
        checks.shape(offset, (len(weight),), "proposal.offset", because)
        self._set(logit=None, weight=weight, offset=offset)


@dataclass(frozen=True)
class DiscreteObservations:
    """The observations one by one, with the proposal's logits of each.

    Attributes:
        x: observations [N, D_x].
        proposal_logit: logits of q(z|x) [N, D].
    """

    x: np.ndarray
    proposal_logit: np.ndarray

    def __len__(self) -> int:
        """Number of observations N."""
        return len(self.x)


@dataclass(frozen=True, eq=False)
class DiscreteProblem(Sections):
    """One model with binary latents, one factorised Bernoulli proposal, and data.

    Attributes:
        model: p(z) and p(x|z).
        proposal: q(z|x).
        data: the observations x.

    Raises:
        InputError: naming the field, the value, and what would be right.
    """

    model: DiscreteModel
    proposal: DiscreteProposal
    data: Data
    sections: ClassVar = {"model": DiscreteModel, "proposal": DiscreteProposal, "data": Data}

    def __post_init__(self) -> None:
        """Checks that the dimensions of the three parts agree."""
        self._check_parts()
        latent = f"model.prior_logit has {checks.entries(self.dim_z)}"
        observed = f"model.offset has {checks.entries(self.dim_x)}"
        if self.proposal.logit is not None:
            checks.shape(self.proposal.logit, (self.dim_z,), "proposal.logit", latent)
        if self.proposal.weight is not None:
            expected = (self.dim_z, self.dim_x)
            checks.shape(self.proposal.weight, expected, "proposal.weight", f"{observed} and {latent}")
        checks.shape(self.data.x, (*self.data.x.shape[:-1], self.dim_x), "data.x", observed)

    @property
    def dim_z(self) -> int:
        """Number of latents D."""
        return self.model.loading.shape[1]

    @property
    def dim_x(self) -> int:
        """Dimension of an observation."""
        return self.model.loading.shape[0]

    @property
    def n_rows(self) -> int:
        """Number of observations N."""
        return 1 if self.data.x.ndim == 1 else len(self.data.x)

    @property
    def amortised(self) -> bool:
        """Whether the proposal's logits are affine in x."""
        return self.proposal.weight is not None

    @property
    def parameters(self) -> Parameters:
        """Shapes of all parameters a gradient can be asked for, the model's first."""
        names = ("prior_logit", "loading", "offset")
        records = [Parameter(name, getattr(self.model, name).shape, "model") for name in names]
        for name in ("weight", "offset") if self.amortised else ("logit",):
            amortised = name if self.amortised else ""
            shape = getattr(self.proposal, name).shape
            records.append(Parameter(f"proposal_{name}", shape, "proposal", "mean", amortised))
        return Parameters(records)

    @property
    def mean_parameters(self) -> tuple[str, ...]:
        """The logits of the prior and the proposal's parameters: what gradients are of by default."""
        return ("prior_logit", *self.parameters.where(part="proposal"))

    def observations(self) -> DiscreteObservations:
        """The observations [N, D_x] and the proposal's logits [N, D] of each; read-only."""
        x = np.atleast_2d(self.data.x)
        if self.proposal.weight is not None:
            logit = x @ self.proposal.weight.T + self.proposal.offset
        else:
            logit = np.tile(np.asarray(self.proposal.logit), (len(x), 1))
        for array in (x, logit):
            array.setflags(write=False)
        return DiscreteObservations(x, logit)

    rows = observations
