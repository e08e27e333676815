"""Training steps per CPU-second of the papers' model, 784-200-200-50 with its mirror, in float32 on one thread.

Every rate is taken in turns with the others', since a busy machine's speed changes from minute to minute. The limit is
what the step's floating-point operations would take at the rate of its largest product.
"""

from __future__ import annotations

import importlib.util
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch

from analysis.benchmarks.timing import Timing
from toyiwae.networks import models
from toyiwae.networks.compiled import compiled as compiled_model
from toyiwae.networks.members import Member
from toyiwae.networks.noise import Noise
from toyiwae.networks.optim import Adam
from toyiwae.networks.products import product
from toyiwae.networks.step import step

PIXELS, LATENTS, HIDDEN = 784, 50, (200, 200)
TURNS = 15
WEIGHTS = (PIXELS * 200 + 200 * 200 + 200 * 2 * LATENTS, LATENTS * 200 + 200 * 200 + 200 * PIXELS)
"""Weights of the encoder and of the decoder."""


def run() -> Iterator[Timing]:
    """Batch 100 and K = 50 beside a hand-written, compiled IWAE; a stack of 8 beside one run of 8 times its batch."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        steps = {name: own_step(name, 1, 50, batch=100) for name in ("iwae", "dreg", "piwae")}
        steps["iwae, compiled"] = own_step("iwae", 1, 50, batch=100, compiled=True)
        steps["written by hand, compiled"] = by_hand(100, 50)
        steps["largest product"] = largest_product(100 * 50)
        steps |= peers(100, 50)
        seconds = in_turns(steps)
        peak = 2 * 100 * 50 * 200 * PIXELS / seconds.pop("largest product")
        operations = 6 * 100 * (WEIGHTS[0] + 50 * WEIGHTS[1])
        for name, second in seconds.items():
            label = f"{name}, batch 100, K = 50"
            yield Timing(label, 1 / second, "steps/s", operations / second / peak)
        stacks = {
            "8 members, batch 20, K = 64": own_step("iwae", 8, 64, batch=20),
            "1 member, batch 160, K = 64": own_step("iwae", 1, 64, batch=160),
        }
        for name, second in in_turns(stacks).items():
            yield Timing(name, 1 / second, "steps/s")
    finally:
        torch.set_num_threads(threads)


def in_turns(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """CPU-seconds of each call, the median over turns in which every one is made once; two turns do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(TURNS + 2):
        for name, call in calls.items():
            started = time.process_time()
            call()
            seconds[name].append(time.process_time() - started)
    return {name: statistics.median(found[2:]) for name, found in seconds.items()}


def images(*shape: int) -> torch.Tensor:
    """Binary images."""
    return (torch.rand(*shape, PIXELS, generator=torch.Generator().manual_seed(1)) < 0.3).float()


def own_step(name: str, members: int, K: int, *, batch: int, compiled: bool = False) -> Callable[[], object]:
    """A step of ours with Adam and the drawing of noise."""
    stack = [Member(name, name, 1, K, seed) for seed in range(members)]
    seeds = tuple(range(members))
    model = models.bernoulli_vae(seeds, torch.full((PIXELS,), 0.3), latents=LATENTS, hidden=HIDDEN)
    adam, x = Adam(model.parameters, [1e-3] * members), images(members, batch)
    model = compiled_model(model) if compiled else model
    numbers = iter(range(10**9))

    def call() -> None:
        adam.step(step(model, stack, x, Noise(seeds, next(numbers))).gradients)

    return call


def by_hand(batch: int, K: int) -> Callable[[], object]:
    """IWAE as one writes it in torch: autograd through log-sum-exp, compiled, with the fused Adam."""
    sizes = (PIXELS, *HIDDEN, 2 * LATENTS), (LATENTS, *reversed(HIDDEN), PIXELS)
    encoder, decoder = (network(own) for own in sizes)
    optimiser = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3, eps=1e-4, fused=True)
    x = images(batch)

    def loss(noise: torch.Tensor) -> torch.Tensor:
        mean, log_std = encoder(x).chunk(2, -1)
        z = mean + log_std.exp() * noise
        logits = decoder(z)
        log_p = -torch.nn.functional.binary_cross_entropy_with_logits(
            logits, x.expand_as(logits), reduction="none"
        ).sum(-1)
        log_w = log_p - 0.5 * z.square().sum(-1) + 0.5 * noise.square().sum(-1) + log_std.sum(-1)
        return math.log(K) - torch.logsumexp(log_w, 0).mean()

    compiled = torch.compile(loss, dynamic=False)

    def call() -> None:
        optimiser.zero_grad()
        compiled(torch.randn(K, batch, LATENTS)).backward()
        optimiser.step()

    return call


def largest_product(rows: int) -> Callable[[], object]:
    """From the last hidden layer to the logits."""
    x, weight = torch.randn(1, rows, HIDDEN[0]), torch.randn(1, HIDDEN[0], PIXELS)
    return lambda: product(x, weight)


def peers(batch: int, K: int) -> dict[str, Callable[[], object]]:
    """The same step as Pythae and Pyro take it, where they are installed (extra `peers`)."""
    makers = {"pythae": with_pythae, "pyro": with_pyro}
    return {name: make(batch, K) for name, make in makers.items() if importlib.util.find_spec(name)}


def network(sizes: Sequence[int]) -> torch.nn.Sequential:
    """Fully connected tanh layers."""
    layers = [torch.nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    return torch.nn.Sequential(*[part for layer in layers for part in (layer, torch.nn.Tanh())][:-1])


def with_pythae(batch: int, K: int) -> Callable[[], object]:
    """Pythae's IWAE."""
    from pythae.data.datasets import DatasetOutput
    from pythae.models import IWAE, IWAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.net = network((PIXELS, *HIDDEN, 2 * LATENTS))

        def forward(self, x):
            mean, log_var = self.net(x.flatten(1)).chunk(2, -1)
            return ModelOutput(embedding=mean, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Sequential(network((LATENTS, *reversed(HIDDEN), PIXELS)), torch.nn.Sigmoid())

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z))

    config = IWAEConfig(
        input_dim=(1, 28, 28), latent_dim=LATENTS, reconstruction_loss="bce", number_samples=K
    )
    model, data = IWAE(config, Encoder(), Decoder()), DatasetOutput(data=images(batch).view(-1, 1, 28, 28))
    optimiser = torch.optim.Adam(model.parameters(), 1e-3, fused=True)

    def call() -> None:
        optimiser.zero_grad()
        model(data).loss.backward()
        optimiser.step()

    return call


def with_pyro(batch: int, K: int) -> Callable[[], object]:
    """Pyro's RenyiELBO at α = 0, its particles vectorised."""
    import pyro
    import pyro.distributions as dist
    from pyro.infer import SVI, RenyiELBO

    encoder, decoder = network((PIXELS, *HIDDEN, 2 * LATENTS)), network((LATENTS, *reversed(HIDDEN), PIXELS))

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("images", batch):
            z = pyro.sample("z", dist.Normal(torch.zeros(LATENTS), torch.ones(LATENTS)).to_event(1))
            pyro.sample("x", dist.Bernoulli(logits=decoder(z), validate_args=False).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("images", batch):
            mean, log_std = encoder(x).chunk(2, -1)
            pyro.sample("z", dist.Normal(mean, log_std.exp()).to_event(1))

    pyro.enable_validation(False)
    loss = RenyiELBO(alpha=0, num_particles=K, vectorize_particles=True, max_plate_nesting=1)
    inference, x = SVI(model, guide, pyro.optim.Adam({"lr": 1e-3}), loss), images(batch)
    return lambda: inference.step(x)
