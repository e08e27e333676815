"""Estimators and bounds as data: what the oracle takes, and what nothing is computed in.

Notation: `w_mk` are the importance weights of `M` groups of `K` particles, `ℓ = log w`,
`Ẑ_m = (1/K) Σ_k w_mk` and `w̃_mk = w_mk^e / Σ_j w_mj^e` with the exponent `e` of the form (1 for most).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import cached_property
from numbers import Integral, Rational, Real
from types import MappingProxyType
from typing import Any

from toyiwae.errors import InputError

PARTS = ("model", "path", "score")
_LARGEST_LOG = 700.0  # below the logarithm of the largest float64, with room for binomials


@dataclass(frozen=True, eq=False)
class Coefficients:
    """The three coefficients of each particle, shaped `[..., M, K]` like the log-weights they came from.

    Formula: coefficients.

        Δθ = Σ_mk model_mk · ∇θ log p_θ(x, z_mk)
        Δφ = Σ_mk path_mk · (∂ log w/∂z)(∂z/∂φ) + score_mk · ∇φ log q_φ(z_mk|x)

    Attributes:
        model: factors of the generative gradient, `z` held fixed.
        path: factors of the derivative of `log w` through the reparameterised particle.
        score: factors of the proposal's score, `z` held fixed.
    """

    model: Any
    path: Any
    score: Any


@dataclass(frozen=True)
class Form:
    """An estimator's coefficients as polynomials in the normalised weights.

    Formula: form.

    The coefficient of particle `(m, k)` is `(1/M) Σ_r factor_r · w̃_mk^r`; the power `r = 0` stands for
    `1/K`. The score coefficient gets in addition `1/M` times

        log_evidence              · (1/e) log (1/K) Σ_i w_mi^e
        leave_one_out             · (1/e) log of the mean of the other K−1 weights w_mi^e, i ≠ k
        leave_one_out_geometric   · (1/e) log (1/K)( Σ_{i≠k} w_mi^e + their geometric mean )
        constant                  · log(1 − 1/K)

    where at e = 0 the limit is meant: the mean of the log-weights, and of the others'. Equal forms compare equal
    however they were written: zero factors are dropped, and a first power at exponent 0 is the power 0.

    Attributes:
        model: {power: factor} of the generative coefficient.
        path: {power: factor} of the path coefficient.
        score: {power: factor} of the score coefficient.
        exponent: `e` of `w̃`; `1−α` for VR-IWAE.
        pooled: the parts whose `w̃` is normalised over all `M·K` particles, and which have no `1/M` then.
        log_evidence: factor of `log Ẑ_m` (at e = 1) in the score coefficient.
        leave_one_out: factor of the arithmetic leave-one-out evidence.
        leave_one_out_geometric: factor of VIMCO's geometric leave-one-out evidence.
        constant: factor of `log(1 − 1/K)`.

    Raises:
        InputError: a power that is not a whole number ≥ 0, a factor that is not finite, an unknown part.
    """

    model: Mapping[int, float]
    path: Mapping[int, float] = field(default_factory=dict)
    score: Mapping[int, float] = field(default_factory=dict)
    exponent: float = 1.0
    pooled: tuple[str, ...] = ()
    log_evidence: float = 0.0
    leave_one_out: float = 0.0
    leave_one_out_geometric: float = 0.0
    constant: float = 0.0

    def __post_init__(self) -> None:
        """Check the fields and bring them to the one way of writing them."""
        for name in ("exponent", "log_evidence", "leave_one_out", "leave_one_out_geometric", "constant"):
            object.__setattr__(self, name, _finite(f"Form.{name}", getattr(self, name)))
        polynomials = {part: _polynomial(f"Form.{part}", getattr(self, part)) for part in PARTS}
        if self.exponent == 0.0:
            polynomials = {part: _fold_first_power(terms) for part, terms in polynomials.items()}
            powers = {power for terms in polynomials.values() for power in terms}
            if powers <= {0} and not self.has_log_terms:
                object.__setattr__(self, "exponent", 1.0)
        for part, terms in polynomials.items():
            object.__setattr__(self, part, MappingProxyType(terms))
        unknown = set(self.pooled) - set(PARTS)
        if unknown:
            raise InputError(f"Form.pooled: {sorted(unknown)} is not among {', '.join(PARTS)}")
        object.__setattr__(self, "pooled", tuple(part for part in PARTS if part in self.pooled))

    @property
    def shift_invariant(self) -> bool:
        """Whether a constant added to all log-weights leaves every coefficient as it is."""
        return self.log_evidence + self.leave_one_out + self.leave_one_out_geometric == 0.0

    @property
    def has_log_terms(self) -> bool:
        """Whether the score coefficient carries the logarithm of a sum of weights."""
        return any((self.log_evidence, self.leave_one_out, self.leave_one_out_geometric))

    def __hash__(self) -> int:
        """Hash consistent with equality."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(tuple(self._plain().items()))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by value, since read-only mappings do not pickle by themselves."""
        plain = {name: dict(value) if name in PARTS else value for name, value in self._plain().items()}
        return _restore, (plain,)

    def _plain(self) -> dict[str, Any]:
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: tuple(value.items()) if name in PARTS else value for name, value in values.items()}


@dataclass(frozen=True)
class Bound:
    """A bound on the log-evidence: `B = Σ_t weight_t · (1/e) E log[(1/k_t) Σ_{i≤k_t} w_i^e]`.

    Formula: bound.

    Equal bounds compare equal however they were written: terms are sorted and merged, and what is the ELBO
    (every `k_t = 1`, or the limit `e = 0`) is stored with `k = 1` and `e = 1`.

    Attributes:
        terms: pairs (particles `k_t`, weight), the weights rounded to float64.
        exponent: `e`; 1 for the evidence itself, `1−α` for VR-IWAE.
        exact: the same pairs with weights as fractions: those of the jackknife are large, and their sum is 1.
        label: what it is called as a function of K and M, such as "L_K"; "" for a bound of its own.

    Raises:
        InputError: a number of particles that is not whole and positive, a weight that is not finite.
    """

    terms: tuple[tuple[int, float | Fraction], ...]
    exponent: float = 1.0
    exact: tuple[tuple[int, Fraction], ...] = field(init=False, repr=False, compare=False)
    label: str = field(default="", repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        """Check the fields and bring them to the one way of writing them."""
        object.__setattr__(self, "exponent", _finite("Bound.exponent", self.exponent))
        merged: dict[int, Fraction] = {}
        for particles, weight in self.terms:
            count = 1 if self.exponent == 0.0 else _whole("Bound.terms: particles", particles, 1)
            merged[count] = merged.get(count, Fraction(0)) + _fraction("Bound.terms: weight", weight)
        exact = tuple(sorted((count, weight) for count, weight in merged.items() if weight))
        terms = tuple((count, float(weight)) for count, weight in exact)
        if not terms:
            raise InputError(
                "Bound.terms is empty: give at least one (particles, weight) pair of weight not 0"
            )
        if all(count == 1 for count, _ in terms):
            object.__setattr__(self, "exponent", 1.0)
        object.__setattr__(self, "terms", terms)
        object.__setattr__(self, "exact", exact)

    @property
    def total(self) -> Fraction:
        """The sum of the weights: what a constant added to all log-weights is multiplied by; 1 for every bound."""
        return sum((weight for _, weight in self.exact), Fraction(0))

    @classmethod
    def elbo(cls) -> Bound:
        """The evidence lower bound `L_1 = E[ℓ]`."""
        return cls(((1, 1.0),), label="L_1")

    @classmethod
    def iwae(cls, particles: int, letter: str = "") -> Bound:
        """The IWAE bound `L_K = E[log Ẑ]`; `letter` is what its label calls the number of particles, "K" or "MK"."""
        return cls(((particles, 1.0),), label=letter and f"L_{letter}")

    @classmethod
    def ciwae(cls, beta: float, particles: int, letter: str = "") -> Bound:
        """The linear combination `β L_1 + (1−β) L_K`."""
        first = _fraction("beta", beta)
        label = letter and f"{beta:.12g} L_1 + {1 - beta:.12g} L_{letter}"
        return cls(((1, first), (particles, 1 - first)), label=label)

    @classmethod
    def vr_iwae(cls, alpha: float, particles: int, letter: str = "") -> Bound:
        """The VR-IWAE bound `1/(1−α) E log[(1/K) Σ w^(1−α)]`; the ELBO at α = 1."""
        return cls(((particles, 1.0),), 1.0 - alpha, label=letter and f"VR_{letter}({alpha:.12g})")

    @classmethod
    def jackknife(cls, order: int, particles: int, letter: str = "") -> Bound:
        """Nowozin's jackknife `Σ_j c_j L_{K−j}`, `c_j = (−1)^j (K−j)^m / ((m−j)! j!)`, of bias `O(K^{−m−1})`.

        Raises:
            InputError: the order is not a whole number from 0 to K−1, or so high that its weights exceed float64.
        """
        order = _whole("jackknife order", order, 0)
        if order >= particles:
            raise InputError(
                f"jackknife order {order} needs more than {order} particles, not K = {particles}"
            )
        if order * math.log(particles) - math.lgamma(order + 1.0) > _LARGEST_LOG:
            raise InputError(
                f"jackknife order {order}: at K = {particles} its weights exceed float64, lower it"
            )
        weights = (
            Fraction((-1) ** j * (particles - j) ** order, math.factorial(order - j) * math.factorial(j))
            for j in range(order + 1)
        )
        names = [f"L_{{{letter}−{j}}}" if j else f"L_{letter}" for j in range(order + 1)]
        label = letter and ("jackknife of " if order else "") + ", ".join(names)
        return cls(tuple((particles - j, weight) for j, weight in enumerate(weights)), label=label)


def _restore(plain: dict[str, Any]) -> Form:
    return Form(**plain)


def _finite(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        raise InputError(f"{name} is {value!r}: it must be a finite number")
    return float(value)


def _fraction(name: str, value: Any) -> Fraction:
    if isinstance(value, Rational) and not isinstance(value, bool):
        return Fraction(value)
    return Fraction(_finite(name, value))


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        raise InputError(f"{name} is {value!r}: it must be a whole number of at least {least}")
    return int(value)


def _polynomial(name: str, terms: Mapping[int, float]) -> dict[int, float]:
    checked = {
        _whole(f"{name}: power", power, 0): _finite(f"{name}: factor of power {power}", factor)
        for power, factor in terms.items()
    }
    return {power: checked[power] for power in sorted(checked) if checked[power] != 0.0}


def _fold_first_power(terms: dict[int, float]) -> dict[int, float]:
    folded = {power: factor for power, factor in terms.items() if power != 1}
    folded[0] = folded.get(0, 0.0) + terms.get(1, 0.0)
    return {power: folded[power] for power in sorted(folded) if folded[power] != 0.0}


def form_of_mean(form: Form) -> Form:
    """The form with the same mean and no log terms: E[(1/e) log Ẑ Σ ∇ log q] = E[Σ w̃ path]; baselines have mean zero.

    Formula: mean-form.
    """
    if not form.has_log_terms and form.constant == 0.0:
        return form
    path = dict(form.path)
    path[1] = path.get(1, 0.0) + form.log_evidence
    return Form(form.model, path, form.score, exponent=form.exponent, pooled=form.pooled)
