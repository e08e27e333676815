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
from toyiwae.problems.parameter import Parameter

Index = tuple[int, ...]
SCORE = Form({}, {}, {0: 1.0})


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

    def components(self, form: Form, parameter: Parameter, index: Index) -> dict[int, Quadratic]:
        """{power of the normalised weight: polynomial} of one coordinate of a form's gradient, less its log terms."""
        within = index[1:] if parameter.own else index  # behind the observation's own number
        i, j, zero = within[0], within[-1], arb(0)
        if parameter.part == "model":
            name = "prior" if parameter.name == "prior_mean" else "misfit"
            right = self._affine(j, latent=1.0) if parameter.name == "loading" else None
            return {r: Quadratic(zero, self._affine(i, **{name: f}), right) for r, f in form.model.items()}
        found = {}
        for r in sorted({*form.path, *form.score}):
            path, score = form.path.get(r, 0.0), form.score.get(r, 0.0)
            left = self._affine(i, path=path, score=score)
            if parameter.moves == "chol":
                constant = -score * self.inverse_transpose[i, j]
                found[r] = Quadratic(constant, left, self._affine(j, noise=1.0))
            else:
                found[r] = Quadratic(zero, left)
        return found

    def factor(self, parameter: Parameter, index: Index) -> arb:
        """What a coordinate is multiplied by: x_j for a weight's entry (i, j), else 1."""
        return self.x[index[1]] if parameter.amortised == "weight" else arb(1)

    def _affine(self, i: int, **factors: float) -> Affine:
        """Σ factor · the i-th entry of a vector; equal ones are one object, so that covariances are computed once."""
        key = (i, *factors.items())
        if key not in self._known:
            constant = sum((f * self.constants[name][i] for name, f in factors.items()), arb(0))
            linear = sum((f * self.slopes[name][i] for name, f in factors.items()), exact(0.0))
            self._known[key] = Affine(constant, linear)
        return self._known[key]


@dataclass(frozen=True, eq=False)
class _Axes:
    """What observations of one proposal covariance share."""

    beta: Balls
    remainder: arb
    inverse_transpose: Balls
    slopes: dict[str, Balls]

    @classmethod
    def of(cls, cov: np.ndarray, precision: Balls, prior: Inverse, loaded: Balls) -> _Axes:
        """From S, the posterior precision, the prior's inverse and R⁻¹W."""
        factor, unit = cholesky(exact(cov)), exact(np.eye(len(cov)))
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
        return cls(beta, remainder, inverse_transpose, slopes)


def rows(problem: Problem) -> list[Row]:
    """All observations at the working precision."""
    model, found = problem.model, problem.observations()
    loading, unit = exact(model.loading), exact(np.eye(problem.dim_z))
    prior, noise = Inverse(model.prior_cov), Inverse(model.noise_cov)
    loaded = noise.dot(loading)
    precision = prior.dot(unit) + product(loaded.T, loading)
    posterior, every = Inverse(precision), found.proposal_cov
    own = [_Axes.of(cov, precision, prior, loaded) for cov in (every if every.ndim == 3 else [every])]
    log_det = prior.log_det + noise.log_det + posterior.log_det + problem.dim_x * (2 * arb.pi()).log()
    result = []
    for n in range(problem.n_rows):
        x, mean = exact(found.x[n]), _proposal_mean(problem, n)
        axes = own[n % len(own)]
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
        law = BallLaw(axes.beta, product(axes.slopes["latent"].T, pull), axes.remainder)
        result.append(
            Row(n, law, x, -(distance + log_det) / 2, axes.inverse_transpose, constants, axes.slopes)
        )
    return result


def _proposal_mean(problem: Problem, n: int) -> Balls:
    proposal, found = problem.proposal, problem.observations()
    if proposal.weight is None:
        return exact(found.proposal_mean[n])
    return product(exact(proposal.weight), exact(found.x[n])) + exact(np.asarray(proposal.offset))


def _lower_inverse(factor: Balls) -> Balls:
    """Inverse of a lower triangular matrix, its upper part exactly 0."""
    found = factor * arb(0)
    for j in range(len(factor)):
        found[j, j] = 1 / factor[j, j]
        for i in range(j + 1, len(factor)):
            found[i, j] = -factor[i, j:i].dot(found[j:i, j]) / factor[i, i]
    return found
