"""The registry's estimators, each family at several values of its parameter, and log-weights to try them on."""

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from toyiwae import estimators
from toyiwae.conformance.bank import particles
from toyiwae.estimators import Estimator
from toyiwae.forms import Coefficients

PARTS = ("model", "path", "score")


def values(default: Estimator) -> list[float]:
    """Values of a family's parameter to test: the ends of its range, if a quadrature sees them, and some between."""
    low, high = default.between
    if isinstance(default.parameter, int):
        return [low, low + 1, low + 2]
    return [low, 0.3 * low + 0.7 * high, high] if high - low <= 1.0 else [-0.5, 0.0, 0.3, 1.0, 1.5]


def members() -> list[Estimator]:
    """Every family at its default parameter and, if it has one, at several others."""
    families = estimators.all()
    others = [family.at(value) for family in families if family.parameter_name for value in values(family)]
    return [*families, *others]


MEMBERS = members()
every_member = pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
every_family = pytest.mark.parametrize("member", estimators.all(), ids=lambda member: member.name)
SIZES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 7))


def arrays(low=-30.0, high=30.0, sizes=SIZES):
    return sizes.flatmap(lambda shape: hnp.arrays(float, shape, elements=st.floats(low, high)))


def enough(log_w, member):
    """The log-weights, their particles repeated with other values if the estimator needs more of them."""
    missing = member.min_particles - log_w.shape[-1]
    return np.concatenate([log_w, *[log_w[..., :1] - 1.0 - i for i in range(missing)]], axis=-1)


def sample_log_weights(groups, particles, seed=0):
    """Some log-weights `[3, M, K]`, spread over several orders of magnitude."""
    return np.random.default_rng(seed).normal(-2.0, 3.0, size=(3, groups, particles))


def assert_same(made, expected, tolerance=1e-13):
    """Coefficients that agree to a tolerance relative to the largest of them."""
    largest = max(np.abs(getattr(expected, part)).max() for part in PARTS)
    for part in PARTS:
        one, other = getattr(made, part), getattr(expected, part)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * largest)


def join(pieces, axis):
    """Coefficients of chunks, put together."""
    return Coefficients(*(np.concatenate([getattr(c, part) for c in pieces], axis=axis) for part in PARTS))


def correct(name):
    """The registered estimator as a NumPy estimator of the contract."""
    claimed = estimators.get(name)

    def replicates(problem, *, K, M, replicates, seed):
        drawn = particles.draw(problem, K, M, replicates, seed)
        log_w = drawn.log_w
        return claimed.value_of(log_w).mean(1), drawn.gradients(claimed(log_w))

    return replicates


def surrogate_of(claimed):
    """A registered estimator as a surrogate."""

    def surrogate(log_joint, log_q, sample, *, K, M):
        z = sample(M, K)
        fixed = z.detach()
        log_w = log_joint(fixed) - log_q(fixed)
        made = claimed(log_w.detach())
        path = log_joint(z, detach=True) - log_q(z, detach=True)
        model = (made.model * log_joint(fixed)).sum((-1, -2))
        proposal = (made.path * path + made.score * log_q(fixed)).sum((-1, -2))
        return claimed.value_of(log_w.detach()), {"model": model, "proposal": proposal}

    return surrogate
