"""The run-time checks of annotations that all other tests run under."""

# pyright: reportArgumentType=false

import subprocess
import sys

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation

from toyiwae import stats
from toyiwae.conformance.report import Check
from toyiwae.oracle.laws.gaussian import GaussianLaw


def test_functions_methods_and_dataclasses_are_checked():
    law = GaussianLaw(np.array([0.3]), np.array([[0.2]]))
    for wrong in (
        lambda: stats.family_threshold("many", 1e-6),
        lambda: law.upper_log_t("far"),
        lambda: Check("a check", "tier two", "any problem"),
    ):
        with pytest.raises(BeartypeCallHintViolation):
            wrong()


def test_numbers_of_numpy_are_numbers():
    assert stats.family_threshold(np.int64(3), np.float64(1e-6)) == stats.family_threshold(3, 1e-6)


def test_users_get_functions_that_are_not_checked():
    code = "import sys, toyiwae.stats; toyiwae.exact, toyiwae.check; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "beartype" not in run.stdout.split()
