"""One line of a Mellin contour on one part of the grid: the sums that transforms are made of, and their round-off."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.bounded import EPS
from toyiwae.oracle.laws.gaussian_moments import GaussianMoments
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.laws.polynomials import Polynomial
from toyiwae.oracle.laws.special import log_abs_expm1
from toyiwae.oracle.laws.tilted import Tilt

_SAMPLED = 24  # nodes of a line at which sizes are looked at


class Segment:
    """One line of one transform on one part of the grid.

    Args:
        law: the weights' law.
        table: the candidate lines.
        line: which of them.
        step: distance of its nodes.
        grid: the whole grid, of which the segment is [start, stop).
        power, p: of the transform `t^{a/p} E[w^a g e^{-t w^p}]`.
        excess: whether the transform of w = 1 is taken off.
    """

    def __init__(
        self,
        law: GaussianMoments,
        table: contour.Lines,
        line: int,
        step: float,
        grid: Grid,
        start: int,
        stop: int,
        power: float,
        p: float,
        *,
        excess: bool,
    ):
        self.law, self.grid, self.start, self.stop, self.step = law, grid, start, stop, step
        self.power, self.p, self.excess = power, p, excess
        c, self.order = float(table.abscissa[line]), int(table.order[line])
        peak = table.log_size[:, line]  # [N]
        reach, cut = self._ends(c)
        y, log_gamma, argument, constant, weight = law.spectrum.line(power, p, c, step, reach)
        log_moment = constant + law.h**2 @ weight.T  # [N, S]
        log_base = log_gamma - peak[:, None]
        base = np.exp(log_base + log_moment)
        if excess:
            near = np.real(log_moment) < 1.0
            small = np.exp(log_base) * np.expm1(np.where(near, log_moment, 0.0))
            base = np.where(near, small, base - np.exp(log_base))
        if cut is not None:
            base = base * cut.window(y)
        self.y, self.base, self.tail = y, base, 1.0 if cut is None else min(1.0, cut.end)
        self.tilt = Tilt(law.beta, law.h, argument)
        self.every = max(
            1, len(y) // _SAMPLED
        )  # sizes vary slowly along a line: a part of the nodes tells them
        self.sampled = argument[:: self.every]
        size = 4.0 + np.abs(log_gamma) + np.abs(constant) + law.h**2 @ np.abs(weight).T
        with np.errstate(over="ignore"):
            moved = np.exp(np.real(log_gamma + log_moment) - peak[:, None]) if excess else np.abs(base)
        self.noise = EPS * size * np.abs(base) + law.relative_wobble(argument, weight) * moved  # [N, S]
        self.log_t = grid.log_t[start:stop]
        exponent = peak[:, None] + (power / p - c) * self.log_t
        self.scale = np.exp(exponent) * (step / np.pi)  # [N, T']
        self.exponent = 2.0 + np.abs(exponent)

    def _ends(self, c: float) -> tuple[float, contour.Cut | None]:
        """The height at which the line may end, and the window that ends it, if it would go on."""
        log_gamma, constant, weight = self.law.spectrum.ladder(self.power, self.p, c)
        log_moment = constant + self.law.h**2 @ weight.T
        reach = natural = contour.reach(log_gamma + log_moment.real)
        if self.excess:
            reach = contour.reach(log_gamma + log_abs_expm1(log_moment))
        distance, kernel_distance = self.grid.distances(self.start)
        cut = None
        if distance:
            cut = contour.Cut(distance)
        elif self.excess and kernel_distance:  # e^-t is long gone; the law's own part ends where it will
            cut = contour.Cut(kernel_distance, natural)
        return (reach, None) if cut is None else (min(reach, cut.end), cut)

    def sum(self, factors: tuple[Polynomial, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The remainder and its error: [N, T', F] each."""
        mean = self.tilt.expectation(factors) if factors else np.ones((1, len(self.y), 1))
        inner, f = np.abs(mean), self.base[:, :, None] * mean
        n, s, count = f.shape
        columns = np.ascontiguousarray(f.transpose(1, 0, 2)).reshape(s, n * count)
        value = self.grid.kernel.sum(self.step, self.y, columns, self.start, self.stop)
        value = value.reshape(len(self.log_t), n, count).transpose(1, 0, 2) * self.scale[:, :, None]
        dropped = (
            EPS
            * (np.abs(self.base).max(axis=1) * self.tail / self.step)[:, None, None]
            * inner.max(axis=1, keepdims=True)
        )
        fixed = self.noise[:, None, :] @ inner + dropped
        moving = EPS * ((self.y * np.abs(self.base))[:, None, :] @ inner)
        if factors:
            coarse = 2.0 * EPS * self.every * np.abs(self.base[:, :: self.every])
            fixed = fixed + coarse[:, None, :] @ self.law.sizes(self.sampled, factors)
        error = self.scale[:, :, None] * (fixed + np.abs(self.log_t)[:, None] * moving)
        error = error + EPS * self.exponent[:, :, None] * np.abs(value)
        for j in range(self.order):
            taylor, slack = self._taylor(j, factors)
            value, error = value + taylor, error + slack
        return value, error

    def _taylor(self, j: int, factors: tuple[Polynomial, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The j-th Taylor term that the line leaves out; for plain transforms the 0-th stays split off."""
        if self.excess:
            j = j + 2 - int(self.power)
        elif j == 0:
            return np.zeros(1), np.zeros(1)
        power = self.power + self.p * j
        s = np.array([power])
        constant, weight = self.law.spectrum.parts(s)
        log_moment = constant + self.law.h**2 @ weight.T
        moment = np.expm1(log_moment) if self.excess else np.exp(log_moment)
        if factors:
            moment = moment * np.real(Tilt(self.law.beta, self.law.h, s).expectation(factors)[:, 0])
        scale = (-1.0) ** j * np.exp((power / self.p) * self.log_t - gammaln(j + 1.0))
        value = scale[:, None] * moment[:, None, :]
        wobble = self.law.relative_wobble(s, weight)[:, :, None]
        inner = EPS * (8.0 + np.abs(constant)[0] + np.abs(log_moment)[:, :, None]) + wobble
        error = np.abs(value) * inner
        if factors:
            size = np.exp(log_moment)[:, :, None] * self.law.sizes(s, factors)
            error = error + EPS * np.abs(scale)[:, None] * size
        return value, error
