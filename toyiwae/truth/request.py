"""What the oracle is asked for: every bound, gradient and variance that some estimators' cells need, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

from toyiwae.estimators import Estimator
from toyiwae.forms import Bound, Form
from toyiwae.problems.parameter import Parameter

Job = tuple[Form, str]
"""A form and a parameter."""


def targets(estimator: Estimator, k: int, m: int) -> tuple[Bound | None, Bound | None]:
    """The bounds that an estimator's model and proposal gradients are unbiased for."""
    target = estimator.target
    model = target.model(k, m) if target and target.model else None
    proposal = target.proposal(k, m) if target and target.proposal else None
    return model, proposal


def pooling(form: Form, part: str, k: int, m: int) -> tuple[int, int]:
    """Particles that a weight is normalised over, and independent repeats that are averaged.

    Args:
        form: the estimator.
        part: "model" or "proposal".
        k: K.
        m: M.
    """
    pooled = part in form.pooled or (part == "proposal" and "path" in form.pooled)
    return (k * m, 1) if pooled else (k, m)


def reference(exponent: float) -> Form:
    """The reparameterised gradient of `(1/e) log (1/K) Σ w^e`: its mean is that of the bound itself."""
    return Form({1: 1.0}, {1: 1.0}, {1: -1.0}, exponent=exponent)


def at_particles(form: Form, k: int) -> Form:
    """A form with the same coefficients at this K: of two particles the other one is its own geometric mean."""
    if k != 2 or not form.leave_one_out_geometric:
        return form
    both = form.leave_one_out + form.leave_one_out_geometric
    return replace(form, leave_one_out=both, leave_one_out_geometric=0.0)


class Questions:
    """The questions of one call of `exact`.

    Args:
        estimators: what was asked for.
        parameters: likewise.
        counts: K.
        groups: M.
    """

    def __init__(
        self,
        estimators: Sequence[Estimator],
        parameters: Sequence[Parameter],
        counts: Sequence[int],
        groups: Sequence[int],
    ):
        """Nothing is collected yet."""
        self.estimators, self.records = estimators, {parameter.name: parameter for parameter in parameters}
        self.parameters = tuple(self.records)
        self.cells = [(k, m) for k in counts for m in groups]
        self._counts = counts

    def part(self, parameter: str) -> str:
        """The part that a parameter belongs to, "model" or "proposal"."""
        return self.records[parameter].part

    @cached_property
    def parts(self) -> dict[str, list[str]]:
        """The parameters of either part, where there are any."""
        listed = {
            part: [p for p in self.parameters if self.part(p) == part] for part in ("model", "proposal")
        }
        return {part: names for part, names in listed.items() if names}

    @cached_property
    def _bounds(self) -> list[Bound]:
        found = [bound for k, m in self.cells for e in self.estimators for bound in targets(e, k, m)]
        return list(dict.fromkeys(bound for bound in found if bound is not None))

    @cached_property
    def climbed(self) -> list[Bound]:
        """The bounds whose values are reported."""
        pairs = [targets(e, k, m) for k, m in self.cells for e in self.estimators]
        return list(
            dict.fromkeys(b for b in (proposal or model for model, proposal in pairs) if b is not None)
        )

    @cached_property
    def bound_particles(self) -> dict[float, list[int]]:
        """Exponent of a bound -> the numbers of particles of its terms."""
        by_exponent: dict[float, set[int]] = {1.0: set(self._counts)}
        for bound in self._bounds:
            by_exponent.setdefault(bound.exponent, set()).update(k for k, _ in bound.terms)
        return {exponent: sorted(counts) for exponent, counts in by_exponent.items()}

    def uses(self, estimator: Estimator, parameter: str) -> list[int]:
        """The numbers of particles that an estimator's gradient needs: those of its form, or of its target."""
        found: set[int] = set()
        for k, m in self.cells:
            if estimator.form is not None:
                found.add(pooling(estimator.form, self.part(parameter), k, m)[0])
            else:
                bound = targets(estimator, k, m)[self.part(parameter) == "proposal"]
                found.update(() if bound is None else (count for count, _ in bound.terms))
        return sorted(found)

    @cached_property
    def particles(self) -> list[int]:
        """All numbers of particles of gradients."""
        used = {k for e in self.estimators for p in self.parameters for k in self.uses(e, p)}
        return sorted({*self._counts, *used})

    @cached_property
    def jobs(self) -> dict[Job, Job]:
        """Forms and parameters whose means and variances are needed; beside those asked for, the bounds' own."""
        exponents = sorted({bound.exponent for bound in self._bounds} | {1.0})
        forms = [e.form for e in self.estimators if e.form is not None]
        forms += [reference(exponent) for exponent in exponents]
        return {(form, p): (form, p) for form in forms for p in self.parameters}

    @cached_property
    def log_jobs(self) -> dict[tuple[int, ...], dict[Job, Job]]:
        """Numbers of particles -> forms with logarithms whose variances are needed there."""
        found: dict[tuple[int, ...], dict[Job, Job]] = {}
        for estimator in self.estimators:
            form = estimator.form
            if form is None or not (form.has_log_terms or form.constant):
                continue
            for parameter in self.parts.get("proposal", ()):
                found.setdefault(tuple(self.particles), {})[form, parameter] = (form, parameter)
                for k in self.uses(estimator, parameter):
                    same = at_particles(form, k)
                    if same != form:
                        found.setdefault((k,), {})[same, parameter] = (same, parameter)
        return found

    def exponents(self, estimator: Estimator) -> set[float]:
        """Exponents of the weights that an estimator's numbers are computed from."""
        bounds = [bound for k, m in self.cells for bound in targets(estimator, k, m)]
        found = {bound.exponent for bound in bounds if bound is not None}
        return found | ({estimator.form.exponent} if estimator.form is not None else set())


def log_part(form: Form, part: str) -> bool:
    """Whether a gradient of the model or of the proposal carries logarithms of sums of weights."""
    return part == "proposal" and bool(form.has_log_terms or form.constant)
