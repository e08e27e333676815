"""Closed forms of a problem: evidence, one-particle bounds, divergences, Var[w], and their gradients.

One family holds nearly all of them: the Rényi bounds of order s,

    B(s) = (1/s) log E_q[w^s],    B(0) = ELBO,  B(1) = log p(x),  B(1−α) = VR bound,  B(n) = CUBO_n.

Under the tilted Gaussian r_s ∝ p(z|x)^s q(z|x)^{1−s}, its gradients are

    ∇θ B(s) = E_{r_s}[∇θ log p(x, z)],    ∇φ B(s) = ((1−s)/s) E_{r_s}[∇φ log q(z|x)],

and both are written so that s = 0 is no special case. This route shares no formula with the integrals at
finite K, and an independent check of them at K = 1 and at first order in 1/K.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.linalg import cho_solve, solve_triangular

from toyiwae.oracle.closed_form.gaussian import Posterior, Ratio, condition
from toyiwae.problems.linear_gaussian import Problem

Gradients = dict[str, np.ndarray]
"""Parameter -> gradient of each observation [N, *shape of the parameter]; see `averaged`."""


class _Tilted(NamedTuple):
    """A Gaussian, or its derivative in s: means [N, D] and variances [D] in the coordinates of `Ratio`."""

    mean: np.ndarray
    var: np.ndarray


class ClosedForms:
    """Values [N] and gradients of a problem's closed forms, observation by observation, in nats.

    Attributes:
        problem: the problem.
        posterior: p(z|x) and log p(x) of every observation.
        ratio: the law of w/Z of every observation.
    """

    def __init__(self, problem: Problem):
        """Factorises the problem once; all else is cheap."""
        problem.require_shared_proposal("ClosedForms")
        self.problem = problem
        self._observations = problem.rows()
        self._chol = np.linalg.cholesky(problem.proposal.cov)
        self.posterior: Posterior = condition(problem.model, self._observations.x)
        self.ratio: Ratio = Ratio.between(
            self.posterior.mean, self.posterior.precision_root, self._observations.proposal_mean, self._chol
        )

    @property
    def log_evidence(self) -> np.ndarray:
        """The evidence log p(x), B(1)."""
        return self.posterior.log_evidence

    @property
    def elbo(self) -> np.ndarray:
        """E_q[log w] = log p(x) − KL(q‖p), B(0)."""
        return self.renyi_bound(0.0)

    @property
    def eubo(self) -> np.ndarray:
        """E_p[log w] = log p(x) + KL(p‖q), the evidence upper bound."""
        return self.log_evidence + self.ratio.kl_from_target

    @property
    def kl_to_posterior(self) -> np.ndarray:
        """KL(q‖p)."""
        return self.ratio.kl_to_target

    @property
    def kl_from_posterior(self) -> np.ndarray:
        """KL(p‖q)."""
        return self.ratio.kl_from_target

    @property
    def variance(self) -> np.ndarray:
        """Var_q[w/Z].

        Raises:
            MissingMomentError: if it is infinite.
            PrecisionError: if it is beyond the range of float64.
        """
        return self.ratio.variance

    def renyi_bound(self, order: float) -> np.ndarray:
        """B(s) = (1/s) log E_q[w^s]; the ELBO at s = 0.

        Formula: renyi.

        Raises:
            MissingMomentError: if E_q[w^s] does not exist.
        """
        return self.log_evidence + self.ratio.scaled_log_moment(order)

    def vr_bound(self, alpha: float) -> np.ndarray:
        """Variational Rényi bound log E_q[w^{1−α}] / (1−α): log p(x) at α = 0, the ELBO at α = 1.

        Raises:
            MissingMomentError: if E_q[w^{1−α}] does not exist.

        References:
            li2016renyi
        """
        return self.renyi_bound(1 - alpha)

    def cubo(self, order: float = 2.0) -> np.ndarray:
        """χ upper bound (1/n) log E_q[w^n], for n ≥ 1 at least log p(x).

        Raises:
            MissingMomentError: if E_q[w^n] does not exist.
        """
        return self.renyi_bound(order)

    def renyi_bound_gradients(self, order: float) -> Gradients:
        """∇B(s) for every parameter; ∇ log p(x) at s = 1, ∇ELBO at s = 0.

        Raises:
            MissingMomentError: if E_q[w^s] does not exist.
        """
        self.ratio.require(order)
        beta, shift = self.ratio.beta, self.ratio.shift
        tilted_var = 1 / (1 + order * beta)
        scaled = (1 + beta) * tilted_var * shift  # mean of r_s in units of s
        model = self._model_gradients(_Tilted(order * scaled, tilted_var))
        score = _Tilted(scaled, -beta * tilted_var)
        return model | self._proposal_gradients(score, order, factor=1 - order)

    def eubo_gradients(self) -> Gradients:
        """∇ E_p[log w] for every parameter; the proposal's part is that of KL(p‖q), which wake-φ descends."""
        beta, shift = self.ratio.beta, self.ratio.shift
        inverse = 1 / (1 + beta)
        at_posterior = _Tilted(shift, inverse)
        change = _Tilted(inverse * shift, -beta * inverse**2)  # of r_s with s, at s = 1
        model = self._model_gradients(at_posterior)
        moved = self._model_gradient_changes(at_posterior, change)
        proposal = self._proposal_gradients(_Tilted(shift, -beta * inverse), 1.0, factor=-1.0)
        return {name: value + moved[name] for name, value in model.items()} | proposal

    def kl_to_posterior_gradients(self) -> Gradients:
        """∇KL(q‖p) = ∇ log p(x) − ∇ELBO."""
        return _difference(self.renyi_bound_gradients(1.0), self.renyi_bound_gradients(0.0))

    def kl_from_posterior_gradients(self) -> Gradients:
        """∇KL(p‖q) = ∇EUBO − ∇ log p(x)."""
        return _difference(self.eubo_gradients(), self.renyi_bound_gradients(1.0))

    def variance_gradients(self) -> Gradients:
        """∇Var_q[w/Z] = 2 E_q[(w/Z)²] (∇B(2) − ∇B(1)).

        Raises:
            MissingMomentError: if the variance is infinite.
            PrecisionError: if it is beyond the range of float64.
        """
        second = 2 * self.ratio.moment(2.0)
        change = _difference(self.renyi_bound_gradients(2.0), self.renyi_bound_gradients(1.0))
        return {name: second.reshape(-1, *[1] * (g.ndim - 1)) * g for name, g in change.items()}

    @cached_property
    def _prior_root(self) -> tuple[np.ndarray, bool]:
        return np.linalg.cholesky(self.problem.model.prior_cov), True

    @cached_property
    def _noise_root(self) -> tuple[np.ndarray, bool]:
        return np.linalg.cholesky(self.problem.model.noise_cov), True

    @cached_property
    def _precision_loading(self) -> np.ndarray:
        return cho_solve(self._noise_root, self.problem.model.loading)  # R⁻¹W

    def _latent_and_residual(self, tilted: _Tilted) -> tuple[np.ndarray, np.ndarray]:
        """Means of z and of R⁻¹(x − Wz − offset) under `tilted`."""
        model = self.problem.model
        latent = self._observations.proposal_mean + tilted.mean @ self.ratio.axes.T
        misfit = self._observations.x - latent @ model.loading.T - model.offset
        return latent, cho_solve(self._noise_root, misfit.T).T

    def _model_gradients(self, tilted: _Tilted) -> Gradients:
        """E_r[∇θ log p(x, z)] under z = μ_q + axes ε, ε ~ N(mean, diag(var))."""
        latent, residual = self._latent_and_residual(tilted)
        axes = self.ratio.axes
        return {
            "prior_mean": cho_solve(self._prior_root, (latent - self.problem.model.prior_mean).T).T,
            "loading": _outer(residual, latent) - self._precision_loading @ (axes * tilted.var) @ axes.T,
            "offset": residual,
        }

    def _model_gradient_changes(self, tilted: _Tilted, change: _Tilted) -> Gradients:
        """Derivative of `_model_gradients` in s, where `tilted` changes at the rate `change`."""
        latent, residual = self._latent_and_residual(tilted)
        axes = self.ratio.axes
        moved = change.mean @ axes.T
        residual_change = -moved @ self._precision_loading.T
        spread = self._precision_loading @ (axes * change.var) @ axes.T
        return {
            "prior_mean": cho_solve(self._prior_root, moved.T).T,
            "loading": _outer(residual_change, latent) + _outer(residual, moved) - spread,
            "offset": residual_change,
        }

    def _proposal_gradients(self, scaled: _Tilted, order: float, factor: float) -> Gradients:
        """factor/s · E_r[∇φ log q] where ε has mean s·scaled.mean and variances 1 + s·scaled.var.

        ∇_μ log q = L⁻ᵀUε and ∇_L log q = tril L⁻ᵀU(εεᵀ − I)Uᵀ.
        """
        rotation = solve_triangular(self._chol, self.ratio.axes, lower=True)  # U
        back = solve_triangular(self._chol, rotation, lower=True, trans=1)  # L⁻ᵀU
        mean = factor * scaled.mean @ back.T
        second = np.diag(scaled.var) + order * _outer(scaled.mean, scaled.mean)
        chol = np.tril(factor * back @ second @ rotation.T)
        if not self.problem.amortised:
            return {"proposal_mean": mean, "proposal_chol": chol}
        weight = _outer(mean, self._observations.x)
        return {"proposal_weight": weight, "proposal_offset": mean, "proposal_chol": chol}


def averaged(gradients: Gradients) -> Gradients:
    """The gradients of the average over the observations: parameter -> array of the parameter's shape."""
    return {name: values.mean(axis=0) for name, values in gradients.items()}


def _outer(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Outer products, observation by observation: [N, D], [N, E] -> [N, D, E]."""
    return left[:, :, None] * right[:, None, :]


def _difference(left: Gradients, right: Gradients) -> Gradients:
    return {name: left[name] - right[name] for name in left}
