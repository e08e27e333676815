"""A form's gradient as a statistic of means over particles: what `toyiwae.oracle.series.cumulants` expands.

With `w̃ = w/(K(1+x))`, x the mean of w - 1, and ε = 1/K, one group's gradient is

    Σ_k w̃_k^r g_k = ε^{r-1} mean(w^r g) (1+x)^{-r}             log Ẑ = log Z + log(1+x)
    log Ẑ_{-k} = log Z + log(1+x) + log(1 - w̃_k) - log(1-ε)    log(1 - w̃_k) = -Σ_n w̃_kⁿ/n

so that the leave-one-out evidence is a sum of powers of w̃ too; OVIS(0), for one, begins with ½ Σ w̃² ∇φ log q. At an
exponent e everything is that of the weights w^e, and logarithms have a factor 1/e.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from toyiwae.errors import InputError, MissingMomentError, PrecisionError
from toyiwae.forms import Form
from toyiwae.oracle.series.cumulants import LOG, Factor, Means
from toyiwae.oracle.series.weight_moments import Tag, WeightMoments

Factors = dict[Hashable, list[Factor]]


def checked(form: Form, proposal: bool) -> None:
    """Refuse what has no such expansion.

    Raises:
        InputError: the geometric leave-one-out, or log Ẑ itself at an exponent other than 1, in a proposal's gradient.
    """
    if proposal and form.leave_one_out_geometric:
        raise InputError(
            "no expansion: the geometric leave-one-out evidence is no function of the mean weight"
        )
    alone = form.log_evidence + form.leave_one_out != 0.0
    if proposal and form.has_log_terms and (form.exponent == 0.0 or (alone and form.exponent != 1.0)):
        raise InputError(f"no expansion: log Ẑ together with weights of exponent {form.exponent:g}")


def statistic(form: Form, proposal: bool, order: int) -> tuple[Form, Factors]:
    """A form's gradient, right up to K^-order in its mean and in its variance.

    Returns:
        The form with its leave-one-out evidence expanded in powers of w̃, and its factors by tag: the power r stands
        for `w^r G_r` with the form's own polynomial G_r, "score" for ∇φ log q, "scaled" for log Z · ∇φ log q.
    """
    others = form.leave_one_out / form.exponent if form.exponent else 0.0
    if proposal and others:
        score = dict(form.score)
        for n in range(1, order + 4):
            score[n] = score.get(n, 0.0) - others / n
        form = replace(form, score=score)
    powers = {*form.path, *form.score} if proposal else {*form.model}
    factors: Factors = {r: [Factor(Fraction(1), max(r - 1, 0), r)] for r in sorted(powers)}
    if not proposal:
        return form, factors
    both = Fraction(form.log_evidence) + Fraction(form.leave_one_out)
    shift = Fraction(others) - Fraction(form.constant)  # times -log(1-ε) = Σ_n εⁿ/n
    score = [Factor(both, -1, LOG)] if both else []
    score += [Factor(shift / n, n - 1, 0) for n in range(1, order + 4)] if shift else []
    if score:
        factors["score"] = score
    if both:
        factors["scaled"] = [Factor(both, -1, 0)]
    return form, factors


@dataclass(frozen=True, eq=False)
class GradientSeries:
    """A gradient as a statistic of means, in numbers of any kind.

    Attributes:
        factors: as of `statistic`. moments: of one particle. means: of K.
        limit: what the mean of one normalised weight's polynomials adds to the gradient's at order 0.
    """

    factors: Factors
    moments: WeightMoments
    means: Means
    limit: Any

    @classmethod
    def of(
        cls,
        moments: WeightMoments,
        factors: Factors,
        parts: Mapping[int, Any],
        limit: Any,
        score: Any = None,
        log_evidence: Any = None,
    ) -> GradientSeries:
        """From polynomials by power of the normalised weight, those of the powers 0 and 1 centred.

        Args:
            moments: of one particle; gets the variables.
            factors: as of `statistic`.
            parts: the polynomials.
            limit: what centring took out.
            score: ∇φ log q, of mean 0, if the form has log terms.
            log_evidence: log p(x).
        """
        moments.tags |= {r: Tag(r, g, centred=r < 2) for r, g in parts.items()}
        if score is not None:
            moments.tags |= {
                "score": Tag(0, score, centred=True),
                "scaled": Tag(0, score, log_evidence, centred=True),
            }
        return cls(factors, moments, Means(moments.central, moments.joint), limit)

    def coefficient(self, parameter: str, kind: str, order: int) -> Any:
        """That of K^-order in the "mean" or the "var" of a parameter's gradient, or the int 0."""
        what = f"the {'mean' if kind == 'mean' else 'variance'} of the gradient of {parameter}"
        compute = self.means.mean if kind == "mean" else self.means.variance
        found = named(what, order, lambda: compute(self.factors, order))
        return found + self.limit if kind == "mean" and order == 0 else found


def named(what: str, order: int, compute: Callable[[], Any]) -> Any:
    """What `compute` returns; an error about a moment gets the name of the term that needs it."""
    try:
        return compute()
    except (MissingMomentError, PrecisionError) as error:
        raise type(error)(f"the expansion of {what} in 1/K has no term of order {order}: {error}") from None
