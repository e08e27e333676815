"""Pythae: VAE, IWAE, MIWAE, PIWAE and CIWAE, driven through `forward` with a linear encoder and decoder.

Pythae's models have the prior N(0, I), the noise N(0, I) and a proposal with a diagonal covariance. Any linear-Gaussian
problem can be written so, exactly. With T Tᵀ = prior_cov, turned so that T⁻¹ cov T⁻ᵀ is diagonal, and L Lᵀ = noise_cov:

    u = T⁻¹ (z − prior_mean)         decoder(u) = L⁻¹ (loading (prior_mean + T u) + offset)
    x' = L⁻¹ x                       encoder(x') = T⁻¹ (proposal_mean − prior_mean), the diagonal's logarithm

The same particles z have the same weights, up to the constant that Pythae's loss leaves out, `(D_x/2) log 2π`, and
the determinant of L; the adapter adds both. So values and gradients, by the parameters of the problem, are those of the
problem. Only the proposal's covariance off this diagonal cannot be moved: `proposal_chol` is returned where there is
one latent.

Pythae draws from torch's global generator, which the adapter puts back; `vmap` gives every replicate noise of its own.
"""

import types

import torch
from pythae.models import (
    CIWAE,
    IWAE,
    MIWAE,
    PIWAE,
    VAE,
    CIWAEConfig,
    IWAEConfig,
    MIWAEConfig,
    PIWAEConfig,
    VAEConfig,
)
from pythae.models.base.base_utils import ModelOutput
from pythae.models.nn import BaseDecoder, BaseEncoder
from pythae.trainers import CoupledOptimizerTrainer


def tensor(array):
    """A copy, in double precision."""
    return torch.tensor(array, dtype=torch.float64)


def parameters(problem):
    """Name and value of every parameter that Pythae can move."""
    model, q = problem.model, problem.proposal
    start = {
        "prior_mean": tensor(model.prior_mean),
        "loading": tensor(model.loading),
        "offset": tensor(model.offset),
        "proposal_mean": tensor(q.mean),
    }
    if len(q.cov) == 1:
        start["proposal_chol"] = torch.linalg.cholesky(tensor(q.cov))
    return start


class Whitened:
    """The problem in coordinates in which prior, noise and proposal are as Pythae has them."""

    def __init__(self, problem):
        """Finds T and L."""
        root = torch.linalg.cholesky(tensor(problem.model.prior_cov))
        chol = torch.linalg.cholesky(tensor(problem.proposal.cov))
        turn, self.std, _ = torch.linalg.svd(torch.linalg.solve_triangular(root, chol, upper=False))
        self.T, self.T_inverse = root @ turn, torch.linalg.inv(root @ turn)
        self.L_inverse = torch.linalg.inv(torch.linalg.cholesky(tensor(problem.model.noise_cov)))
        self.x = self.L_inverse @ tensor(problem.data.x)
        size = len(self.x) * torch.log(torch.tensor(2 * torch.pi, dtype=torch.float64))
        self.constant = torch.linalg.slogdet(self.L_inverse)[1] - 0.5 * size
        self.own = {}  # the parameters, which encoder and decoder read at every call


class Encoder(BaseEncoder):
    """Mean and log-variance of the proposal for every row of a batch."""

    def __init__(self, whitened):
        """Keeps the coordinates."""
        super().__init__()
        self.whitened = whitened

    def forward(self, x):
        """A batch [B, D_x]; parameters may have an axis of that length in front."""
        w, own = self.whitened, self.whitened.own
        mean = (own["proposal_mean"] - own["prior_mean"]) @ w.T_inverse.T
        if "proposal_chol" in own:
            std = (own["proposal_chol"][..., 0] * w.T_inverse[0, 0]).abs()
        else:
            std = w.std
        shape = (len(x), len(w.std))
        return ModelOutput(embedding=mean.expand(shape), log_covariance=2 * std.log().expand(shape))


class Decoder(BaseDecoder):
    """Mean of the whitened observation for every particle, those of a row of the batch side by side."""

    def __init__(self, whitened):
        """Keeps the coordinates."""
        super().__init__()
        self.whitened = whitened

    def forward(self, u):
        """Particles [B·n, D_z], or [n, D_z] with parameters without an axis for the batch."""
        w, own = self.whitened, self.whitened.own
        batch = own["prior_mean"].shape[:-1]
        z = own["prior_mean"][..., None, :] + u.reshape(*batch, -1, u.shape[-1]) @ w.T.T
        x = z @ own["loading"].mT + own["offset"][..., None, :]
        return ModelOutput(reconstruction=(x @ w.L_inverse.T).reshape(len(u), -1))


def build(problem, kind, config, **options):
    """One of the library's models with this encoder and decoder."""
    whitened = Whitened(problem)
    dims = {"input_dim": (len(whitened.x),), "latent_dim": len(whitened.std)}
    model = kind(config(**dims, reconstruction_loss="mse", **options), Encoder(whitened), Decoder(whitened))
    return model, whitened


def bound(problem, model, replicates, seed, groups=1, of_model="loss", of_proposal="loss"):
    """Values and gradients, with the sign of a bound: of `forward` on `groups` copies of the row.

    Of the library's outputs, `of_proposal` is what the proposal's parameters climb, and the value; `of_model` is
    what the model's climb.
    """
    model, whitened = model
    data = {"data": whitened.x.expand(groups, -1)}

    def losses(own, _):
        whitened.own = own
        output = model(data)
        return (output[of_model], output[of_proposal]), output[of_proposal]

    start = parameters(problem)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        replicate = torch.func.vmap(
            torch.func.jacrev(losses, has_aux=True), in_dims=(None, 0), randomness="different"
        )
        (by_model, by_proposal), loss = replicate(start, torch.zeros(replicates))
    gradients = {name: -(by_proposal if name.startswith("proposal") else by_model)[name] for name in start}
    return whitened.constant - loss, gradients


def vae(problem, *, K, M, replicates, seed):
    """VAE: one particle for each of M copies of the row, the KL in closed form. K is 1."""
    return bound(problem, build(problem, VAE, VAEConfig), replicates, seed, groups=M)


def iwae(problem, *, K, M, replicates, seed):
    """IWAE with number_samples=K, on M copies of the row."""
    model = build(problem, IWAE, IWAEConfig, number_samples=K)
    return bound(problem, model, replicates, seed, groups=M)


def ciwae(problem, *, K, M, replicates, seed):
    """CIWAE with number_samples=K and beta=0.3, on M copies of the row."""
    model = build(problem, CIWAE, CIWAEConfig, number_samples=K, beta=0.3)
    return bound(problem, model, replicates, seed, groups=M)


def miwae(problem, *, K, M, replicates, seed):
    """MIWAE with number_gradient_estimates=M and number_samples=K."""
    model = build(problem, MIWAE, MIWAEConfig, number_gradient_estimates=M, number_samples=K)
    return bound(problem, model, replicates, seed)


def miwae_exchanged(problem, *, K, M, replicates, seed):
    """MIWAE with number_gradient_estimates=K and number_samples=M."""
    model = build(problem, MIWAE, MIWAEConfig, number_gradient_estimates=K, number_samples=M)
    return bound(problem, model, replicates, seed)


def piwae_losses(problem, model, replicates, seed):
    """The encoder climbs encoder_loss, which is also the value; the decoder climbs decoder_loss."""
    parts = {"of_model": "decoder_loss", "of_proposal": "encoder_loss"}
    return bound(problem, model, replicates, seed, **parts)


def piwae(problem, *, K, M, replicates, seed):
    """PIWAE with number_gradient_estimates=M and number_samples=K: encoder_loss and decoder_loss."""
    model = build(problem, PIWAE, PIWAEConfig, number_gradient_estimates=M, number_samples=K)
    return piwae_losses(problem, model, replicates, seed)


def piwae_exchanged(problem, *, K, M, replicates, seed):
    """PIWAE with number_gradient_estimates=K and number_samples=M: encoder_loss and decoder_loss."""
    model = build(problem, PIWAE, PIWAEConfig, number_gradient_estimates=K, number_samples=M)
    return piwae_losses(problem, model, replicates, seed)


def piwae_trained(problem, *, K, M, replicates, seed):
    """What one step of CoupledOptimizerTrainer leaves at the parameters; M and K exchanged as above."""
    model, whitened = build(problem, PIWAE, PIWAEConfig, number_gradient_estimates=K, number_samples=M)
    own = {
        name: array.expand(replicates, *array.shape).clone().requires_grad_()
        for name, array in parameters(problem).items()
    }
    whitened.own = own
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        output = model({"data": whitened.x.expand(replicates, -1)})
    still = {"lr": 0.0}
    trainer = types.SimpleNamespace(
        encoder_optimizer=torch.optim.SGD([own[n] for n in own if n.startswith("proposal")], **still),
        decoder_optimizer=torch.optim.SGD([own[n] for n in own if not n.startswith("proposal")], **still),
    )
    CoupledOptimizerTrainer._optimizers_step(trainer, output)
    return None, {name: -replicates * array.grad for name, array in own.items()}  # its losses are batch means
