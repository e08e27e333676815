"""The page's sentences: what the script fills in, what stands still, and the first-order laws' formulas."""

from __future__ import annotations

TITLE = "How tight is an importance-weighted bound?"
LEAD = (
    "An importance-weighted autoencoder climbs the bound $L_K=\\mathrm{E}\\,\\log\\frac{1}{K}\\sum_k w_k$, which lies "
    "below the log-evidence $\\log p(x)$. How far below, how many of its $K$ particles count, and is there a signal in "
    "its gradients? Where model and proposal are Gaussian, all of this has exact answers. Move the sliders."
)

SLIDERS = {
    "K": ("Particles K", "inside the logarithm", "particles", "1", "10⁶"),
    "M": ("Groups M", "averaged outside", "groups", "1", "1000"),
    "D": ("Dimension D", "of the latent", "dimensions", "1", "50"),
    "shift": ("Mean shift", "posterior std. dev.", "posterior standard deviations", "0", "5"),
    "width": (
        "Proposal width",
        "over the posterior’s",
        "times the posterior’s standard deviation",
        "0.5",
        "2",
    ),
}
"""Slider -> its label, unit, spoken unit, and the texts at its ends."""

READOUTS = {
    "gap": ("Gap $\\log p(x)-L_K$", "nats"),
    "ess": ("Effective sample size", "particles"),
}
"""Quantity -> its label and unit."""

FILLED = {
    "summary": "With K = {K} the bound lies {gap} nats below log p(x), and {ess} particles count.",
    "ratios": "Signal-to-noise ratios of the gradients of model and proposal: {list}.",
    "ratio": "{name} {model} and {proposal}",
    "many": "The table has the signal-to-noise ratios of the estimators that are drawn.",
    "curve": "{name}: {first} at K = 1, {now} at K = {K}, {last} at K = 10⁶.",
    "weights": "In nats from log p(x): the ELBO, the mean of the log-weight, is at {elbo}, the bound at {bound}.",
    "equal": "all weights equal p(x)",
    "missing": "not on this axis: {list}",
    "one": "{label} {value}",
    "first": "to first order in 1/K: {first}",
    "no_first": "no first-order law: Var[w] is infinite",
    "share": "expected, {share} % of K = {K}",
    "least": "–",
    "wait": "…",
    "posterior": (
        "The proposal is the posterior: all weights are equal. A gradient without the score is then 0 in every sample, "
        "so its ratio is 0/0; one with it is noise around 0."
    ),
    "centred": "Without a shift the mean gradient of the proposal’s mean is 0 by symmetry, and so are its ratios.",
    "noiseless": (
        "At K = 1 and equal widths a gradient without the score is the same in every sample: it has no noise."
    ),
    "infinite": (
        "The proposal is so narrow (width² ≤ 1/2) that the weights have infinite variance. Gap, sample size and ratios "
        "are finite all the same, but the laws in 1/K do not hold."
    ),
    "collapse": (
        "The first-order law is {ratio} times too large here: one weight outweighs the others until K is near "
        "exp(2 Var log w)."
    ),
}
"""Texts that the script fills in; so does the generator."""

NAMES = {
    "gap": "Exact gap in nats",
    "ess": "Expected effective sample size",
}
"""What a screen reader hears a curve called that belongs to no estimator."""

CAPTIONS = {
    "weights": (
        "Density of one particle’s under the proposal. The mean is the ELBO, $L_1$; that of the logarithm of an "
        "average of $K$ weights is $L_K$ instead."
    ),
    "gap": "Exact; dashed, $\\mathrm{Var}[w]/(2K)$ with $w$ in units of $p(x)$, the first order.",
    "ess": (
        "Exact $\\mathrm{E}[(\\sum w)^2/\\sum w^2]$; dotted, all $K$ particles; dashed, $K/\\mathrm{E}[w^2]$, the "
        "first order."
    ),
    "model": (
        "Of the gradient by the prior’s mean, along the shift. Dotted, the law for large $K$ where the moments exist: "
        "$\\sqrt{MK}$ if the gradient has a limit."
    ),
    "proposal": (
        "Of the gradient by the proposal’s mean, along the shift. Dotted, the law: $\\sqrt{M/K}$ for IWAE, "
        "$\\sqrt{MK}$ for DReG."
    ),
}
"""Panel -> its caption."""

TABLE = {
    "title": "Estimators",
    "columns": ("drawn", "estimator", "model", "proposal"),
    "caption": "Signal-to-noise ratios at this setting. A box draws an estimator’s curves.",
    "omitted": "Not computed on this page, but by the library: {list}.",
    "one": "{names} ({reason})",
}

TEXT = (
    "The model is that of the toy problem in “Tighter variational bounds are not necessarily better”: "
    "$p(z)=N(\\mu,I)$ and $p(x\\mid z)=N(z,I)$ in $D$ dimensions, so that the posterior is $N(m,I/2)$. The proposal is "
    "Gaussian, too: its standard deviation is the width times the posterior’s in every direction, and its mean lies "
    "away from $m$ by the shift, a Euclidean length in posterior standard deviations. Gap and sample size depend on "
    "nothing else, whatever the model. With the preset for the paper the proposal has the paper’s variance 2/3, "
    "$\\sqrt{4/3}\\approx 1.15$ wide, and the error that the paper’s perturbed encoder makes.",
    "The ratios are $|\\mathrm{E}\\Delta|/\\mathrm{std}\\,\\Delta$ of the gradients with respect to two means, in the "
    "direction of the shift: that of the prior, $\\mu$, and that of the proposal. For the first the observation is one "
    "standard deviation of $p(x)$ away from $\\mu$, in that direction. The table holds every estimator of the "
    "library whose coefficients are polynomials in the normalised weights, or in those of a power of the weights; "
    "below it stand the others, with the reason.",
    "With the variance of the weights finite, the ratio of the proposal’s gradient falls like $1/\\sqrt{K}$ for IWAE "
    "and grows like $\\sqrt{K}$ for DReG (here also the fourth moment of $w$ must be finite). Groups $M$ help both.",
    "The script on this page does not sample. It has the Laplace transforms of the weight from its moments, which are "
    "known in closed form, by Mellin–Barnes contours, and the numbers for every $K$ from these by one more quadrature:",
)

FORMULAS = {
    "The moments of a weight in units of $p(x)$, with shift $d$, width $\\rho$ and $\\beta=\\rho^2-1$": (
        "\\mathrm{E}[w^s]=\\exp\\left(\\frac{D}{2}(s\\,\\log(1+\\beta)-\\log(1+s\\beta))"
        "+\\frac{s(s-1)d^2}{2(1+s\\beta)}\\right)"
    ),
    "Its Laplace transform": (
        "\\Lambda(t)=\\mathrm{E}[e^{-tw}]=\\frac{1}{2\\pi i}\\int_{c-i\\infty}^{c+i\\infty}"
        "\\Gamma(s)\\,t^{-s}\\,\\mathrm{E}[w^{-s}]\\,ds"
    ),
    "The gap": "\\log p(x)-L_K=\\int_0^\\infty (\\Lambda(t/K)^K-e^{-t})\\,\\frac{dt}{t}",
    "The mean of a term of a gradient, of power $r$ (IWAE: 1, DReG: 2)": (
        "\\mathrm{E}\\left[\\frac{\\sum_k w_k^r g_k}{(\\sum_k w_k)^r}\\right]=\\frac{K}{\\Gamma(r)}\\int_0^\\infty "
        "t^{r-1}\\,\\mathrm{E}[w^r g\\,e^{-tw}]\\,\\Lambda(t)^{K-1}\\,dt"
    ),
}

ACCURACY = (
    "The script’s numbers were compared with those of the Python oracle, which carry proven or bounded errors, at "
    "{settings} settings: the sliders’ ends, and where the law changes, in all combinations with M = 1, and settings "
    "drawn at random. The largest relative difference of the {numbers} numbers was at most {worst}. Without "
    "JavaScript the page shows the oracle’s own."
)

CODE = """\
import numpy as np
import toyiwae

K, M, D, shift, width = {K}, {M}, {D}, {shift}, {width}
axis = np.eye(D)[0]
x = np.sqrt(2) * axis
problem = toyiwae.Problem.from_dict({{
    "model": {{
        "prior_mean": np.zeros(D), "prior_cov": np.eye(D),
        "loading": np.eye(D), "offset": np.zeros(D), "noise_cov": np.eye(D),
    }},
    "proposal": {{"mean": x / 2 + shift * np.sqrt(0.5) * axis, "cov": width**2 / 2 * np.eye(D)}},
    "data": {{"x": x}},
}})
names = [{names}]
cell = toyiwae.exact(problem, K=K, M=M, estimators=names).cell(K, M)
print(cell.gap, cell.ess)
for name, gradient in cell.gradients.items():
    for parameter, moments in gradient.parameters.items():
        print(name, parameter, moments.snr[0])
"""
