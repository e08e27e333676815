"""A problem on balls: the spectrum of its weights, log-evidence, posterior, and its gradients as products of affine functions.

The float64 entries of a Problem are taken as exact binary numbers. With `z = μ_q + Gε`, `G = LQ`, in the noise ε in
which `QᵀLᵀP⁻¹LQ - I` is diagonal but for a remainder (`matrices`), the gradients are formed from the densities themselves,

    ∂ log w/∂z = S⁻¹(z - μ_q) - P⁻¹(z - m),   ∇_μ log q = L⁻ᵀQε,   ∇_L log q = tril(L⁻ᵀQε (Qε)ᵀ - L⁻ᵀ)

and nothing is shared with the float64 code path.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from flint import arb

from toyiwae.forms import Form
from toyiwae.oracle.enclosure.laws import Affine, BallLaw, Quadratic
from toyiwae.oracle.enclosure.matrices import Balls, Inverse, cholesky, diagonalised, exact, product
from toyiwae.problems.linear_gaussian import Problem

MODEL_PARAMETERS = ("prior_mean", "loading", "offset")
Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Shared:
    """What all observations share: L⁻ᵀ, Q, G = LQ, L⁻ᵀQ, the posterior precision, the prior's and the noise's inverse."""

    problem: Problem
    inverse_transpose: Balls
    rotation: Balls
    axes: Balls
    half: Balls
    precision: Balls
    prior: Inverse
    noise: Inverse
    beta: Balls
    remainder: arb
    loading: Balls


@dataclass(frozen=True, eq=False)
class Row:
    """One observation: proposal mean, data, `R⁻¹(x - Wμ_q - b)`, `P⁻¹(μ_q - m)` and h of theory §3."""

    shared: Shared
    n: int
    x: Balls
    mean: Balls
    misfit: Balls
    pull: Balls
    h: Balls

    def law(self, exponent: float = 1.0) -> BallLaw:
        """The law of w^exponent, normalised to mean 1."""
        e = arb(exponent)
        return BallLaw(e * self.shared.beta, e * self.h, abs(e) * self.shared.remainder)

    @cached_property
    def posterior_mean(self) -> Balls:
        """M = μ_q - P pull."""
        return self.mean - Inverse(self.shared.precision).dot(self.pull)

    @cached_property
    def log_evidence(self) -> arb:
        """`log p(x) = log p(x, z) - log p(z|x)` at the posterior mean z."""
        shared, z = self.shared, self.posterior_mean
        away = z - exact(shared.problem.model.prior_mean)
        misfit = self.x - exact(shared.problem.model.offset) - product(shared.loading, z)
        distance = away.dot(shared.prior.dot(away)) + misfit.dot(shared.noise.dot(misfit))
        log_det = shared.prior.log_det + shared.noise.log_det + Inverse(shared.precision).log_det
        return -(distance + log_det + len(misfit) * (2 * arb.pi()).log()) / 2

    def components(self, form: Form, parameter: str, index: Index) -> dict[int, Quadratic]:
        """{power of the normalised weight: polynomial} of one coordinate of one form's gradient, less its log terms."""
        if parameter in MODEL_PARAMETERS:
            return {r: self._model(parameter, index, factor) for r, factor in form.model.items()}
        return {
            r: self._proposal(parameter, index, form.path.get(r, 0.0), form.score.get(r, 0.0))
            for r in sorted({*form.path, *form.score})
        }

    def factor(self, parameter: str, index: Index) -> arb:
        """What a coordinate is multiplied by: x_j for a weight's entry (i, j), else 1."""
        return self.x[index[1]] if parameter == "proposal_weight" else arb(1)

    @cached_property
    def _slopes(self) -> dict[str, Balls]:
        shared = self.shared
        away = self.mean - exact(shared.problem.model.prior_mean)
        return {"prior": shared.prior.dot(away)}

    @cached_property
    def _known(self) -> dict[tuple, Affine]:
        return {}

    def _affine(self, key: tuple, constant: Any, linear: Any) -> Affine:
        """An affine function that is made once."""
        if key not in self._known:
            self._known[key] = Affine(constant(), linear())
        return self._known[key]

    def _model(self, parameter: str, index: Index, factor: float) -> Quadratic:
        shared, i = self.shared, index[0]
        if parameter == "prior_mean":
            left = self._affine(
                ("prior", i, factor),
                lambda: factor * self._slopes["prior"][i],
                lambda: factor * shared_slope(shared, "prior")[i],
            )
            return Quadratic(arb(0), left)
        left = self._affine(
            ("misfit", i, factor),
            lambda: factor * self.misfit[i],
            lambda: factor * shared_slope(shared, "misfit")[i],
        )
        if parameter == "offset":
            return Quadratic(arb(0), left)
        j = index[1]
        return Quadratic(
            arb(0), left, self._affine(("latent", j), lambda: self.mean[j], lambda: shared.axes[j])
        )

    def _proposal(self, parameter: str, index: Index, path: float, score: float) -> Quadratic:
        """One coordinate of `path·(∂ log w/∂z)(∂z/∂φ) + score·∇φ log q`."""
        shared, i = self.shared, index[0]
        left = self._affine(
            ("proposal", i, path, score),
            lambda: -path * self.pull[i],
            lambda: path * shared_slope(shared, "path")[i] + score * shared.half[i],
        )
        if parameter != "proposal_chol":
            return Quadratic(arb(0), left)
        j = index[1]
        noise = self._affine(("noise", j), lambda: arb(0), lambda: shared.rotation[j])
        return Quadratic(-score * shared.inverse_transpose[i, j], left, noise)


_SLOPES: dict[str, Any] = {
    "prior": lambda s: s.prior.dot(s.axes),
    "misfit": lambda s: -s.noise.dot(product(s.loading, s.axes)),
    "path": lambda s: s.half - product(s.precision, s.axes),
}


def shared_slope(shared: Shared, name: str) -> Balls:
    """Slopes in ε of prior precision · (z - prior mean), of R⁻¹(x - Wz - b), and of ∂ log w/∂z: made once."""
    known = shared.__dict__.setdefault("_slopes", {})
    if name not in known:
        known[name] = _SLOPES[name](shared)
    return known[name]


def rows(problem: Problem) -> list[Row]:
    """All observations at the working precision."""
    model, proposal, found = problem.model, problem.proposal, problem.rows()
    loading = exact(model.loading)
    prior, noise = Inverse(model.prior_cov), Inverse(model.noise_cov)
    unit = exact(np.eye(problem.dim_z))
    loaded = noise.dot(loading)
    precision = prior.dot(unit) + product(loaded.T, loading)
    factor = cholesky(exact(proposal.cov))
    rotation, values, remainder = diagonalised(product(factor.T, product(precision, factor)) - unit)
    axes = product(factor, rotation)
    inverse_transpose = _lower_inverse(factor).T
    half = product(inverse_transpose, rotation)
    shared = Shared(
        problem, inverse_transpose, rotation, axes, half, precision, prior, noise, values, remainder, loading
    )
    result = []
    for n in range(problem.n_rows):
        x = exact(found.x[n])
        if proposal.weight is None:
            mean = exact(np.asarray(proposal.mean))
        else:
            mean = product(exact(proposal.weight), x) + exact(np.asarray(proposal.offset))
        residual = x - exact(model.offset) - product(loading, mean)
        pull = prior.dot(mean - exact(model.prior_mean)) - product(loaded.T, residual)
        h = product(axes.T, pull)
        result.append(Row(shared, n, x, mean, noise.dot(residual), pull, h))
    return result


def _lower_inverse(factor: Balls) -> Balls:
    """Inverse of a lower triangular matrix, its upper part exactly 0."""
    n = len(factor)
    found = np.full((n, n), arb(0), dtype=object)
    for j in range(n):
        found[j, j] = 1 / factor[j, j]
        for i in range(j + 1, n):
            found[i, j] = -factor[i, j:i].dot(found[j:i, j]) / factor[i, i]
    return found


def coordinates(problem: Problem, parameter: str) -> list[Index]:
    """All coordinates of a parameter; of the Cholesky factor those on and below the diagonal."""
    every = [tuple(int(i) for i in index) for index in np.ndindex(*problem.parameters[parameter])]
    return [index for index in every if index[0] >= index[1]] if parameter == "proposal_chol" else every
