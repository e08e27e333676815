"""Noise: how a cell is cut into units, that units are independent, and that their seeds never repeat."""

import math

import pytest
import torch

from toyiwae import stats
from toyiwae.montecarlo.noise import GROUPS, PARTICLES, REPLICATES, ROWS, Layout, Noise, scrambled

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("sizes", "axis", "block"),
    [
        ((4, 2, 3, 5), REPLICATES, 8),
        ((40, 2, 3, 5), ROWS, 33),
        ((40, 70, 3, 5), GROUPS, 66),
        ((4, 2, 130, 9), PARTICLES, 111),
        ((1, 1, 1, 5000), PARTICLES, 1),
    ],
)
def test_units_cut_the_axis_below_which_all_fits(sizes, axis, block):
    layout = Layout.of(*sizes, unit=1000)
    assert (layout.axis, layout.block) == (axis, block)
    noise = Noise(layout, 3, (1,), CPU)
    joined = noise.draw(0, layout.units, outer=2)
    parts = [noise.draw(unit, 1, outer=2) for unit in range(layout.units)]
    assert torch.equal(joined, torch.cat(parts, dim=axis))
    assert tuple(joined.shape[axis + 1 :]) == layout.shape[axis:]
    assert joined.shape[axis] == layout.length
    assert not torch.isclose(joined, noise.draw(0, layout.units, outer=1)).any()


def test_one_number_belongs_to_one_unit():
    """No unit of a cell repeats numbers of another, whatever its outer index."""
    layout = Layout.of(3, 2, 50, 4, unit=64)
    noise = Noise(layout, 3, (50, 2), CPU)
    drawn = torch.cat([noise.draw(0, layout.units, outer=outer).flatten() for outer in range(6 * 5)])
    assert len(drawn.unique()) == len(drawn) == 5 * 3 * 2 * 50 * 4


def test_noise_is_standard_normal_and_units_are_independent():
    layout = Layout.of(1, 4, 4096, 2, unit=4096)
    noise = Noise(layout, 12, (4096, 4, 0), CPU)
    x = torch.stack([noise.draw(0, layout.units, outer=i).reshape(-1, 4096) for i in range(100)])
    other = Noise(layout, 12, (4096, 4, 1), CPU).draw(0, layout.units).reshape(-1, 4096)
    products = {
        "unit": x[:, 1:] * x[:, :-1],
        "outer": x[1:] * x[:-1],
        "number": x[..., 1:] * x[..., :-1],
        "stream": x[0] * other,
    }
    z = {name: float(product.mean()) * math.sqrt(product.numel()) for name, product in products.items()}
    z["mean"] = float(x.mean()) * math.sqrt(x.numel())
    z["variance"] = float((x**2).mean() - 1) * math.sqrt(x.numel() / 2)
    z["fourth moment"] = float((x**4).mean() - 3) * math.sqrt(x.numel() / 96)
    assert max(map(abs, z.values())) < stats.family_threshold(len(z), 1e-6), z


def test_seeds_of_units_never_repeat_within_a_cell():
    """The CPU generator reads 32 bits of a seed: of 200,000 random ones some would repeat almost surely."""
    noise = Noise(Layout.of(1, 1, 10, 2), 0, (10, 1, 0), CPU)
    assert len({scrambled(noise._start + unit) for unit in range(200_000)}) == 200_000
    generators = [torch.Generator().manual_seed(seed) for seed in (5, 5 + 2**32)]
    assert torch.equal(*(torch.randn(4, generator=generator) for generator in generators))


@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (1, 1, 5000, 2), (3, 4, 10**6, 50), (10**5, 2, 3, 7)])
def test_a_unit_fills_a_mebibyte_at_most_and_half_of_one_at_least(sizes):
    """It stays in a core's cache, and is not so small that keying it takes longer than drawing it."""
    layout = Layout.of(*sizes)
    drawn = Noise(layout, 3, (1,), CPU).draw(0, 1)
    assert drawn.dtype == torch.float64
    assert 2**19 < drawn.nbytes <= 2**20
