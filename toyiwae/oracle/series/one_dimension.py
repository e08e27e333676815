"""The general Gaussian problem in one dimension, with symbols for numbers: what SymPy can prove of it as a whole."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property

import sympy as sp

from toyiwae.oracle.series.cumulants import Factor, Means


class Gaussian:
    """`p(z) = N(m, s²)`, `p(x|z) = N(a z + b, r²)`, `q(z) = N(mu, sigma²)`, and `z = mu + sigma ε`; all symbols.

    `log w = c₀ + c₁ ε + c₂ ε²` with coefficients that are polynomials in the means and rational in the deviations.
    """

    x, prior_mean, loading, offset, mean, noise = sp.symbols("x m a b mu varepsilon", real=True)
    prior_std, noise_std, std = sp.symbols("s r sigma", positive=True)

    @cached_property
    def log_weight(self) -> sp.Expr:
        """Log w as a function of ε, for z = mu + sigma ε."""
        z = self.mean + self.std * self.noise
        prior = -((z - self.prior_mean) ** 2) / (2 * self.prior_std**2) - sp.log(self.prior_std)
        likelihood = -((self.x - self.loading * z - self.offset) ** 2) / (2 * self.noise_std**2) - sp.log(
            self.noise_std
        )
        proposal = -(self.noise**2) / 2 - sp.log(self.std)
        return prior + likelihood - proposal - sp.log(2 * sp.pi) / 2

    @cached_property
    def coefficients(self) -> tuple[sp.Expr, sp.Expr, sp.Expr]:
        """c₀, c₁, c₂."""
        ascending = sp.Poly(sp.expand(self.log_weight), self.noise).all_coeffs()[::-1]
        return ascending[0], ascending[1], ascending[2]

    def log_moment(self, s: sp.Expr | int) -> sp.Expr:
        """`log E[w^s] = s c₀ + s² c₁² / (2(1 - 2s c₂)) - ½ log(1 - 2s c₂)`, where 1 - 2s c₂ > 0."""
        c0, c1, c2 = self.coefficients
        width = 1 - 2 * s * c2
        return s * c0 + s**2 * c1**2 / (2 * width) - sp.log(width) / 2

    def tilted(self, s: sp.Expr | int, g: sp.Expr) -> sp.Expr:
        """E[w^s g(ε)] / E[w^s] for a polynomial g of degree 2 at most: under w^s, ε ~ N(s c₁, 1)/(1 - 2s c₂)."""
        _, c1, c2 = self.coefficients
        width = 1 - 2 * s * c2
        mean, var = s * c1 / width, 1 / width
        ascending = [*sp.Poly(sp.expand(g), self.noise).all_coeffs()[::-1], 0, 0]
        return ascending[0] + ascending[1] * mean + ascending[2] * (mean**2 + var)

    @cached_property
    def log_evidence(self) -> sp.Expr:
        """`log N(x; a m + b, a² s² + r²)`."""
        var = self.loading**2 * self.prior_std**2 + self.noise_std**2
        misfit = self.x - self.loading * self.prior_mean - self.offset
        return -(misfit**2) / (2 * var) - sp.log(2 * sp.pi * var) / 2

    @property
    def proposal(self) -> dict[str, sp.Symbol]:
        """The proposal's parameters: its mean and its standard deviation."""
        return {"proposal_mean": self.mean, "proposal_chol": self.std}

    @property
    def model(self) -> dict[str, sp.Symbol]:
        """The model's parameters."""
        return {"prior_mean": self.prior_mean, "loading": self.loading, "offset": self.offset}


@dataclass(frozen=True)
class Proof:
    """The 1/K term of the mean gradient of one parameter, two ways.

    Attributes:
        limit: E[w ∂ log w]/Z less ∂ log Z: the term that no K changes; 0.
        by_delta_method: the coefficient of 1/K in E[Σ w̃ ∂ log w], by Gaussian integrals, over E[w²]/Z².
        by_derivative: `-∂ Var[w/Z] / 2`, by differentiating the closed form, over E[w²]/Z²; for a parameter of the
            proposal Z does not depend on it, and this is `-∂ Var[w] / (2Z²)`.
        difference: of the two, simplified; 0.
    """

    limit: sp.Basic
    by_delta_method: sp.Basic
    by_derivative: sp.Basic
    difference: sp.Basic


@cache
def prove_gradient(parameter: str) -> Proof:
    """`E[Δ_K] = ∂ log Z - ∂ Var[w/Z]/(2K) + O(K⁻²)` for the general Gaussian problem in one dimension.

    The left side is the mean of Σ w̃_k ∂ log w_k expanded by the delta method, its moments integrals of polynomials
    against Gaussians; the right side the derivative of the closed form of Var[w]. They share nothing but log w.

    Args:
        parameter: one of the names in `Gaussian.proposal` and `Gaussian.model`.
    """
    problem = Gaussian()
    symbol = {**problem.proposal, **problem.model}[parameter]
    g = sp.diff(problem.log_weight, symbol)
    at_evidence = sp.diff(problem.log_evidence, symbol)
    limit = sp.cancel(sp.together(problem.tilted(1, g) - at_evidence))
    # the delta method with the gradient's moments as symbols, E[w²]/Z² = R and Σ w̃ = 1 taking out E[w g]/Z
    ratio, product = sp.Symbol("R"), sp.Symbol("G")
    means = Means(lambda n: ratio - 1, lambda tags, n: product if n else sp.Integer(0))
    coefficient = means.mean({1: [Factor(Fraction(1), 0, 1)]}, 1)  # -E[(w/Z)² (g - ∂ log Z)]
    centred = problem.tilted(2, g - at_evidence)
    by_delta = sp.expand(coefficient.subs(product, ratio * centred) / ratio)
    by_derivative = -sp.diff(problem.log_moment(2) - 2 * problem.log_evidence, symbol) / 2
    difference = sp.cancel(sp.together(by_delta - by_derivative))
    return Proof(limit, sp.factor(by_delta), sp.factor(by_derivative), difference)


# for readers ---------------------------------------------------------------------------------------------------------


def about_posterior(expression: sp.Basic) -> sp.Basic:
    """An expression of `Gaussian`, with m and s the posterior's mean and standard deviation and x gone.

    `w/Z = N(z; m, s²)/q(z)` has the form of a problem whose observation does not depend on z.
    """
    problem = Gaussian()
    return sp.simplify(expression.subs(problem.loading, 0).subs(problem.offset, problem.x))


def gaussian_moment() -> tuple[sp.Expr, sp.Expr]:
    """One direction's `log E[(w/Z)^s]`, twice: by integrating `e^{s log w}` over the noise, and as it is shown.

    In the rotated noise `log w/Z = c₀ - β ε²/2 - h ε` with c₀ such that E[w/Z] = 1; so the integral at s less s times
    the integral at 1 is the answer wherever 1 + sβ > 0.
    """
    beta, h, s, noise = sp.symbols("beta_i h_i s varepsilon", real=True)
    width = sp.Symbol("omega", positive=True)  # 1 + sβ
    integrand = sp.exp(-width * noise**2 / 2 - s * h * noise) / sp.sqrt(2 * sp.pi)
    integral = sp.simplify(sp.integrate(integrand, (noise, -sp.oo, sp.oo)))
    at = sp.expand_log(sp.log(integral), force=True).subs(width, 1 + s * beta)
    quadratic = sp.factor(h**2 * s * (s - 1) / (2 * (1 + s * beta) * (1 + beta)))
    logarithms = s * sp.log(1 + beta) / 2 - sp.log(1 + s * beta) / 2
    return at - s * at.subs(s, 1), logarithms + quadratic
