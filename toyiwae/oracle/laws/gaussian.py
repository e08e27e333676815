"""The law of the weight of a Gaussian proposal: its Laplace transforms, on top of its moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.bounded import EPS, Bounded, concatenate
from toyiwae.oracle.laws.gaussian_moments import GaussianMoments
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.laws.laplace import Segment
from toyiwae.oracle.laws.polynomials import Polynomial
from toyiwae.oracle.laws.protocol import Transform
from toyiwae.oracle.laws.special import log_abs_expm1
from toyiwae.oracle.laws.tilted import TiltedNoise


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
            nothing = Bounded(np.zeros(shape), np.broadcast_to(self._unseen(grid), shape))
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

    def _unseen(self, grid: Grid) -> np.ndarray:
        """What round-off in β and h can hide where both are zero: ½t²(E[w²] - 1) to second order: [T, 1]."""
        hidden = np.broadcast_to(self.beta_error, self.h.shape).max(axis=0) ** 2
        hidden = hidden + np.broadcast_to(self.h_error, self.h.shape).max(axis=0) ** 2
        t = np.exp(np.minimum(grid.log_t, 6.5))
        return (0.5 * t**2 * np.exp(-t) * hidden.sum())[:, None]

    @cached_property
    def _spread(self) -> float:
        """Largest of the `spreads`: a power of 2, 64 at most."""
        return float(min(2.0 ** np.ceil(np.log2(max(float(self.spreads.max()), 1e-15))), 64.0))
