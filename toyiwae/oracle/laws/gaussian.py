"""The law of the weight of a Gaussian proposal: its Laplace transforms, on top of its moments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.gaussian_moments import GaussianMoments
from toyiwae.oracle.laws.grid import Grid
from toyiwae.oracle.laws.laplace import Segment
from toyiwae.oracle.laws.polynomials import Polynomial
from toyiwae.oracle.laws.protocol import Transform
from toyiwae.oracle.laws.special import log_abs_expm1
from toyiwae.oracle.laws.tilted import Tilt


@dataclass(frozen=True)
class GaussianLaw(GaussianMoments):
    """The weights of a Gaussian proposal against Gaussian posteriors of N rows: see `GaussianMoments`."""

    def deviation(self, power: int, grid: Grid) -> Bounded:
        """`t^a (E[w^a e^{-tw}] - e^{-t})` for a = 0 or 1, what the weight's spread adds: [N, T]."""
        value, _, error = self._integrate(power, 1.0, [()], grid, excess=True)[0]
        return Bounded(value[..., 0], error[..., 0])

    def transform(
        self, power: float, requests: Sequence[tuple[Polynomial, ...]], grid: Grid, p: float = 1.0
    ) -> list[Transform]:
        """`t^{a/p} E[w^a Π g e^{-t w^p}]` for each tuple of factors `g`: see `Transform`."""
        exists = self.min_power < power < self.max_power
        with np.errstate(over="ignore"):
            scaled = np.exp(power / p * grid.log_t)[:, None]
        result = []
        for (value, split, error), factors in zip(
            self._integrate(power, p, requests, grid, excess=False), requests, strict=True
        ):
            leading = Bounded.zeros(value.shape)
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
            result.append(Transform(Bounded(value, error), split, leading))
        return result

    def _integrate(self, power, p, requests, grid, *, excess):
        abscissa, order, log_gamma, constant, weight = self.spectrum.table(
            power, p, excess, p * self._spread, grid.finest
        )
        log_moment = constant + self.h**2 @ weight.T
        size = log_gamma + (log_abs_expm1(log_moment) if excess else log_moment)
        degree = max(sum(g.degree for g in factors) for factors in requests)
        if degree:  # near the ends of the strip the tilted noise grows, and with it the integrand
            size = size + 0.5 * degree * np.log(self._noise_size(power - p * abscissa))
        good = np.isfinite(size).all(axis=0)
        if not good.any():  # w = 1: nothing is added
            shape = (len(self), len(grid.log_t), 1)
            return [
                (np.zeros(shape), np.zeros(len(grid.log_t), bool), np.broadcast_to(self._unseen(grid), shape))
            ]
        table = contour.Lines(abscissa[good], order[good], size[:, good], plain=0 if excess else 1)
        values: list[list[np.ndarray]] = [[] for _ in requests]
        errors: list[list[np.ndarray]] = [[] for _ in requests]
        splits = []
        for line, step, start, stop in table.choose(grid.log_t, grid.breaks):
            segment = Segment(self, table, line, step, grid, start, stop, power, p, excess=excess)
            splits.append(np.full(stop - start, not excess and table.order[line] > 0))
            for i, factors in enumerate(requests):
                value, error = segment.sum(factors)
                values[i].append(value)
                errors[i].append(error)
        split = np.concatenate(splits)
        return [
            (np.concatenate(v, axis=1), split, np.concatenate(e, axis=1))
            for v, e in zip(values, errors, strict=True)
        ]

    def _noise_size(self, s: np.ndarray) -> np.ndarray:
        """Largest second moment of a coordinate of the noise, less its unit-tilt mean, under each tilt: [N, S]."""
        tilt = Tilt(self.beta, self.h, s)
        return tilt.second_moment().max(axis=-1)

    def _unseen(self, grid: Grid) -> np.ndarray:
        """What round-off in β and h can hide where both are zero: ½t²(E[w²] - 1) to second order: [T, 1]."""
        hidden = np.broadcast_to(self.beta_error, self.beta.shape) ** 2
        hidden = hidden + np.broadcast_to(self.h_error, self.h.shape).max(axis=0) ** 2
        t = np.exp(np.minimum(grid.log_t, 6.5))
        return (0.5 * t**2 * np.exp(-t) * hidden.sum())[:, None]

    @cached_property
    def _spread(self) -> float:
        """Largest of the `spreads`: a power of 2, 64 at most."""
        return float(min(2.0 ** np.ceil(np.log2(max(float(self.spreads.max()), 1e-15))), 64.0))
