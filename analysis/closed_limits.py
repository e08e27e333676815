"""The large-K limits in plain NumPy, from the Gaussian densities alone: they share no code with the oracle.

With posterior N(m, P) and proposal N(μ, S), the product p(z|x)^s q(z)^{1−s} is Gaussian wherever its precision
`A_s = sP⁻¹ + (1−s)S⁻¹` is positive definite; its mass is the moment E[(w/Z)^s], and under it every polynomial in z
has a closed mean. The limits of bounds, gradients and signal-to-noise ratios are such moments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from toyiwae.errors import InputError, MissingMomentError
from toyiwae.problems.linear_gaussian import Problem

ROUNDING = 1e-9
"""−1/β so near a whole number is that number: β is an eigenvalue, and rounded."""
NODES = 2_000_000
"""The most nodes of a contour: 32 over a fiftieth of the strip between the last pole and the end of the moments."""


@dataclass(frozen=True)
class Tilted:
    """The normalised p(z|x)^s q(z)^{1−s} of every row and its mass.

    Attributes:
        mass: E[(w/Z)^s] [N].
        mean: of z [N, D_z].
        cov: of z [D_z, D_z].
    """

    mass: np.ndarray
    mean: np.ndarray
    cov: np.ndarray


class ClosedLimits:
    """Posterior and weight moments of a problem's rows.

    Args:
        problem: model, proposal and data.
    """

    def __init__(self, problem: Problem):
        """Conditions the model on the rows."""
        model, rows = problem.model, problem.rows()
        self.x, self.proposal_mean, self.proposal_cov = rows.x, rows.proposal_mean, problem.proposal.cov
        self.prior_mean, self.prior_precision = model.prior_mean, np.linalg.inv(model.prior_cov)
        noise_precision = np.linalg.inv(model.noise_cov)
        self.precision = self.prior_precision + model.loading.T @ noise_precision @ model.loading
        self.cov = np.linalg.inv(self.precision)
        evidence = (rows.x - model.offset) @ noise_precision @ model.loading
        self.marginal_mean = model.loading @ model.prior_mean + model.offset
        self.marginal_cov = model.loading @ model.prior_cov @ model.loading.T + model.noise_cov
        self.mean = (evidence + self.prior_precision @ self.prior_mean) @ self.cov

    def tilted(self, s: float) -> Tilted:
        """The exponentially tilted law of order s.

        Raises:
            MissingMomentError: if E[w^s] is infinite.
        """
        proposal_precision = np.linalg.inv(self.proposal_cov)
        precision = s * self.precision + (1 - s) * proposal_precision
        if np.linalg.eigvalsh(precision).min() <= 0:
            raise MissingMomentError(f"E[w^{s:g}] is infinite: sP⁻¹ + (1−s)S⁻¹ is not positive definite")
        cov = np.linalg.inv(precision)
        pull = s * self.mean @ self.precision + (1 - s) * self.proposal_mean @ proposal_precision
        mean = pull @ cov
        logdets = [np.linalg.slogdet(matrix)[1] for matrix in (self.precision, proposal_precision, precision)]
        volume = 0.5 * (s * logdets[0] + (1 - s) * logdets[1] - logdets[2])
        from_posterior = np.einsum("nd,de,ne->n", mean - self.mean, self.precision, mean - self.mean)
        apart = mean - self.proposal_mean
        from_proposal = np.einsum("nd,de,ne->n", apart, proposal_precision, apart)
        return Tilted(np.exp(volume - 0.5 * (s * from_posterior + (1 - s) * from_proposal)), mean, cov)

    def _moments(self, s: float, matrix: np.ndarray, shift: np.ndarray | float = 0.0):
        """E[(w/Z)^s g] and E[(w/Z)^s g²] with `g = matrix (z − m) + shift` [N, D]."""
        law = self.tilted(s)
        mean = (law.mean - self.mean) @ matrix.T + shift
        second = mean**2 + np.diag(matrix @ law.cov @ matrix.T)
        return law.mass[:, None] * mean, law.mass[:, None] * second

    def log_evidence(self) -> np.ndarray:
        """Log p(x) of every row [N]."""
        cov = self.marginal_cov
        apart = self.x - self.marginal_mean
        far = (apart * np.linalg.solve(cov, apart.T).T).sum(axis=1)
        return -0.5 * (far + np.linalg.slogdet(2 * np.pi * cov)[1])

    def kl(self) -> np.ndarray:
        """KL(q‖p(z|x)) of every row [N]."""
        apart = self.mean - self.proposal_mean
        far = np.einsum("nd,de,ne->n", apart, self.precision, apart)
        ratio = self.precision @ self.proposal_cov
        return 0.5 * (far + np.trace(ratio) - len(ratio) - np.linalg.slogdet(ratio)[1])

    def least_beta(self) -> float:
        """The smallest eigenvalue β of P⁻¹S − I; E[w²] is finite if and only if it exceeds −1/2."""
        return float(np.linalg.eigvals(self.precision @ self.proposal_cov).real.min()) - 1

    def _end(self) -> float:
        """s* = −1/β_min, from which on moments are infinite; a whole number where it is one up to rounding."""
        last = -1 / self.least_beta()
        return float(round(last)) if abs(last - round(last)) < ROUNDING else last

    def weight_variance(self) -> np.ndarray:
        """Var[w]/Z² of every row [N]."""
        return self.tilted(2).mass - 1

    def weight_skew(self) -> np.ndarray:
        """The third central moment of w/Z of every row [N]."""
        return self.tilted(3).mass - 3 * self.tilted(2).mass + 2

    def log_moment(self, s: np.ndarray) -> np.ndarray:
        """Log E[(w/Z)^s] of every row for complex orders [S]: `[S, N]`, where it exists.

        In noise that makes the proposal standard normal, the posterior has precisions λ and lies d away:
        `½ Σ [s log λ − log(1 + s(λ−1)) − s(1−s) λ d²/(1 + s(λ−1))]`.
        """
        stretch, apart = self._stretched()
        order = np.asarray(s)[:, None]
        width = 1 + order * (stretch - 1)  # [S, D]
        volume = (order * np.log(stretch) - np.log(width)).sum(axis=1)
        return 0.5 * (volume[:, None] - order * (1 - order) * ((stretch / width) @ (apart**2).T))

    def _stretched(self) -> tuple[np.ndarray, np.ndarray]:
        """λ [D], the smallest first, and d [N, D]: see `log_moment`."""
        chol = np.linalg.cholesky(self.proposal_cov)
        stretch, axes = np.linalg.eigh(chol.T @ self.precision @ chol)
        return stretch, np.linalg.solve(chol, (self.mean - self.proposal_mean).T).T @ axes

    def tail_shift(self) -> np.ndarray:
        """`|h| = λ|d|` in the direction of the smallest β, of every row [N]: the slope of log w there, at the mean."""
        stretch, apart = self._stretched()
        return stretch[0] * np.abs(apart[:, 0])

    def tail_remainder(self, particles: float) -> np.ndarray:
        """What is left of log Z − L_K after all terms of its expansion in 1/K that exist, as K → ∞, of every row [N].

        To first order in the deviation of the weight's Laplace transform over e^−t, whose Mellin transform is
        `Γ(−s) (E[(w/Z)^s] − 1)`, the gap is

            (1/2πi) ∫ Γ(s) Γ(−s) K^{1−s} (E[(w/Z)^s] − 1) ds,    1 < Re s < 2,

        and Γ(s) Γ(−s) = −π/(s sin πs), whose pole at s = n + 1 takes out a term of order n. Beyond s* = −1/β_min the
        moment is infinite. The contour just before it gives the remainder, which falls like K^{1−s*} up to a slowly
        varying factor; what it neglects falls like the next whole power of 1/K, the remainder's
        own where s* > 2 is whole.

        Raises:
            MissingMomentError: if all moments are finite.
            InputError: if s* is so little above a whole number that the contour needs more than `NODES` nodes.
        """
        if self.least_beta() >= 0:
            raise MissingMomentError("all moments of w are finite: the expansion in 1/K has every term")
        last = self._end()
        strip = last - (np.ceil(last) - 1)  # to the last pole that is passed
        step = 0.02 * strip
        if 32 / step > NODES:
            raise InputError(
                f"the least β is {self.least_beta():.9g}: expected −1/β a whole number or farther above one than "
                f"{32 / (0.02 * NODES):g}, not {last:.9g}"
            )
        s = last - 0.25 * strip + 1j * np.arange(-16.0, 16.0, step)
        kernel = -np.pi / (s * np.sin(np.pi * s)) * np.exp((1 - s) * np.log(particles))
        return (kernel @ np.expm1(self.log_moment(s))).real * step / (2 * np.pi)

    def heavy_tail_gap(self, particles: float) -> np.ndarray:
        """What log Z − L_K tends to where Var[w] is infinite, of every row [N]: see `tail_remainder`.

        Raises:
            MissingMomentError: if Var[w] is finite, so that the gap falls like 1/K.
        """
        if not 1 < self._end() <= 2:
            raise MissingMomentError("the variance of w is finite: the gap tends to Var[w]/(2KZ²)")
        return self.tail_remainder(particles)

    def inference_drift(self) -> np.ndarray:
        """−∇Var[w]/(2Z²) in the proposal's mean, of every row [N, D_z]: the limit of K·E[Δ(φ)].

        From `log E[(w/Z)²] = ... + dᵀ(2S − P)⁻¹d` with `d = m − μ`.
        """
        slope = np.linalg.inv(2 * self.proposal_cov - self.cov)
        return self.tilted(2).mass[:, None] * ((self.mean - self.proposal_mean) @ slope)

    def inference_noise(self) -> np.ndarray:
        """E[(∂w)²]/Z², the limit of K·Var[Δ(φ)] of IWAE, of every row [N, D_z]; ∂ is total, at fixed noise."""
        return self._moments(2, -self.precision)[1]

    def inference_noise_dreg(self) -> np.ndarray:
        """Var[w²g/Z² − 2aw/Z] with g the path part of ∂ log w and `a = E[w²g]/Z²`, of every row [N, D_z].

        The limit of K³·Var[Δ(φ)] of DReG.
        """
        proposal_precision = np.linalg.inv(self.proposal_cov)
        shift = (self.mean - self.proposal_mean) @ proposal_precision
        return self._noise_of_squares(proposal_precision - self.precision, shift)

    def inference_noise_ovis(self) -> np.ndarray:
        """Var[w²s/Z² − 2aw/Z] with s the score and `a = E[w²s]/Z²`, of every row [N, D_z].

        A quarter of it is the limit of K³·Var[Δ(φ)] of OVIS(0), whose coefficients tend to w²/(2K²Z²).
        """
        proposal_precision = np.linalg.inv(self.proposal_cov)
        shift = (self.mean - self.proposal_mean) @ proposal_precision
        return self._noise_of_squares(proposal_precision, shift)

    def score_noise(self) -> np.ndarray:
        """E[s²] of the score s in the proposal's mean, of every row [N, D_z]."""
        return np.tile(np.diag(np.linalg.inv(self.proposal_cov)), (len(self.x), 1))

    def _noise_of_squares(self, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Var[w²g/Z² − 2aw/Z] with `g = matrix (z − m) + shift` and `a = E[w²g]/Z²`."""
        a, third = (self._moments(s, matrix, shift)[0] for s in (2, 3))
        fourth = self._moments(4, matrix, shift)[1]
        return fourth - a**2 - 4 * a * (third - a) + 4 * a**2 * self.weight_variance()[:, None]

    def evidence_slope(self) -> np.ndarray:
        """∇ log Z in the prior's mean, of every row [N, D_z]: the limit of E[Δ(θ)]."""
        return (self.mean - self.prior_mean) @ self.prior_precision

    def generative_noise(self, alpha: float = 0.0) -> np.ndarray:
        """E[v²(∂ log p − g)²]/E[v]² in the prior's mean with `v = w^(1−α)`, `g` = E[v ∂ log p]/E[v]: [N, D_z].

        The limit of K·Var[Δ(θ)] of VR-IWAE; of IWAE at α = 0.
        """
        law = self.tilted(1 - alpha)
        shift = (self.mean - law.mean) @ self.prior_precision
        return self._moments(2 * (1 - alpha), self.prior_precision, shift)[1] / law.mass[:, None] ** 2

    def generative_bias(self) -> np.ndarray:
        """−E[w²(∂ log p − ∂ log Z)]/Z² in the prior's mean, the limit of K·(E[Δ(θ)] − ∂ log Z): [N, D_z]."""
        return -self._moments(2, self.prior_precision)[0]

    def average(self, rows: np.ndarray, parameter: str, *, squared: bool = False) -> np.ndarray:
        """The average over rows in a parameter's own shape.

        Args:
            rows: of every row [N, D_z], in the prior's or the proposal's mean.
            parameter: prior_mean, proposal_mean, proposal_offset or proposal_weight.
            squared: whether `rows` are variances, of which an average over N rows has the N-th part.
        """
        factor = self.x if parameter == "proposal_weight" else np.ones((len(self.x), 1))
        total = np.einsum("nd,nj->dj", rows, factor**2 if squared else factor)
        total = total if parameter == "proposal_weight" else total[:, 0]
        return total / len(rows) ** (2 if squared else 1)
