"""Fourth moments of gradients and values of a linear-Gaussian problem, averaged over its observations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from toyiwae.forms import Form, form_of_mean
from toyiwae.oracle.finite_k.bounds import FiniteK, Grids
from toyiwae.oracle.finite_k.fourth_moments import FourthEngine, Spread, central, for_all, log_moments
from toyiwae.oracle.laws.bounded import Bounded
from toyiwae.oracle.whitened.gradient_polynomials import GradientComponents
from toyiwae.oracle.whitened.whitening import Whitened


def gradients(
    whitened: Whitened, form: Form, parameters: Iterable[str], particles: Sequence[int]
) -> dict[str, Spread]:
    """Spread of one group's gradient of the average over observations, by parameter, for each K: the same transforms.

    Args:
        whitened: the problem.
        form: the estimator; parameters whose coefficients have log terms are left out.
        parameters: whose gradients.
        particles: numbers of particles that a weight is normalised over.
    """
    plain = form_of_mean(form) is form
    records = [whitened.problem.parameters.record(name) for name in parameters]
    chosen = {p.name: p for p in records if plain or p.part == "model"}
    x, count = whitened.x, len(whitened.x)
    many, grids = [k for k in particles if k > 1], Grids(particles)
    totals = {name: np.zeros((2, 2, len(particles), *p.shape)) for name, p in chosen.items()}
    width = max((p.size for p in chosen.values()), default=1)
    for rows, part in whitened.batches(form.exponent, width):
        built, grid = GradientComponents(part), grids(part.law)
        engine = FourthEngine(part.law, many, grid) if grid is not None else None
        for name, parameter in chosen.items():
            if components := built.of(form, parameter):
                second, fourth = for_all(part.law, components, particles, engine)
                cumulants = (second, 2), (fourth - second * second * 3.0, 4)
                for so_far, (found, power) in zip(totals[name], cumulants, strict=True):
                    for sums, array in zip(so_far, (found.value, found.error), strict=True):
                        sums += parameter.summed(array, x[rows] ** power, rows)
    return {
        name: Spread(Bounded(*var) / float(count) ** 2, Bounded(*fourth) / float(count) ** 4)
        for name, (var, fourth) in totals.items()
    }


def value(whitened: Whitened, particles: int, exponent: float = 1.0) -> Spread:
    """Spread of `(1/e) log (1/K) Σ w^e` of one group, averaged over observations; at K = 1, of log w.

    Args:
        whitened: the problem.
        particles: K.
        exponent: e.
    """
    count = float(len(whitened.h))
    if particles == 1:
        # log w is a sum of -βε²/2 - hε: its cumulants are those of quadratic forms
        law = whitened.law()
        b, h = (
            Bounded(x, np.broadcast_to(e, x.shape)) ** 2
            for x, e in ((law.beta, law.beta_error), (law.h, law.h_error))
        )
        second, fourth = (b * 0.5 + h).sum(axis=-1), (b * b * 3.0 + h * b * 12.0).sum(axis=-1)
    else:
        two, four = central(log_moments(FiniteK(whitened.law(exponent), [particles])))
        second, fourth = two / exponent**2, (four - two * two * 3.0) / exponent**4
    return Spread(second.sum() / count**2, fourth.sum() / count**4)
