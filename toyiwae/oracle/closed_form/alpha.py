"""The α-divergences of two Gaussians in the three conventions in use, and how their orders map onto each other.

All are functions of the order and of one integral, F(α) = ∫ p^α q^{1−α} dz:

    Rényi   D_α(p‖q) = log F(α) / (α−1)
    Minka   D_α(p‖q) = (1 − F(α)) / (α(1−α))
    Amari   D_a(p‖q) = 4 (1 − F((1+a)/2)) / (1−a²)

Minka's order is Rényi's and Amari's is a = 2α − 1 (Amari and Nagaoka write −a), at which the values of Minka and Amari
agree. Minka's tends to KL(q‖p) as α → 0 and to KL(p‖q) as α → 1; Rényi's to 0 and KL(p‖q). No order is a special
case here: with x = log F(α), Minka's is (x/(α(α−1))) · (e^x − 1)/x, and x over α or α − 1 keeps all its digits.
"""

from __future__ import annotations

import numpy as np

from toyiwae.errors import PrecisionError
from toyiwae.oracle.closed_form.gaussian import Ratio


def minka(ratio: Ratio, order: float) -> np.ndarray:
    """Minka's α-divergence (1 − ∫ p^α q^{1−α}) / (α(1−α)) of p from q [...], not negative for any α.

    Formula: alpha-divergence.

    Args:
        ratio: of the two Gaussians, `Ratio.between`.
        order: α; at 0 the value is KL(q‖p), at 1 KL(p‖q).

    Raises:
        MissingMomentError: unless α P⁻¹ + (1−α) S⁻¹ is positive definite.
        PrecisionError: if it is beyond the range of float64.

    References:
        minka2005divergence
    """
    scaled = per_order(ratio, order)
    x = order * (order - 1) * scaled
    with np.errstate(over="ignore"):
        grown = np.where(x == 0, 1.0, np.expm1(x) / np.where(x == 0, 1.0, x))
    if not np.isfinite(grown).all():
        raise PrecisionError(f"the divergence of order {order:g} is beyond the range of float64")
    return np.asarray(scaled * grown)


def amari(ratio: Ratio, order: float) -> np.ndarray:
    """Amari's α-divergence 4 (1 − ∫ p^{(1+a)/2} q^{(1−a)/2}) / (1−a²) of p from q [...].

    Args:
        ratio: of the two Gaussians.
        order: a; at −1 the value is KL(q‖p), at 1 KL(p‖q).

    Raises:
        MissingMomentError, PrecisionError: as `minka`.

    References:
        cichocki2010families
    """
    return minka(ratio, 0.5 * (1 + order))


def per_order(ratio: Ratio, order: float) -> np.ndarray:
    """Rényi's divergence over its order, log F(α) / (α(α−1)) [...]; not negative for any α, at 0 it is KL(q‖p).

    It has the minimum in q that Minka's has at the same α. Rényi's own value is negative for α < 0.

    Raises:
        MissingMomentError: as `minka`.
    """
    if order < 0.5:
        return np.asarray(ratio.scaled_log_moment(order) / (order - 1))
    return np.asarray(ratio.renyi(order) / order)
