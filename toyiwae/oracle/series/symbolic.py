"""SymPy derivations: the 1/K series in the moments of w, and the general Gaussian problem in one dimension.

Nothing numerical depends on this module; it proves, for tests, docs and the report, what
`toyiwae.oracle.series.expansions` evaluates.
`derivations()` gives each result as LaTeX; the documentation and the report show all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from math import comb

import sympy as sp

from toyiwae.forms import Form
from toyiwae.oracle.series.cumulants import Factor, Means
from toyiwae.oracle.series.delta_method import Factors


def central_moment(n: int) -> sp.Symbol:
    """The symbol μ_n of the n-th central moment of w/Z."""
    return sp.Symbol(f"mu_{n}", real=True)


@cache
def bound_coefficient(order: int) -> sp.Expr:
    """The coefficient of K^-order in `L_K - log Z`, a polynomial in the central moments μ_2 … μ_{order+1} of w/Z."""
    return sp.expand(_bound_means().log(order))


@cache
def _bound_means() -> Means:
    return Means(central_moment)


# gradients: leading terms of mean and variance in the moments of (w, g) ------------------------------------------


def joint_moment(power: int, degree: int) -> sp.Symbol:
    """The symbol ⟨w^power g^degree⟩ of E_q[(w/Z)^power g^degree]."""
    factors = [f"{name}^{{{n}}}" if n > 1 else name for name, n in (("w", power), ("g", degree)) if n]
    return sp.Symbol(rf"\langle {' '.join(factors)} \rangle", real=True)


def leading_terms(
    powers: Mapping[int, float], *, centred: bool = False
) -> tuple[tuple[int, sp.Expr], tuple[int, sp.Expr]]:
    """Leading terms of the mean and the variance of `Σ_r factor_r Σ_k w̃_k^r g_k`, one group of K particles.

    Args:
        powers: {r: factor}, the power 0 standing for 1/K.
        centred: whether E[w g] = 0, as it is for the total derivative in the proposal's parameters.

    Returns:
        (order n, coefficient of K^-n) of the mean, and of the variance, in the symbols of `joint_moment`.
    """
    means = _weight_means(centred)
    statistic: Factors = {
        r: [Factor(Fraction(f).limit_denominator(10**9), max(r - 1, 0), r)] for r, f in powers.items()
    }
    found = []
    for compute in (means.mean, means.variance):
        order, value = -1, sp.Integer(0)
        while value == 0:
            order += 1
            value = sp.factor(sp.expand(sp.sympify(compute(statistic, order))))
        found.append((order, value))
    return found[0], found[1]


@cache
def _weight_means(centred: bool) -> Means:
    """Means of u = w - 1 and of φ = w^r g, r the tag, in the symbols of `joint_moment`."""

    def moment(power: int, degree: int) -> sp.Expr:
        if degree == 0 and power in (0, 1):
            return sp.Integer(1)
        if centred and (power, degree) == (1, 1):
            return sp.Integer(0)
        return joint_moment(power, degree)

    def spread(power: int, degree: int, n: int) -> sp.Expr:
        return sp.Add(*(moment(power + k, degree) * (comb(n, k) * (-1) ** (n - k)) for k in range(n + 1)))

    def joint(tags: tuple[Hashable, ...], n: int) -> sp.Expr:
        return spread(sum(int(str(tag)) for tag in tags), len(tags), n)

    return Means(lambda n: spread(0, 0, n), joint)


@cache
def gradient_coefficient(order: int) -> sp.Expr:
    """The coefficient of K^-order in `E[Σ w̃_k ∂ log w_k]` where E[w ∂ log w] = 0, in the symbols of `joint_moment`.

    By the delta method; it equals the derivative of `bound_coefficient(order)` under `∂⟨w^n⟩ = n ⟨w^n g⟩`.
    """
    return sp.expand(_weight_means(True).mean({1: [Factor(Fraction(1), 0, 1)]}, order))


@cache
def bound_derivative(order: int) -> sp.Expr:
    """The derivative of `bound_coefficient(order)`, by `∂⟨w^n⟩ = n ⟨w^n g⟩` with g = ∂ log w and ⟨w g⟩ = 0."""
    value = sp.expand(_weight_means(True).log(order))
    powers = range(2, order + 2)
    return sp.expand(sp.Add(*(sp.diff(value, joint_moment(n, 0)) * n * joint_moment(n, 1) for n in powers)))


# the general Gaussian problem in one dimension -----------------------------------------------------------------------


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


def derivations(forms: Mapping[str, Form] | None = None, order: int = 4) -> dict[str, str]:
    """Title -> LaTeX of each derivation: the series, the Gaussian moments, the gradient's bias, the SNR constants.

    The LaTeX stays within the subset that the package's own documentation and report can show: fractions, roots,
    stretching brackets, and symbols.

    Args:
        forms: name -> form of the estimators whose SNR constants are wanted.
        order: the last term of the bound's series.
    """
    problem = Gaussian()
    bound = [bound_coefficient(n) for n in range(1, order + 1)]
    slopes = [gradient_coefficient(n) for n in (1, 2)]
    result = {
        "The bound": rf"L_K - \log Z = {_series(bound)}",
        "Its gradient": rf"\nabla L_K = \nabla \log Z + {_series(slopes)},\quad g = \partial \log w",
        "Moments of a Gaussian problem": r"\log \mathrm{E}[(w/Z)^s] = \sum_i \left("
        + sp.latex(gaussian_moment()[1])
        + r"\right),\quad 1 + s \beta_i > 0",
    }
    apart, excess = sp.symbols("d omega", positive=True)
    shorter = {
        problem.prior_mean: problem.mean + apart,
        problem.prior_std: sp.sqrt(2 * problem.std**2 - excess),
    }
    for parameter, symbol in problem.proposal.items():
        slope = about_posterior(prove_gradient(parameter).by_derivative).subs(shorter)
        result[f"Bias of the gradient of {parameter}, one latent"] = (
            rf"-\frac{{\partial_{{{sp.latex(symbol)}}} \mathrm{{Var}}[w]}}{{2 K Z^2}} = \frac{{1}}{{K}}"
            rf" \frac{{\mathrm{{E}}[w^2]}}{{Z^2}} \left({sp.latex(sp.expand(sp.simplify(slope)))}\right)"
            r",\quad d = m - \mu,\; \omega = 2 \sigma^2 - s^2 > 0"
        )
    shared: dict[tuple[str, str], list[str]] = {}
    for name, form in (forms or {}).items():
        for part, latex in _snr(form).items():
            shared.setdefault((part, latex), []).append(name)
    constants = {f"SNR of {part}: {', '.join(names)}": latex for (part, latex), names in shared.items()}
    return result | constants


def _series(coefficients: Sequence[sp.Expr]) -> str:
    """LaTeX of a series in 1/K that starts with the first power."""
    powers = ["K", *(f"K^{{{n}}}" for n in range(2, len(coefficients) + 2))]
    terms = [
        rf"\frac{{1}}{{{power}}} \left({sp.latex(term)}\right)"
        for power, term in zip(powers, coefficients, strict=False)
    ]
    return " + ".join([*terms, rf"O(K^{{-{len(coefficients) + 1}}})"])


def _snr(form: Form) -> dict[str, str]:
    """LaTeX of a form's leading SNR for θ and φ, where its coefficients are powers of w̃ times one polynomial."""
    cases = {"θ": (form.model, False, r"\partial_\theta \log p")} if form.model else {}
    if form.path and dict(form.path) == {r: -factor for r, factor in form.score.items()}:
        cases["φ"] = (form.path, form.exponent == 1.0, r"\partial_\phi \log w")  # E[w ∂φ log w] = ∂φ Z = 0
    elif form.path and not form.score:
        cases["φ"] = (form.path, False, r"\partial_z \log w \, \partial_\phi z")
    elif form.score and not form.path and not form.has_log_terms:
        cases["φ"] = (form.score, False, r"\partial_\phi \log q")
    power = rf"w^{{{form.exponent:g}}}"
    where = (
        "" if form.exponent == 1.0 else rf",\quad {power}/\mathrm{{E}}[{power}] \text{{~in~place~of~}} w/Z"
    )
    result = {}
    for part, (powers, centred, g) in cases.items():
        (mean_order, mean), (var_order, var) = leading_terms(powers, centred=centred)
        rate = sp.Symbol("K", positive=True) ** (sp.Rational(var_order, 2) - mean_order)
        (c, mean), (d, var) = mean.as_coeff_Mul(), var.as_coeff_Mul()
        var, factor = sp.expand(var * sp.sign(d)), sp.latex(abs(c) / sp.sqrt(abs(d)))
        value = rf"\frac{{\left|{sp.latex(mean)}\right|}}{{\sqrt{{{sp.latex(var)}}}}}"
        value = value if factor == "1" else rf"{factor} \cdot {value}"
        result[part] = rf"\mathrm{{SNR}} \to {value} \sqrt{{M}} \, {sp.latex(rate)},\quad g = {g}{where}"
    return result
