"""Fourth moments of gradients and values of a linear-Gaussian problem, averaged over its observations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from toyiwae.forms import Form, form_of_mean
from toyiwae.oracle.finite_k.bounds import FiniteK
from toyiwae.oracle.finite_k.fourth_moments import FourthEngine, Spread, central, for_all, log_moments
from toyiwae.oracle.laws.bounded import EPS, Bounded
from toyiwae.oracle.laws.ranges import Grids
from toyiwae.oracle.whitened.components import GradientComponents
from toyiwae.oracle.whitened.rows import row_batches
from toyiwae.oracle.whitened.whitening import Whitened


def gradients(
    whitened: Whitened, form: Form, parameters: Iterable[str], particles: Sequence[int]
) -> dict[str, Spread]:
    """Spread of one group's gradient of the average over rows, for each K, by parameter; all on the same transforms.

    Args:
        whitened: the problem.
        form: the estimator; parameters whose coefficients have log terms are left out.
        parameters: whose gradients.
        particles: numbers of particles that a weight is normalised over.
    """
    plain = form_of_mean(form) is form
    records = [whitened.problem.parameters.record(name) for name in parameters]
    chosen = {p.name: p for p in records if plain or p.part == "model"}
    law, x, count = whitened.law(form.exponent), whitened.x, len(whitened.x)
    many, grids = [k for k in particles if k > 1], Grids(particles)
    totals = {name: np.zeros((3, len(particles), *p.shape)) for name, p in chosen.items()}
    width = max((p.size for p in chosen.values()), default=1)
    for rows in row_batches(law, width):
        part = whitened.gradients(law, rows, form.exponent)
        built, grid = GradientComponents(part), grids(part.law)
        engine = FourthEngine(part.law, many, grid) if grid is not None else None
        for name, parameter in chosen.items():
            if components := built.of(form, parameter):
                second, fourth = for_all(part.law, components, particles, engine)
                excess = fourth.value - 3.0 * second.value**2
                powers = (second.value, x[rows] ** 2), (excess, x[rows] ** 4), (fourth.error, x[rows] ** 4)
                totals[name] += np.stack([parameter.summed(*pair, rows) for pair in powers])
    return {
        name: Spread(total[0] / count**2, total[1] / count**4, total[2] / count**4)
        for name, total in totals.items()
    }


def value(whitened: Whitened, particles: int, exponent: float = 1.0) -> Spread:
    """Spread of `(1/e) log (1/K) Σ w^e` of one group, averaged over rows; at K = 1, of log w.

    Args:
        whitened: the problem.
        particles: K.
        exponent: e.
    """
    if particles == 1:
        # log w is a sum of -βε²/2 - hε: its cumulants are those of quadratic forms
        b, h = whitened.beta**2, whitened.h**2
        second, excess = 0.5 * b.sum() + h.sum(axis=1), 3.0 * (b**2).sum() + 12.0 * h @ b
        error = 64 * EPS * excess
    else:
        moments = log_moments(FiniteK(whitened.law(exponent), [particles]))
        two, four = central([Bounded(m, slack) for m, slack in moments])
        second, excess = two.value / exponent**2, (four.value - 3.0 * two.value**2) / exponent**4
        error = four.error / exponent**4
    count = len(whitened.h)
    parts = (second / count**2, excess / count**4, error / count**4)
    return Spread(*(np.asarray(part.sum()) for part in parts))
