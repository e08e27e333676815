"""The oracle where double precision is hard put: many particles and dimensions, wide and narrow laws."""

# pyright: reportOptionalSubscript=false, reportOptionalOperand=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportOperatorIssue=false, reportOptionalMemberAccess=false

import numpy as np
import pytest

import toyiwae
from tests.test_truth import FORMS, KINDS
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Problem


def scaled_problem(
    shift: float, scale: float, *, dim_z: int = 3, dim_x: int = 4, condition: float = 1.0
) -> Problem:
    """A random problem whose proposal is the posterior, `scale` times as wide and `shift` of its deviations away."""
    rng = np.random.default_rng(dim_z * 10 + dim_x)

    def positive(n: int) -> np.ndarray:
        root = 0.3 * rng.normal(size=(n, n))
        return np.diag(rng.uniform(0.6, 1.4, n)) + root @ root.T

    prior_cov, noise_cov, loading = positive(dim_z), positive(dim_x), 0.6 * rng.normal(size=(dim_x, dim_z))
    if condition > 1.0:
        axes, _ = np.linalg.qr(rng.normal(size=(dim_z, dim_z)))
        prior_cov = (axes * np.geomspace(1.0, 1.0 / condition, dim_z)) @ axes.T
        prior_cov = 0.5 * (prior_cov + prior_cov.T)
    prior_mean, offset, x = 0.3 * rng.normal(size=dim_z), rng.normal(size=dim_x), rng.normal(size=dim_x)
    precision = np.linalg.inv(prior_cov) + loading.T @ np.linalg.solve(noise_cov, loading)
    cov = np.linalg.inv(0.5 * (precision + precision.T))
    cov = 0.5 * (cov + cov.T)
    mean = cov @ (np.linalg.solve(prior_cov, prior_mean) + loading.T @ np.linalg.solve(noise_cov, x - offset))
    step = np.linalg.cholesky(cov) @ rng.normal(size=dim_z)
    step *= shift / np.sqrt(step @ precision @ step)
    model = {"prior_mean": prior_mean, "prior_cov": prior_cov, "loading": loading, "offset": offset}
    return Problem.from_dict(
        {
            "model": model | {"noise_cov": noise_cov},
            "proposal": {"mean": mean + step, "cov": scale * cov},
            "data": {"x": x},
        }
    )


EVERY_K = [1, 2, 1000, 10**12]


@pytest.mark.parametrize(
    ("shift", "scale", "options"),
    [
        (0.5, 0.45, {}),
        (0.5, 0.05, {}),
        (0.3, 0.001, {}),
        (24.0, 1.0, {}),
        (24.0, 1.5, {}),
        (24.0, 0.7, {}),
        (0.5, 1.2, {"condition": 1e10}),
        (0.5, 1.3, {"dim_z": 7, "dim_x": 2}),
        (0.5, 1.3, {"dim_z": 2, "dim_x": 7}),
        (0.5, 1.2, {"dim_z": 1, "dim_x": 1}),
        pytest.param(1e-6, 1.0, {}, marks=pytest.mark.slow),
    ],
    ids=["infinite-variance", "heavy", "nearly-singular-law", "far", "far-wide", "far-narrow", "condition", "Dz>Dx",
         "Dz<Dx", "one", "nearly-equal"],
)  # fmt: skip
def test_limits_keep_their_accuracy(shift: float, scale: float, options: dict) -> None:
    """Values exist at every K, are ordered as theory says, and are right to 1e-8, or variances say why not.

    Variances count against themselves, means against the larger of themselves and their standard deviation.
    """
    exact = toyiwae.exact(scaled_problem(shift, scale, **options), K=EVERY_K, estimators=FORMS)
    gaps = np.array([cell.gap for cell in exact.results])
    sizes = np.array([cell.ess for cell in exact.results])
    assert np.all(np.diff(gaps) < 0)
    assert gaps[-1] > 0
    assert np.all(np.diff(sizes) > 0)
    assert np.all(sizes <= np.array(EVERY_K) * (1 + 1e-12))
    assert np.all(sizes >= 1.0)
    for cell in exact.results:
        assert cell.gap_error <= 1e-8 * cell.gap
        assert cell.ess_error <= 1e-8 * cell.ess
        for truth in cell.gradients.values():
            for moments in truth.parameters.values():
                good = moments.var_error <= 1e-8 * moments.var
                assert np.all(good | (np.isnan(moments.var) & bool(moments.reason)))
                spread = np.sqrt(np.nan_to_num(moments.var, nan=np.inf))
                assert np.all(moments.mean_error <= 1e-8 * np.maximum(np.abs(moments.mean), spread))


def test_proposal_equal_to_the_posterior() -> None:
    """All weights equal: the gap is 0, path-only gradients vanish (SNR undefined), the others have mean 0, SNR 0."""
    exact = toyiwae.exact(scaled_problem(0.0, 1.0), K=[1, 5, 10**6], estimators=FORMS)
    for cell in exact.results:
        assert cell.gap == 0.0
        assert cell.ess == pytest.approx(cell.K, rel=1e-12)
        for estimator in FORMS:
            moments = cell.gradients[estimator.name].parameters["proposal_mean"]
            assert np.all(moments.mean == 0.0)
            assert np.all((moments.var == 0.0) == estimator.vanishes_at_posterior)
            assert np.all(np.isnan(moments.snr) == estimator.vanishes_at_posterior)
    plain = exact.to_dict()["results"][1]["gradients"]["dreg"]["proposal_mean"]
    assert plain["snr"] == [None] * 3
    assert plain["reason"] == "no SNR where mean and variance are zero"


def test_gap_of_a_billion_particles_in_fifty_dimensions() -> None:
    """Log Z - L_K = Var[w]/(2K) up to a relative O(1/K)."""
    problem = scaled_problem(0.4, 1.15, dim_z=50, dim_x=40)
    cell = toyiwae.exact(problem, K=10**9, estimators=["iwae"]).cell(10**9)
    law = Whitened(problem).law()
    leading = np.expm1(law.log_moment(2.0)[0, 0]) / 2e9
    assert cell.gap_error < 1e-8 * cell.gap
    assert cell.gap == pytest.approx(leading, rel=1e-8)


def test_average_over_rows_is_the_average_of_rows() -> None:
    """Many rows with an amortised proposal: values and means average, variances shrink as 1/N², weights carry x."""
    problem = toyiwae.paper_problem(D=3, N=3, perturbation_std=0.3, seed=4)
    options = {"K": [1, 7, 300], "M": 2, "estimators": KINDS}
    together = toyiwae.exact(problem, parameters="all", **options)
    rows = [toyiwae.exact(problem.row(n), parameters="all", **options) for n in range(3)]
    assert together.log_evidence == pytest.approx(np.mean([row.log_evidence for row in rows]))
    for index, cell in enumerate(together.results):
        cells = [row.results[index] for row in rows]
        assert cell.gap == pytest.approx(np.mean([c.gap for c in cells]), rel=1e-11)
        np.testing.assert_allclose(cell.per_row["ess"], [c.ess for c in cells], rtol=1e-11)
        for name, truth in cell.gradients.items():
            singles = [c.gradients[name] for c in cells]
            assert truth.target_bound == pytest.approx(np.mean([s.target_bound for s in singles]))
            for parameter, moments in truth.parameters.items():
                twin = {"proposal_weight": "proposal_mean", "proposal_offset": "proposal_mean"}.get(
                    parameter, parameter
                )
                means = np.stack([s.parameters[twin].mean for s in singles])
                variances = np.stack([s.parameters[twin].var for s in singles])
                x = problem.data.x
                if parameter == "proposal_weight":
                    means, variances = means[:, :, None] * x[:, None], variances[:, :, None] * x[:, None] ** 2
                np.testing.assert_allclose(moments.mean, means.mean(0), rtol=1e-9, atol=1e-13)
                np.testing.assert_allclose(moments.var, variances.sum(0) / 9, rtol=1e-9, atol=1e-16)
