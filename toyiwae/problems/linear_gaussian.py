"""Problem: one linear-Gaussian model, one Gaussian proposal and the data, as plain checked arrays.

    p(z) = N(prior_mean, prior_cov)        p(x|z) = N(loading z + offset, noise_cov)
    q(z|x) = N(mean, cov)   or, amortised,   q(z|x) = N(weight x + offset, cov)

A Problem computes nothing beyond the proposal's means; closed forms are in `toyiwae.oracle`, the truth at
finite K in `toyiwae.truth`. Bad input is refused here, once, with the field and the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from toyiwae import checks
from toyiwae.errors import InputError
from toyiwae.problems.record import Record, Sections


@dataclass(frozen=True, eq=False, init=False)
class Model(Record):
    """The linear-Gaussian model p(z) p(x|z); read-only float64 arrays.

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
        prior_cov = checks.covariance(prior_cov, "model.prior_cov")
        loading = checks.matrix(loading, "model.loading")
        offset = checks.vector(offset, "model.offset")
        noise_cov = checks.covariance(noise_cov, "model.noise_cov")
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
class Proposal(Record):
    """The Gaussian proposal q(z|x), with one mean for all rows, or a mean that is affine in x (amortised).

    Attributes:
        cov: covariance [D_z, D_z], the same for all rows.
        mean: mean [D_z]; or
        weight: slope of the mean in x [D_z, D_x], with
        offset: its intercept [D_z].

    Raises:
        InputError: naming the field, the value, and what would be right.
    """

    cov: np.ndarray
    mean: np.ndarray | None = None
    weight: np.ndarray | None = None
    offset: np.ndarray | None = None
    optional: ClassVar = ("mean", "weight", "offset")

    def __init__(self, cov: Any, mean: Any = None, weight: Any = None, offset: Any = None) -> None:
        """Takes arrays or nested lists, checks every field and that their dimensions agree."""
        cov = checks.covariance(cov, "proposal.cov")
        dim_z = len(cov)
        expected = f"proposal.cov has shape {dim_z}×{dim_z}"
        if checks.one_of("proposal", {"mean": mean}, {"weight": weight, "offset": offset}) == 0:
            mean = checks.vector(mean, "proposal.mean")
            checks.shape(mean, (dim_z,), "proposal.mean", expected)
        else:
            weight = checks.matrix(weight, "proposal.weight")
            offset = checks.vector(offset, "proposal.offset")
            checks.shape(weight, (dim_z, weight.shape[1]), "proposal.weight", expected)
            checks.shape(offset, (dim_z,), "proposal.offset", expected)
        self._set(cov=cov, mean=mean, weight=weight, offset=offset)


@dataclass(frozen=True, eq=False, init=False)
class Data(Record):
    """The observations.

    Attributes:
        x: one row [D_x], or many [N, D_x]; read-only float64.

    Raises:
        InputError: naming the field, the value, and what would be right.
    """

    x: np.ndarray

    def __init__(self, x: Any) -> None:
        """Takes an array or nested lists and checks it."""
        self._set(x=checks.real_array(x, "data.x", (1, 2)))


@dataclass(frozen=True)
class Rows:
    """The data row by row, with the proposal's mean of each.

    Attributes:
        x: observations [N, D_x].
        proposal_mean: means of q(z|x) [N, D_z].
    """

    x: np.ndarray
    proposal_mean: np.ndarray

    def __len__(self) -> int:
        """Number of rows N."""
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
        checks.shape(self.proposal.cov, (self.dim_z, self.dim_z), "proposal.cov", latent)
        if self.proposal.weight is not None:
            expected = (self.dim_z, self.dim_x)
            checks.shape(self.proposal.weight, expected, "proposal.weight", f"{observed} and {latent}")
        rows = self.data.x.shape[:-1]
        checks.shape(self.data.x, (*rows, self.dim_x), "data.x", observed)

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
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all parameters a gradient can be asked for, the model's first."""
        model = {name: getattr(self.model, name).shape for name in ("prior_mean", "loading", "offset")}
        names = ("weight", "offset") if self.amortised else ("mean",)
        proposal = {f"proposal_{name}": getattr(self.proposal, name).shape for name in names}
        return {**model, **proposal, "proposal_chol": self.proposal.cov.shape}

    @property
    def mean_parameters(self) -> tuple[str, ...]:
        """The parameters of the prior's and the proposal's mean: what is reported unless asked otherwise."""
        return tuple(n for n in self.parameters if n not in ("loading", "offset", "proposal_chol"))

    def rows(self) -> Rows:
        """The observations [N, D_x] and the proposal's mean [N, D_z] of each; read-only."""
        x = np.atleast_2d(self.data.x)
        proposal = self.proposal
        if proposal.weight is not None:
            mean = x @ proposal.weight.T + proposal.offset
        else:
            mean = np.tile(np.asarray(proposal.mean), (len(x), 1))
        for array in (x, mean):
            array.setflags(write=False)
        return Rows(x, mean)

    def row(self, n: int) -> Problem:
        """The problem of observation `n` alone, its proposal no longer amortised.

        Raises:
            InputError: if there is no such observation.
        """
        if not -self.n_rows <= n < self.n_rows:
            raise InputError(f"row {n} does not exist: data.x has {self.n_rows}")
        rows = self.rows()
        return Problem(self.model, Proposal(self.proposal.cov, mean=rows.proposal_mean[n]), Data(rows.x[n]))
