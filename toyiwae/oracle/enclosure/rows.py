"""A problem on balls: the spectrum of its weights, log-evidence, and its gradients as products of affine functions.

The float64 entries of a Problem are taken as exact binary numbers. With `z = μ_q + Gε`, `G = LQ`, in the noise ε in
which `QᵀLᵀP⁻¹LQ - I` is diagonal but for a remainder (`matrices`), gradients are formed from the densities themselves,

    ∂ log w/∂z = S⁻¹(z - μ_q) - P⁻¹(z - m),   ∇_μ log q = L⁻ᵀQε,   ∇_L log q = tril(L⁻ᵀQε (Qε)ᵀ - L⁻ᵀ)

and nothing is shared with the float64 code path.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from flint import arb

from toyiwae.forms import Form
from toyiwae.oracle.enclosure.laws import Affine, BallLaw, Quadratic
from toyiwae.oracle.enclosure.matrices import Balls, Inverse, cholesky, diagonalised, exact, product
from toyiwae.problems.linear_gaussian import Problem

MODEL_PARAMETERS = ("prior_mean", "loading", "offset")
Index = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Row:
    """One observation.

    Attributes:
        law: the law of its weight. x: the data. log_evidence: log p(x). inverse_transpose: L⁻ᵀ.
        constants, slopes: the affine functions of ε that gradients are made of, each a vector: "prior", S₀⁻¹(z - m₀);
            "misfit", R⁻¹(x - Wz - b); "latent", z; "path", ∂ log w/∂z; "score", L⁻ᵀQε; "noise", Qε.
    """

    n: int
    law: BallLaw
    x: Balls
    log_evidence: arb
    inverse_transpose: Balls
    constants: dict[str, Balls]
    slopes: dict[str, Balls]
    _known: dict[tuple, Affine] = field(default_factory=dict)

    def components(self, form: Form, parameter: str, index: Index) -> dict[int, Quadratic]:
        """{power of the normalised weight: polynomial} of one coordinate of a form's gradient, less its log terms."""
        i, j, zero = index[0], index[-1], arb(0)
        if parameter in MODEL_PARAMETERS:
            name = "prior" if parameter == "prior_mean" else "misfit"
            right = self._affine(j, latent=1.0) if parameter == "loading" else None
            return {r: Quadratic(zero, self._affine(i, **{name: f}), right) for r, f in form.model.items()}
        found = {}
        for r in sorted({*form.path, *form.score}):
            path, score = form.path.get(r, 0.0), form.score.get(r, 0.0)
            left = self._affine(i, path=path, score=score)
            if parameter == "proposal_chol":
                constant = -score * self.inverse_transpose[i, j]
                found[r] = Quadratic(constant, left, self._affine(j, noise=1.0))
            else:
                found[r] = Quadratic(zero, left)
        return found

    def factor(self, parameter: str, index: Index) -> arb:
        """What a coordinate is multiplied by: x_j for a weight's entry (i, j), else 1."""
        return self.x[index[1]] if parameter == "proposal_weight" else arb(1)

    def _affine(self, i: int, **factors: float) -> Affine:
        """Σ factor · the i-th entry of a vector; equal ones are one object, so that covariances are computed once."""
        key = (i, *factors.items())
        if key not in self._known:
            constant = sum((f * self.constants[name][i] for name, f in factors.items()), arb(0))
            linear = sum((f * self.slopes[name][i] for name, f in factors.items()), exact(0.0))
            self._known[key] = Affine(constant, linear)
        return self._known[key]


def rows(problem: Problem) -> list[Row]:
    """All observations at the working precision."""
    model, found = problem.model, problem.rows()
    loading, unit = exact(model.loading), exact(np.eye(problem.dim_z))
    prior, noise = Inverse(model.prior_cov), Inverse(model.noise_cov)
    loaded = noise.dot(loading)
    precision = prior.dot(unit) + product(loaded.T, loading)
    posterior, factor = Inverse(precision), cholesky(exact(problem.proposal.cov))
    rotation, beta, remainder = diagonalised(product(factor.T, product(precision, factor)) - unit)
    axes, inverse_transpose = product(factor, rotation), _lower_inverse(factor).T
    half = product(inverse_transpose, rotation)
    slopes = {
        "prior": prior.dot(axes),
        "misfit": -product(loaded, axes),
        "latent": axes,
        "path": half - product(precision, axes),
        "score": half,
        "noise": rotation,
    }
    log_det = prior.log_det + noise.log_det + posterior.log_det + problem.dim_x * (2 * arb.pi()).log()
    result = []
    for n in range(problem.n_rows):
        x, mean = exact(found.x[n]), _proposal_mean(problem, found.x[n])
        away, residual = mean - exact(model.prior_mean), x - exact(model.offset) - product(loading, mean)
        pull = prior.dot(away) - product(loaded.T, residual)
        distance = (
            away.dot(prior.dot(away)) + residual.dot(noise.dot(residual)) - pull.dot(posterior.dot(pull))
        )
        none = exact(np.zeros(problem.dim_z))
        constants = {
            "prior": prior.dot(away),
            "misfit": noise.dot(residual),
            "latent": mean,
            "path": -pull,
            "score": none,
            "noise": none,
        }
        law = BallLaw(beta, product(axes.T, pull), remainder)
        result.append(Row(n, law, x, -(distance + log_det) / 2, inverse_transpose, constants, slopes))
    return result


def _proposal_mean(problem: Problem, x: np.ndarray) -> Balls:
    proposal = problem.proposal
    if proposal.weight is None:
        return exact(np.asarray(proposal.mean))
    return product(exact(proposal.weight), exact(x)) + exact(np.asarray(proposal.offset))


def _lower_inverse(factor: Balls) -> Balls:
    """Inverse of a lower triangular matrix, its upper part exactly 0."""
    found = factor * arb(0)
    for j in range(len(factor)):
        found[j, j] = 1 / factor[j, j]
        for i in range(j + 1, len(factor)):
            found[i, j] = -factor[i, j:i].dot(found[j:i, j]) / factor[i, i]
    return found


def coordinates(problem: Problem, parameter: str) -> list[Index]:
    """All coordinates of a parameter; of the Cholesky factor those on and below the diagonal."""
    every = [tuple(int(i) for i in index) for index in np.ndindex(*problem.parameters[parameter])]
    return [index for index in every if index[0] >= index[1]] if parameter == "proposal_chol" else every
