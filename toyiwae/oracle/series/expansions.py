"""Expansions in 1/K, to any order: bounds, the mean and variance of gradients, and the constants of their SNR.

With w in units of its mean, u = w - 1 and x its mean over K particles, `L_K - log Z = E[log(1+x)]`, and a gradient
is `Σ_r K^{1-r} mean(w^r G_r) (1+x)^{-r}`: smooth functions of means, which `toyiwae.oracle.series.cumulants` turns into
power series in 1/K. Their coefficients are polynomials in moments `E[w^s Π g]` that have closed forms. The first are

    L_K - log Z = -μ₂/(2K) + (μ₃/3 - 3μ₂²/4)/K² - ((μ₄ - 3μ₂²)/4 - 2μ₂μ₃ + 5μ₂³/2)/K³ + …

and `E[Δ(φ)] = -∇φ Var[w]/(2KZ²) + …`. The term of order n needs the moment of order n + 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from flint import arb, ctx

from toyiwae.errors import InputError, MissingMomentError, PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.laws.bounded import EPS, Bounded, stack, where
from toyiwae.oracle.series import enclosed
from toyiwae.oracle.series.cumulants import Means, lowest_order
from toyiwae.oracle.series.delta_method import GradientSeries, checked, named, statistic
from toyiwae.oracle.series.weight_moments import WeightMoments
from toyiwae.oracle.whitened.evidence import log_evidence
from toyiwae.oracle.whitened.gradient_polynomials import GradientComponents, Gradients, row_batches
from toyiwae.oracle.whitened.whitening import Whitened
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.problems.parameter import Parameter

_DEPTH = 3  # how many orders beyond the first possible one are searched for a coefficient that is not zero
_RELATIVE = 1e-8  # round-off beyond which the coefficients of a bound are computed in multiprecision


@dataclass(frozen=True, eq=False)
class Expansion:
    """`Σ_n value[n - first] · K^{-n}`, n from `first`.

    Attributes:
        first: the lowest order.
        value: coefficients `[orders, ...]`; where digits were asked for, balls that contain them.
        error: bounds on their absolute errors; of balls, their radii.
    """

    first: int
    value: np.ndarray
    error: np.ndarray

    @property
    def last(self) -> int:
        """The highest order there is."""
        return self.first + len(self.value) - 1

    def term(self, order: int) -> Bounded:
        """The coefficient of K^-order.

        Raises:
            InputError: if the expansion ends before it.
        """
        if not self.first <= order <= self.last:
            raise InputError(f"order {order}: this expansion holds the orders {self.first} to {self.last}")
        at = order - self.first
        return Bounded(np.asarray(self.value[at]), np.asarray(self.error[at]))

    def leading(self, orders: np.ndarray) -> np.ndarray:
        """The coefficient of each entry's own order."""
        return np.take_along_axis(self.value, (orders - self.first)[None], axis=0)[0]

    def at(self, particles: Any, order: int | None = None) -> Any:
        """The sum of the terms up to an order (all of them by default) at K = `particles`; a ball if they are balls."""
        stop = len(self.value) if order is None else max(order - self.first + 1, 0)
        total, bits = 0 * self.value[0], [x.bits() for x in np.ravel(self.value) if isinstance(x, arb)]
        with ctx.workprec(max(bits, default=0) + 64):
            k = arb(particles) if bits else particles
            for n in reversed(range(self.first, self.first + stop)):  # from the smallest term on
                total = total + self.value[n - self.first] / k ** (n if bits else float(n))
        return total


@dataclass(frozen=True, eq=False)
class SnrLimit:
    """`SNR · K^-exponent → constant · √M` (pooled weights: `SNR · (MK)^-exponent → constant`), by coordinate.

    Attributes:
        constant: in the parameter's shape. 0 where the mean vanishes as far as it was expanded, so that the SNR
            falls faster than K^exponent; NaN where mean and variance both vanish.
        exponent: power of K; NaN where the constant is.
        error: bound on the round-off in `constant`.
        pooled: whether the M groups share their normalisation, and act like M·K particles.
        max_power: the highest s for which E[w^s] was used; it exists iff every β > -1/s.
    """

    constant: np.ndarray
    exponent: np.ndarray
    error: np.ndarray
    pooled: bool
    max_power: float

    def at(self, particles: float, groups: int = 1) -> np.ndarray:
        """The leading term at (K, M)."""
        if self.pooled:
            return self.constant * (float(particles) * groups) ** self.exponent
        return self.constant * np.sqrt(groups) * float(particles) ** self.exponent


def bound(
    problem: Problem | Whitened, order: int, exponent: float = 1.0, *, digits: int | None = None
) -> Expansion:
    """The expansion of a bound less log Z, averaged over the observations: `(1/e) E log[(1/K) Σ w^e] - log Z`.

    Formula: bound-series. The coefficient of K^-n is a polynomial in the central moments up to order n + 1 of w^e in
    units of its mean; that of K^0 is `log E[w^e] / e`, which is 0 for the IWAE bound, e = 1.

    Args:
        problem: the problem, whitened or not.
        order: the last n.
        exponent: e, 1 for IWAE and 1 - α for VR-IWAE; not 0.
        digits: significant decimal digits, each proven, in ball arithmetic; None for float64 (and balls where its
            round-off would exceed 1e-8).

    Raises:
        MissingMomentError: if a moment does not exist; it names the moment, the term and the condition.
    """
    whitened = _whitened(problem)
    if exponent == 0.0:
        raise InputError("exponent is 0: the ELBO depends on no K, and has no expansion")
    if digits is None:
        try:
            found = _float_bound(whitened, order, exponent)
            if (found.error <= _RELATIVE * np.abs(found.value)).all():
                return found
        except PrecisionError:
            pass
        value, _ = enclosed.bound(whitened.problem, order, exponent, 17)
        value = value.astype(float)
        return Expansion(0, value, EPS * np.abs(value))
    return Expansion(0, *enclosed.bound(whitened.problem, order, exponent, digits))


def gradient_mean(
    problem: Problem | Whitened, form: Form, parameter: str, order: int, *, digits: int | None = None
) -> Expansion:
    """The expansion of the mean of one group's gradient, averaged over the observations, in the parameter's shape.

    Formula: gradient-series. For the IWAE form this is the gradient of the bound's expansion, term by term,
    `∇ E[wⁿ] = n E[wⁿ ∇ log w]`. Log terms of the score (`log_evidence`, `leave_one_out`, `constant`) are part of it.

    Raises:
        MissingMomentError: as `bound`.
        PrecisionError: if a moment exceeds the range of double precision, and no digits were asked for.
        InputError: a form with the geometric leave-one-out, or with log terms at an exponent other than 1.
    """
    return _gradient(_whitened(problem), form, parameter, "mean", order, digits)


def gradient_var(
    problem: Problem | Whitened, form: Form, parameter: str, order: int, *, digits: int | None = None
) -> Expansion:
    """The expansion of the variance of one group's gradient of the average over observations, likewise."""
    return _gradient(_whitened(problem), form, parameter, "var", order, digits)


def snr_constant(
    problem: Problem | Whitened, form: Form, parameter: str, *, digits: int | None = None
) -> SnrLimit:
    """The law `SNR → constant · √M · K^exponent` of any form, by the leading terms of its mean and variance.

    Formula: snr-constant. For the reparameterised IWAE gradient `√K · SNR(φ) → √M |∂φ Var w| / (2Z √E[(∂φ w)²])` and
    `SNR(θ)/√K → √M |∂θ log Z| / √E[(w/Z)² (∂θ log p - ∂θ log Z)²]`; DReG's φ-SNR grows as √(MK), where the fourth
    moment exists. With `digits` the constants are balls; which terms lead is what double precision tells.

    Raises:
        MissingMomentError: if a moment that a leading term needs does not exist.
        PrecisionError, InputError: as `gradient_mean`.
    """
    whitened = _whitened(problem)
    series = _Series(whitened, form, parameter, 8)
    var_order, var = series.leading("var", 2 * series.lowest + 1, series.parameter.free)
    mean_order, mean = series.leading("mean", series.lowest, var.value > 0.0)
    if digits is None:
        ratio = abs(mean) / var.sqrt()
        constant, error = ratio.value, ratio.error
    else:
        top, bottom = (
            _gradient(whitened, form, parameter, kind, int(orders.max()), digits).leading(orders)
            for kind, orders in (("mean", mean_order), ("var", var_order))
        )
        constant, error = enclosed.ratio(top, bottom, var.value > 0.0, digits)
    exponent = np.where(var.value > 0.0, 0.5 * var_order - mean_order, np.nan)
    pooled = ("model" if series.parameter.part == "model" else "path") in form.pooled
    return SnrLimit(constant, exponent, error, pooled, series.max_power)


def _whitened(problem: Problem | Whitened) -> Whitened:
    return problem if isinstance(problem, Whitened) else Whitened(problem)


def _float_bound(whitened: Whitened, order: int, exponent: float) -> Expansion:
    law, one = whitened.law(exponent), whitened.law()
    means, nothing = Means(WeightMoments(law, exponent).central), Bounded.zeros((len(law), 1))
    terms = [
        Bounded(one.log_moment(exponent), one.log_moment_error(exponent)) if exponent != 1.0 else nothing
    ]
    terms += [named("the bound", n, lambda n=n: means.log(n)) + nothing for n in range(1, order + 1)]
    found = stack([term.mean() for term in terms]) / exponent
    return Expansion(0, found.value, found.error)


def _gradient(
    whitened: Whitened, form: Form, parameter: str, kind: str, order: int, digits: int | None
) -> Expansion:
    if digits is not None:
        checked(form, whitened.problem.parameters.record(parameter).part == "proposal")
        return Expansion(*enclosed.gradient(whitened.problem, form, parameter, kind, order, digits))
    return _Series(whitened, form, parameter, order).expansion(kind, order)


class _Series:
    """Coefficients of one form's mean and variance at one parameter, order by order, in the parameter's shape."""

    def __init__(self, whitened: Whitened, form: Form, parameter: str, order: int):
        self._whitened, self.parameter = whitened, whitened.problem.parameters.record(parameter)
        checked(form, self.parameter.part == "proposal")
        self.shape = self.parameter.shape
        law, width = whitened.law(form.exponent), self.parameter.size
        self._parts: list[tuple[slice | np.ndarray, int, GradientSeries]] = []
        evidence = log_evidence(whitened)
        for rows in row_batches(law, min(width, 2 * law.beta.size**2)):
            gradients = whitened.gradients(law, rows, form.exponent)
            batch = _batch(gradients, form, self.parameter, evidence[rows][:, None], order)
            self._parts.append((rows, *batch))
        self.lowest = min(lowest_order(series.factors) for _, _, series in self._parts)

    @property
    def max_power(self) -> float:
        """The highest moment of the weight used so far."""
        return max((series.moments.max_power for _, _, series in self._parts), key=abs)

    def expansion(self, kind: str, order: int) -> Expansion:
        """The terms up to an order."""
        first = min(self.lowest if kind == "mean" else 2 * self.lowest + 1, order)
        found = stack([self.coefficient(kind, n) for n in range(first, order + 1)])
        return Expansion(first, found.value, found.error)

    def leading(self, kind: str, first: int, wanted: np.ndarray) -> tuple[np.ndarray, Bounded]:
        """The lowest order whose coefficient is not 0 within its error, by coordinate, and that coefficient.

        Where all vanish it is the last order looked at, and 0.
        """
        order, result, missing = np.full(self.shape, first), Bounded.zeros(self.shape), wanted
        for n in range(first, first + _DEPTH + 1):
            try:
                term = self.coefficient(kind, n)
            except MissingMomentError:
                if kind == "mean" and (missing != wanted).any():
                    break
                raise
            order = np.where(missing, n, order)
            found = missing & (np.abs(term.value) > term.error)
            result = where(found, term, result)
            missing = missing & ~found
            if not missing.any():
                break
        return order, result

    def coefficient(self, kind: str, order: int) -> Bounded:
        """The coefficient of K^-order in the mean or the variance."""
        power, total = 1 if kind == "mean" else 2, Bounded.zeros(self.shape)
        for rows, width, series in self._parts:
            x = self._whitened.x[rows] ** power
            term = series.coefficient(self.parameter.name, kind, order) + Bounded.zeros((len(x), width))
            value = self.parameter.summed(term.value, x, rows)
            total = total + Bounded(value, self.parameter.summed(term.error, np.abs(x), rows))
        return total / float(len(self._whitened.x) ** power)


def _batch(
    gradients: Gradients, form: Form, parameter: Parameter, log_evidence: Bounded, order: int
) -> tuple[int, GradientSeries]:
    """The number of base coordinates F, and the series [N, F], of a batch of observations."""
    law, proposal = gradients.law, parameter.part == "proposal"
    moments = WeightMoments(law, form.exponent)
    form, factors = statistic(form, proposal, order)
    score = gradients.score[parameter.moves if proposal else "mean"]
    limit, parts = Bounded.zeros((1, 1)), {}
    for r, g in GradientComponents(gradients).of(form, parameter).items():
        if r < 2:
            mean = moments.raw(r, (g,))
            taken = g.base if r == 1 else mean.value
            limit = Bounded(taken, np.where(taken == 0.0, 0.0, mean.error)) + limit
            g = g.less(taken)
        parts[r] = g
    logs = "score" in factors or "scaled" in factors
    centred = score.less(law.moment(0, (score,)).value) if logs else None
    width = (score if proposal else gradients.model[parameter.name]).base.shape[-1]
    return width, GradientSeries.of(moments, factors, parts, limit, centred, log_evidence)
