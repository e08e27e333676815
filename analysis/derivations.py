"""What SymPy derives for every estimator of the registry, as formulas for the report and the documentation."""

from __future__ import annotations

from functools import cache

from toyiwae.cli import listing
from toyiwae.estimators import get
from toyiwae.oracle.series import symbolic

INTRODUCTION = (
    "SymPy derives these, and tests hold the oracle's numbers to them. $\\mu_n$ is the $n$-th central moment of $w/Z$, "
    "and $\\langle w^r g^d\\rangle$ stands for $\\mathrm{E}[(w/Z)^r g^d]$. The bias of the gradient is derived twice "
    "for the general Gaussian problem with one latent, by expanding the mean of the normalised weights and by "
    "differentiating the variance in closed form; both agree identically. It is shown in the mean $m$ and the standard "
    "deviation $s$ of the posterior, with the proposal $N(\\mu,\\sigma^2)$. The signal-to-noise ratios are leading "
    "terms as $K$ grows, where the moments in them exist; those of $\\phi$ with a term in $\\log\\hat{Z}$ are not "
    "among them."
)


@cache
def formulas() -> dict[str, list[str]]:
    """Title -> formula and what is said of its symbols, line by line, in the TeX subset of `analysis.mathml`.

    Estimators have their parameters' defaults.
    """
    forms = {}
    for entry in listing.entries():
        parameter = entry["parameter"]
        name = f"{entry['name']}:{parameter['default']:g}" if parameter else entry["name"]
        form = get(name).form
        if form is not None:
            forms[name] = form
    found = symbolic.derivations(forms, order=3)
    return {title: latex.split(r",\quad ", maxsplit=1) for title, latex in found.items()}
