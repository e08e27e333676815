"""Calls estimators on NumPy log-weights, and by torch those that only know torch."""

from __future__ import annotations

import contextlib
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from toyiwae.estimators import Estimator
from toyiwae.estimators.registry import of_the_package
from toyiwae.extras import import_extra
from toyiwae.forms import PARTS, Coefficients
from toyiwae.montecarlo.formed import linear
from toyiwae.montecarlo.streamed import Asked


class Caller:
    """An estimator as a function of NumPy log-weights.

    Functions are written against the array API, but one that calls torch by name works as well, where torch is there.

    Args:
        estimator: any registered or user's estimator.
        lock: held while a user's function runs, which may keep something between its calls; None where it may run on
            several threads at once. The package's own functions always may.
    """

    def __init__(self, estimator: Estimator, lock: AbstractContextManager[Any] | None = None):
        """Tries the function on a few log-weights."""
        self.estimator, self._torch = estimator, None
        if lock is None or of_the_package(estimator):
            lock = contextlib.nullcontext()
        self._lock = lock
        log_w = np.linspace(-1.0, 1.5, 4 * (estimator.min_particles + 3)).reshape(2, 2, -1)
        try:
            self(log_w)
        except Exception as error:  # whatever a user's function raises
            try:
                self._torch: Any = import_extra("torch", extra="torch", purpose=estimator.name)
                self(log_w)
            except Exception:
                raise error from None

    @property
    def asked(self) -> Asked:
        """For sums in two passes."""
        return Asked(self.estimator.name, self.estimator.form, self)

    @property
    def linear(self) -> bool:
        """Whether its sums are linear in those of powers of the normalised weights."""
        return self.estimator.form is not None and linear(self.estimator.form)

    def __call__(self, log_w: np.ndarray) -> Coefficients:
        """Coefficients `[..., M, K]` of log-weights `[..., M, K]`."""
        with self._lock:
            if self._torch is None:
                return self.estimator(log_w)
            found = self.estimator(self._torch.from_numpy(log_w))
        return Coefficients(*(getattr(found, part).detach().cpu().numpy() for part in PARTS))
