"""Plain NumPy: IWAE with its gradients written out, the path through `z = mean + L ε` included."""

import numpy as np


def iwae(problem, *, K, M, replicates, seed):
    """The mean over M groups of log (1/K) Σ w, and its gradient by every parameter."""
    model, q, x = problem.model, problem.proposal, problem.data.x
    chol = np.linalg.cholesky(q.cov)
    noise = np.random.default_rng(seed).standard_normal((replicates, M, K, len(chol)))
    z = q.mean + noise @ chol.T
    from_prior = (z - model.prior_mean) @ np.linalg.inv(model.prior_cov)  # d log p(z) / d prior_mean
    misfit = x - z @ model.loading.T - model.offset
    from_data = misfit @ np.linalg.inv(model.noise_cov)  # d log p(x|z) / d offset
    log_p = -0.5 * (from_prior * (z - model.prior_mean)).sum(-1) - 0.5 * (from_data * misfit).sum(-1)
    log_p -= 0.5 * (np.linalg.slogdet(model.prior_cov)[1] + np.linalg.slogdet(model.noise_cov)[1])
    log_p -= 0.5 * len(x) * np.log(2 * np.pi)  # the prior's 2π cancels the proposal's
    log_w = log_p + 0.5 * (noise**2).sum(-1) + np.log(np.diag(chol)).sum()
    peak = log_w.max(-1, keepdims=True)
    w = np.exp(log_w - peak)
    values = (peak[..., 0] + np.log(w.mean(-1))).mean(-1)
    shares = w / w.sum(-1, keepdims=True) / M
    path = from_data @ model.loading - from_prior  # d log p(x, z) / dz
    by_chol = np.tril(np.einsum("rmk,rmki,rmkj->rij", shares, path, noise)) + np.diag(1 / np.diag(chol))
    return values, {
        "prior_mean": np.einsum("rmk,rmki->ri", shares, from_prior),
        "loading": np.einsum("rmk,rmki,rmkj->rij", shares, from_data, z),
        "offset": np.einsum("rmk,rmki->ri", shares, from_data),
        "proposal_mean": np.einsum("rmk,rmki->ri", shares, path),
        "proposal_chol": by_chol,
    }
