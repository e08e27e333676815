"""A user's own log-density of one or two latents, with a Gaussian proposal."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from toyiwae import checks
from toyiwae.errors import InputError
from toyiwae.problems.covariances import covariance
from toyiwae.problems.parameter import Parameter, Parameters

LogDensity = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True, eq=False)
class QuadratureProblem:
    """A target of one or two latents given by its log-density, and a Gaussian proposal N(mean, cov).

    Attributes:
        log_joint: z [n, D] -> log p(x, z) [n], finite everywhere.
        proposal_mean: μ [D], D = 1 or 2.
        proposal_cov: L Lᵀ [D, D].
        z_gradient: z [n, D] -> ∂ log p(x, z)/∂z [n, D]; by differences if not given.
        model_gradients: parameter of the model -> (z [n, D] -> ∇ log p(x, z) [n, F]).

    Raises:
        InputError: naming the field, the value, and what would be right.
    """

    log_joint: LogDensity
    proposal_mean: Any
    proposal_cov: Any
    z_gradient: LogDensity | None = None
    model_gradients: Mapping[str, LogDensity] = field(default_factory=dict)
    _sizes: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Check the arrays and what the functions return at the proposal's mean."""
        mean = checks.vector(self.proposal_mean, "proposal_mean")
        cov = covariance(self.proposal_cov, "proposal_cov", len(mean))
        if len(mean) > 2:
            raise InputError(f"proposal_mean has {checks.entries(len(mean))}: expected one or two latents")
        checks.shape(
            cov, (len(mean), len(mean)), "proposal_cov", f"proposal_mean has {checks.entries(len(mean))}"
        )
        object.__setattr__(self, "proposal_mean", mean)
        object.__setattr__(self, "proposal_cov", cov)
        for name in self.model_gradients:
            if name.startswith("proposal_"):
                raise InputError(
                    f"model_gradients has the key {name!r}: names with proposal_ are the proposal's"
                )
        z = np.stack([mean, mean + np.sqrt(np.diag(cov))])
        self.evaluate("log_joint", self.log_joint, z, (2,))
        if self.z_gradient is not None:
            self.evaluate("z_gradient", self.z_gradient, z, z.shape)
        object.__setattr__(self, "_sizes", {name: self._size(name, z) for name in self.model_gradients})

    def _size(self, name: str, z: np.ndarray) -> int:
        values = np.asarray(self.model_gradients[name](z))
        if values.ndim != 2 or len(values) != len(z):
            raise InputError(
                f"model_gradients[{name!r}] returns shape {values.shape}: expected [n, F] for z [n, D]"
            )
        return values.shape[1]

    @staticmethod
    def evaluate(name: str, function: LogDensity, z: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The values of one of the functions, checked.

        Raises:
            InputError: another shape than expected, or values that are not finite.
        """
        values = np.asarray(function(z), dtype=float)
        if values.shape != shape:
            raise InputError(
                f"{name} returns shape {values.shape} for z of shape {z.shape}: expected {shape}"
            )
        if not np.isfinite(values).all():
            where = z[np.argwhere(~np.isfinite(values))[0][0]].tolist()
            raise InputError(
                f"{name} is not finite at z = {where}: it must be finite where the proposal goes"
            )
        return values

    @property
    def dim_z(self) -> int:
        """Number of latents D."""
        return len(self.proposal_mean)

    @property
    def parameters(self) -> Parameters:
        """Shapes of all parameters a gradient can be asked for, the model's first."""
        dim = self.dim_z
        model = [Parameter(name, (size,), "model") for name, size in self._sizes.items()]
        mean = Parameter("proposal_mean", (dim,), "proposal", "mean")
        return Parameters([*model, mean, Parameter("proposal_chol", (dim, dim), "proposal", "chol")])

    @property
    def mean_parameters(self) -> tuple[str, ...]:
        """The model's parameters and the proposal's mean: what gradients are of by default."""
        return (*self._sizes, "proposal_mean")

    @property
    def content_hash(self) -> None:
        """None: functions have no content to compare."""
        return None
