"""What one call of `exact` asks for: every bound, gradient and variance that its cells need, each once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import numpy as np

from toyiwae.estimators import Estimator
from toyiwae.forms import Bound, Form
from toyiwae.problems.parameter import Parameter

Job = tuple[Form, str]
"""A form, and the name of a parameter."""


def targets(estimator: Estimator, k: int, m: int) -> dict[str, Bound | None]:
    """The bounds that an estimator's "model" and "proposal" gradients are unbiased for."""
    target = estimator.target
    parts = {"model": target and target.model, "proposal": target and target.proposal}
    return {part: bound(k, m) if bound else None for part, bound in parts.items()}


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


@cache
def reference(exponent: float) -> Form:
    """The reparameterised gradient of `(1/e) log (1/K) Σ w^e`: its mean is that of the bound itself."""
    return Form({1: 1.0}, {1: 1.0}, {1: -1.0}, exponent=exponent)


def at_particles(form: Form, k: int) -> Form:
    """A form with the same coefficients at this K: of two particles the other one is its own geometric mean."""
    if k != 2 or not form.leave_one_out_geometric:
        return form
    both = form.leave_one_out + form.leave_one_out_geometric
    return replace(form, leave_one_out=both, leave_one_out_geometric=0.0)


def exponents(estimator: Estimator, cells: Sequence[tuple[int, int]]) -> set[float]:
    """Exponents of the weights that an estimator's numbers in some cells (K, M) are computed from."""
    found = {b.exponent for k, m in cells for b in targets(estimator, k, m).values() if b is not None}
    return found | ({estimator.form.exponent} if estimator.form is not None else set())


@dataclass(frozen=True, eq=False)
class Request:
    """One call of `exact`.

    Attributes:
        estimators: those whose numbers exist.
        parameters: whose gradients.
        cells: pairs (K, M).
        digits: significant decimal digits that are shown, or None.
        joint: whether covariances between coordinates are asked for.
    """

    estimators: Sequence[Estimator]
    parameters: Sequence[Parameter]
    cells: Sequence[tuple[int, int]]
    digits: int | None = None
    joint: bool = False

    @cached_property
    def counts(self) -> list[int]:
        """The values of K, each once."""
        return list(dict.fromkeys(k for k, _ in self.cells))

    @cached_property
    def free(self) -> dict[str, np.ndarray]:
        """Parameter -> which of its entries may differ from zero."""
        return {parameter.name: parameter.free for parameter in self.parameters}

    @cached_property
    def part(self) -> dict[str, str]:
        """Name of a parameter -> "model" or "proposal"."""
        return {parameter.name: parameter.part for parameter in self.parameters}

    @cached_property
    def parts(self) -> dict[str, list[str]]:
        """The names of the parameters of either part, where there are any."""
        listed = {part: [n for n in self.part if self.part[n] == part] for part in ("model", "proposal")}
        return {part: names for part, names in listed.items() if names}

    # bounds ----------------------------------------------------------------------------------------------------------

    @cached_property
    def _targets(self) -> list[tuple[Estimator, dict[str, Bound | None]]]:
        return [(estimator, targets(estimator, k, m)) for k, m in self.cells for estimator in self.estimators]

    @cached_property
    def reported(self) -> list[Bound]:
        """The bounds whose values are reported."""
        found = (pair["proposal"] or pair["model"] for _, pair in self._targets)
        return list(dict.fromkeys(bound for bound in found if bound is not None))

    @cached_property
    def by_target(self) -> list[tuple[Bound, str]]:
        """Bounds and parameters whose gradients are means of estimators without a Form."""
        pairs = [
            (pair[part], name)
            for estimator, pair in self._targets
            for name, part in self.part.items()
            if estimator.form is None
        ]
        return list(dict.fromkeys((bound, name) for bound, name in pairs if bound is not None))

    @cached_property
    def bound_particles(self) -> dict[float, list[int]]:
        """Exponent of a bound -> the numbers of particles of its terms."""
        by_exponent: dict[float, set[int]] = {1.0: set(self.counts)}
        for _, pair in self._targets:
            for bound in filter(None, pair.values()):
                by_exponent.setdefault(bound.exponent, set()).update(k for k, _ in bound.terms)
        return {exponent: sorted(counts) for exponent, counts in by_exponent.items()}

    # gradients -------------------------------------------------------------------------------------------------------

    def uses(self, estimator: Estimator, name: str) -> list[int]:
        """The numbers of particles that an estimator's gradient needs: those of its form, or of its target."""
        part, form = self.part[name], estimator.form
        if form is not None:
            return sorted({pooling(form, part, k, m)[0] for k, m in self.cells})
        bounds = [pair[part] for other, pair in self._targets if other is estimator]
        return sorted({count for bound in bounds if bound is not None for count, _ in bound.terms})

    @cached_property
    def particles(self) -> list[int]:
        """All numbers of particles of gradients."""
        used = {k for estimator in self.estimators for name in self.part for k in self.uses(estimator, name)}
        return sorted({*self.counts, *used})

    @cached_property
    def jobs(self) -> dict[Job, Job]:
        """Forms and parameters whose means and variances are needed; beside those asked for, the bounds' own."""
        if not self.estimators:
            return {}
        forms = [estimator.form for estimator in self.estimators if estimator.form is not None]
        forms += [reference(exponent) for exponent in sorted(self.bound_particles)]
        return {(form, name): (form, name) for form in forms for name in self.part}

    @cached_property
    def log_jobs(self) -> dict[tuple[int, ...], dict[Job, Job]]:
        """Numbers of particles -> forms with logarithms whose variances are needed there."""
        found: dict[tuple[int, ...], dict[Job, Job]] = {}
        for estimator in self.estimators:
            form = estimator.form
            if form is None or not has_logarithms(form, "proposal"):
                continue
            for name in self.parts.get("proposal", ()):
                found.setdefault(tuple(self.particles), {})[form, name] = (form, name)
                for k in self.uses(estimator, name):
                    same = at_particles(form, k)
                    if same != form:
                        found.setdefault((k,), {})[same, name] = (same, name)
        return found

    @cached_property
    def subset_jobs(self) -> list[tuple[int, str]]:
        """Sizes of subsets, and parameters, of averages over subsets whose variances are needed."""
        sizes = dict.fromkeys(
            estimator.subsets for estimator in self.estimators if estimator.subsets is not None
        )
        return [(size, name) for size in sizes for name in self.part]

    @cached_property
    def covariances(self) -> list[tuple[Form, str]]:
        """Forms and parts whose covariance between all coordinates is asked for and can be had."""
        forms = {estimator.form: None for estimator in self.estimators if estimator.form is not None}
        pairs = [(form, part) for form in forms if self.joint for part in self.parts]
        return [(form, part) for form, part in pairs if part == "model" or not form.has_log_terms]


def has_logarithms(form: Form, part: str) -> bool:
    """Whether a gradient of the "model" or of the "proposal" carries logarithms of sums of weights."""
    return part == "proposal" and bool(form.has_log_terms or form.constant)
