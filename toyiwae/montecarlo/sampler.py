"""What the engines share: the problem's constants, and the way from weighted sums to gradients.

An engine draws noise, forms log-weights, and gives for every estimator the sums Σ c, Σ c η and, where a parameter needs
it, Σ c ηηᵀ of its coefficients c. All that comes after is here.
"""

from __future__ import annotations

import abc
import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from toyiwae import weights
from toyiwae.errors import InputError
from toyiwae.estimators import Estimator
from toyiwae.forms import Coefficients
from toyiwae.montecarlo.callers import Caller
from toyiwae.montecarlo.chunks import Chunk
from toyiwae.montecarlo.whitened import SECOND_ORDER, Sums, Weighted, Whitened
from toyiwae.problems.linear_gaussian import Problem
from toyiwae.weights import Array


class Gradients:
    """What given noise gives, for one problem, some estimators and parameters.

    Args:
        problem: model, proposal and data.
        estimators: any registered or user's estimators.
        parameters: whose gradients.
        place: as for `Whitened`.

    Attributes:
        second: whether a parameter needs Σ c ηηᵀ.
        outputs: numbers of all gradients of a replicate.
    """

    def __init__(
        self,
        problem: Problem,
        estimators: Sequence[Estimator],
        parameters: Sequence[str],
        place: Callable[[np.ndarray], Array] = np.ascontiguousarray,
    ):
        """Whitens the problem."""
        self.whitened = Whitened(problem, place)
        self.problem, self.estimators, self.parameters = problem, tuple(estimators), tuple(parameters)
        self.dim, self.n_rows = problem.dim_z, problem.n_rows
        self.second = any(name in SECOND_ORDER for name in parameters)
        own = sum(math.prod(problem.parameters[name]) for name in parameters)
        self.outputs = max(1, len(self.estimators) * own)

    def one_pass(self, noise: Array, rows: slice) -> Chunk:
        """What noise η `[R, n, M, K, D]` gives, as the part of n rows in the average over all rows."""
        log_w = self.whitened.log_weights(noise, rows)
        parts = [part for estimator in self.estimators for part in three(self.coefficients(estimator, log_w))]
        sums = Sums.of(parts, noise, self.second, own=self.whitened.own) if parts else []
        values, ess = (part(log_w).mean(-1) for part in (weights.log_mean_exp, weights.ess))
        return self.chunk(values, ess, triples(sums), rows)

    def coefficients(self, estimator: Estimator, log_w: Array) -> Coefficients:
        """An estimator's coefficients of log-weights of this array library."""
        return Caller(estimator)(log_w) if isinstance(log_w, np.ndarray) else estimator(log_w)

    def chunk(
        self,
        values: Array,
        ess: Array,
        sums: Sequence[Weighted | None],
        rows: slice,
        known: Mapping[str, dict[str, np.ndarray]] | None = None,
    ) -> Chunk:
        """The rows' part of replicates of the average over all rows.

        Args:
            values: log Ẑ `[R, n]`, averaged over groups.
            ess: effective sample sizes `[R, n]`, averaged over groups.
            sums: of every estimator; None where nothing is missing from `known`.
            rows: which rows.
            known: estimator -> parameter -> gradients that are known already.
        """
        gradients: dict[str, dict[str, np.ndarray]] = {}
        for estimator, own in zip(self.estimators, sums, strict=True):
            found = (known or {}).get(estimator.name, {})
            gradients[estimator.name] = {
                name: found[name]
                if name in found or own is None
                else as_numpy(self.whitened.gradient(name, own, rows))
                for name in self.parameters
            }
        value, size = (
            as_numpy(part[:, 0] if part.shape[1] == 1 else part.sum(1)) / self.n_rows
            for part in (values, ess)
        )
        return Chunk(value, size, gradients)

    def over_rows(self, parts: Sequence[Chunk]) -> Chunk:
        """The same replicates with the parts of all rows, which come in order."""
        if len(parts) == 1:
            return parts[0]

        def joined(name: str, parameter: str) -> np.ndarray:
            some = [part.gradients[name][parameter] for part in parts]
            own = self.whitened.records.record(parameter).own
            return np.concatenate(some, axis=1) if own else sum(some[1:], some[0])

        gradients = {e.name: {key: joined(e.name, key) for key in self.parameters} for e in self.estimators}
        values, ess = (sum(getattr(part, name) for part in parts) for name in ("values", "ess"))
        return Chunk(np.asarray(values), np.asarray(ess), gradients)


class Sampler(Gradients, abc.ABC):
    """Draws replicates of one problem for some estimators and parameters, all from the same noise.

    Attributes:
        name: of the engine.
        rate: standard normals that it turns into gradients in a second, roughly, on `core`.
        core: one CPU core or one GPU.
    """

    name: str
    rate: float
    core: str = "one CPU core"

    def only(self, estimators: Sequence[Estimator]) -> Sampler:
        """The same sampler for some of its estimators."""
        found = copy.copy(self)
        found.estimators = tuple(estimators)
        return found

    def check(self, particles: int, groups: int, replicates: int) -> None:
        """Refuses what an estimator or the engine cannot do.

        Raises:
            InputError: K below an estimator's minimum, or more than the engine can draw or hold.
        """
        for estimator in self.estimators:
            estimator.check_particles(particles)

    @abc.abstractmethod
    def chunks(
        self, particles: int, groups: int, replicates: int, seed: int, stream: int = 0
    ) -> Iterator[Chunk]:
        """Replicates of the cell (K, M), in order, in chunks of no particular size.

        Args:
            particles: K.
            groups: M.
            replicates: how many in all; the first ones do not depend on it.
            seed: the user's.
            stream: tells independent noise of the same cell apart.
        """

    @property
    @abc.abstractmethod
    def versions(self) -> dict[str, str]:
        """What computes: name -> version."""


def three(coefficients: Coefficients) -> tuple[Array, Array, Array]:
    """Of model, path and score, in this order."""
    return coefficients.model, coefficients.path, coefficients.score


def triples(sums: Sequence[Sums]) -> list[Weighted]:
    """The estimators' sums, of which the coefficients of several stand in a row."""
    return [Weighted(*sums[first : first + 3]) for first in range(0, len(sums), 3)]


def as_numpy(array: Array) -> np.ndarray:
    """A float64 array of NumPy's, wherever it comes from."""
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()


def refuse_noise(
    particles: int, groups: int, replicates: int, numbers: int, most: float, reason: str
) -> None:
    """Refuses more standard normals than an engine has.

    Raises:
        InputError: with their number.
    """
    if numbers > most:
        raise InputError(
            f"K = {particles}, M = {groups} and {replicates} replicates take {numbers:.2g} standard normals, {reason}:"
            " lower K, M or replicates"
        )
