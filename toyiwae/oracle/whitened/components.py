"""The polynomials G_r of a Form, by power of the normalised weight."""

from __future__ import annotations

from toyiwae.forms import Form
from toyiwae.oracle.laws.polynomials import Polynomial
from toyiwae.oracle.whitened.whitening import MODEL_PARAMETERS, Gradients


class GradientComponents:
    """The polynomials G_r of forms; equal combinations are one object, so that their transforms are shared."""

    def __init__(self, rows: Gradients):
        self._rows, self._known = rows, {}

    def of(self, form: Form, parameter: str) -> dict[int, Polynomial]:
        """{power: polynomial} of one parameter; empty where the form has no coefficient for it."""
        if parameter in MODEL_PARAMETERS:
            terms = {r: [(factor, self._rows.model[parameter])] for r, factor in form.model.items()}
        else:
            name = "chol" if parameter == "proposal_chol" else "mean"
            terms: dict[int, list[tuple[float, Polynomial]]] = {}
            for factors, g in ((form.path, self._rows.path[name]), (form.score, self._rows.score[name])):
                for r, factor in factors.items():
                    terms.setdefault(r, []).append((factor, g))
        return {r: self._combined(parts) for r, parts in sorted(terms.items())}

    def _combined(self, terms: list[tuple[float, Polynomial]]) -> Polynomial:
        key = tuple((factor, id(g)) for factor, g in terms)
        if key not in self._known:
            plain = len(terms) == 1 and terms[0][0] == 1.0
            self._known[key] = terms[0][1] if plain else Polynomial.combine(terms)
        return self._known[key]
