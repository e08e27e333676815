"""What was measured as tables: a row for every member, and means over seeds for every method."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from analysis.mnist.deep import Stack
from analysis.mnist.plans import PARTICLES
from analysis.mnist.published import METHOD, published
from toyiwae import estimators
from toyiwae.networks.evaluation.diagnostics import ACTIVE
from toyiwae.networks.evaluation.record import HEAVY
from toyiwae.networks.members import Member

Method = tuple[str, int, int]
"""Estimator, M and K."""

COMPARED = ("log_p", "bound", "minus_kl")
UNSEEN = 0.5
"""Standard error of the logarithm of a ratio from which on no signal stands out of the noise."""

MEASURES = ("log_p", "bound", "minus_kl", "elbo", "ess", "heavy", "active")


@dataclass(frozen=True, eq=False)
class Results:
    """Everything the page and the figures show of the deep model.

    Attributes:
        stacks: as they were measured.
        members: stack, place in it, method, seed, step, epoch, and by image averages: log_p (the estimate of log p(x)),
            bound (L_64), elbo, minus_kl, ess (of 64), heavy (share of images with Pareto k̂ above 0.7), active (units);
            log_p_se, bound_se and minus_kl_se over images.
        methods: means of these over seeds, with standard errors `…_se` over seeds, or of one seed over images.
            `…_bar`: the same over seeds, or of one seed over images those of what a method has above the mean of all.
    """

    stacks: Sequence[Stack]
    members: Any  # pandas' own annotations know neither columns nor what a mean is
    methods: Any

    @property
    def seeds(self) -> int:
        """Of every method."""
        return self.members.seed.nunique()

    @property
    def names(self) -> list[Method]:
        """All methods, those of the paper's table first."""
        return _methods(self.methods)

    @property
    def main(self) -> list[Method]:
        """The methods of the paper's table that were trained."""
        known = set(_methods(published()))
        return [method for method in self.names if method in known]

    @property
    def together(self) -> Any:
        """The methods that have been trained for as many steps as those of the first stack."""
        return self.methods[self.methods.step == self.methods.step.iloc[0]]

    def images(self, method: Method, measure: str, particles: int = PARTICLES) -> np.ndarray:
        """The measure ("bound" or "ess") of every test image `[N]` with so many particles, the mean over seeds."""
        found = []
        for stack, place in self._places(method):
            counts = [int(count) for count in stack.evaluation["K"]]
            found.append(stack.evaluation[measure][place, counts.index(particles)])
        return np.mean(found, axis=0)

    def first(self, method: Method) -> tuple[Stack, int]:
        """The stack and the place in it of a method's first seed."""
        return next(iter(self._places(method)))

    def curves(self) -> Any:
        """Own bounds on training batches: method, seed, epoch, bound."""
        parts = [stack.run.to_dataframe() for stack in self.stacks if stack.run.metrics]
        return pd.concat(parts) if parts else pd.DataFrame(columns=[*METHOD, "seed", "epoch", "bound"])

    def test_curves(self) -> Any:
        """Bounds with 64 particles on test images: method, seed, step, epoch, bound."""
        return _along(
            (stack, step, {"bound": found}) for stack in self.stacks for step, found in stack.curve.items()
        )

    def snr(self) -> Any:
        """Signal-to-noise ratios of the encoder: method, seed, step, epoch, layer, snr, log_snr_se."""
        return _along(
            (stack, step, {"layer": layer, "snr": values[0], "log_snr_se": values[1]})
            for stack in self.stacks
            for step, layers in stack.snr.items()
            for layer, values in layers.items()
        )

    def mean_snr(self) -> Any:
        """Geometric means over seeds of `snr`: method, epoch, layer, snr, log_snr_se.

        NaN where a seed's signal does not stand out of the noise: the mean of those that do would be too large.
        """
        ratios = self.snr()
        seen = ratios.snr.where(ratios.log_snr_se < UNSEEN)
        groups = ratios.assign(log=np.log(seen), square=ratios.log_snr_se**2).groupby(
            [*METHOD, "layer", "epoch"], sort=False
        )
        sums: Any = groups[["log", "square"]].sum(min_count=1)
        count, known = groups.size(), groups.log.count()
        log = (sums.log / count).where(known == count)
        found: Any = pd.DataFrame({"snr": np.exp(log), "log_snr_se": np.sqrt(sums.square) / count})
        return found.reset_index()

    def _places(self, method: Method) -> Iterable[tuple[Stack, int]]:
        for stack in self.stacks:
            for place, member in enumerate(stack.run.members):
                if method_of(member) == method:
                    yield stack, place


def results(stacks: Sequence[Stack]) -> Results:
    """Tables of stacks, at least one."""
    members = pd.DataFrame([row for stack in stacks for row in _members(stack)])
    groups: Any = members.groupby(METHOD, sort=False)
    mean: Any = groups[[*MEASURES, "step", "epoch", "units"]].mean()
    if members.seed.nunique() > 1:
        se = groups[list(MEASURES)].std(ddof=1).div(np.sqrt(groups.size()), axis=0).add_suffix("_se")
    else:
        se = groups[["log_p_se", "bound_se", "minus_kl_se"]].mean()
    methods = mean.join(se).reset_index()
    for name in COMPARED:
        one = members.seed.nunique() == 1
        methods[f"{name}_bar"] = _paired(stacks, methods, name) if one else methods[f"{name}_se"]
    known = {method: place for place, method in enumerate(_methods(published()))}
    order = [known.get(method, len(known)) for method in _methods(methods)]
    return Results(stacks, members, methods.iloc[np.argsort(order, kind="stable")].reset_index(drop=True))


def _paired(stacks: Sequence[Stack], methods: Any, name: str) -> list[float]:
    """Standard errors over images of what each method has above the mean of all, by one seed each."""
    found = {}
    for stack in stacks:
        counts = [int(count) for count in stack.evaluation["K"]]
        for e, member in enumerate(stack.run.members):
            found[method_of(member)] = _images(stack.evaluation["bound"][e], counts)[name]
    mean = np.mean(list(found.values()), axis=0)
    return [_se(found[method] - mean) for method in _methods(methods)]


def _images(bound: np.ndarray, counts: list[int]) -> dict[str, np.ndarray]:
    """The measures that are compared, of every image `[N]`, from bounds `[nK, N]`."""
    many, most = bound[counts.index(PARTICLES)], bound[-1]
    return {"log_p": most, "bound": many, "minus_kl": many - most}


def method_of(member: Member) -> Method:
    """Estimator, M and K."""
    return member.model, member.M, member.K


def beta_of(method: Method) -> float | None:
    """β of what lies between IWAE of one group (0) and the ELBO (1); None for methods that do not."""
    name, groups, _ = method
    found = estimators.get(name)
    ends = {"elbo": 1.0, "iwae": 0.0 if groups == 1 else None}
    return found.parameter if found.family == "ciwae" else ends.get(found.family)


def splits_of(names: Sequence[Method]) -> dict[str, list[Method]]:
    """Estimator -> its methods at every M, rising: those that groups make a difference to, IWAE and ELBO as the ends.

    All of them are IWAE in one group, and the ELBO in groups of one particle.
    """
    ends = [
        method
        for method in names
        if beta_of(method) in (0.0, 1.0) and estimators.get(method[0]).parameter is None
    ]
    own: dict[str, list[Method]] = {}
    for method in names:
        if method not in ends and method[1] > 1:
            own.setdefault(method[0], []).append(method)
    return {name: sorted([*found, *ends], key=lambda method: method[1]) for name, found in own.items()}


def _methods(frame: Any) -> list[Method]:
    return [(str(m), int(groups), int(count)) for m, groups, count in frame[METHOD].itertuples(index=False)]


def _members(stack: Stack) -> Iterable[dict[str, Any]]:
    """A row for every member."""
    found = stack.evaluation
    counts = [int(count) for count in found["K"]]
    one, many = counts.index(1), counts.index(PARTICLES)
    for e, member in enumerate(stack.run.members):
        bound = found["bound"][e]
        compared = _images(bound, counts)
        yield {
            "stack": stack.name,
            "place": e,
            **dict(zip(METHOD, method_of(member), strict=True)),
            "seed": member.seed,
            "step": stack.run.step,
            "epoch": stack.run.step / stack.per_epoch,
            **{name: values.mean() for name, values in compared.items()},
            **{f"{name}_se": _se(values) for name, values in compared.items()},
            "elbo": bound[one].mean(),
            "ess": found["ess"][e, many].mean(),
            "heavy": (found["pareto_k"][e] > HEAVY).mean(),
            "active": float((found["unit_variances"][e] > ACTIVE).sum()),
            "units": found["unit_variances"].shape[-1],
        }


def _se(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def _along(looks: Iterable[tuple[Stack, int, dict[str, Any]]]) -> Any:
    """Rows for every member of what was seen of its stack after a step; arrays are by member."""
    rows = [
        {
            **dict(zip(METHOD, method_of(member), strict=True)),
            "seed": member.seed,
            "step": step,
            "epoch": step / stack.per_epoch,
            **{key: value[e] if isinstance(value, np.ndarray) else value for key, value in found.items()},
        }
        for stack, step, found in looks
        for e, member in enumerate(stack.run.members)
    ]
    return pd.DataFrame(rows)
