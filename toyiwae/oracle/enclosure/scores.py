"""Scores of a proposal's parameters, and the transforms that moments of their sums with logarithms of weights need."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from flint import arb

from toyiwae.oracle.enclosure.contours import Request
from toyiwae.oracle.enclosure.laws import BallLaw, Quadratic


@dataclass(frozen=True, eq=False)
class Score:
    """One score g, of mean 0 under the proposal, and the transforms that its moments need.

    Attributes:
        h: g less its mean under the posterior. plain: whether E[T² log Ẑ] is wanted.
        var: E[g²]. posterior: a bound on E[w g²].
    """

    law: BallLaw
    g: Quadratic
    h: Quadratic
    plain: bool
    var: arb
    posterior: arb

    @classmethod
    def of(cls, law: BallLaw, g: Quadratic, *, plain: bool) -> Score:
        """From the polynomial."""
        h, var = g.plus(-law.mean(1.0, g)), law.mean(0.0, g, g)
        return cls(law, g, h, plain, var, law.mean(1.0, g, g).abs_upper())

    @property
    def sigma(self) -> arb:
        """A bound on √E[g²]."""
        return self.var.abs_upper().sqrt()

    @cached_property
    def zero(self) -> Request:
        """E[g e^{-tw}]."""
        return Request(0, (self.g,), centred=True)

    @cached_property
    def square(self) -> Request:
        """E[g² e^{-tw}] less its value at t = 0 times e^{-t}."""
        return Request(0, (self.g, self.g), centred=True)

    @cached_property
    def one(self) -> Request:
        """E[w h e^{-tw}]."""
        return Request(1, (self.h,), centred=True)

    @cached_property
    def cross(self) -> Request:
        """E[w g h e^{-tw}]."""
        return Request(1, (self.g, self.h))

    @property
    def requests(self) -> list[Request]:
        """All of them, and E[w² h² e^{-tw}]."""
        more = [self.square] if self.plain else []
        return [self.zero, self.one, self.cross, Request(2, (self.h, self.h)), *more]
