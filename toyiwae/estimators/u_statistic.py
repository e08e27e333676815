"""The U-statistic of the importance-weighted bound: every subset of m particles instead of disjoint groups of m."""

import math

from toyiwae.estimators.claims import BoundOf, both
from toyiwae.estimators.registry import estimator
from toyiwae.estimators.subsets import subset_gradient
from toyiwae.forms import Bound, Coefficients
from toyiwae.weights import Array


def _bound(size: int) -> BoundOf:
    """`L_m`, whatever K."""
    return lambda particles, groups: Bound.iwae(size, f"{size}")


@estimator(
    target=lambda size: both(_bound(size)),
    value=_bound,
    subsets=lambda size: size,
    min_particles=lambda size: size,
    between=(1, math.inf),
    cite=("hoeffding1948statistics", "burroni2023ustatistics"),
)
def u_statistic(log_w: Array, size: int = 2) -> Coefficients:
    """U-statistic: the gradient of the mean of `log Ẑ` over all subsets of m of a group's K particles.

    `B = mean over subsets A of m particles of log (1/m) Σ_{i∈A} w_i`; `a = b = ∂B/∂ℓ / M`, `c = −a`; unbiased for
    `∇L_m`. The ELBO at m = 1, IWAE at m = K; between them its target is that of MIWAE with K/m groups of m of the same
    particles, over which it averages all partitions, so that no variance is larger. Subsets are not enumerated: the
    cost is O(K min(m, K−m)) for each node of an integral, a few hundred of them.

    References:
        hoeffding1948statistics, burroni2023ustatistics
    """
    total = subset_gradient(log_w, size) / log_w.shape[-2]
    return Coefficients(model=total, path=total, score=-total)
