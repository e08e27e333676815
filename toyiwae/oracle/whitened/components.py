"""The polynomials G_r of a Form, by power of the normalised weight."""

from __future__ import annotations

from toyiwae.forms import Form
from toyiwae.oracle.laws.polynomials import Polynomial
from toyiwae.oracle.whitened.gradient_polynomials import Gradients
from toyiwae.problems.parameter import Parameter


class GradientComponents:
    """The polynomials G_r of forms; equal combinations are one object, so that their transforms are shared."""

    def __init__(self, rows: Gradients):
        self._rows, self._known = rows, {}

    def of(self, form: Form, parameter: Parameter) -> dict[int, Polynomial]:
        """{power: polynomial} of one parameter; empty where the form has no coefficient for it."""
        if parameter.part == "model":
            terms = {r: [(factor, self._rows.model[parameter.name])] for r, factor in form.model.items()}
        else:
            path, score = (functions[parameter.moves] for functions in (self._rows.path, self._rows.score))
            terms: dict[int, list[tuple[float, Polynomial]]] = {}
            for factors, g in ((form.path, path), (form.score, score)):
                for r, factor in factors.items():
                    terms.setdefault(r, []).append((factor, g))
        return {r: self._combined(parts) for r, parts in sorted(terms.items())}

    def _combined(self, terms: list[tuple[float, Polynomial]]) -> Polynomial:
        key = tuple(terms)
        if key not in self._known:
            plain = len(terms) == 1 and terms[0][0] == 1.0
            self._known[key] = terms[0][1] if plain else Polynomial.combine(terms)
        return self._known[key]
