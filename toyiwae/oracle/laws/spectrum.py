"""What the moments of all rows' weights share: the spectrum β, and what depends on it alone."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln, loggamma

from toyiwae.oracle.laws import contour
from toyiwae.oracle.laws.special import log1pmx

_POLES = 4  # how many Taylor terms may be taken out where the moments exist


class Spectrum:
    """What depends on β alone, cached for the rows that share it: logarithms and coefficients on lines."""

    def __init__(self, beta: np.ndarray):
        self.beta = beta
        self._tables: dict = {}
        self._lines: dict = {}

    def limit(self, sign: int) -> float:
        """Largest |s| with 1 + sβ > 0, for s of the opposite sign of the β whose sign is `sign`."""
        worst = float(np.max(sign * self.beta, initial=0.0))
        return np.inf if worst <= 0.0 else 1.0 / worst

    def parts(self, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The constant part [S] and the coefficients of h² [S, D] of log M(s)."""
        beta = self.beta
        sb = np.multiply.outer(s, beta)
        constant = 0.5 * (s[:, None] * log1pmx(beta)[None, :] - log1pmx(sb)).sum(axis=1)
        weight = (s * (s - 1.0))[:, None] / (2.0 * (1.0 + sb) * (1.0 + beta))
        return constant, weight

    def table(self, power: float, p: float, excess: bool, spread: float, finest: float | None):
        """Candidate lines of a transform, with log Γ and the parts of log M on them."""
        key = (power, p, excess, spread, finest)
        if key not in self._tables:
            low = (power - self.limit(-1)) / p
            high = (power + self.limit(+1)) / p
            floor = power - 2.0 if excess else 0.0
            abscissa, order = contour.candidates(low, high, floor=floor, poles=_POLES, spread=spread)
            if finest is not None:
                abscissa, order = contour.refine(
                    abscissa, order, low, high, floor=floor, centre=power / p, finest=finest
                )
            self._tables[key] = (abscissa, order, gammaln(abscissa), *self.parts(power - p * abscissa))
        return self._tables[key]

    def line(self, power: float, p: float, abscissa: float, step: float, reach: float):
        """Heights, s, log Γ, the argument of M and its parts on the nodes of a line, up to a reach."""
        key = (power, p, abscissa, step)
        y = contour.heights(step, reach)
        known = self._lines.get(key)
        if known is None or len(known[0]) < len(y):
            s = abscissa + 1j * y
            known = (y, loggamma(s), power - p * s, *self.parts(power - p * s))
            if len(y) <= 4096:
                self._lines[key] = known
        return tuple(part[: len(y)] for part in known)

    def ladder(self, power: float, p: float, abscissa: float):
        """Log |Γ| and the parts of log M on the heights at which an integrand's reach is looked for."""
        key = (power, p, abscissa, "ladder")
        if key not in self._lines:
            s = abscissa + 1j * contour.LADDER
            self._lines[key] = (loggamma(s).real, *self.parts(power - p * s))
        return self._lines[key]
