"""Proposal: the Gaussian q(z|x), as covariances or variances, for all observations or for each of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from toyiwae import checks
from toyiwae.errors import InputError
from toyiwae.problems.covariances import covariance, variances
from toyiwae.problems.record import Record


@dataclass(frozen=True, eq=False, init=False, repr=False)
class Proposal(Record):
    """The Gaussian proposal q(z|x): one mean for all observations, or one that is affine in x, or one for each.

    A mean for each observation is what a trained encoder gives; its covariances or variances may differ too.

    Attributes:
        cov: covariance [D_z, D_z], the same for all observations, or one for each [N, D_z, D_z]; where `var` was
            given, the diagonal matrices of it.
        mean: mean [D_z], or one for each observation [N, D_z]; or
        weight: slope of the mean in x [D_z, D_x], with
        offset: its intercept [D_z].
        var: variances [D_z] or [N, D_z] that were given in place of `cov`.

    Raises:
        InputError: naming the field, the value, and what would be right.
    """

    cov: np.ndarray
    mean: np.ndarray | None = None
    weight: np.ndarray | None = None
    offset: np.ndarray | None = None
    var: np.ndarray | None = None
    optional: ClassVar = ("cov", "mean", "weight", "offset", "var")

    def __init__(
        self, cov: Any = None, mean: Any = None, weight: Any = None, offset: Any = None, var: Any = None
    ) -> None:
        """Takes arrays or nested lists, checks every field and that their dimensions agree."""
        if checks.one_of("proposal", {"mean": mean}, {"weight": weight, "offset": offset}) == 0:
            mean = checks.real_array(mean, "proposal.mean", (1, 2))
            dim_z = mean.shape[-1]
        else:
            weight, offset = (
                checks.matrix(weight, "proposal.weight"),
                checks.vector(offset, "proposal.offset"),
            )
            dim_z = len(offset)
        if checks.one_of("proposal", {"cov": cov}, {"var": var}) == 0:
            cov = covariance(cov, "proposal.cov", dim_z, stack=True)
            name, given, many = "proposal.cov", cov, cov.ndim == 3
        else:
            var = variances(var, "proposal.var", dim_z, (0, 1, 2))
            name, given, many = "proposal.var", var, var.ndim == 2
        because = f"{name} has {checks.shape_text(given.shape)}"
        dim_z = given.shape[-1]
        if mean is not None:
            checks.axis(mean, -1, dim_z, "proposal.mean", because)
        else:
            checks.axis(weight, 0, dim_z, "proposal.weight", because)
            checks.axis(offset, 0, dim_z, "proposal.offset", because)
        means = None if mean is None or mean.ndim == 1 else len(mean)
        if many and means != len(given):
            found = "the mean is not" if means is None else f"proposal.mean has {means}"
            raise InputError(
                f"{name} is one for each of {len(given)} observations but {found}: expected [N, D_z]"
            )
        self._set(mean=mean, weight=weight, offset=offset, var=var)
        if var is None:
            self._set(cov=cov)
        else:  # dataclasses.replace and asdict take what was given, and do not make covariances
            known = {name: field for name, field in type(self).__dataclass_fields__.items() if name != "cov"}
            object.__setattr__(self, "__dataclass_fields__", known)

    def __repr__(self) -> str:
        """What was given."""
        fields = (f"{name}={value!r}" for name, value in self.given().items() if value is not None)
        return f"Proposal({', '.join(fields)})"

    @classmethod
    def from_scale_tril(cls, loc: Any, scale_tril: Any, scale: Any = None) -> Proposal:
        """The proposal N(loc, L Lᵀ) with L = diag(scale) scale_tril, as guides of Pyro and encoders keep it.

        Args:
            loc: mean [D_z], or one for each observation [N, D_z].
            scale_tril: lower-triangular factor [D_z, D_z] or [N, D_z, D_z]; float32 will do.
            scale: standard deviations that multiply its rows: a number, [D_z] or [N, D_z]; ones if not given.

        Raises:
            InputError: for a factor that is not square, not lower-triangular or singular, for a scale that is not
                positive, and shapes that do not fit.
        """
        mean, factor = (
            checks.real_array(loc, "loc", (1, 2)),
            checks.real_array(scale_tril, "scale_tril", (2, 3)),
        )
        dim_z, found = factor.shape[-1], f"scale_tril has {checks.shape_text(factor.shape)}"
        if factor.shape[-2] != dim_z:
            raise InputError(f"{found}: expected a square matrix, or one for each observation")
        if np.any(np.triu(factor, 1)):
            raise InputError(
                "scale_tril is not lower-triangular: expected L of cov = L Lᵀ, zero above the diagonal"
            )
        if not np.diagonal(factor, axis1=-2, axis2=-1).all():
            raise InputError("scale_tril is singular: expected no zero on its diagonal")
        checks.axis(mean, -1, dim_z, "loc", found)
        std = checks.real_array(1.0 if scale is None else scale, "scale", (0, 1, 2))
        if not (std > 0).all():
            raise InputError(f"scale contains {std.min():g}: expected standard deviations greater than 0")
        if std.ndim:
            checks.axis(std, -1, dim_z, "scale", found)
        for name, count in (
            ("scale_tril", factor.ndim == 3 and len(factor)),
            ("scale", std.ndim == 2 and len(std)),
        ):
            if count and mean.shape[:-1] != (count,):
                raise InputError(
                    f"{name} is one for each of {count} observations but loc has {checks.shape_text(mean.shape)}:"
                    f" expected shape {count}×{dim_z}"
                )
        factor = std[..., None] * factor
        return cls(factor @ np.swapaxes(factor, -1, -2), mean=mean)

    def __getattr__(self, name: str) -> Any:
        """The covariances of given variances, made when first asked for: D_z times as large as these."""
        if name != "cov" or self.var is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        cov = self.var[..., None] * np.eye(self.var.shape[-1])
        cov.setflags(write=False)
        self._set(cov=cov)
        return cov

    def given(self) -> dict[str, Any]:
        """Either `cov` or `var`, as it was given, and the other fields."""
        if self.var is None:
            return {name: value for name, value in super().given().items() if name != "var"}
        return {"cov": None, "mean": self.mean, "weight": self.weight, "offset": self.offset, "var": self.var}

    @property
    def per_observation(self) -> bool:
        """Whether every observation has a mean of its own, [N, D_z]."""
        return self.mean is not None and self.mean.ndim == 2

    def means(self, x: np.ndarray) -> np.ndarray:
        """Means of q(z|x_n) [N, D_z] for observations x [N, D_x]; read-only."""
        if self.weight is not None:
            means = x @ self.weight.T + self.offset
        else:
            means = np.array(np.broadcast_to(np.asarray(self.mean), (len(x), self.cov_shape[-1])))
        means.setflags(write=False)
        return means

    @property
    def cov_shape(self) -> tuple[int, ...]:
        """Shape of `cov`, without making it from `var`."""
        return self.cov.shape if self.var is None else (*self.var.shape, self.var.shape[-1])
