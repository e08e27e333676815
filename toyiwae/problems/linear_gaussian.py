"""Problem: one linear-Gaussian model, one Gaussian proposal and the data, as plain checked arrays.

    p(z) = N(prior_mean, prior_cov)        p(x|z) = N(loading z + offset, noise_cov)
    q(z|x) = N(mean, cov)   or, amortised,   q(z|x) = N(weight x + offset, cov)   or   q(z|x_n) = N(mean_n, cov_n)

A Problem computes nothing beyond the proposal's means; closed forms are in `toyiwae.oracle`, the truth at
finite K in `toyiwae.truth`. Bad input is refused here, once, with the field and the reason.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from toyiwae import checks
from toyiwae.errors import InputError
from toyiwae.problems.covariances import covariance
from toyiwae.problems.fitted import Factors, factor_analysis_of, mean_field, pca_of
from toyiwae.problems.parameter import Parameter, Parameters
from toyiwae.problems.proposal import Proposal
from toyiwae.problems.record import Record, Sections


@dataclass(frozen=True, eq=False, init=False)
class Model(Record):
    """The linear-Gaussian model p(z) p(x|z); read-only float64 arrays.

    A covariance may be given as a vector of variances, or as one variance for all coordinates.

    Attributes:
        prior_mean: mean of the latent [D_z].
        prior_cov: covariance of the latent [D_z, D_z].
        loading: slope of the observation's mean in the latent [D_x, D_z].
        offset: its intercept [D_x].
        noise_cov: covariance of the observation given the latent [D_x, D_x].

    Raises:
        InputError: naming the field, the value, and what would be right.
    """

    prior_mean: np.ndarray
    prior_cov: np.ndarray
    loading: np.ndarray
    offset: np.ndarray
    noise_cov: np.ndarray

    def __init__(self, prior_mean: Any, prior_cov: Any, loading: Any, offset: Any, noise_cov: Any) -> None:
        """Takes arrays or nested lists, checks every field and that their dimensions agree."""
        prior_mean = checks.vector(prior_mean, "model.prior_mean")
        prior_cov = covariance(prior_cov, "model.prior_cov", len(prior_mean))
        loading = checks.matrix(loading, "model.loading")
        offset = checks.vector(offset, "model.offset")
        noise_cov = covariance(noise_cov, "model.noise_cov", len(offset))
        (dim_z,), (dim_x,) = prior_mean.shape, offset.shape
        latent = f"model.prior_mean has {checks.entries(dim_z)}"
        observed = f"model.offset has {checks.entries(dim_x)}"
        checks.shape(prior_cov, (dim_z, dim_z), "model.prior_cov", latent)
        checks.shape(loading, (dim_x, dim_z), "model.loading", f"{observed} and {latent}")
        checks.shape(noise_cov, (dim_x, dim_x), "model.noise_cov", observed)
        self._set(
            prior_mean=prior_mean, prior_cov=prior_cov, loading=loading, offset=offset, noise_cov=noise_cov
        )


@dataclass(frozen=True, eq=False, init=False)
class Data(Record):
    """The observations.

    Attributes:
        x: one observation [D_x], or many [N, D_x]; read-only float64.

    Raises:
        InputError: naming the field, the value, and what would be right.
    """

    x: np.ndarray

    def __init__(self, x: Any) -> None:
        """Takes an array or nested lists and checks it."""
        self._set(x=checks.real_array(x, "data.x", (1, 2)))


@dataclass(frozen=True)
class Observations:
    """The observations one by one, with the proposal of each.

    Attributes:
        x: observations [N, D_x].
        proposal_mean: means of q(z|x) [N, D_z].
        proposal_cov: covariance of q(z|x), shared [D_z, D_z] or one for each [N, D_z, D_z].
    """

    x: np.ndarray
    proposal_mean: np.ndarray
    proposal_cov: np.ndarray

    def __len__(self) -> int:
        """Number of observations N."""
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Problem(Sections):
    """One linear-Gaussian model, one Gaussian proposal, and data.

    Attributes:
        model: p(z) and p(x|z).
        proposal: q(z|x).
        data: the observations x.

    Raises:
        InputError: naming the field, the value, and what would be right.
    """

    model: Model
    proposal: Proposal
    data: Data
    sections: ClassVar = {"model": Model, "proposal": Proposal, "data": Data}

    def __post_init__(self) -> None:
        """Checks that the dimensions of the three parts agree."""
        self._check_parts()
        latent = f"model.prior_mean has {checks.entries(self.dim_z)}"
        observed = f"model.offset has {checks.entries(self.dim_x)}"
        proposal, x = self.proposal, self.data.x
        if proposal.var is not None:
            checks.axis(proposal.var, -1, self.dim_z, "proposal.var", latent)
        else:
            shape = (*proposal.cov.shape[:-2], self.dim_z, self.dim_z)
            checks.shape(proposal.cov, shape, "proposal.cov", latent)
        if proposal.weight is not None:
            expected = (self.dim_z, self.dim_x)
            checks.shape(proposal.weight, expected, "proposal.weight", f"{observed} and {latent}")
        checks.axis(x, -1, self.dim_x, "data.x", observed)
        if proposal.per_observation and len(proposal.mean) != self.n_rows:  # pyright: ignore[reportArgumentType]
            held = f"data.x holds {self.n_rows} observation{'s' * (self.n_rows > 1)}"
            checks.axis(np.asarray(proposal.mean), 0, self.n_rows, "proposal.mean", held)

    @classmethod
    def from_factor_analysis(cls, fitted: Any, x: Any, proposal: Proposal | None = None) -> Problem:
        """The problem of a fitted `FactorAnalysis` of scikit-learn: loading componentsᵀ, a noise for each coordinate.

        Args:
            fitted: an object with `components_` [D_z, D_x], `mean_` [D_x] and `noise_variance_` [D_x].
            x: observations [D_x] or [N, D_x].
            proposal: by default the mean-field proposal nearest in KL(q‖p), with the exact posterior mean.

        Raises:
            InputError: for an object that is not fitted, or another kind, and as `Problem` does.
        """
        return cls._from_factors(factor_analysis_of(fitted), x, proposal)

    @classmethod
    def from_pca(cls, fitted: Any, x: Any, proposal: Proposal | None = None) -> Problem:
        """The probabilistic PCA of a fitted `PCA` of scikit-learn, whose noise is not part of the loading.

        Args:
            fitted: an object with `components_` [D_z, D_x], `mean_`, `explained_variance_` [D_z], `noise_variance_`.
            x: observations [D_x] or [N, D_x].
            proposal: by default the mean-field proposal nearest in KL(q‖p); exact, since the posterior is diagonal.

        Raises:
            InputError: for an object that is not fitted, or another kind, and as `Problem` does.
        """
        return cls._from_factors(pca_of(fitted), x, proposal)

    @classmethod
    def _from_factors(cls, factors: Factors, x: Any, proposal: Proposal | None) -> Problem:
        if proposal is None:
            weight, offset, var = mean_field(factors)
            proposal = Proposal(var=var, weight=weight, offset=offset)
        dim_z = factors.loading.shape[1]
        return cls(
            Model(np.zeros(dim_z), 1.0, factors.loading, factors.mean, factors.noise_var), proposal, Data(x)
        )

    @property
    def dim_z(self) -> int:
        """Dimension of the latent."""
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
        """Whether the proposal's mean is affine in x."""
        return self.proposal.weight is not None

    @property
    def parameters(self) -> Parameters:
        """Shapes of all parameters a gradient can be asked for, the model's first."""
        model, proposal = self.model, self.proposal
        names, cov = ("prior_mean", "loading", "offset"), proposal.cov_shape
        records = [Parameter(name, getattr(model, name).shape, "model") for name in names]
        for name in ("weight", "offset") if self.amortised else ("mean",):
            amortised, shape = name if self.amortised else "", getattr(proposal, name).shape
            own = name == "mean" and len(shape) == 2
            records.append(Parameter(f"proposal_{name}", shape, "proposal", "mean", amortised, own))
        return Parameters([*records, Parameter("proposal_chol", cov, "proposal", "chol", own=len(cov) == 3)])

    @property
    def mean_parameters(self) -> tuple[str, ...]:
        """The parameters of the prior's and the proposal's mean: what is reported unless asked otherwise."""
        return ("prior_mean", *self.parameters.where(moves="mean"))

    def observations(self) -> Observations:
        """The observations [N, D_x], and the proposal's mean [N, D_z] and covariance of each; read-only."""
        x = np.atleast_2d(self.data.x)
        x.setflags(write=False)
        return Observations(x, self.proposal.means(x), self.proposal.cov)

    rows = observations

    def row(self, n: int) -> Problem:
        """The problem of observation `n` alone, with the proposal that it has.

        Raises:
            InputError: if there is no such observation.
        """
        if not isinstance(n, numbers.Integral) or not -self.n_rows <= n < self.n_rows:
            raise InputError(f"observation {checks.shown(n)} does not exist: data.x holds {self.n_rows}")
        x, proposal = np.atleast_2d(self.data.x), self.proposal
        mean = proposal.means(x)[n]
        if proposal.var is not None:
            own = Proposal(var=proposal.var[n] if proposal.var.ndim == 2 else proposal.var, mean=mean)
        else:
            own = Proposal(proposal.cov[n] if proposal.cov.ndim == 3 else proposal.cov, mean=mean)
        return Problem(self.model, own, Data(x[n]))

    def require_shared_proposal(self, what: str) -> None:
        """Refuses a proposal of its own for each observation, where `what` does not serve it.

        Raises:
            InputError: naming what to do instead.
        """
        if self.proposal.per_observation:
            raise InputError(
                f"proposal.mean is one for each observation, which {what} does not serve: give one proposal for"
                " all, or ask for one observation at a time, `problem.row(n)`"
            )
