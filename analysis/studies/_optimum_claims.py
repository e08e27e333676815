"""What the study of optimal proposals claims."""

from __future__ import annotations

import numpy as np

from analysis import measures, report
from analysis.study import Claim, Table


def verdicts(table: Table) -> list[Claim]:
    """Both limits, the path between them, what it trades, and where the first proposal's weights have no variance."""
    path, limits, checked = table["path"], table["limits"].iloc[0], table["checked"]
    finite, last = path[np.isfinite(path.K)], path.iloc[-1]
    variance = path.variance_1.to_numpy()
    at = path.set_index("K").variance_1.reindex(checked.K.astype(float)).to_numpy()
    spread = float((path.variance_1 - path.variance_2).abs().max())
    far = finite.tail(2)
    rho = float(limits.correlation)
    return [
        Claim.near(
            "At $K=1$ the best mean-field proposal has the variance of the conditional.",
            r"1-\rho^2",
            float(variance[0]),
            expected=float(limits["first"]),
            within=1e-9,
            note="In units of the marginal variance, as below; a closed form.",
            source="slide: VAE optimum; slide: inference or likelihood",
            condition="$q$ is mean-field",
        ),
        Claim.near(
            "As $K\\to\\infty$ it is the one of least variance of the weight, wider than the marginal.",
            r"\frac{8}{3c-\sqrt{9c^2-32c}},\quad c=\frac{4}{1-\rho^2}",
            float(variance[-1]),
            expected=float(limits["last"]),
            within=1e-6,
            note="Found by following the exact optimum, against the root of the quadratic equation that the optimum "
            f"solves. The two coordinates, of different scales, agree to {report.in_prose(spread)} for every $K$.",
            source="slide: inference or likelihood",
            condition=r"$q$ is mean-field",
        ),
        Claim(
            "Between them the variance grows with $K$.",
            r"S_{K+1}>S_K",
            float(np.diff(variance).min()),
            low=-1e-7,
            note=f"The smallest step between {len(path)} values of $K$ up to {report.in_prose(finite.K.max())} and "
            "infinity; an optimum is known to about $10^{-7}$.",
        ),
        Claim(
            "A second search finds the same optima.",
            r"\mathrm{argmax}_\phi L_K",
            float(np.abs(at / checked.variance - 1).max()),
            high=1e-5,
            note=f"The largest relative difference at $K$ = {', '.join(str(k) for k in checked.K)} from the "
            f"minimum by "
            "Brent's method over gaps that are sums over a grid of the noise and of $\\log t$, with no code in "
            "common; the minimum of a function known to 15 digits is known to seven.",
        ),
        Claim(
            "On the way, the bound gains and the posterior is approximated worse.",
            r"\log Z-L_K\to 0,\quad\mathrm{KL}(q_K\Vert p)>\mathrm{KL}(q_1\Vert p)",
            float(min(np.diff(path.kl).min(), -np.diff(finite.gap).max())),
            low=-1e-7,
            note=f"The smallest step of $\\mathrm{{KL}}(q\\Vert p)$ and of the gap, of either sign; the former goes "
            f"from {path.kl.iloc[0]:.3f} to {last.kl:.3f} nats.",
            source="slide: inference or likelihood; rainforth2018tighter",
        ),
        Claim.near(
            "From a correlation of one half on, the weights of the best proposal at $K=1$ have infinite variance.",
            r"\beta_{\mathrm{min}}=-\rho\le-\frac{1}{2}",
            float(table["threshold"].correlation[0]),
            expected=0.5,
            within=1e-8,
            note="The correlation at which the second moment ceases to exist, by bisection on the oracle's spectrum.",
            condition="there are two latents and $q$ is mean-field",
        ),
        Claim.near(
            "So no number of particles makes up for that proposal.",
            r"\frac{\log Z-L_K(q_1)}{\log Z-L_K(q_K)}\propto K^{2-1/\rho}",
            float(measures.slopes(far.K, far.first_gap / far.gap)[-1]),
            expected=2 - 1 / rho,
            within=0.1,
            note=f"The slope of its gap over the least, as logarithms, from $K$ = {report.in_prose(far.K.iloc[0])} "
            f"to {report.in_prose(far.K.iloc[1])}. The power is that of the weight's tail; it has a factor "
            f"that varies "
            "like a power of $\\log K$, for which the tolerance is set.",
            condition=r"$\rho>1/2$",
        ),
    ]
