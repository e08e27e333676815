"""Users' own torch modules: the same gradients as naive autograd's, in chunks too; what cannot work is refused."""

import pytest
import torch
from torch.distributions import AffineTransform, Bernoulli, Independent, Normal, TransformedDistribution

from tests import naive_networks
from tests.test_networks_step import relative
from toyiwae.errors import InputError
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.optim import Adam
from toyiwae.networks.step import step
from toyiwae.networks.users import ModuleModel

DIM_X, DIM_Z, IMAGES = 6, 2, 3
normal, independent = torch.distributions.Normal, torch.distributions.Independent


def images():
    """`[1, B, D_x]` in [0, 1]."""
    generator = torch.Generator().manual_seed(4)
    return torch.rand(1, IMAGES, DIM_X, dtype=torch.float64, generator=generator)


class Module(torch.nn.Module):
    """A small network with a learnt prior mean; it remembers the particles it saw last."""

    def __init__(self, discrete=False):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.encoder = torch.nn.Linear(DIM_X, DIM_Z if discrete else 2 * DIM_Z).double()
        self.decoder: torch.nn.Module = torch.nn.Linear(DIM_Z, DIM_X).double()
        self.other = torch.nn.Linear(1, 1).double()
        for value in self.parameters():
            value.data = torch.randn(value.shape, generator=generator, dtype=torch.float64) * 0.7
        self.discrete, self.seen = discrete, []

    def encode(self, x) -> torch.distributions.Distribution:
        stats = self.encoder(x)
        if self.discrete:
            return independent(torch.distributions.Bernoulli(logits=stats), 1)
        mean, log_std = stats.chunk(2, -1)
        return independent(normal(mean, log_std.exp()), 1)

    def log_joint(self, x, z):
        self.seen.append(z.detach())
        likelihood = normal(self.decoder(z), 0.5).log_prob(x).sum(-1)
        return likelihood + normal(0.0, 1.0).log_prob(z).sum(-1)


class Twin(naive_networks.Naive):
    """The module as the naive gradients take it."""

    def log_joint(self, parameters, x, z):
        mean = naive_networks.mlp(parameters, "decoder", z)
        return normal(mean, 0.5).log_prob(x).sum(-1) + normal(0.0, 1.0).log_prob(z).sum(-1)


def renamed(gradients):
    """The module's names and shapes as those of `naive_networks`, and without what nothing uses."""
    found = {}
    for name, value in gradients.items():
        network, kind = name.split(".")
        if network != "other":
            found[f"{network}.0.{kind}"] = value[0].mT if kind == "weight" else value[0]
    return found


@pytest.mark.parametrize("names", [("iwae", "dreg"), ("piwae", "piwae")])
def test_gradients_are_those_of_naive_autograd_in_chunks_too(names):
    """150 particles: three blocks."""
    module = Module()
    model, member = ModuleModel(module), Member(names[0], names[1], 3, 50, 9)
    x, noise = (
        images(),
        Noise((9,), 2, dtype=torch.float64),
    )
    state = torch.get_rng_state()
    result = step(model, [member], x, noise)
    assert torch.equal(torch.get_rng_state(), state)
    q = module.encode(x[0])
    noise_of = (module.seen[-1] - q.mean) / q.stddev
    own = renamed(model.parameters)
    value, expected = naive_networks.gradients(Twin("mean_field", DIM_Z), own, member, x[0], noise_of)
    assert relative(renamed(result.gradients), expected) < 1e-11
    assert abs(float(result.bound[0] - value)) < 1e-12
    assert not result.gradients["other.weight"].any()
    parts = step(model, [member], x, noise, chunk=70)
    assert relative(renamed(parts.gradients), renamed(result.gradients)) < 1e-12


def test_training_changes_the_module():
    module = Module(discrete=True)
    model, member = ModuleModel(module), Member("vimco_arithmetic", "vimco_arithmetic", 1, 4, 0, 0.01)
    adam, noise = Adam(model.parameters, [0.01]), Noise((0,), dtype=torch.float64)
    before = module.encoder.weight.detach().clone()
    x = images()
    bounds = [0.0]
    for number in range(60):
        result = step(model, [member], x, noise.at(number))
        adam.step(result.gradients)
        bounds.append(float(result.bound))
    assert not torch.equal(module.encoder.weight, before)
    assert sum(bounds[-10:]) > sum(bounds[1:11])


def test_what_cannot_work_is_refused():
    noise, x = (
        Noise((0,)),
        images(),
    )
    with pytest.raises(InputError, match="'iwae' differentiates through the particles"):
        step(ModuleModel(Module(discrete=True)), [Member("iwae", "iwae", 1, 4, 0)], x, noise)
    with pytest.raises(InputError, match="Linear has no method encode"):
        ModuleModel(torch.nn.Linear(2, 3))
    mixing = Module()
    mixing.decoder = torch.nn.Sequential(mixing.decoder, torch.nn.BatchNorm1d(DIM_X))
    with pytest.raises(
        InputError, match=r"decoder\.1 is a BatchNorm1d: particles must neither depend on the rest"
    ):
        ModuleModel(mixing)
    with pytest.raises(InputError, match="expected one member, not 2"):
        step(ModuleModel(Module()), [Member("iwae", "iwae", 1, 4, 0)] * 2, x, noise)

    class Wrong(Module):
        def encode(self, x):
            return normal(self.encoder(x), 1.0)

    with pytest.raises(
        InputError, match=r"encode returned a Normal of batch shape \(3, 4\): expected a Distribution"
    ):
        step(ModuleModel(Wrong()), [Member("iwae", "iwae", 1, 4, 0)], x, noise)


class Encoders(torch.nn.Module):
    """Encoders of several kinds, with parameters of the model's, frozen ones and a buffer beside them."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.encoder, self.decoder = torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)
        self.shared, self.unused = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
        self.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("offset", torch.ones(2))
        self.apart = torch.ones(2, requires_grad=True)

    def encode(self, x):
        mean = self.encoder(x) + self.frozen + self.offset
        if self.kind == "shared":
            return Independent(Normal(mean, self.shared.exp()), 1)
        if self.kind == "bernoulli":
            return Independent(Bernoulli(logits=mean), 1)
        if self.kind == "flow":
            base = Independent(Normal(torch.zeros_like(mean), 1.0), 1)
            return TransformedDistribution(
                base, AffineTransform(mean, self.shared, event_dim=1, cache_size=1)
            )
        return Independent(Normal(self.apart.expand(len(x), 2), 1.0), 1)

    def log_joint(self, x, z):
        return Normal(self.decoder(z * self.shared), 1.0).log_prob(x).sum(-1)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("shared", ["encoder.bias", "encoder.weight", "shared"]),
        ("bernoulli", ["encoder.bias", "encoder.weight"]),
        ("flow", ["encoder.bias", "encoder.weight", "shared"]),
        ("none", None),
    ],
)
def test_an_encoders_parameters_are_those_its_density_depends_on(kind, names):
    """Also where a distribution keeps the density of what it has drawn; nothing is drawn from the user's generator."""
    model, noise, state = ModuleModel(Encoders(kind)), Noise((3,), 1), torch.get_rng_state()
    if names is None:
        with pytest.raises(InputError, match="encode uses no parameter that is trained"):
            model.encoder_parameters(torch.ones(4, 3), noise)
    else:
        assert sorted(model.encoder_parameters(torch.ones(4, 3), noise)) == names
    assert torch.equal(torch.get_rng_state(), state)
