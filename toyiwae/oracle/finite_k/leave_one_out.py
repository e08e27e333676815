"""Second moments of sums of scores times leave-one-out logarithms: double integrals over Laplace transforms.

For `X = Σ_k s_k (η D_k + θ w̃_k)`, `D_k = log S/S_-k`, every particle is weighed by one function under an integral,

    η D_k + θ w̃_k = ∫ e^{-t S_-k} ψ(t, w_k) dt/t,      ψ(t, w) = η (1 - e^{-tw}) + θ t w e^{-tw},

so that with τ = t + t', E[s] = 0, and the measure dt dt'/(t t'),

    E[X²] = K ∬ Q Λ(τ)^{K-1} + K(K-1) ∬ P(t,t') P(t',t) Λ(τ)^{K-2}
    Q = E[s² ψ(t) ψ(t')] = η² [σ² - Λ_ss(t) - Λ_ss(t') + Λ_ss(τ)]
                           + ηθ [t Λ_1ss(t) + t' Λ_1ss(t') - τ Λ_1ss(τ)] + θ² t t' Λ_2ss(τ)
    P(t,t') = E[s ψ(t) e^{-t'w}] = η [Λ_s(t') - Λ_s(τ)] + θ t Λ_1s(τ).

With t = τ σ(v) and t' = τ σ(-v), σ logistic, the measure is dlog τ dv. The trapezoidal rule in log τ is the grid of
all other integrals, that in v converges geometrically; the transforms at t and t' are those of a finer grid, shifted:
Λ is analytic in |arg t| < π/2, so that 16 points of a step of 0.055 in log t interpolate it to round-off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import expit

from toyiwae.oracle.finite_k.bounds import rule_error
from toyiwae.oracle.laws.bounded import EPS, Bounded, where
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.laws.protocol import Transform

if TYPE_CHECKING:
    from toyiwae.oracle.finite_k.gradients import GradientEngine

_FINER = 4  # points of the fine grid per point of the engine's
_TAPS = 16  # points that interpolate
_STEP = 0.25  # of the rule in v: the integrand is analytic in |Im v| < π/2, so that its error is e^{-π²/step} = 7e-18
_TAIL = (
    44.0  # the integral over v ends where the smaller of t and t' is e^-44: below it the integrand is linear
)
_RULE = 64 * EPS
_INTERPOLATION = 64 * EPS  # relative to the largest of the points


@dataclass(frozen=True)
class DoubleMoments:
    """Var[X] and E[X Σ s_k] for each K: [N, nK, F]."""

    var: Bounded
    with_scores: Bounded


class DoubleIntegral:
    """The moments of X for one score of an engine; `score` has mean 0 under the proposal."""

    def __init__(self, engine: GradientEngine, score: Any, eta: float, theta: float):
        self.engine, self.eta, self.theta = engine, eta, theta
        coarse = engine.grid.log_t
        step = engine.grid.step / _FINER
        self._reach = _TAIL + max(float(coarse[-1]), 0.0)
        self.grid = Grid.spanning(coarse[0] - self._reach - 1.0, coarse[-1] + 10 * step, step)
        self.at = _FINER * np.arange(len(coarse)) + round((coarse[0] - self.grid.log_t[0]) / step)
        zeroth = engine.law.transform(0, [(score,), (score, score)], self.grid)
        self.s, self.ss = ((x.value, x.error) for x in map(less_limit, zeroth))
        nothing = (np.zeros((1, 1, 1)), np.zeros((1, 1, 1)))
        self.s1 = self.ss1 = self.ss2 = nothing
        if theta:
            one, two = (x.value for x in engine.law.transform(1, [(score,), (score, score)], self.grid))
            self.s1, self.ss1 = self._coarse((one.value, one.error)), (two.value, two.error)
            last = engine.law.transform(2, [(score, score)], engine.grid)[0].value
            self.ss2 = (last.value, last.error)

    def moments(self) -> DoubleMoments:
        """Var[X] and E[X Σ s_k]."""
        (first, slack1), (second, slack2) = ((x.value, x.error) for x in self.engine.weights)
        (q, q_error), (p, p_error) = self._summed()
        rule = rule_error(3, self.engine.grid.step) + 4 * EPS
        mean, mean_error = self._over(first, slack1, *self._sided(self.s, self.s1), rule)
        one, one_error = self._over(first, slack1, q, q_error, rule)
        two, two_error = self._over(second, slack2, p, p_error, rule)
        var = Bounded(one + two - mean**2, one_error + two_error + 2 * np.abs(mean) * mean_error)
        ss = self._sided(self.ss, self.ss1)
        (a, a_error), (s, s_error) = self._sided(self.s, self.s1), self._coarse(self.s)
        alone, alone_error = self._over(first, slack1, *ss, rule)
        product_error = np.abs(a) * s_error + a_error * np.abs(s)
        pairs, pairs_error = self._over(second, slack2, a * s, product_error, rule)
        return DoubleMoments(var, Bounded(alone + pairs, alone_error + pairs_error))

    def _sided(self, zeroth, first) -> tuple[np.ndarray, np.ndarray]:
        """E[s^n ψ(t)] and its error: [N, T, F]."""
        (a, a_error), (b, b_error) = self._coarse(zeroth), self._coarse(first)
        eta, theta = self.eta, self.theta
        return theta * b - eta * a, abs(theta) * b_error + abs(eta) * a_error

    def _coarse(self, pair: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        value, error = pair
        return (value[:, self.at], error[:, self.at]) if value.shape[1] == len(self.grid.log_t) else pair

    @staticmethod
    def _over(weight, slack, value, error, rule) -> tuple[np.ndarray, np.ndarray]:
        size = np.abs(value)
        return weight @ value, weight @ (error + rule * size) + slack @ size

    # the integral over v ---------------------------------------------------------------------------------------------

    def _summed(self) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
        """∫ Q dv and ∫ P P' dv on the engine's grid, each with its error: [N, T, F]."""
        eta, theta = self.eta, self.theta
        (s, s_error), (s1, s1_error), (ss2, ss2_error) = self._coarse(self.s), self.s1, self.ss2
        sums = [[np.zeros_like(s), np.zeros_like(s)] for _ in range(2)]  # value and error, of Q and PP'
        for index, v in enumerate(np.arange(0.0, self._reach, _STEP)):
            weight = _STEP * (1.0 if index == 0 else 2.0)
            p, m = expit(v), expit(-v)
            # t → τ as v → ∞: what is at t is taken less what is at τ, which leaves no error there either
            (a, aa, aa1), errors = self._shifted(float(-np.log1p(np.exp(-v))), less=True)
            (b, bb, bb1), others = self._shifted(float(-np.log1p(np.exp(-v)) - v))
            q = eta * theta * (aa1 + bb1) - eta**2 * (aa + bb) + theta**2 * p * m * ss2
            left = eta * (b - s) + theta * p * s1
            right = eta * a + theta * m * s1
            q_error = eta**2 * (errors[1] + others[1]) + theta**2 * p * m * ss2_error
            q_error = q_error + abs(eta * theta) * (errors[2] + others[2])
            left_error = abs(eta) * (others[0] + s_error) + abs(theta) * p * s1_error
            right_error = abs(eta) * errors[0] + abs(theta) * m * s1_error
            pp_error = np.abs(left) * right_error + left_error * np.abs(right) + left_error * right_error
            for kind, (value, error) in enumerate(((q, q_error), (left * right, pp_error))):
                sums[0][kind] += weight * value
                sums[1][kind] += weight * (error + _RULE * np.abs(value))
        return (sums[0][0], sums[1][0]), (sums[0][1], sums[1][1])

    def _shifted(self, shift: float, *, less: bool = False) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Λ_s, Λ_ss - σ² and t Λ_1ss at t e^shift for the engine's t, on demand less those at t, and their errors."""
        pairs = [self.s, self.ss, self.ss1]
        values, errors = [], []
        operator, size = self._operators(shift, less=less)
        for value, error in pairs:
            if value.shape[1] == 1:
                values.append(value)
                errors.append(error)
                continue
            values.append(_apply(operator, value))
            errors.append(_apply(size, error + _INTERPOLATION * np.abs(value)))
        return values, errors

    def _operators(self, shift: float, *, less: bool) -> tuple[csr_matrix, csr_matrix]:
        """Interpolation at shifted points of the engine's grid, and the same with absolute coefficients."""
        position = self.at[0] + shift / self.grid.step
        left = int(np.floor(position)) - _TAPS // 2 + 1
        rows, shape = len(self.at), (len(self.at), len(self.grid.log_t))
        columns = (left + _FINER * np.arange(rows)[:, None] + np.arange(_TAPS)).ravel()
        tiled = np.tile(_lagrange(position - left), rows)
        operator = csr_matrix((tiled, columns, _TAPS * np.arange(rows + 1)), shape)
        if less:
            operator = operator - csr_matrix((np.ones(rows), self.at, np.arange(rows + 1)), shape)
        return operator, abs(operator)


def _lagrange(x: float) -> np.ndarray:
    """Coefficients of the polynomial through the points 0, 1, …, TAPS - 1, at x."""
    nodes = np.arange(_TAPS, dtype=float)
    apart = nodes[:, None] - nodes
    np.fill_diagonal(apart, 1.0)
    offsets = np.tile(x - nodes, (_TAPS, 1))
    np.fill_diagonal(offsets, 1.0)
    return (offsets / apart).prod(axis=1)


def _apply(operator: csr_matrix, array: np.ndarray) -> np.ndarray:
    n, t, f = array.shape
    columns = array.transpose(1, 0, 2).reshape(t, n * f)
    return np.asarray(operator @ columns).reshape(-1, n, f).transpose(1, 0, 2)


def less_limit(transform: Transform) -> Bounded:
    """The transform of power 0 less its limit for t → 0: [N, T, F]."""
    rest, limit = transform.remainder, transform.leading[:, :1]  # power 0: the same for every t
    return where(transform.split[:, None], rest, rest - limit)
