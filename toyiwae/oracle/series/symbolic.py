"""SymPy derivations: the 1/K series in the moments of w, and (`one_dimension`) the general Gaussian problem.

Nothing numerical depends on this module; it proves, for tests, docs and the report, what
`toyiwae.oracle.series.expansions` evaluates.
`derivations()` gives each result as LaTeX; the documentation and the report show all of them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from math import comb

import sympy as sp

from toyiwae.forms import Form
from toyiwae.oracle.series.cumulants import Factor, Means
from toyiwae.oracle.series.delta_method import Factors
from toyiwae.oracle.series.one_dimension import (
    Gaussian,
    Proof,
    about_posterior,
    gaussian_moment,
    prove_gradient,
)

__all__ = [
    "Gaussian",
    "Proof",
    "about_posterior",
    "bound_coefficient",
    "bound_derivative",
    "central_moment",
    "derivations",
    "gaussian_moment",
    "gradient_coefficient",
    "joint_moment",
    "leading_terms",
    "prove_gradient",
]


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
