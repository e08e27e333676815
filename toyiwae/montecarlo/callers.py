"""Calls estimators on NumPy log-weights, and by torch those that only know torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from toyiwae.estimators import Estimator
from toyiwae.estimators.evaluate import coefficients
from toyiwae.extras import import_extra
from toyiwae.forms import PARTS, Coefficients
from toyiwae.montecarlo.formed import linear
from toyiwae.montecarlo.streamed import Asked

_AGREE = 1e-6
"""Relative difference between a function's coefficients and its Form's that single precision explains."""


class Caller:
    """An estimator as a function of NumPy log-weights.

    Functions are written against the array API, but one that calls torch by name works as well, where torch is there.

    Args:
        estimator: any registered or user's estimator.

    Attributes:
        form: its Form, if that gives what its function gives.
    """

    def __init__(self, estimator: Estimator):
        """Tries the function on a few log-weights."""
        self.estimator = estimator
        rng = np.random.default_rng(20_261_129)
        log_w = 3.0 * rng.normal(size=(2, 2, estimator.min_particles + 3)) - 1.0
        self._torch: Any = None
        try:
            found = self(log_w)
        except Exception as error:  # whatever a user's function raises
            try:
                self._torch = import_extra("torch", extra="torch", purpose=estimator.name)
                found = self(log_w)
            except Exception:
                raise error from None
        agreed = estimator.form is not None and _agree(found, coefficients(estimator.form, log_w))
        self.form = estimator.form if agreed else None

    @property
    def asked(self) -> Asked:
        """For sums in two passes."""
        return Asked(self.estimator.name, self.form, self)

    @property
    def linear(self) -> bool:
        """Whether its sums are linear in those of powers of the normalised weights."""
        return self.form is not None and linear(self.form)

    def __call__(self, log_w: np.ndarray) -> Coefficients:
        """Coefficients `[..., M, K]` of log-weights `[..., M, K]`."""
        if self._torch is None:
            return self.estimator(log_w)
        found = self.estimator(self._torch.from_numpy(log_w))
        return Coefficients(*(getattr(found, part).detach().cpu().numpy() for part in PARTS))


def _agree(found: Coefficients, formed: Coefficients) -> bool:
    """Whether two triples of coefficients are one."""
    pairs = [(np.asarray(getattr(found, part)), np.asarray(getattr(formed, part))) for part in PARTS]
    return all(np.abs(one - other).max() <= _AGREE * np.abs(other).max() for one, other in pairs)
