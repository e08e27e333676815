"""A user's own log-densities of one or two latents: nodes of a quadrature rule in place of a closed form.

The proposal is Gaussian, z = μ + Lε, and the target any analytic log p(x, z) given as a function. On a lattice of
whitened noise with step h the trapezoidal rule converges geometrically, with an error of `C e^{-a/h}` for each
integral, so the nodes make a DiscreteLaw from which everything follows. All truths are computed on two lattices whose
steps differ by √2. The relative error of the finer one is that of the coarser to the power √2, so their difference
bounds it wherever it is small, and nothing is stated where it is above 1e-8. The sign of an error depends on where the
nodes lie; a lattice therefore passes as the coarser one only if, shifted by a quarter of its step, it agrees as well.
What the nodes themselves are off by, where derivatives are differences, is carried through all sums
(`toyiwae.truth.differences`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular

from toyiwae.errors import PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.problems.density import QuadratureProblem
from toyiwae.truth.averages import Averaged, Bounds
from toyiwae.truth.differences import gradient
from toyiwae.truth.finite_states import TabulatedSource
from toyiwae.truth.row import Row
from toyiwae.truth.source import Jobs, LogVariance, LogVariances, no_covariance, with_errors

_DEPTH = 46.0  # nodes whose log-density lies this far below its peak, under q and under the posterior, are left out
_FARTHEST = 400.0  # reach in standard deviations of the proposal beyond which the target is refused
_STEPS = 0.5 / np.sqrt(2.0) ** np.arange(14)  # of the lattices that are tried
_SHIFTS = (
    0.37,
    0.62,
)  # of the nodes, in steps: no node is special, and a quarter apart the signs of errors differ
_MOST_NODES = 60_000
_AGREE = 1e-11  # relative change of the evidence and of the gaps at which a lattice is fine enough


class QuadratureSource:
    """The truths of a QuadratureProblem, on two lattices. Formula: lattice."""

    def __init__(self, problem: QuadratureProblem):
        self.problem = problem
        self._chol = np.linalg.cholesky(problem.proposal_cov)
        self._noise = [self._lattice(step) for step in self._steps()]
        self._coarse, self._fine = (self._source(noise) for noise in self._noise)

    # the lattice ---------------------------------------------------------------------------------------------------

    def _steps(self) -> tuple[float, float]:
        """Two steps, of which the coarser is fine enough already."""
        before = None
        for step, finer in pairwise(_STEPS):
            lattices = [self._lattice(step, shift) for shift in _SHIFTS]
            if len(lattices[0]) > _MOST_NODES:
                break
            found = np.stack([self._summary(noise) for noise in lattices])
            if before is not None and np.all(
                np.abs(found - before) <= _AGREE * np.maximum(np.abs(before), 1e-3)
            ):
                return float(step), float(finer)
            before = found[0]
        raise PrecisionError(
            f"quadrature: {_MOST_NODES} nodes do not resolve log_joint under this proposal; is it smooth, and is the"
            " proposal wide enough to reach it?"
        )

    def _summary(self, noise: np.ndarray) -> np.ndarray:
        """Log-evidence, and moments of log w under the proposal and under the posterior."""
        row = self._row(noise, gradients=False)
        apart = row.log_w - row.log_evidence
        q = np.exp(row.log_prob - np.logaddexp.reduce(row.log_prob))
        with np.errstate(
            over="ignore", invalid="ignore"
        ):  # a lattice that misses the posterior agrees with no other
            posterior = q * np.exp(apart)
        # the last is as far from a polynomial as what is integrated over the Laplace variable
        bent = [np.exp(-np.exp(np.minimum(t + apart, 50.0))) for t in (-3.0, 0.0, 3.0, 8.0)]
        moments = [q @ apart, posterior @ apart, *(q @ b for b in bent), *(posterior @ b for b in bent)]
        return np.array([row.log_evidence, *moments])

    @cached_property
    def _box(self) -> tuple[np.ndarray, np.ndarray]:
        """Corners of a box in whitened noise beyond which neither the proposal nor the posterior has mass: [D] each."""
        reach = 10.0
        while True:
            line = np.linspace(-reach, reach, 161)
            noise = np.stack([axis.ravel() for axis in np.meshgrid(*[line] * self.problem.dim_z)], axis=-1)
            log_density = self._log_density(noise)
            inside = noise[log_density > log_density.max() - _DEPTH - 4.0]
            if np.all(np.abs(inside) < 0.95 * reach):
                margin = 2.0 * (line[1] - line[0])
                return inside.min(axis=0) - margin, inside.max(axis=0) + margin
            reach *= 1.6
            if reach > _FARTHEST:
                raise PrecisionError(
                    "quadrature: the posterior's mass reaches beyond"
                    f" {_FARTHEST:g} standard deviations of the proposal; is log_joint integrable?"
                )

    def _log_density(self, noise: np.ndarray) -> np.ndarray:
        """The larger of the proposal's and the posterior's log-density, each less its own peak."""
        log_q = -0.5 * (noise**2).sum(axis=1)
        log_p = self.problem.evaluate("log_joint", self.problem.log_joint, self._z(noise), (len(noise),))
        return np.maximum(log_q, log_p - log_p.max())

    def _lattice(self, step: float, shift: float = _SHIFTS[0]) -> np.ndarray:
        """Nodes that carry mass, shifted by a part of the step: [n, D]."""
        low, high = self._box
        lines = [np.arange(a, b + step, step) + shift * step for a, b in zip(low, high, strict=True)]
        if np.prod([len(line) for line in lines]) > 40 * _MOST_NODES:
            return np.zeros((_MOST_NODES + 1, len(lines)))
        noise = np.stack([axis.ravel() for axis in np.meshgrid(*lines, indexing="ij")], axis=-1)
        return noise[self._log_density(noise) > -_DEPTH]

    def _z(self, noise: np.ndarray) -> np.ndarray:
        return self.problem.proposal_mean + noise @ self._chol.T

    # the tables ----------------------------------------------------------------------------------------------------

    def _source(self, noise: np.ndarray) -> TabulatedSource:
        row = self._row(noise, gradients=True)
        return TabulatedSource(self.problem, np.ones((1, 1)), [row])

    def _row(self, noise: np.ndarray, *, gradients: bool) -> Row:
        problem, z = self.problem, self._z(noise)
        log_joint = problem.evaluate("log_joint", problem.log_joint, z, (len(z),))
        log_prob = -0.5 * (noise**2).sum(axis=1)
        log_norm = 0.5 * problem.dim_z * np.log(2 * np.pi) + np.log(np.diag(self._chol)).sum()
        log_w = log_joint - log_prob + log_norm
        slope = self._z_gradient(z)
        steep = np.nan_to_num(np.abs(slope.value))
        moved = 2 * EPS * (steep * np.abs(z)).sum(axis=1)  # z is rounded, too
        if not gradients:
            return Row(log_prob, log_w, {}, {}, moved=moved)
        if not np.isfinite(slope.error).all():
            where = z[np.argwhere(~np.isfinite(slope.error))[0][0]].tolist()
            raise PrecisionError(f"quadrature: log_joint has no derivative at z = {where}; give z_gradient")
        score = solve_triangular(self._chol, noise.T, lower=True, trans=1)  # L⁻ᵀε [D, n]
        path = slope.map(np.transpose) + score
        i, j = np.tril_indices(problem.dim_z)
        diagonal = np.linalg.inv(self._chol).T[i, j][:, None]
        paths = {"mean": path, "chol": path[i] * noise.T[j]}
        scores = {"mean": score, "chol": score[i] * noise.T[j] - diagonal}
        model = {}
        for name, function in problem.model_gradients.items():
            shape = (len(z), *problem.parameters[name])
            model[name] = problem.evaluate(f"model_gradients[{name!r}]", function, z, shape).T
        return Row(log_prob, log_w, model, scores, paths, moved)

    def _z_gradient(self, z: np.ndarray) -> Bounded:
        """∂ log p/∂z [n, D], by differences where it was not given; of infinite error where there is none."""
        problem = self.problem
        if problem.z_gradient is not None:
            return Bounded.exact(problem.evaluate("z_gradient", problem.z_gradient, z, z.shape))
        return gradient(problem.log_joint, z, np.sqrt(np.diag(problem.proposal_cov)))

    # the truths ----------------------------------------------------------------------------------------------------

    many_rows = False

    @property
    def evidence(self) -> Bounded:
        """Log p(x): [1]; in its error the difference of two lattices."""
        return _certified(self._coarse.evidence, self._fine.evidence)

    def missing_mean(self, exponent: float) -> str | None:
        """None: all moments of the lattices exist."""
        return None

    @property
    def posterior(self) -> dict[str, np.ndarray]:
        """Mean [D] and covariance [D, D]."""
        sources = zip((self._coarse, self._fine), self._noise, strict=True)
        (mean, cov), (finer_mean, finer_cov) = (s.rows[0].posterior(self._z(noise)) for s, noise in sources)
        return with_errors(_certified(mean, finer_mean), _certified(cov, finer_cov))

    def check(self, estimators: Sequence[Any], parameters: Sequence[str]) -> None:
        """Every estimator has an answer, if only an empty one."""

    def moments(
        self, exponent: float, particles: Sequence[int], jobs: Jobs, counts: Sequence[int]
    ) -> tuple[Bounds | None, dict[Any, Averaged]]:
        """Bounds of w^exponent, and means (with log terms) and variances (without) of gradients."""
        return self.bounds(particles, exponent) if particles else None, self.gradients(jobs, counts)

    def bounds(self, particles: Sequence[int], exponent: float) -> Bounds:
        """Bounds of w^exponent."""
        a, b = (source.bounds(particles, exponent) for source in (self._coarse, self._fine))
        return Bounds(_certified(a.log_mean, b.log_mean), _certified(a.gap, b.gap), _certified(a.ess, b.ess))

    def gradients(self, jobs: Jobs, particles: Sequence[int]) -> dict[Any, Averaged]:
        """Means with all terms, and variances without log terms."""
        a, b = (source.gradients(jobs, particles) for source in (self._coarse, self._fine))
        result = {}
        for key, fine in b.items():
            shift = _certified(a[key].shift, fine.shift)
            moved = np.abs(a[key].limit.value - fine.limit.value)
            if self.problem.z_gradient is None:
                moved = moved + fine.mean.error  # of which that of the limit is a part
            result[key] = Averaged(
                fine.limit.widened(moved),
                Bounded(shift.value, shift.error + moved),
                _certified(a[key].var, fine.var),
                _certified(a[key].mean, fine.mean),
            )
        return result

    def log_variances(self, jobs: Jobs, particles: Sequence[int]) -> dict[Any, LogVariances]:
        """Variances of gradients of the proposal with log terms."""
        coarse, fine = (source.log_variances(jobs, particles) for source in (self._coarse, self._fine))
        return {key: [_of_both(*pair) for pair in zip(coarse[key], fine[key], strict=True)] for key in fine}

    def subset_variances(
        self, jobs: Sequence[tuple[int, str]], particles: Sequence[int]
    ) -> dict[tuple[int, str], LogVariance]:
        """Not derived for these laws."""
        return dict.fromkeys(jobs, LogVariance(None, "not derived"))

    def covariance(self, form: Form, parameters: Sequence[str], particles: Sequence[int]) -> Bounded:
        """Not computed.

        Raises:
            InputError: always.
        """
        raise no_covariance()


def _certified(coarse: Bounded, fine: Bounded) -> Bounded:
    """The finer value, with the difference added to its error."""
    return Bounded(fine.value, fine.error + np.abs(fine.value - coarse.value))


def _of_both(coarse: LogVariance, fine: LogVariance) -> LogVariance:
    """The finer, where both know it."""
    pairs = ((coarse.var, fine.var), (coarse.best, fine.best))
    var, best = (None if x is None or y is None else _certified(x, y) for x, y in pairs)
    return LogVariance(var, fine.reason, best)
