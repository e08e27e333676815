"""Jackknife variational inference: `L_K` less the leading orders of its bias."""

from toyiwae.estimators.claims import BoundOf, both
from toyiwae.estimators.registry import estimator
from toyiwae.estimators.subsets import subset_gradient
from toyiwae.forms import Bound, Coefficients
from toyiwae.weights import Array


def _bound(order: int) -> BoundOf:
    """`Σ_j c_j L_{K−j}`."""
    return lambda particles, groups: Bound.jackknife(order, particles, "K")


@estimator(
    target=lambda order: both(_bound(order)),
    value=_bound,
    min_particles=lambda order: order + 1,
    between=(0, float("inf")),
    cite="nowozin2018jvi",
)
def jackknife(log_w: Array, order: int = 1) -> Coefficients:
    """Jackknife: the gradient of the bound whose bias is of order `K^(−m−1)`.

    `B = Σ_{j=0..m} c_j · mean over subsets of K−j particles of log Ẑ`, `c_j = (−1)^j (K−j)^m / ((m−j)! j!)`;
    `a = b = ∂B/∂ℓ / M`, `c = −a`; unbiased for `∇E[B]`. The subsets are not enumerated (`u_statistic`):
    beyond m = 1 the cost is O(K m²) for each node of an integral.

    Raises:
        InputError: an order whose weights exceed float64 at this K.

    References:
        nowozin2018jvi
    """
    groups, particles = log_w.shape[-2:]
    terms = Bound.jackknife(order, particles).terms
    parts = [float(weight) * subset_gradient(log_w, size) / groups for size, weight in terms]
    total = sum(parts[1:], parts[0])
    return Coefficients(model=total, path=total, score=-total)
