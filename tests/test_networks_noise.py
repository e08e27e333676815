"""Random numbers of training: keyed by seed, purpose and step alone; what their law is; no seed of a block twice."""

import numpy as np
import pytest
import torch
from scipy import stats as laws

from toyiwae import stats
from toyiwae.networks import noise as module
from toyiwae.networks.noise import Noise, block


def test_numbers_depend_on_seed_purpose_step_and_shape_alone():
    state = torch.get_rng_state()
    together, alone = Noise((4, 7, 4), 3), Noise((7,), 3)
    whole = together.normal("particles", 10, (3, 2))
    assert torch.equal(whole[1:2], alone.normal("particles", 10, (3, 2)))
    assert torch.equal(together.of(1).normal("particles", 10, (3, 2)), whole[1:2])
    assert torch.equal(whole[0], whole[2])
    others = [alone.normal("images", 10, (3, 2)), alone.at(4).normal("particles", 10, (3, 2))]
    others += [Noise((8,), 3).normal("particles", 10, (3, 2)), whole[:1]]
    assert not any(torch.equal(other, whole[1:2]) for other in others)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", ["normal", "uniform"])
def test_chunks_are_pieces_of_the_whole(kind, monkeypatch):
    monkeypatch.setattr(module, "UNIT", 40)
    draw, size = getattr(Noise((1, 2), 5), kind), block((3, 4))
    assert size == 3
    whole = draw("particles", 11, (3, 4))
    for first, last in ((0, 3), (3, 9), (9, 11), (0, 11)):
        assert torch.equal(draw("particles", 11, (3, 4), slice(first, last)), whole[:, first:last])


def test_orders_are_permutations_of_each_members_own():
    orders = Noise((1, 2), 0).permutation("order", 50)
    assert all(torch.equal(order.sort().values, torch.arange(50)) for order in orders)
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], Noise((1,), 1).permutation("order", 50)[0])


def test_their_laws():
    """Kolmogorov-Smirnov over 10⁵ numbers sees 0.008 in a distribution function; and steps are uncorrelated."""
    noise, count = Noise((3,), dtype=torch.float64), 100_000
    normal = noise.normal("particles", count // 50, (50,)).flatten().numpy()
    uniform = noise.uniform("particles", count // 50, (50,)).flatten().numpy()
    after = noise.at(1).normal("particles", count // 50, (50,)).flatten().numpy()
    p_values = [laws.kstest(normal, "norm").pvalue, laws.kstest(uniform, "uniform").pvalue]
    assert min(p_values) > 1e-6
    z = np.array([normal @ after, normal[1:] @ normal[:-1], normal @ (uniform - 0.5) * 12**0.5]) / count**0.5
    assert np.abs(z).max() < stats.family_threshold(len(z), 1e-6)


def test_no_block_of_a_purpose_has_the_seed_of_another(monkeypatch):
    """Steps of 7 blocks each."""
    monkeypatch.setattr(module, "UNIT", 3)
    seen = []

    def fill(part, generator):
        seen.append(generator.initial_seed())

    for step in range(300):
        Noise((5,), step)._draw(fill, "particles", 7, (3,), None)
    assert len(set(seen)) == len(seen) == 2100
