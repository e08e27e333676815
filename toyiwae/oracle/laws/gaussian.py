"""The law of the weight of a Gaussian proposal: its Laplace transforms, on top of its moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import gammaln

from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.bounded import EPS, Bounded, concatenate
from toyiwae.oracle.laws.gaussian_moments import GaussianMoments
from toyiwae.oracle.laws.grid import Grid, Transform
from toyiwae.oracle.laws.polynomials import Polynomial
from toyiwae.oracle.laws.spectrum import log_abs_expm1
from toyiwae.oracle.laws.tilted import TiltedNoise


class Segment:
    """One contour of one transform on one part of the grid.

    Args:
        law: the weights' law.
        table: the candidate contours.
        chosen: which of them.
        step: distance of its nodes.
        grid: the whole grid, of which the segment is [start, stop).
        power, p: of the transform `t^{a/p} E[w^a g e^{-t w^p}]`.
        deviation: whether the transform of w = 1 is taken off.
    """

    def __init__(
        self,
        law: GaussianMoments,
        table: contour.Contours,
        chosen: int,
        step: float,
        grid: Grid,
        start: int,
        stop: int,
        power: float,
        p: float,
        *,
        deviation: bool,
    ):
        self.law, self.grid, self.start, self.stop, self.step = law, grid, start, stop, step
        self.power, self.p, self.deviation = power, p, deviation
        c, self.order = float(table.abscissa[chosen]), int(table.order[chosen])
        peak = table.log_size[:, chosen, None]  # [N, 1]
        truncation, window = self._ends(c)
        self.nodes = law.spectrum.nodes(power, p, c, step, truncation)
        self.y, log_gamma = self.nodes.y, self.nodes.log_gamma
        real, imag = law.spectrum.log_moment_on(self.nodes, law.h, near_zero=deviation)
        moment_size = np.exp(np.minimum(real + (log_gamma.real - peak), 700.0))  # |Γ M| in units of the peak
        if deviation:
            gamma_size = np.exp(log_gamma.real - peak)
            less_real, less_imag = _expm1(np.minimum(real, 1.0), imag)
            near = real < 1.0
            angle = log_gamma.imag + imag
            cos, sin = np.cos(log_gamma.imag), np.sin(log_gamma.imag)
            base_real = np.where(
                near,
                gamma_size * (cos * less_real - sin * less_imag),
                moment_size * np.cos(angle) - gamma_size * cos,
            )
            base_imag = np.where(
                near,
                gamma_size * (cos * less_imag + sin * less_real),
                moment_size * np.sin(angle) - gamma_size * sin,
            )
        else:
            imag += log_gamma.imag
            base_real, base_imag = moment_size * np.cos(imag), moment_size * np.sin(imag)
        if window is not None:
            values = window(self.y)
            base_real *= values
            base_imag *= values
        self.base = base_real, base_imag  # [N, S] each
        self.size = np.hypot(base_real, base_imag) if deviation or window is not None else moment_size
        self.end = 1.0 if window is None else min(1.0, window.end)
        self.rounding = law.spectrum.errors_on(self.nodes, law.h, law.h_error, near_zero=deviation)
        self.moment_size = moment_size if deviation else self.size
        self.log_t = grid.log_t[start:stop]
        exponent = peak + (power / p - c) * self.log_t
        self.scale = np.exp(exponent) * (step / np.pi)  # [N, T']
        self.exponent = 2.0 + np.abs(exponent)

    def _ends(self, c: float) -> tuple[float, contour.Window | None]:
        """The ordinate at which the contour is truncated, and the window that ends it, if it would go on."""
        law = self.law
        nodes = law.spectrum.at_ordinates(self.power, self.p, c)
        real, imag = law.spectrum.log_moment_on(nodes, law.h, near_zero=self.deviation)
        truncation = natural = contour.truncation(nodes.log_gamma.real + real)
        if self.deviation:
            truncation = contour.truncation(nodes.log_gamma.real + log_abs_expm1(real + 1j * imag))
        distance, kernel_distance = self.grid.distances(self.start)
        window = None
        if distance:
            window = contour.Window(distance)
        elif self.deviation and kernel_distance:  # e^-t is long gone; the law's own part ends where it will
            window = contour.Window(kernel_distance, natural)
        return (truncation, None) if window is None else (min(truncation, window.end), window)

    def sum(self, factors: tuple[Polynomial, ...]) -> Bounded:
        """The remainder: [N, T', F]. Formula: laplace."""
        value, fixed, moving = self._products(factors) if factors else self._plain()
        value = value * self.scale[:, :, None]
        error = self.scale[:, :, None] * (fixed + (1.0 + 1.5 * np.abs(self.log_t))[:, None] * moving)
        error += EPS * self.exponent[:, :, None] * np.abs(value)
        found = Bounded(value, error)
        for j in range(self.order):
            term = self._taylor(j, factors)
            found = found if term is None else Bounded(found.value + term.value, found.error + term.error)
        return found

    def _plain(self) -> tuple[np.ndarray, ...]:
        """Sums over the nodes without factors [N, T', 1]; what bounds their rounding [N, 1, 1], and per log t."""
        real, imag = self.base
        value = self.grid.kernel.sum(self.step, self.y, (real.T, imag.T), self.start, self.stop).T
        starts = self.nodes.starts
        grouped = np.add.reduceat(self.size, starts, axis=1)
        moments = (
            grouped if self.moment_size is self.size else np.add.reduceat(self.moment_size, starts, axis=1)
        )
        rounding, perturbation = self.rounding
        fixed = (rounding * grouped).sum(axis=1) + (perturbation * moments).sum(axis=1)
        fixed = fixed + EPS * self.size.max(axis=1) * self.end / self.step
        moving = EPS * (self.size @ self.y)
        return value[:, :, None], fixed[:, None, None], moving[:, None, None]

    def _products(self, factors: tuple[Polynomial, ...]) -> tuple[np.ndarray, ...]:
        """The same with factors: [N, T', F], [N, 1, F], [N, 1, F]."""
        mean = TiltedNoise(self.law.beta, self.law.h, self.nodes.s).expectation(factors)
        inner, f = np.abs(mean), (self.base[0] + 1j * self.base[1])[:, :, None] * mean
        n, s, count = f.shape
        columns = f.transpose(1, 0, 2).reshape(s, n * count)
        parts = np.ascontiguousarray(columns.real), np.ascontiguousarray(columns.imag)
        value = self.grid.kernel.sum(self.step, self.y, parts, self.start, self.stop)
        value = value.reshape(-1, n, count).transpose(1, 0, 2)
        starts = self.nodes.starts
        lengths = np.diff(np.append(starts, s))
        rounding, perturbation = (np.repeat(part, lengths, axis=1) for part in self.rounding)
        noise = rounding * self.size + perturbation * self.moment_size
        dropped = EPS * (self.size.max(axis=1) * self.end / self.step)[:, None, None]
        fixed = noise[:, None, :] @ inner + dropped * inner.max(axis=1, keepdims=True)
        moving = EPS * ((self.y * self.size)[:, None, :] @ inner)
        every = (
            int(starts[1]) if len(starts) > 1 else s
        )  # sizes vary slowly along a contour: some nodes tell them
        coarse = 2.0 * EPS * every * self.size[:, ::every]
        fixed = fixed + coarse[:, None, :] @ self.law.sizes(self.nodes.s[::every], factors)
        return value, fixed, moving

    def _taylor(self, j: int, factors: tuple[Polynomial, ...]) -> Bounded | None:
        """The j-th Taylor term that the contour leaves out; for plain transforms the 0-th stays split off."""
        if self.deviation:
            j = j + 2 - int(self.power)
        elif j == 0:
            return None
        power = self.power + self.p * j
        s = np.array([power])
        log_moment, slack = self.law.log_moment(s), self.law.log_moment_error(s)
        moment = np.expm1(log_moment) if self.deviation else np.exp(log_moment)
        if factors:
            moment = moment * np.real(TiltedNoise(self.law.beta, self.law.h, s).expectation(factors)[:, 0])
        scale = (-1.0) ** j * np.exp((power / self.p) * self.log_t - gammaln(j + 1.0))
        value = scale[:, None] * moment[:, None, :]
        error = np.abs(value) * (slack + EPS * np.abs(log_moment))[:, :, None]
        if factors:
            size = np.exp(log_moment)[:, :, None] * self.law.sizes(s, factors)
            error = error + EPS * np.abs(scale)[:, None] * size
        return Bounded(value, error)


def _expm1(real: np.ndarray, imag: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """e^{x+iy} - 1 without cancellation."""
    grown, rotated = np.expm1(real), -2.0 * np.sin(0.5 * imag) ** 2  # e^x - 1, cos y - 1
    return grown * (1.0 + rotated) + rotated, (1.0 + grown) * np.sin(imag)


@dataclass(frozen=True)
class GaussianLaw(GaussianMoments):
    """The weights of a Gaussian proposal against Gaussian posteriors of N rows: see `GaussianMoments`."""

    def deviation(self, power: int, grid: Grid) -> Bounded:
        """`t^a (E[w^a e^{-tw}] - e^{-t})` for a = 0 or 1, what the weight's spread adds: [N, T].

        Formula: deviation.
        """
        found, _ = self._integrate(power, 1.0, [()], grid, deviation=True)
        return found[0][..., 0]

    def transform(
        self, power: float, requests: Sequence[tuple[Polynomial, ...]], grid: Grid, p: float = 1.0
    ) -> list[Transform]:
        """`t^{a/p} E[w^a Π g e^{-t w^p}]` for each tuple of factors `g`: see `Transform`."""
        exists = self.min_power < power < self.max_power
        with np.errstate(over="ignore"):
            scaled = np.exp(power / p * grid.log_t)[:, None]
        result = []
        remainders, split = self._integrate(power, p, requests, grid, deviation=False)
        for remainder, factors in zip(remainders, requests, strict=True):
            leading = Bounded.zeros(remainder.shape)
            if exists:
                with np.errstate(over="ignore", invalid="ignore"):
                    moment = self.moment(power, factors)
                    term, slack = (
                        np.nan_to_num(scaled * part[:, None, :], posinf=1e300, neginf=-1e300)
                        for part in (moment.value, moment.error)
                    )
                leading = Bounded(
                    term, slack + EPS * (2.0 + np.abs(power / p * grid.log_t))[:, None] * np.abs(term)
                )
            result.append(Transform(remainder, split, leading))
        return result

    def _integrate(
        self, power: float, p: float, requests: Sequence[Any], grid: Grid, *, deviation: bool
    ) -> tuple[list[Bounded], np.ndarray]:
        """Remainders [N, T, F] of the transforms, and where their first Taylor term is left out [T]."""
        abscissa, order, log_gamma, log_moment = self.spectrum.candidates(
            power, p, deviation, p * self._spread, grid.finest, self.h
        )
        size = log_gamma + (log_abs_expm1(log_moment) if deviation else log_moment)
        degree = max(sum(g.degree for g in factors) for factors in requests)
        if degree:  # near the ends of the strip the noise under w^s grows, and with it the integrand
            noise = TiltedNoise(self.beta, self.h, power - p * abscissa)
            size = size + 0.5 * degree * np.log(noise.second_moment().max(axis=-1))
        good = np.isfinite(size).all(axis=0)
        if not good.any():  # w = 1: nothing is added
            shape = (len(self), len(grid.log_t), 1)
            nothing = Bounded(np.zeros(shape), np.broadcast_to(self._unseen(power, grid), shape))
            return [nothing for _ in requests], np.zeros(shape[1], bool)
        table = contour.Contours(abscissa[good], order[good], size[:, good], plain=0 if deviation else 1)
        found: list[list[Bounded]] = [[] for _ in requests]
        splits = []
        for chosen, step, start, stop in table.choose(grid.log_t, grid.breaks):
            segment = Segment(self, table, chosen, step, grid, start, stop, power, p, deviation=deviation)
            splits.append(np.full(stop - start, not deviation and table.order[chosen] > 0))
            for parts, factors in zip(found, requests, strict=True):
                parts.append(segment.sum(factors))
        return [concatenate(parts, axis=1) for parts in found], np.concatenate(splits)

    def _unseen(self, power: float, grid: Grid) -> np.ndarray:
        """What round-off in β and h can hide where both are zero: ½t²(E[w²] - 1) to second order: [T, 1].

        Of E[w e^{-tw}] it is (2 + t) times as much.
        """
        hidden = np.broadcast_to(self.beta_error, self.h.shape).max(axis=0) ** 2
        hidden = hidden + np.broadcast_to(self.h_error, self.h.shape).max(axis=0) ** 2
        t = np.exp(np.minimum(grid.log_t, 6.5))
        return (0.5 * t**2 * np.exp(-t) * (2.0 + t if power else 1.0) * hidden.sum())[:, None]

    @cached_property
    def _spread(self) -> float:
        """Largest of the `spreads`: a power of 2, 64 at most."""
        return float(min(2.0 ** np.ceil(np.log2(max(float(self.spreads.max()), 1e-15))), 64.0))
