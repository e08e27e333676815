"""What printed formulas give on a latent with three states, by enumeration, and what a slip is."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

PRIOR, LIKELIHOOD, PROPOSAL = (np.array(v) for v in ([0.2, 0.5, 0.3], [0.05, 0.4, 0.9], [0.3, 0.3, 0.4]))
PRIOR_SLOPE = np.array([0.3, -0.7, 1.1])
"""∂ log w of every state in a parameter of the model."""


@dataclass(frozen=True)
class Slip:
    """A printed formula and the right one, each by its relative error against a number found by another way.

    Attributes:
        slide: where it stands.
        printed: the formula of the slide.
        right: what it should be.
        what: the number compared.
        printed_error, right_error: relative.
    """

    slide: str
    printed: str
    right: str
    what: str
    printed_error: float
    right_error: float


def apart(value: np.ndarray, truth: np.ndarray) -> float:
    return float(np.abs(value - truth).max() / np.abs(truth).max())


@dataclass(frozen=True, eq=False)
class States:
    """A latent of three states, K particles: every expectation is a sum over all tuples.

    Attributes:
        tuples: of states, `[3^K, K]`.
    """

    tuples: np.ndarray

    @classmethod
    def of(cls, particles: int) -> States:
        """All tuples of so many particles."""
        return cls(np.array(list(itertools.product(range(3), repeat=particles))))

    @property
    def particles(self) -> int:
        """K."""
        return self.tuples.shape[1]

    def expect(
        self, value: Callable[[np.ndarray], np.ndarray], scale: float = 1.0, logits: Any = 0.0
    ) -> np.ndarray:
        """E of a function of the weights [T, K], with the proposal's logits moved."""
        w, proposal = self.weights(scale, logits)
        chance = proposal[self.tuples].prod(axis=1)
        found = value(w[self.tuples])
        return (chance.reshape(-1, *[1] * (found.ndim - 1)) * found).sum(axis=0)

    @staticmethod
    def weights(scale: float = 1.0, logits: Any = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Weight and proposal of every state."""
        proposal = PROPOSAL * np.exp(logits)
        proposal = proposal / proposal.sum()
        return scale * PRIOR * LIKELIHOOD / proposal, proposal

    def slope(self, value: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """The derivative of E[value] by the proposal's logits, by complex steps: right to rounding."""
        return np.array([self.expect(value, logits=1e-30j * axis).imag / 1e-30 for axis in np.eye(3)])

    def score_gradients(self, coefficients: np.ndarray) -> np.ndarray:
        """`Σ_k c_k ∇ log q(z_k)` [T, 3]."""
        return (coefficients[:, :, None] * (np.eye(3) - PROPOSAL)[self.tuples]).sum(axis=1)

    def vimco(self, w: np.ndarray, *, outside: bool) -> np.ndarray:
        """VIMCO's gradients, with the mean of the other weights outside of the logarithm or inside."""
        total = w.sum(axis=1, keepdims=True)
        others, count = total - w, self.particles
        mean = others / (count - 1)
        baseline = np.log(others / count) + mean if outside else np.log((others + mean) / count)
        return self.score_gradients(np.log(total / count) - baseline - w / total)

    def baseline(self) -> Slip:
        """Both forms are unbiased; the printed one's variance depends on the units of p(x)."""
        spread = {}
        for outside in (True, False):
            for scale in (1.0, 100.0):
                first, second = (
                    self.expect(lambda w, n=n, o=outside: self.vimco(w, outside=o) ** n, scale)
                    for n in (1, 2)
                )
                spread[outside, scale] = float((second - first**2).sum())
        errors = {o: abs(spread[o, 100.0] / spread[o, 1.0] - 1) for o in (True, False)}
        return Slip(
            "VIMCO", r"\hat L_{-k}=\log\frac{1}{K}\sum_{i\ne k}w_i+\hat w_{-k}",
            r"\hat L_{-k}=\log\frac{1}{K}(\sum_{i\ne k}w_i+\hat w_{-k})",
            "the gradient's variance when $p(x)$ is multiplied by 100 over that before, by enumeration; the "
            "mean is right "
            "in both", errors[True], errors[False],
        )  # fmt: skip

    def bound(self, w: np.ndarray) -> np.ndarray:
        """Log of the mean weight of every tuple."""
        return np.log(w.mean(axis=1))

    def log_gradient(self) -> Slip:
        """∇ of the mean weight is not ∇ of its logarithm; by a common factor of all weights, whose slope is known."""
        logs = self.expect(
            lambda w: (w / w.sum(axis=1, keepdims=True) * (PRIOR_SLOPE[self.tuples])).sum(axis=1)
        )
        plain = self.expect(lambda w: (w * PRIOR_SLOPE[self.tuples]).mean(axis=1))
        tiny = 1e-30j
        moved = self.expect(lambda w: self.bound(w * np.exp(tiny * PRIOR_SLOPE[self.tuples]))).imag / 1e-30
        return Slip(
            "SNR part 2", r"\nabla\frac{1}{K}\sum_k w_k=\sum_k\tilde w_k\nabla\log w_k",
            r"\nabla\log\frac{1}{K}\sum_k w_k=\sum_k\tilde w_k\nabla\log w_k",
            "the mean of either gradient in a parameter of the model against the slope of the exact bound, "
            "by enumeration",
            float(abs(plain / moved - 1)), float(abs(logs / moved - 1)),
        )  # fmt: skip

    def discrete(self) -> Slip:
        """A state has no derivative in φ: reparameterised, only −Σ w̃ ∇ log q is left; the score's is the bound's."""
        truth = self.slope(self.bound)

        def pathless(w: np.ndarray) -> np.ndarray:
            return self.score_gradients(-w / w.sum(axis=1, keepdims=True))

        def score(w: np.ndarray) -> np.ndarray:
            total = w.sum(axis=1, keepdims=True)
            return self.score_gradients(np.log(total / self.particles) - w / total)

        return Slip(
            "discrete latents", r"\text{IWAE does not work with discrete variables}",
            r"\text{its reparameterised gradient does not; the bound does}",
            "the mean of either gradient in φ against the slope of the exact bound, by enumeration: the "
            "reparameterised rule's, of which $-\\sum_k\\tilde w_k\\nabla\\log q(z_k)$ is left since states have no "
            "path, and the score function's",
            apart(self.expect(pathless), truth), apart(self.expect(score), truth),
        )  # fmt: skip
