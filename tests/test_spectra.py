"""Bounds on what the errors of β and h move log M by, against derivatives."""

import numpy as np
import pytest

from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.laws.own_spectra import OwnSpectra
from toyiwae.oracle.laws.spectrum import Spectrum

ARGUMENTS = np.array([-1.0, -0.5, 0.3, 0.999, 2.0, 30.0])
ERROR = 1e-6


def log_moment(s: float, beta: np.ndarray, h: np.ndarray) -> float:
    """Log M(s) for a matrix B that need not be diagonal."""
    one = np.eye(len(h))
    inverse = [np.linalg.inv(one + x * beta) for x in (1.0, s)]
    logs = [np.linalg.slogdet(one + x * beta)[1] for x in (1.0, s)]
    return float(0.5 * (s * logs[0] - logs[1] + h @ (s * s * inverse[1] - s * inverse[0]) @ h))


@pytest.mark.parametrize("beta", [-0.02, 0.4, 5.0, 1e3])
def test_bounds_cover_errors_of_a_shared_spectrum(beta: float) -> None:
    """At s = -1 and for large β most of all."""
    arguments = ARGUMENTS[1.0 + ARGUMENTS * beta > 0.0]
    h = np.array([[3.0]])
    bound = Spectrum(np.array([beta]), ERROR).log_moment_error(arguments, h, 0.0)[0]
    for s, stated in zip(arguments, bound, strict=True):
        ends = [log_moment(s, np.array([[beta + sign * ERROR]]), h[0]) for sign in (1.0, -1.0)]
        assert 0.5 * abs(ends[0] - ends[1]) <= stated * (1 + 1e-3) + 1e-12


def test_bounds_cover_errors_off_the_diagonal_of_own_spectra() -> None:
    """An error that mixes a large h with a small one."""
    beta, h = np.array([-0.02, 0.01]), np.array([5.0, 0.1])
    bound = OwnSpectra(beta[None], ERROR).log_moment_error(ARGUMENTS, h[None], 0.0)[0]
    for angle in np.linspace(0.0, np.pi, 7):
        change = ERROR * np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]])
        for s, stated in zip(ARGUMENTS, bound, strict=True):
            ends = [log_moment(s, np.diag(beta) + sign * change, h) for sign in (1.0, -1.0)]
            assert 0.5 * abs(ends[0] - ends[1]) <= stated * (1 + 1e-3) + 1e-12


def test_equal_weights_hide_as_much_as_weights_of_that_error_show() -> None:
    """`t (E[w e^{-tw}] - e^{-t})` of the largest β and h that equal weights may have."""
    grid = Grid.spanning(-6.0, 4.0, 0.25)
    hidden = GaussianLaw(np.zeros(1), np.zeros((1, 1)), 1e-4, 1e-4)
    shown = GaussianLaw(np.array([1e-4]), np.array([[1e-4]]))
    for power in (0, 1):
        found = shown.deviation(power, grid)
        bound = hidden.deviation(power, grid).error
        assert np.all(np.abs(found.value) <= bound * (1 + 1e-2) + found.error)
