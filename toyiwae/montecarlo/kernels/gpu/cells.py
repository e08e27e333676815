"""Launches for one (K, M), and what follows them on the device: two ways from noise to an estimator's sums."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence

import torch

from toyiwae import weights
from toyiwae.estimators import Estimator
from toyiwae.forms import Form
from toyiwae.montecarlo.kernels.gpu import kernels, launch
from toyiwae.montecarlo.kernels.gpu.combine import PowerSums, exponents_of, sums_of
from toyiwae.montecarlo.sampler import three
from toyiwae.montecarlo.whitened import Sums, Weighted, Whitened

Tensor = torch.Tensor


class Cell(abc.ABC):
    """What is launched again and again for one (K, M).

    Args:
        whitened: the problem's constants.
        estimators: whose gradients.
        parameters: by which; none of them needs second-order sums.
        particles: K.
        groups: M.
        start: of the noise.
    """

    def __init__(
        self,
        whitened: Whitened,
        estimators: Sequence[Estimator],
        parameters: Sequence[str],
        particles: int,
        groups: int,
        start: Tensor,
    ):
        """Launches nothing."""
        self.whitened, self.estimators, self.parameters = whitened, tuple(estimators), tuple(parameters)
        self.particles, self.groups, self.start = particles, groups, start
        self.dim = whitened.slope.shape[1]
        self.segments = -(-particles // launch.SEGMENT)
        self.length = -(-particles // self.segments)

    def start_at(self, pair: int) -> None:
        """Sets the pair replicate·N + row at which the next launch starts."""
        self.start[1].fill_(pair)

    def tensors(self, replicates: int, rows: slice) -> list[Tensor]:
        """The rows' part of replicates: values `[R]`, ess `[R]`, and each gradient, estimators outermost."""
        values, ess, sums = self.sums(replicates, rows)
        share = values.shape[1] / self.whitened.n_rows
        found = [values.mean((1, 2)) * share, ess.mean((1, 2)) * share]
        return found + [self.whitened.gradient(name, own, rows) for own in sums for name in self.parameters]

    @property
    @abc.abstractmethod
    def numbers(self) -> int:
        """Numbers of float64 that a pair of a replicate and a row takes on the device."""

    @abc.abstractmethod
    def sums(self, replicates: int, rows: slice) -> tuple[Tensor, Tensor, list[Weighted]]:
        """`log Ẑ` and effective sample size of every group `[R, n, M]`, and each estimator's sums."""

    @property
    def _stride(self) -> int:
        """From a row's curvature to the next row's."""
        return self.dim if self.whitened.own else 0

    def _empty(self, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.start.device)


class FusedCell(Cell):
    """Sums of powers of the weights, which never leave the chip, and the estimators' Forms."""

    @property
    def numbers(self) -> int:
        """As `Cell.numbers`."""
        exponents, first = exponents_of(self.forms)
        kept = 4 * (2 + len(exponents)) + 3 * first * self.dim  # and what is made of them
        return self.groups * self.segments * kept

    @property
    def forms(self) -> list[Form]:
        """Of the estimators."""
        return [estimator.form for estimator in self.estimators if estimator.form is not None]

    def sums(self, replicates: int, rows: slice) -> tuple[Tensor, Tensor, list[Weighted]]:
        """As `Cell.sums`."""
        base = self.whitened.base[rows, None]
        groups = self.launch(replicates, len(base)).pooled().squeezed()
        values = base + groups.log_mean(1.0, self.particles)
        ess = groups.total(1.0) ** 2 / groups.total(2.0)
        return values, ess, [sums_of(form, groups, base, self.particles) for form in self.forms]

    def launch(self, replicates: int, n_rows: int) -> PowerSums:
        """The sums `[..., R, n, M, segments]` of as many pairs."""
        exponents, n_first = exponents_of(self.forms)
        shape = (replicates, n_rows, self.groups, self.segments)
        extremes, zeroth = self._empty(2, *shape), self._empty(len(exponents), *shape)
        first = self._empty(n_first, self.dim, *shape, dtype=torch.float32)
        tasks = math.prod(shape)
        launch.launch(
            kernels.power_sums,
            tasks,
            *(self.start, self.whitened.slope, self.whitened.curvature, extremes, zeroth, first, tasks),
            *(self.whitened.n_rows, self.groups, self.particles, self.segments, self.length, self._stride),
            D=self.dim,
            EXPONENTS=exponents,
            FIRST=n_first,
        )
        return PowerSums(exponents, extremes, zeroth, first.movedim(1, -1))


class CalledCell(Cell):
    """Log-weights on the device, the estimators' own functions of them, and weighted sums of the noise made again."""

    @property
    def numbers(self) -> int:
        """As `Cell.numbers`."""
        return self.groups * self.particles * (8 + 6 * len(self.estimators))

    def sums(self, replicates: int, rows: slice) -> tuple[Tensor, Tensor, list[Weighted]]:
        """As `Cell.sums`."""
        base = self.whitened.base
        log_w = self._empty(replicates, len(base[rows]), self.groups, self.particles)
        count = log_w.numel()
        launch.launch(
            kernels.log_weights,
            count,
            *(self.start, self.whitened.slope, self.whitened.curvature, base, log_w, count),
            *(self.whitened.n_rows, self.groups, self.particles, self._stride),
            D=self.dim,
        )
        sums = [self._weighted(torch.stack(three(estimator(log_w)))) for estimator in self.estimators]
        return weights.log_mean_exp(log_w), weights.ess(log_w), sums

    def _weighted(self, coefficients: Tensor) -> Weighted:
        """The sums of an estimator's coefficients `[3, R, n, M, K]`."""
        shape = (*coefficients.shape[1:-1], self.segments)
        first, tasks = self._empty(3, self.dim, *shape), math.prod(shape)
        launch.launch(
            kernels.weighted_sums,
            tasks,
            *(self.start, coefficients.double(), first),
            *(tasks, self.groups, self.particles, self.segments, self.length),
            across=-(-self.dim // 4),
            D=self.dim,
            C=3,
        )
        moments = first.sum((-1, -2)).movedim(1, -1)
        return Weighted(*(Sums(c.sum((-1, -2)), m, None) for c, m in zip(coefficients, moments, strict=True)))
