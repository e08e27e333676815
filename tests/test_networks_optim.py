"""Adam beside torch's own, its state, and the paper's stages of learning rates."""

import pytest
import torch

from toyiwae.errors import InputError
from toyiwae.networks.optim import EPOCHS, Adam, stage_factor

RATES, EPS = (0.1, 0.003), 1e-4


def parameters():
    generator = torch.Generator().manual_seed(1)
    shapes = {"weight": (2, 3, 4), "bias": (2, 4)}
    return {k: torch.randn(s, generator=generator, dtype=torch.float64) for k, s in shapes.items()}


def slopes(values, number):
    """A smooth function's gradients, which differ from step to step."""
    return {name: torch.cos(value + number) for name, value in values.items()}


def test_it_climbs_as_torchs_own_adam_descends_on_the_negative():
    values = parameters()
    adam = Adam(values, RATES, eps=EPS)
    for e, rate in enumerate(RATES):
        own = {name: value[e].clone().requires_grad_(True) for name, value in parameters().items()}
        other = torch.optim.Adam(own.values(), lr=rate, eps=EPS, foreach=False, fused=False)
        for number in range(30):
            for name, slope in slopes({k: v.detach() for k, v in own.items()}, number).items():
                own[name].grad = -slope
            other.param_groups[0]["lr"] = rate * stage_factor(number)
            other.step()
        if e == 0:
            for number in range(30):
                adam.step(slopes(values, number), stage_factor(number))
        for name, value in own.items():
            torch.testing.assert_close(values[name][e], value.detach(), rtol=1e-12, atol=1e-12)


def test_a_loaded_state_goes_on_bit_for_bit():
    values = parameters()
    adam = Adam(values, RATES)
    for number in range(3):
        adam.step(slopes(values, number))
    kept = {name: tensor.clone() for name, tensor in adam.state().items()}
    copies = {name: value.clone() for name, value in values.items()}
    other = Adam(copies, RATES)
    other.load(kept)
    for number in range(3, 6):
        adam.step(slopes(values, number))
        other.step(slopes(copies, number))
    assert all(torch.equal(values[name], copies[name]) for name in values)
    del kept["first.bias"]
    with pytest.raises(
        InputError, match=r"the optimiser's state does not fit the parameters: first\.bias of shape"
    ):
        other.load(kept)


def test_the_stages_of_the_paper():
    factors = [stage_factor(epoch) for epoch in range(EPOCHS)]
    assert EPOCHS == 3280
    assert [factors.count(10 ** (-i / 7)) for i in range(8)] == [3**i for i in range(8)]
    assert factors == sorted(factors, reverse=True)
    assert stage_factor(EPOCHS + 10) == factors[-1] == 0.1
