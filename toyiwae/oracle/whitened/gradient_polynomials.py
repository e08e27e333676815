"""The gradients of a linear-Gaussian problem as polynomials in whitened noise.

With `z = μ_q + Lε`, posterior N(m, P) and `LᵀP⁻¹L - I = U diag(β) Uᵀ`, `h = UᵀLᵀP⁻¹(μ_q - m)`, in the rotated noise

    ∂ log w/∂z = -L⁻ᵀU(βε + h),   ∇_μ log q = L⁻ᵀUε,   ∇_L log q = tril L⁻ᵀ(εεᵀ - I)

and the gradients of log p(x, z) are affine (prior_mean, offset) or bilinear (loading) in z. All are written about the
mean of the noise under the law tilted by w^e.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from toyiwae.forms import Form
from toyiwae.oracle.laws.bounded import EPS
from toyiwae.oracle.laws.gaussian import GaussianLaw
from toyiwae.oracle.laws.polynomials import Affine, Polynomial
from toyiwae.oracle.whitened.algebra import solve
from toyiwae.oracle.whitened.model import Float, WhitenedModel, rounded
from toyiwae.problems.parameter import Parameter


@dataclass(frozen=True)
class Gradients:
    """The law of w^e of some rows, and the polynomials of their gradients by kind of parameter.

    Attributes:
        law: the law of w^e.
        model: parameter -> ∇ log p(x, z).
        path: "mean", "chol" -> (∂ log w/∂z)(∂z/∂φ).
        score: "mean", "chol" -> ∇φ log q.
    """

    law: GaussianLaw
    model: dict[str, Polynomial]
    path: dict[str, Polynomial]
    score: dict[str, Polynomial]


@dataclass(frozen=True)
class Coordinates:
    """The whitened noise of some observations that share a covariance, in the precision of the model.

    Attributes:
        model: the model.
        x: the observations [N, D_x]; mean: the proposal's means [N, D_z].
        beta, h: β [D] and h [N, D]; rotation: U; root_vectors: LU; inverse_root_vectors: L⁻ᵀU.
        beta_error, h_error: bounds on the errors of β and h, shaped like them, in float64.
    """

    model: WhitenedModel
    x: Float
    mean: Float
    beta: Any
    h: Any
    rotation: Any
    root_vectors: Any
    inverse_root_vectors: Any
    beta_error: Float
    h_error: Float

    def gradients(self, law: GaussianLaw, exponent: float) -> Gradients:
        """The polynomials about the law of w^e, which is `law`. Formula: polynomials."""
        power = self.model.algebra.array(np.array([exponent]))[0]
        variance = 1 / (1 + power * self.beta)  # of the noise under w^e
        q = self.h * variance  # [N, D]
        path, score = self._proposal(q, variance, power, exponent)
        return Gradients(law, self._model(q, variance, power), path, score)

    def _proposal(
        self, q: Any, variance: Any, power: Any, exponent: float
    ) -> tuple[dict[str, Polynomial], dict[str, Polynomial]]:
        jacobian, rotation = self.inverse_root_vectors, self.rotation
        noise = -power * q @ rotation.T  # mean of ε under w^e, original axes
        full_base = -q @ jacobian.T
        full_cross = -(jacobian * (self.beta * variance)) @ rotation.T
        full_cross = full_cross + full_base[:, :, None] * noise[:, None, :]
        base, cross, slope = (rounded(a) for a in (full_base, full_cross, jacobian))
        path = Affine(base, rounded(-jacobian * self.beta))
        i, j = np.tril_indices(q.shape[1])
        right = Affine(rounded(noise)[:, j], rounded(rotation)[j])
        plain = rounded(-self.h @ jacobian.T), rounded(-(jacobian * self.beta) @ rotation.T)[i, j]
        plain = plain[0], np.broadcast_to(plain[1], base[:, i].shape)
        sizes = self._path_sizes((base, *plain), path, slope, right)
        chol = Affine(base[:, i], path.linear[i])
        paths = {
            "mean": Polynomial(base, path, None, plain[0], sizes["mean"]),
            "chol": Polynomial(cross[:, i, j], chol, right, plain[1], sizes["chol"]),
        }
        # E[w^e path] = E[w^e score] / e: at e = 1 one array, so that nothing is left of their difference
        known = [paths["mean"].base, paths["chol"].base, chol.constant]
        first, product, constant = known if exponent == 1.0 else [exponent * array for array in known]
        size, zero, both = abs(exponent) * sizes["mean"].base, np.zeros_like(base), sizes["chol"]
        chol_left = Affine(size[:, i], np.abs(slope[i]))
        of_mean = Polynomial(size, Affine(size, np.abs(slope)), None, zero)
        of_chol = Polynomial(abs(exponent) * both.base, chol_left, both.right, zero[:, i])
        scores = {
            "mean": Polynomial(first, Affine(first, slope), None, zero, of_mean),
            "chol": Polynomial(product, Affine(constant, slope[i]), right, zero[:, i], of_chol),
        }
        return paths, scores

    def _path_sizes(self, known: tuple, path: Affine, slope: Float, right: Affine) -> dict[str, Polynomial]:
        """Sums of absolute terms of the path's coefficients; larger where β and h lost digits."""
        base, mean, product = map(np.abs, known)
        size, beta, h = np.abs(slope), self.beta_error / EPS, self.h_error / EPS
        i, j = np.tril_indices(len(slope))
        of_h = h @ size.T
        of_beta = ((size * beta) @ np.abs(rounded(self.rotation)).T)[i, j]
        left = Affine(base + of_h, np.abs(path.linear) + size * beta)
        other = Affine(np.abs(right.constant), np.abs(right.linear))
        cross = left.constant[:, i] * other.constant + product + of_beta
        return {
            "mean": Polynomial(left.constant, left, None, mean + of_h),
            "chol": Polynomial(cross, left[i], other, product + of_beta),
        }

    def _model(self, q: Any, variance: Any, power: Any) -> dict[str, Polynomial]:
        lift, model, algebra = self.model.algebra.array, self.model.problem.model, self.model.algebra
        loading, middle = lift(model.loading), self.model.means(self.x, self.mean)
        latent = middle - power * q @ self.root_vectors.T  # mean of z under w^e
        noise_slope = -self.model.noise_loading @ self.root_vectors
        prior_slope = solve(algebra, self.model.prior_root, self.root_vectors)
        i, j = (index.ravel() for index in np.indices(model.loading.shape))
        products = noise_slope[i] * self.root_vectors[j]
        found = []
        for at, var in ((latent, variance), (middle, lift(np.ones(self.beta.shape)))):
            residual = lift(self.x) - lift(model.offset) - at @ loading.T
            noise = solve(algebra, self.model.noise_root, residual.T).T  # R⁻¹(x - o - Wz)
            prior = solve(algebra, self.model.prior_root, (at - lift(model.prior_mean)).T).T
            base = noise[:, i] * at[:, j] + products @ var
            found.append([rounded(a) for a in (prior, base, noise)])
        (prior, base, noise), plain = found
        offsets = Affine(noise, rounded(noise_slope))
        latents = Affine(rounded(latent), rounded(self.root_vectors))
        return {
            "prior_mean": Polynomial(prior, Affine(prior, rounded(prior_slope)), plain=plain[0]),
            "loading": Polynomial(base, offsets[i], latents[j], plain[1]),
            "offset": Polynomial(noise, offsets, plain=plain[2]),
        }


class GradientComponents:
    """The polynomials G_r of forms; equal combinations are one object, so that their transforms are shared."""

    def __init__(self, rows: Gradients):
        self._rows, self._known = rows, {}

    def of(self, form: Form, parameter: Parameter) -> dict[int, Polynomial]:
        """{power: polynomial} of one parameter; empty where the form has no coefficient for it."""
        if parameter.part == "model":
            terms = {r: [(factor, self._rows.model[parameter.name])] for r, factor in form.model.items()}
        else:
            path, score = (functions[parameter.moves] for functions in (self._rows.path, self._rows.score))
            terms: dict[int, list[tuple[float, Polynomial]]] = {}
            for factors, g in ((form.path, path), (form.score, score)):
                for r, factor in factors.items():
                    terms.setdefault(r, []).append((factor, g))
        return {r: self._combined(parts) for r, parts in sorted(terms.items())}

    def _combined(self, terms: list[tuple[float, Polynomial]]) -> Polynomial:
        key = tuple(terms)
        if key not in self._known:
            plain = len(terms) == 1 and terms[0][0] == 1.0
            self._known[key] = terms[0][1] if plain else Polynomial.combine(terms)
        return self._known[key]


_APART = 50.0  # nats between the log-weights of rows that are not taken together
_BATCH_BYTES = 48_000_000  # of one intermediate array


def row_batches(law: GaussianLaw, width: int, most: int = 64) -> Iterator[np.ndarray]:
    """Indices of rows that share their contours well, and whose transforms of `width` coordinates fit into memory.

    Rows are taken in the order of the spread of their log-weights: a contour that serves a row near the posterior is
    useless for one far from it. Rows whose weights lie hundreds of nats apart share none: at the t of one the
    transforms of the other are far beyond floats.
    """
    size = max(1, min(most, _BATCH_BYTES // (16 * 400 * max(width, 1))))
    spread = law.spreads
    distance = np.floor((0.5 * law.h**2 / (1.0 + law.beta)).sum(axis=-1) / _APART)
    order = np.lexsort((spread, distance))
    start = 0
    while start < len(order):
        rest = spread[order[start:]]
        alike = (distance[order[start:]] == distance[order[start]]) & (rest <= 1.25 * rest[0] + 0.25)
        stop = start + min(size, int(alike.argmin()) if not alike.all() else len(rest))
        yield order[start:stop]
        start = stop
