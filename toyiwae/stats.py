"""Statistics of replicates: streaming moments, standard errors, signal-to-noise ratios, tests, power.

NumPy only; SciPy's special functions load when a test is made. Nothing here samples, and nothing knows what
an estimator is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toyiwae.errors import InputError

Array = NDArray[np.float64] | np.float64


@dataclass(frozen=True)
class Moments:
    """Count, mean and central sums of order 2 to 4 of replicates, coordinate by coordinate.

    Two records merge into the record of both samples (Chan et al. for order 2, Pébay for orders 3 and 4), so
    samples of any size pass through in constant memory. Standard errors are large-sample values (delta
    method), with the moments estimated from the same replicates.

    Attributes:
        count: number of replicates n.
        mean: their mean, of the coordinates' shape.
        sum2: Σ (x − mean)².
        sum3: Σ (x − mean)³.
        sum4: Σ (x − mean)⁴.

    References:
        chan1983, pebay2008
    """

    count: int
    mean: Array
    sum2: Array
    sum3: Array
    sum4: Array

    @classmethod
    def of(cls, samples: Any) -> Moments:
        """The moments of replicates [n, ...] along the first axis.

        Raises:
            InputError: if there is no axis of replicates, or none of them.
        """
        values = np.asarray(samples, dtype=np.float64)
        if values.ndim == 0 or len(values) == 0:
            raise InputError(f"samples have shape {values.shape}: expected replicates along the first axis")
        mean = values.mean(axis=0)
        centred = values - mean
        mean, centred = mean + centred.mean(axis=0), centred - centred.mean(axis=0)
        square = centred * centred
        sums = ((square * factor).sum(axis=0) for factor in (1.0, centred, square))
        return cls(len(values), *(np.asarray(item) for item in (mean, *sums)))

    def merge(self, other: Moments) -> Moments:
        """The moments of both samples together.

        Raises:
            InputError: if the coordinates differ in shape.
        """
        if self.mean.shape != other.mean.shape:
            raise InputError(f"cannot merge moments of shapes {self.mean.shape} and {other.mean.shape}")
        na, nb = float(self.count), float(other.count)
        n = na + nb
        a, b = na / n, nb / n
        delta = other.mean - self.mean
        square = delta * delta
        mean = self.mean + b * delta
        sum2 = self.sum2 + other.sum2 + square * (a * nb)
        sum3 = self.sum3 + other.sum3 + delta * square * (a * nb * (a - b))
        sum3 += 3.0 * delta * (a * other.sum2 - b * self.sum2)
        sum4 = self.sum4 + other.sum4 + square * square * (a * nb * (a * a - a * b + b * b))
        sum4 += 6.0 * square * (a * a * other.sum2 + b * b * self.sum2)
        sum4 += 4.0 * delta * (a * other.sum3 - b * self.sum3)
        return Moments(self.count + other.count, mean, sum2, sum3, sum4)

    @property
    def var(self) -> Array:
        """Unbiased variance `sum2 / (n−1)`; NaN for a single replicate."""
        return self.sum2 / (self.count - 1) if self.count > 1 else np.full_like(self.sum2, np.nan)

    @property
    def std(self) -> Array:
        """Standard deviation `√var`."""
        return np.sqrt(self.var)

    @property
    def mean_se(self) -> Array:
        """Standard error of the mean `√(var / n)`."""
        return np.sqrt(self.var / self.count)

    @property
    def var_se(self) -> Array:
        """Standard error of the variance: `√((μ₄ − σ⁴ (n−3)/(n−1)) / n)`, exact when μ₄ and σ are."""
        n = self.count
        spread = self.sum4 / n - self.var**2 * ((n - 3) / max(n - 1, 1))
        return np.sqrt(np.maximum(spread, 0.0) / n)

    @property
    def skewness(self) -> Array:
        """Third standardised moment; NaN where the variance is 0."""
        return _ratio(self.sum3 / self.count, (self.sum2 / self.count) ** 1.5)

    @property
    def kurtosis(self) -> Array:
        """Fourth standardised moment (3 for a normal law); NaN where the variance is 0."""
        return _ratio(self.sum4 / self.count, (self.sum2 / self.count) ** 2)

    @property
    def snr(self) -> Array:
        """Signal-to-noise ratio `|mean| / std`; NaN where it is 0/0, infinite where only the noise is 0."""
        return _ratio(np.abs(self.mean), self.std)

    @property
    def snr_se(self) -> Array:
        """Standard error of `snr`: `√((1 − s γ + s² (κ−1)/4) / n)`, γ the skewness in the mean's direction.

        By the delta method on (mean, variance), whose covariance is μ₃/n. Where the true SNR is 0 its
        estimate is not normal (it is folded at 0), and stays of the order of this number.
        """
        s = self.snr
        spread = 1.0 - s * np.sign(self.mean) * self.skewness + s * s * (self.kurtosis - 1.0) / 4.0
        return np.sqrt(np.maximum(spread, 0.0) / self.count)

    def rmse(self, truth: Any) -> tuple[Array, Array]:
        """Root-mean-square distance of a replicate from `truth`, and its standard error (delta method).

        Args:
            truth: the number that a replicate estimates, of the coordinates' shape.

        Returns:
            `√(Σ (x−t)² / n)` and the standard error `√(Var[(x−t)²] / n) / (2 rmse)`; 0 and 0 where every
            replicate equals the truth.
        """
        n = self.count
        bias = self.mean - np.asarray(truth, dtype=np.float64)
        m2, m3, m4 = self.sum2 / n, self.sum3 / n, self.sum4 / n
        mse = m2 + bias * bias
        spread = np.maximum(m4 - m2 * m2 + 4.0 * bias * m3 + 4.0 * bias * bias * m2, 0.0)
        root = np.sqrt(mse)
        return root, np.where(mse > 0, _ratio(np.sqrt(spread / n), 2.0 * root), 0.0)


class Stream:
    """A running `Moments`: `add` chunks of replicates, read `moments`."""

    def __init__(self) -> None:
        """Starts with nothing added."""
        self._moments: Moments | None = None

    def add(self, samples: Any) -> None:
        """Takes in replicates [n, ...]."""
        new = Moments.of(samples)
        self._moments = new if self._moments is None else self._moments.merge(new)

    @property
    def moments(self) -> Moments:
        """The moments of everything added so far.

        Raises:
            InputError: if nothing was added.
        """
        if self._moments is None:
            raise InputError("no replicates were added: there are no moments yet")
        return self._moments


def z_score(estimate: Any, truth: Any, se: Any, truth_error: Any = 0.0) -> Array:
    """`(estimate − truth) / √(se² + truth_error²)`; 0 where both agree exactly, infinite if only they err."""
    shift = np.asarray(estimate, dtype=np.float64) - np.asarray(truth, dtype=np.float64)
    return np.where(shift == 0.0, 0.0, _ratio(shift, np.hypot(se, truth_error)))


def p_value(z: Any, dof: float = math.inf) -> Array:
    """Two-sided p-value of a z-score, or of Student's t with `dof` degrees of freedom."""
    special = _special()
    below = -np.abs(np.asarray(z, dtype=np.float64))
    return 2.0 * (special.ndtr(below) if math.isinf(dof) else special.stdtr(dof, below))


def family_threshold(tests: int, rate: float, dof: float = math.inf) -> float:
    """The |z| that `tests` true hypotheses exceed anywhere with probability at most `rate`.

    Bonferroni's, so it holds however the tests depend on one another: `Φ⁻¹(1 − rate/(2 tests))`, or Student's
    quantile with `dof` degrees of freedom.

    Raises:
        InputError: unless tests ≥ 1, 0 < rate < 1 and dof > 0.
    """
    level = _probability("rate", rate) / (2.0 * _at_least_one("tests", tests))
    if not dof > 0:
        raise InputError(f"dof is {dof!r}: expected a number above 0")
    return -_quantile(level, dof)


def smallest_detectable_shift(
    replicates: int, *, tests: int = 1, rate: float = 1e-6, power: float = 0.999
) -> float:
    """The bias, in standard deviations of one replicate, that a family of z-tests finds so often.

        shift = (Φ⁻¹(1 − rate/(2 tests)) + Φ⁻¹(power)) / √n

    Args:
        replicates: n.
        tests: how many tests share the family-wise rate.
        rate: probability of any false alarm.
        power: probability of the alarm at that shift.

    Raises:
        InputError: for a count below 1, or a probability outside (0, 1).
    """
    return _distance(tests, rate, power) / math.sqrt(_at_least_one("replicates", replicates))


def required_replicates(shift: float, *, tests: int = 1, rate: float = 1e-6, power: float = 0.999) -> int:
    """The least number of replicates whose smallest detectable shift is at most `shift` standard deviations.

    With 16 coordinates a shift of 0.05 needs about 29,000:

    >>> required_replicates(0.05, tests=16)
    28912

    Raises:
        InputError: unless shift > 0, and as `smallest_detectable_shift`.
    """
    if not (math.isfinite(shift) and shift > 0):
        raise InputError(f"shift is {shift!r}: expected a number above 0, in standard deviations")
    return max(1, math.ceil((_distance(tests, rate, power) / shift) ** 2))


def detection_power(shift: float, replicates: int, *, tests: int = 1, rate: float = 1e-6) -> float:
    """Probability that a z-test in a family finds a bias of `shift` standard deviations of one replicate.

    Raises:
        InputError: for a count below 1, or a rate outside (0, 1).
    """
    threshold = family_threshold(tests, rate)
    distance = abs(shift) * math.sqrt(_at_least_one("replicates", replicates))
    return float(_special().ndtr(distance - threshold) + _special().ndtr(-distance - threshold))


def normal_quantile(level: float) -> float:
    """`Φ⁻¹(level)`.

    Raises:
        InputError: unless 0 < level < 1.
    """
    return _quantile(_probability("level", level))


def _distance(tests: int, rate: float, power: float) -> float:
    return family_threshold(tests, rate) + _quantile(_probability("power", power))


def _quantile(level: float, dof: float = math.inf) -> float:
    special = _special()
    return float(special.ndtri(level) if math.isinf(dof) else special.stdtrit(dof, level))


def _probability(name: str, value: float) -> float:
    if not 0.0 < value < 1.0:
        raise InputError(f"{name} is {value!r}: expected a probability between 0 and 1")
    return value


def _at_least_one(name: str, value: int) -> int:
    if value < 1:
        raise InputError(f"{name} is {value!r}: expected a whole number of at least 1")
    return value


def _ratio(numerator: Any, denominator: Any) -> Array:
    """IEEE division without warnings."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(np.divide(numerator, denominator), dtype=np.float64)


def _special() -> Any:
    from scipy import special  # not for those who only accumulate

    return special
