"""Derivatives by differences: their stated errors, and those of the truths that are made of them."""

from typing import Any

import mpmath
import numpy as np
import pytest

import toyiwae
from toyiwae.problems.density import QuadratureProblem
from toyiwae.truth import differences


class Mixture:
    """Log-density of Σ w N(mean, std²) over coordinates that are independent within a component, or of Student-t's."""

    def __init__(self, shares, means, stds, heavy: bool = False):
        self.log_share = np.log(np.asarray(shares, dtype=float))
        self.means, self.stds, self.heavy = (
            np.asarray(means, dtype=float),
            np.asarray(stds, dtype=float),
            heavy,
        )

    def terms(self, z: np.ndarray) -> np.ndarray:
        size = (((z[:, None] - self.means) / self.stds) ** 2).sum(axis=-1)
        shape = -2.5 * np.log1p(size / 4) if self.heavy else -size / 2
        return self.log_share + shape - np.log(self.stds).sum(axis=-1)

    def log(self, z: np.ndarray) -> np.ndarray:
        return np.logaddexp.reduce(self.terms(z), axis=1)

    def gradient(self, z: np.ndarray) -> np.ndarray:
        part = np.exp(self.terms(z) - self.log(z)[:, None])[..., None]
        apart = (z[:, None] - self.means) / self.stds
        factor = 1.25 / (1 + (apart**2).sum(axis=-1, keepdims=True) / 4) if self.heavy else 1.0
        return -(part * factor * apart / self.stds).sum(axis=1)


def two_peaks(std: float) -> Mixture:
    """Two narrow components on either side of the proposal."""
    return Mixture([0.6, 0.4], [[0.9], [-0.9]], [[std], [std]])


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("dim", [1, 2])
def test_the_derivative_lies_within_its_bound(dim: int, heavy: bool) -> None:
    """Components from a thirtieth of the width to twice it; of nodes at random 1 in 10⁵ may be where terms cancel."""
    rng = np.random.default_rng(3 + dim)
    for _ in range(12):
        count = int(rng.integers(1, 4))
        means = rng.normal(size=(count, dim)) * rng.choice([0.3, 1.0, 3.0])
        stds = np.exp(rng.uniform(np.log(0.03), np.log(2.0), size=(count, dim)))
        density = Mixture(rng.dirichlet(np.ones(count)), means, stds, heavy)
        z = rng.normal(size=(1000, dim)) * rng.choice([0.5, 1.0, 4.0])
        found, expected = differences.gradient(density.log, z, np.ones(dim)), density.gradient(z)
        off = np.abs(found.value - expected)
        # near a node between components both sides of this comparison carry the round-off of large terms
        assert (off <= found.error + 1e-14 * np.abs(expected)).mean() > 1 - 2e-3 / dim
        assert (off <= 50.0 * found.error + 1e-13 * np.abs(expected)).all()
        assert np.median(found.error / (1.0 + np.abs(expected))) < 1e-11


def pair(density: Mixture, mean, cov, particles: list[int]) -> list[toyiwae.ExactResult]:
    """Without derivatives, and with them."""
    options = {"K": particles, "estimators": ["iwae", "dreg", "elbo"], "parameters": "all"}
    return [
        toyiwae.exact(QuadratureProblem(density.log, mean, cov, z_gradient=slope), **options)
        for slope in (None, density.gradient)
    ]


@pytest.mark.parametrize(
    ("density", "mean", "cov", "particles"),
    [
        pytest.param(two_peaks(0.25), [0.1], [[1.0]], [1, 8], id="two peaks"),
        pytest.param(two_peaks(0.2), [0.1], [[1.0]], [1, 8], id="narrow", marks=pytest.mark.slow),
        pytest.param(two_peaks(0.15), [0.1], [[1.0]], [1, 8], id="narrower", marks=pytest.mark.slow),
        pytest.param(
            Mixture([0.7, 0.3], [[0.6, -0.2], [-0.5, 0.4]], [[0.9, 1.2], [1.1, 0.8]]),
            [0.1, 0.2],
            [[0.8, 0.2], [0.2, 1.1]],
            [1],
            id="two dimensions",
        ),
    ],
)
def test_truths_without_derivatives_lie_within_their_errors(
    density: Mixture, mean, cov, particles: list[int]
) -> None:
    """Every number of every cell against the same problem with its analytic derivative."""
    found, expected = pair(density, mean, cov, particles)
    compared = 0
    for a, b in zip(found.results, expected.results, strict=True):
        for name, truth in a.gradients.items():
            for parameter, moments in truth.parameters.items():
                other = b.gradients[name].parameters[parameter]
                for field in ("mean", "var", "snr", "bias", "rmse", "rmse_evidence"):
                    values = [np.asarray(getattr(one, field), dtype=float) for one in (moments, other)]
                    errors = [
                        np.asarray(getattr(one, f"{field}_error"), dtype=float) for one in (moments, other)
                    ]
                    assert (np.isnan(values[0]) <= np.isnan(values[1])).all()
                    known = ~np.isnan(values[0])
                    assert (np.abs(values[0] - values[1]) <= sum(errors))[known].all(), (
                        name,
                        parameter,
                        field,
                    )
                    compared += known.sum()
                assert moments.var is not None
                assert moments.var_error is not None
                tril = np.tril(np.ones_like(moments.var)) > 0 if moments.var.ndim == 2 else ...
                assert (moments.var_error <= 1e-10 * moments.var)[tril].all()
    entries = 1 + len(mean) * (len(mean) + 1) // 2 + len(mean) - 1
    assert compared >= len(particles) * 3 * 6 * entries  # nothing is masked


def test_the_elbos_variance_agrees_with_mpmath() -> None:
    """Var over q of ∂ log p/∂z + ε with a density of two narrow components, integrated by mpmath."""
    density, mean, std = two_peaks(0.2), 0.1, 1.0
    problem = QuadratureProblem(density.log, [mean], [[std**2]])
    moments = toyiwae.exact(problem, K=1, estimators="elbo_stl", parameters="proposal_mean").cell(1)
    found = moments.gradients["elbo_stl"].parameters["proposal_mean"]
    assert found.mean is not None
    assert found.mean_error is not None
    assert found.var is not None
    assert found.var_error is not None
    ctx = mpmath.MPContext()
    ctx.dps = 25
    shares, means, width = [ctx.mpf("0.6"), ctx.mpf("0.4")], [ctx.mpf("0.9"), -ctx.mpf("0.9")], ctx.mpf("0.2")

    def path(noise):
        z = ctx.mpf("0.1") + noise
        parts = [w * ctx.exp(-(((z - m) / width) ** 2) / 2) for w, m in zip(shares, means, strict=True)]
        slope = sum(p * (m - z) for p, m in zip(parts, means, strict=True)) / width**2
        return slope / sum(parts) + noise

    def expected(power) -> Any:
        ends = [-12, -3, -1, ctx.mpf("-0.35"), ctx.mpf("-0.1"), ctx.mpf("0.15"), 1, 3, 12]
        return ctx.quad(lambda e: path(e) ** power * ctx.npdf(e), ends)

    first, second = expected(1), expected(2)
    assert abs(found.mean[0] - float(first)) <= found.mean_error[0]
    assert abs(found.var[0] - float(second - first**2)) <= found.var_error[0]
    assert found.var_error[0] < 1e-10 * found.var[0]
