"""Random numbers of training: keyed by seed, purpose and step alone; what their law is; no seed of a block twice."""

import numpy as np
import pytest
import torch
from scipy import stats as laws

from tests import philox as numpy_philox
from toyiwae import stats
from toyiwae.networks import noise as module
from toyiwae.networks.counters import Counters, drawn, philox
from toyiwae.networks.noise import Noise, block

every_kind = pytest.mark.parametrize("kind", [Noise, Counters])


@every_kind
def test_numbers_depend_on_seed_purpose_step_and_shape_alone(kind):
    state = torch.get_rng_state()
    together, alone = kind((4, 7, 4), 3), kind((7,), 3)
    whole = together.normal("particles", 10, (3, 2))
    assert torch.equal(whole[1:2], alone.normal("particles", 10, (3, 2)))
    assert torch.equal(together.of(1).normal("particles", 10, (3, 2)), whole[1:2])
    assert torch.equal(whole[0], whole[2])
    others = [alone.normal("images", 10, (3, 2)), alone.at(4).normal("particles", 10, (3, 2))]
    others += [kind((8,), 3).normal("particles", 10, (3, 2)), whole[:1]]
    assert not any(torch.equal(other, whole[1:2]) for other in others)
    assert torch.equal(torch.get_rng_state(), state)


@every_kind
@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_chunks_are_pieces_of_the_whole(kind, law, monkeypatch):
    monkeypatch.setattr(module, "UNIT", 40)
    draw, size = getattr(kind((1, 2), 5), law), block((3, 4))
    assert size == 3
    whole = draw("particles", 11, (3, 4))
    for first, last in ((0, 3), (3, 9), (9, 11), (0, 11)):
        assert torch.equal(draw("particles", 11, (3, 4), slice(first, last)), whole[:, first:last])


@every_kind
def test_orders_are_permutations_of_each_members_own(kind):
    orders = kind((1, 2), 0).permutation("order", 50)
    assert all(torch.equal(order.sort().values, torch.arange(50)) for order in orders)
    assert not torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], kind((1,), 1).permutation("order", 50)[0])


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_their_laws(kind, dtype):
    """Kolmogorov-Smirnov over 10⁵ numbers sees 0.008 in a distribution function; and steps are uncorrelated."""
    noise, count = kind((3,), dtype=dtype), 100_000
    normal, uniform, after = (
        draw("particles", count // 50, (50,)).double().flatten().numpy()
        for draw in (noise.normal, noise.uniform, noise.at(1).normal)
    )
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


# Counters ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "first"), [(0, 0), (2**40 + 3, 4), (7, 2**34 + 4)])
def test_words_are_those_of_philox(step, first):
    """Of the authors' function in NumPy, at keys whose highest bits are set, far steps and far positions."""
    keys = torch.tensor([3, -5, 2**63 - 1, -(2**63)])
    words = philox(keys, torch.tensor(step), first, 12)
    quads = first // 4 + np.arange(3)
    for key, own in zip(keys.numpy().view(np.uint64), words, strict=True):
        counter = [quads % 2**32, quads >> 32, step % 2**32, step >> 32]
        expected = numpy_philox.philox(counter, (int(key) % 2**32, int(key) >> 32))
        np.testing.assert_array_equal(own.reshape(3, 4).T, np.stack(np.broadcast_arrays(*expected)))


@pytest.mark.parametrize("law", ["normal", "uniform"])
def test_numbers_of_both_precisions_are_made_of_the_same_words(law):
    keys, step = torch.tensor([11, 12]), torch.tensor(5)
    single, double = (drawn(law, keys, step, 0, 4000, dtype) for dtype in (torch.float32, torch.float64))
    assert (single.dtype, double.dtype) == (torch.float32, torch.float64)
    difference = (single.double() - double).abs().max()
    assert difference < (
        2.0**-24 if law == "uniform" else 4e-6
    )  # no radius here is near 0, where rounding grows
    words = philox(keys, step, 0, 4000).numpy()
    if law == "uniform":
        np.testing.assert_array_equal(double, words / 2.0**32)
        np.testing.assert_array_equal(single, (words >> 8) / 2.0**24)
    else:
        a, b = (words.reshape(2, -1, 2)[..., i].astype(np.uint32) for i in (0, 1))
        expected = np.stack(numpy_philox.box_muller(a, b), axis=-1).reshape(2, -1)
        np.testing.assert_allclose(single, expected, rtol=0, atol=4e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_piece_is_that_of_the_whole(dtype):
    """Also one that begins or ends within four numbers of a counter."""
    keys, step = torch.tensor([11, 12]), torch.tensor(5)
    for law in ("normal", "uniform"):
        whole = drawn(law, keys, step, 0, 50, dtype)
        for first in range(9):
            for count in (1, 2, 5, 30):
                assert torch.equal(
                    drawn(law, keys, step, first, count, dtype), whole[:, first : first + count]
                )


def test_a_clock_is_read_when_numbers_are_drawn():
    clock = torch.tensor(4)
    noise, other = Counters((3,)).at(clock), Counters((3,))
    for step in (4, 9):
        clock.fill_(step)
        assert torch.equal(noise.normal("particles", 6), other.at(step).normal("particles", 6))
    assert torch.equal(noise.at(2).uniform("particles", 6), other.at(2).uniform("particles", 6))
