"""Parameters that gradients are taken by, and the one place that sums over observations into a parameter's shape."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

import numpy as np


@dataclass(frozen=True)
class Parameter:
    """A parameter of the model or of the proposal.

    Gradients are computed for each observation in *base coordinates*: the entries of a parameter of the model, of the
    proposal's mean (or logits) μ, or of the lower triangle of its Cholesky factor L. With `μ = weight x + offset` the
    gradient of one observation by the weight is that by μ times xᵀ.

    Attributes:
        name: what users call it.
        shape: of its gradient.
        part: "model" or "proposal".
        moves: what of the proposal it moves, "mean" or "chol"; "" for the model's, which move nothing of it.
        amortised: "weight" or "offset" of a mean that is affine in x, else "".
        own: whether every observation has its own; the shape then begins with N.
    """

    name: str
    shape: tuple[int, ...]
    part: str
    moves: str = ""
    amortised: str = ""
    own: bool = False

    @property
    def kind(self) -> str:
        """Which base coordinates it has: "mean" or "chol" of the proposal, or its name; equal for weight and offset."""
        return self.moves or self.name

    @property
    def size(self) -> int:
        """The number of its entries."""
        return prod(self.shape)

    @property
    def free(self) -> np.ndarray:
        """Which entries may differ from zero [*shape]: of a Cholesky factor those on and below the diagonal."""
        return np.tril(np.ones(self.shape, bool)) if self.moves == "chol" else np.ones(self.shape, bool)

    def indices(self) -> list[tuple[int, ...]]:
        """The free entries, row by row."""
        return [tuple(map(int, index)) for index in np.argwhere(self.free)]

    def summed(self, by_row: np.ndarray, x: np.ndarray, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Σ_n of what belongs to observation n, in the parameter's shape.

        Args:
            by_row: in base coordinates [n, ..., F].
            x: what a weight multiplies [n, D_x]: the observations for means, their squares for variances, their sizes
                for bounds on errors.
            rows: which observations these are, where each has its own.

        Returns:
            `[..., *shape]`.
        """
        if self.amortised == "weight":
            return np.tensordot(by_row, x, axes=(0, 0))
        if not self.own:
            return self._placed(by_row.sum(axis=0), self.shape)
        inner = self.shape[1:]
        total = np.zeros((*by_row.shape[1:-1], *self.shape))
        at = np.moveaxis(total, -1 - len(inner), 0)
        at[rows] = self._placed(by_row, inner)
        return total

    def design(self, x: np.ndarray, width: int, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """The entries as linear maps of an observation's base coordinates: [n, entries, F].

        Args:
            x: the observations [n, D_x].
            width: F.
            rows: which observations these are, where each has its own.
        """
        one, which = (
            np.eye(width)[None],
            np.arange(self.shape[0])[rows] if self.own else np.zeros(len(x), int),
        )
        found = [self.summed(one, x[n : n + 1], which[n : n + 1]) for n in range(len(x))]
        return np.moveaxis(np.reshape(found, (len(x), width, self.size)), 1, 2)

    def _placed(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """`[..., F]` as `[..., *shape]`; a Cholesky factor's with zeros above the diagonal."""
        if self.moves != "chol":
            return array.reshape(*array.shape[:-1], *shape)
        full = np.zeros((*array.shape[:-1], *shape))
        full[(..., *np.tril_indices(shape[0]))] = array
        return full


class Parameters(dict[str, tuple[int, ...]]):
    """Name -> shape of all parameters of a problem, the model's first; `record` knows the rest."""

    def __init__(self, records: Iterable[Parameter]):
        """Keeps the order of the records."""
        self._records = {record.name: record for record in records}
        super().__init__({name: record.shape for name, record in self._records.items()})

    def record(self, name: str) -> Parameter:
        """What is known of one parameter.

        Raises:
            KeyError: if the problem has none of that name.
        """
        return self._records[name]

    def where(self, **wanted: str) -> tuple[str, ...]:
        """The names of those with these attributes, such as `moves="mean"`."""
        return tuple(
            name
            for name, record in self._records.items()
            if all(getattr(record, key) == value for key, value in wanted.items())
        )
