"""What an estimator claims to be, and the form in which exact moments that follow from the claim are handed on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toyiwae.errors import InputError
from toyiwae.estimators import Estimator, registry
from toyiwae.truth import Moments

Array = np.ndarray | np.float64
ANY_VARIANCE = "only a bound is claimed, so any variance will do"


@dataclass(frozen=True, eq=False)
class Truth:
    """Exact moments of one replicate of a value or a parameter's gradient.

    Attributes:
        mean, var: with bounds on their errors; None where nothing is known, NaN in a coordinate that is not known.
        kurtosis: fourth central moment over var², rounded up; None where it must be estimated.
        mean_reason, var_reason: why something of the mean, or of the variance, is None or NaN.
        log_evidence: of a value, log p(x) (averaged over observations); None for gradients.
    """

    mean: Array | None
    mean_error: Array
    var: Array | None = None
    var_error: Array | None = None
    kurtosis: Array | None = None
    mean_reason: str | None = None
    var_reason: str | None = None
    log_evidence: float | None = None


@dataclass(frozen=True, eq=False)
class Target:
    """A registered estimator (all is judged), or only a bound that gradients are unbiased for (the mean is).

    Attributes:
        name: as asked for.
        claimed: the registry's record, whose claims are read.
        named: whether the estimator claims to be that one, and not only unbiased for its bound.
    """

    name: str
    claimed: Estimator
    named: bool

    @classmethod
    def of(cls, spec: str) -> Target:
        """The target that a name asks for: `"dreg"`, `"ciwae:0.5"`, or `"bound:iwae"`.

        Raises:
            InputError: an unknown name, or a bound that the named estimator has not for both its gradients.
        """
        if not isinstance(spec, str):
            raise InputError(f"target is {spec!r}: expected a name such as 'dreg' or 'bound:iwae'")
        if not spec.startswith("bound:"):
            return cls(spec, registry.get(spec), named=True)
        claimed = registry.get(spec.removeprefix("bound:"))
        claim = claimed.target
        if claim.model is None or claim.proposal is None or claim.model(3, 2) != claim.proposal(3, 2):
            raise InputError(f"target {spec!r}: {claimed.name} is not unbiased for one bound")
        return cls(spec, claimed, named=False)

    @property
    def key(self) -> tuple[object, ...]:
        """What tells targets apart: the registry makes a new record whenever one is asked for."""
        function = getattr(self.claimed.function, "func", self.claimed.function)
        return self.name, function, self.claimed.parameter, self.claimed.form

    def gradient(self, moments: Moments, shape: tuple[int, ...]) -> Truth:
        """The truth of a gradient in its parameter's own shape; of a mere bound, the mean alone."""
        reason = moments.reason
        if moments.mean is None or moments.mean_error is None:
            return Truth(None, np.zeros(()), mean_reason=reason, var_reason=reason)
        mean, error = moments.mean.reshape(shape), np.reshape(moments.mean_error, shape)
        if not self.named or moments.var is None or moments.var_error is None:
            return Truth(mean, error, mean_reason=reason, var_reason=reason if self.named else ANY_VARIANCE)
        var, var_error = moments.var.reshape(shape), np.reshape(moments.var_error, shape)
        return Truth(mean, error, var, var_error, mean_reason=reason, var_reason=reason)
