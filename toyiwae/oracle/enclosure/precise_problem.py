"""A problem in multiprecision: the spectrum of its weights and its gradients as products of affine functions.

The float64 entries of a Problem are taken as exact binary numbers. With `z = μ_q + Gε`, `G = LU`, in the noise ε in
which `LᵀP⁻¹L - I = U diag(β) Uᵀ`, the gradients are formed from the densities themselves,

    ∂ log w/∂z = S⁻¹(z - μ_q) - P⁻¹(z - m),   ∇_μ log q = L⁻ᵀUε,   ∇_L log q = tril(L⁻ᵀUε (Uε)ᵀ - L⁻ᵀ)

and nothing is shared with the float64 code path.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from mpmath import MPContext

from toyiwae.oracle.enclosure.law import Affine, Objects, PreciseLaw, Quadratic, objects
from toyiwae.oracle.whitened.algebra import is_diagonal
from toyiwae.problems.linear_gaussian import Problem

Index = tuple[int, ...]


def exact(array: np.ndarray, ctx: MPContext) -> Objects:
    """float64 numbers as multiprecision ones, unchanged."""
    flat = objects([ctx.mpf(float(x)) for x in np.asarray(array).ravel()])
    return flat.reshape(np.shape(array))


class Inverse:
    """The inverse of a covariance given in float64; one that is diagonal is divided by.

    Attributes:
        log_det: log |cov|.
    """

    def __init__(self, cov: np.ndarray, ctx: MPContext):
        self._diagonal = is_diagonal(cov)
        self._factor = exact(np.diag(cov), ctx) if self._diagonal else cholesky(exact(cov, ctx), ctx)
        pivots = self._factor if self._diagonal else np.diag(self._factor)
        self.log_det = sum(map(ctx.log, pivots), ctx.zero) * (1 if self._diagonal else 2)

    def dot(self, right: Objects) -> Objects:
        """cov⁻¹ right, of a vector or a matrix."""
        factor, found = self._factor, right.copy()
        if self._diagonal:
            return (right.T / factor).T
        for i in range(len(found)):
            found[i] = (found[i] - factor[i, :i].dot(found[:i])) / factor[i, i]
        for i in reversed(range(len(found))):
            found[i] = (found[i] - factor[i + 1 :, i].dot(found[i + 1 :])) / factor[i, i]
        return found


def cholesky(a: Objects, ctx: MPContext) -> Objects:
    """Lower Cholesky factor."""
    n = len(a)
    factor = np.full((n, n), ctx.zero, dtype=object)
    for j in range(n):
        factor[j, j] = ctx.sqrt(a[j, j] - ctx.fdot(factor[j, :j], factor[j, :j]))
        for i in range(j + 1, n):
            factor[i, j] = (a[i, j] - ctx.fdot(factor[i, :j], factor[j, :j])) / factor[j, j]
    return factor


def lower_inverse(factor: Objects, ctx: MPContext) -> Objects:
    """Inverse of a lower triangular matrix."""
    n = len(factor)
    result = np.full((n, n), ctx.zero, dtype=object)
    for j in range(n):
        result[j, j] = 1 / factor[j, j]
        for i in range(j + 1, n):
            result[i, j] = -factor[i, j:i].dot(result[j:i, j]) / factor[i, i]
    return result


@dataclass(frozen=True, eq=False)
class PreciseRow:
    """One row of data.

    Attributes:
        beta, h: of theory §3, multiprecision.
        mean: μ_q. turned: G. rotation: U. half: L⁻ᵀU. inverse_factor: L⁻¹.
        precision: P⁻¹. pull: P⁻¹(μ_q - m). prior, noise: S₀⁻¹ and R⁻¹, shared by all rows.
    """

    problem: Problem
    ctx: MPContext
    n: int
    beta: list[Any]
    h: list[Any]
    mean: Objects
    turned: Objects
    rotation: Objects
    half: Objects
    inverse_factor: Objects
    precision: Objects
    pull: Objects
    prior: Inverse
    noise: Inverse

    def law(self, exponent: float = 1.0) -> PreciseLaw:
        """The law of w^exponent, normalised to mean 1."""
        e = self.ctx.mpf(exponent)
        return PreciseLaw(self.ctx, [e * b for b in self.beta], [e * x for x in self.h])

    @cached_property
    def _x(self) -> Objects:
        return exact(self.problem.rows().x[self.n], self.ctx)

    def residual(self, z: Objects) -> Objects:
        """X - Wz - b."""
        model, ctx = self.problem.model, self.ctx
        return self._x - exact(model.offset, ctx) - exact(model.loading, ctx).dot(z)

    @cached_property
    def _misfit(self) -> tuple[Objects, Objects]:
        """R⁻¹(x - Wz - b): constant and slope in ε."""
        loading = exact(self.problem.model.loading, self.ctx)
        return self.noise.dot(self.residual(self.mean)), -self.noise.dot(loading.dot(self.turned))

    @cached_property
    def _prior(self) -> tuple[Objects, Objects]:
        """Prior precision times (z - prior mean)."""
        away = self.mean - exact(self.problem.model.prior_mean, self.ctx)
        return self.prior.dot(away), self.prior.dot(self.turned)

    @cached_property
    def _path(self) -> tuple[Objects, Objects]:
        return -self.pull, self.half - self.precision.dot(self.turned)

    def model(self, parameter: str, index: Index) -> Quadratic:
        """One coordinate of ∇ log p(x, z)."""
        zero = self.ctx.zero
        constant, linear = self._prior if parameter == "prior_mean" else self._misfit
        left = Affine(constant[index[0]], linear[index[0]])
        if parameter != "loading":
            return Quadratic(zero, left)
        return Quadratic(zero, left, Affine(self.mean[index[1]], self.turned[index[1]]))

    def proposal(self, parameter: str, index: Index, path: float, score: float) -> Quadratic:
        """One coordinate of `path·(∂ log w/∂z)(∂z/∂φ) + score·∇φ log q`."""
        ctx, record = self.ctx, self.problem.parameters.record(parameter)
        i, *rest = index[1:] if record.own else index
        path, score = ctx.mpf(path), ctx.mpf(score)
        constant, linear = self._path
        left = Affine(path * constant[i], path * linear[i] + score * self.half[i])
        if record.moves != "chol":
            return Quadratic(ctx.zero, left)
        (j,) = rest
        return Quadratic(-score * self.inverse_factor[j, i], left, Affine(ctx.zero, self.rotation[j]))

    def factor(self, parameter: str, index: Index) -> Any:
        """What a coordinate is multiplied by: x_j for a weight's entry (i, j), 0 for what another row owns, else 1."""
        record = self.problem.parameters.record(parameter)
        if record.own and index[0] != self.n:
            return self.ctx.zero
        return self._x[index[1]] if record.amortised == "weight" else self.ctx.one


def rows(problem: Problem, ctx: MPContext) -> list[PreciseRow]:
    """All rows of a problem at the context's precision."""
    model, found = problem.model, problem.rows()
    loading, offset = exact(model.loading, ctx), exact(model.offset, ctx)
    prior, noise = Inverse(model.prior_cov, ctx), Inverse(model.noise_cov, ctx)
    loaded = noise.dot(loading)
    precision = prior.dot(exact(np.eye(problem.dim_z), ctx)) + _symmetric(loading, loaded, ctx)
    shared = len(problem.proposal.cov_shape) == 2
    result, axes = [], _axes(problem.proposal.cov, precision, ctx) if shared else None
    for n in range(problem.n_rows):
        own = axes or _axes(problem.proposal.cov[n], precision, ctx)
        values, rotation, turned, inverse_factor = own
        mean = _proposal_mean(problem, n, ctx)
        misfit = loading.dot(mean) + offset - exact(found.x[n], ctx)
        pull = prior.dot(mean - exact(model.prior_mean, ctx)) + loaded.T.dot(misfit)
        beta, h = [v - 1 for v in values], list(turned.T.dot(pull))
        half = inverse_factor.T.dot(rotation)
        forms = (turned, rotation, half, inverse_factor, precision, pull, prior, noise)
        result.append(PreciseRow(problem, ctx, n, beta, h, mean, *forms))
    return result


def _axes(cov: np.ndarray, precision: Objects, ctx: MPContext) -> tuple[Any, Objects, Objects, Objects]:
    """Eigenvalues of LᵀP⁻¹L, their vectors U, LU and L⁻¹ of one covariance LLᵀ."""
    factor = cholesky(exact(cov, ctx), ctx)
    values, vectors = ctx.eigsy(ctx.matrix((factor.T.dot(precision).dot(factor)).tolist()))
    rotation = objects(list(vectors)).reshape(len(factor), len(factor))
    return values, rotation, factor.dot(rotation), lower_inverse(factor, ctx)


def _symmetric(a: Objects, b: Objects, ctx: MPContext) -> Objects:
    """Aᵀb, where that is known to be symmetric."""
    n = a.shape[1]
    result = np.empty((n, n), dtype=object)
    for i, j in zip(*np.tril_indices(n), strict=True):
        result[i, j] = result[j, i] = ctx.fdot(a[:, i], b[:, j])
    return result


def _proposal_mean(problem: Problem, n: int, ctx: MPContext) -> Objects:
    proposal = problem.proposal
    if proposal.weight is None:
        return exact(problem.observations().proposal_mean[n], ctx)
    x = exact(problem.rows().x[n], ctx)
    return exact(proposal.weight, ctx).dot(x) + exact(np.asarray(proposal.offset), ctx)


def coordinates(problem: Problem, parameter: str) -> list[Index]:
    """All coordinates of a parameter; of the Cholesky factor those on and below the diagonal."""
    return problem.parameters.record(parameter).indices()


def components(row: PreciseRow, form: Any, parameter: str, index: Index) -> dict[int, Quadratic]:
    """{power of the normalised weight: polynomial} of one coordinate of one form's gradient."""
    if row.problem.parameters.record(parameter).part == "model":
        one = row.model(parameter, index)
        return {r: scaled(one, row.ctx.mpf(f)) for r, f in form.model.items()}
    return {
        r: row.proposal(parameter, index, form.path.get(r, 0.0), form.score.get(r, 0.0))
        for r in sorted({*form.path, *form.score})
    }


def _times(a: Affine, factor: Any) -> Affine:
    return Affine(factor * a.constant, factor * a.linear)


def scaled(g: Quadratic, factor: Any) -> Quadratic:
    """Factor · g."""
    return Quadratic(factor * g.constant, _times(g.left, factor), g.right)
