"""Where the expansion in 1/K fails: the exact gap over its first term in every dimension, and the gradients' SNR."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

import toyiwae
from analysis import measures, style
from analysis.sampling import sample
from analysis.settings import Settings
from analysis.studies import _collapse_claims as claims
from analysis.studies._targets import problem_with
from analysis.study import Study, Table, track
from toyiwae import ClosedForms, Problem, estimators, plot, stats
from toyiwae.oracle.closed_form import gaussian

SHIFTED, WIDER = "shifted", "shifted and wider"
WIDTHS = {SHIFTED: 1.0, WIDER: 4 / 3}
"""Family -> variance of the proposal in units of the posterior's; 4/3 is that of the paper's problem."""

CHECK_VARIANCE = 9.0
"""Of log w where first term and gap are compared: two claims state what comes of it, so it is no setting."""


class CollapseSettings(Settings):
    """The mean's shift in each coordinate, the dimensions and K of the map and the curves, and a sample beside them."""

    shift: float = 0.7
    dimensions: tuple[int, ...] = (1, 2, 4, 7, 10, 14, 19, 24, 29, 35)
    curve_dimensions: tuple[int, ...] = (4, 10, 35)
    largest_k: int = 10**15
    per_decade: int = 2
    snr_k: int = 64
    snr_dimensions: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    sampled_dimension: int = 8
    replicates: int = 500
    sample_seed: int = 1


def compute(settings: CollapseSettings) -> Table:
    """The exact gap over Var[w]/(2KZ²) on a grid and on the boundary, at one variance twice, and the SNR."""
    jobs = [(SHIFTED, d) for d in settings.dimensions] + [(WIDER, d) for d in settings.curve_dimensions]
    parts = [_ratios(*job, settings) for job in track(jobs, lambda job: f"{job[0]}, dimension {job[1]}")]
    return {
        "ratios": pd.concat([ratios for ratios, _ in parts], ignore_index=True),
        "boundary": pd.DataFrame([boundary for _, boundary in parts]),
        "check": _check(),
        "snr": pd.concat([_snr(d, settings) for d in settings.snr_dimensions], ignore_index=True),
        "samples": _samples(settings),
    }


def gradients() -> list[tuple[str, str]]:
    """Estimator and parameter of each gradient whose signal-to-noise ratio is compared.

    The model's gradient is IWAE's; the proposal's is that of every registered estimator whose coefficients are
    polynomials in the normalised weights, for which one-dimensional integrals are all it takes.
    """
    formed = [one for one in estimators.all() if one.form is not None and not one.form.has_log_terms]
    return [("iwae", "prior_mean"), *((one.name, "proposal_mean") for one in formed)]


def problem_of(dimension: int, shift: float, width: float) -> Problem:
    """A posterior with full covariance, and a proposal of its shape, off by `shift` deviations in each direction."""
    place = np.arange(dimension)
    std = 0.6 + 0.3 * (place % 3)
    cov = np.outer(std, std) * 0.4 ** np.abs(np.subtract.outer(place, place))
    mean = 0.2 - 0.1 * (place % 4)
    away = np.linalg.cholesky(cov) @ (shift * (-1.0) ** place)
    return problem_with(mean, cov, mean + away, width * cov)


def _ratios(
    family: str, dimension: int, settings: CollapseSettings
) -> tuple[pd.DataFrame, dict[str, float | str]]:
    """The ratio for every K, and at the boundary and its square root."""
    problem = problem_of(dimension, settings.shift, WIDTHS[family])
    forms = ClosedForms(problem)
    divergence = _divergence_of_square(problem, forms)
    grid = measures.counts(settings.largest_k, settings.per_decade)
    inner, outer = (max(1, round(math.exp(share * divergence))) for share in (0.5, 1.0))
    asked = sorted({*grid, inner, min(outer, settings.largest_k)})
    truth = toyiwae.exact(problem, K=asked, parameters=[])
    constant = float(forms.variance[0]) / 2
    ratio = {cell.K: cell.K * cell.gap / constant for cell in truth.results}
    ratios = pd.DataFrame(
        {"family": family, "dimension": dimension, "K": grid, "ratio": [ratio[k] for k in grid]}
    )
    boundary = {
        "family": family,
        "dimension": dimension,
        "weight_variance": 2 * constant,
        "log_weight_variance": _log_weight_variance(forms),
        "divergence": divergence,
        "K": outer,
        "ratio": ratio.get(outer, math.nan),
        "root_ratio": ratio[inner],
    }
    return ratios, boundary


def _log_weight_variance(forms: ClosedForms) -> float:
    """Var[log w] = Σ (β²/2 + h²), h = (1+β) d in the coordinates of `Ratio`."""
    beta, shift = forms.ratio.beta, forms.ratio.shift[0]
    return float(np.sum(beta**2 / 2 + ((1 + beta) * shift) ** 2))


def _divergence_of_square(problem: Problem, forms: ClosedForms) -> float:
    """KL(r‖q) of r ∝ p²/q, the law that carries E[w²]: its samples come up once in e^KL draws from q."""
    target, q = np.linalg.inv(forms.posterior.cov), np.linalg.inv(problem.proposal.cov)
    mean = np.asarray(problem.proposal.mean)
    cov = np.linalg.inv(2 * target - q)
    return float(
        gaussian.kl(cov @ (2 * target @ forms.posterior.mean[0] - q @ mean), cov, mean, problem.proposal.cov)
    )


def _check() -> pd.DataFrame:
    """The first term over the gap for log-normal weights, by the oracle in several dimensions and by sums in one."""
    variance = CHECK_VARIANCE
    dimension = max(1, round(variance))
    problem = problem_of(dimension, math.sqrt(variance / dimension), 1.0)
    counts = [round(math.exp(share * variance)) for share in (1, 2)]
    truth = toyiwae.exact(problem, K=counts, parameters=[])
    first = math.expm1(variance) / 2
    rows = [
        (cell.K, first / cell.K / cell.gap, first / cell.K / _log_normal_gap(variance, cell.K))
        for cell in truth.results
    ]
    return pd.DataFrame(rows, columns=["K", "excess", "by_sums"])


def _log_normal_gap(variance: float, particles: int) -> float:
    """Log Z − L_K for log w ~ N(−v/2, v), by the trapezoidal rule in log w and in log t, with nothing shared."""
    step, std = 0.02, math.sqrt(variance)
    noise = np.arange(-14.0, 14.0, step)
    mass = step * np.exp(-(noise**2) / 2) / math.sqrt(2 * math.pi)
    w = np.exp(std * noise - variance / 2)
    total = 0.0
    for log_t in np.arange(-60.0, 60.0, 0.1):
        t = math.exp(log_t)
        if t > 30:
            total += float(mass @ np.exp(-w * t / particles)) ** particles - math.exp(-t)
            continue
        beyond = float(mass @ (np.expm1(-w * t / particles) + w * t / particles))
        less = beyond - t / particles  # the transform less 1, since E[w] = 1
        total += math.exp(-t) * math.expm1(particles * (math.log1p(less) - less + beyond))
    return 0.1 * total


def _snr(dimension: int, settings: CollapseSettings) -> pd.DataFrame:
    """‖mean‖ over the root of the covariance's trace."""
    problem = problem_of(dimension, settings.shift, WIDTHS[WIDER])
    truth = toyiwae.exact(
        problem, K=settings.snr_k, estimators=[*dict(gradients())], parameters=["prior_mean", "proposal_mean"]
    ).results[0]
    rows = []
    for name, parameter in gradients():
        moments = truth.gradients[name].parameters[parameter]
        snr = np.linalg.norm(moments.mean) / math.sqrt(np.sum(moments.var))
        rows.append((dimension, name, parameter, float(snr), truth.ess))
    return pd.DataFrame(rows, columns=["dimension", "estimator", "parameter", "snr", "ess"])


def _samples(settings: CollapseSettings) -> pd.DataFrame:
    """Monte Carlo means and variances of the same gradients in one dimension, in standard errors from the exact."""
    problem = problem_of(settings.sampled_dimension, settings.shift, WIDTHS[WIDER])
    asked = {"estimators": tuple(dict(gradients())), "parameters": ("prior_mean", "proposal_mean")}
    truth = toyiwae.exact(problem, K=settings.snr_k, **asked).results[0]
    drawn = sample(
        problem, K=settings.snr_k, replicates=settings.replicates, seed=settings.sample_seed, **asked
    )
    rows = []
    for name, parameter in gradients():
        exact, found = truth.gradients[name].parameters[parameter], drawn.gradients[name][parameter]
        z = stats.z_score(found.mean, exact.mean, found.mean_se)
        rows += [(name, parameter, index, float(value), settings.replicates) for index, value in enumerate(z)]
    return pd.DataFrame(rows, columns=["estimator", "parameter", "index", "z", "replicates"])


def draw(table: Table) -> Figure:
    """The map, curves that turn at the boundary, and the SNR against the dimension."""
    figure, (left, middle, right) = style.panels(1, 3, aspect=1.15)
    ratios, boundary = table["ratios"], table["boundary"]
    _map(left, ratios[ratios.family == SHIFTED], boundary[boundary.family == SHIFTED])
    style.label_panel(left, "a", "Exact gap / first term")
    _curves(middle, ratios, boundary)
    style.label_panel(middle, "b", "The turn")
    _signal(right, table["snr"])
    style.label_panel(right, "c", "SNR at fixed $K$")
    style.label_ends([right])
    return figure


def _map(axes: Axes, ratios: pd.DataFrame, boundary: pd.DataFrame) -> None:
    """The ratio over dimension and K, with contours, and the line K = exp(2 Var log w)."""
    grid = ratios.pivot(index="K", columns="dimension", values="ratio")
    log_k = np.log10(grid.index.to_numpy(dtype=float))
    levels = (0, 0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98, 1.001)
    axes.contourf(grid.columns, log_k, grid.to_numpy(), levels=levels, cmap="Greys_r", vmin=-0.4, vmax=1.05)
    lines = axes.contour(
        grid.columns, log_k, grid.to_numpy(), levels=(0.1, 0.5, 0.9), colors=style.INK, linewidths=0.6
    )
    axes.clabel(lines, fmt="%g", fontsize="small")
    top = log_k.max()
    axes.plot(
        boundary.dimension, 2 * boundary.log_weight_variance / math.log(10), color=style.RED, linewidth=1.6
    )
    axes.text(3, 0.83 * top, "$K=e^{2\\,\\mathrm{Var}[\\log w]}$", color=style.RED)
    axes.set(xlabel="dimension", ylabel="particles $K$", ylim=(0, top), xlim=(1, ratios.dimension.max()))
    ticks = range(0, int(top) + 1, 3)
    axes.set_yticks(ticks, [f"$10^{{{tick}}}$" for tick in ticks])
    axes.yaxis.set_minor_locator(NullLocator())
    axes.tick_params(direction="out")


def _curves(axes: Axes, ratios: pd.DataFrame, boundary: pd.DataFrame) -> None:
    """The ratio against log K in units of the boundary's, by family and dimension."""
    chosen = sorted(boundary[boundary.family == WIDER].dimension)
    looks = {SHIFTED: ("solid", "o"), WIDER: (style.DASHES[1], "^")}
    for family, (dashes, marker) in looks.items():
        for index, dimension in enumerate(chosen):
            part = ratios[(ratios.family == family) & (ratios.dimension == dimension)]
            line = boundary[(boundary.family == family) & (boundary.dimension == dimension)]
            if line.empty:
                continue
            x = np.log(part.K.to_numpy(dtype=float)) / float(line.divergence.iloc[0])
            color = style.ordinal(index, len(chosen))
            axes.plot(x, part.ratio, color=color, linestyle=dashes, marker=marker, markersize=2.2,
                      label=f"{dimension}" if family == SHIFTED else None)  # fmt: skip
    axes.axvline(1, **style.GUIDE)
    axes.axhline(1, **style.GUIDE)
    axes.set(
        xlabel=r"$\log K\,/\,\mathrm{KL}(p^2/q\,\Vert\,q)$",
        ylabel="exact gap / first term",
        xlim=(0, 2),
        ylim=(0, 1.15),
    )
    axes.legend(title="dimension", loc="lower right")


def _signal(axes: Axes, snr: pd.DataFrame) -> None:
    """One line for each gradient, named at its end."""
    for (name, parameter), part in snr.groupby(["estimator", "parameter"], sort=False):
        look = plot.look(name)
        if parameter == "prior_mean":
            look |= {"markerfacecolor": "white", "linestyle": plot.DOTTED}
        label = f"{plot.short(name)}, model" if parameter == "prior_mean" else plot.short(name)
        axes.loglog(part.dimension, part.snr, markersize=2.6, linewidth=0.9, label=label, **look)
    style.count_ticks(axes, snr.dimension)
    axes.set(xlabel="dimension", ylabel="signal-to-noise ratio")


def caption(table: Table) -> str:
    """What the figure shows."""
    return (
        "(a) The exact gap over $\\mathrm{Var}[w]/(2KZ^2)$ for proposals with the posterior's covariance and a mean "
        "that is off by the same distance in every direction, so that the weights are log-normal; the line is the "
        "boundary $K=\\exp(2\\mathrm{Var}[\\log w])$. (b) The same against $\\log K$ in units of the divergence from "
        "$q$ of $p(z\\mid x)^2/q(z)$, normalised, for these (solid, circles) and for proposals that are wider too "
        "(dashed, triangles). (c) The exact signal-to-noise ratio of gradients of the latter, the norm of the mean "
        "over the root of the covariance's trace: of the proposal's mean, and of the model's (dotted), for every "
        "estimator whose coefficients are polynomials in the normalised weights."
    )


STUDY = Study(
    name="collapse",
    order=21,
    title="Where the expansion fails",
    question="How many particles does it take before the gap falls like $1/K$, and what do gradients do until then?",
    settings=CollapseSettings,
    quick={
        "dimensions": (1, 7, 14), "curve_dimensions": (7,), "largest_k": 10**10, "per_decade": 1,
        "snr_dimensions": (1, 4), "sampled_dimension": 3, "replicates": 200,
    },
    full={"dimensions": tuple(range(1, 36)), "per_decade": 4, "replicates": 20_000},
    compute=compute,
    draw=draw,
    verdicts=claims.verdicts,
    caption=caption,
    method="Gaps are integrals over the Laplace transform of the weight, $\\mathrm{Var}[w]$ and "
    "$\\mathrm{Var}[\\log w]$ closed forms. The mass of $\\mathrm{E}[w^2]$ lies where $z$ follows the density "
    "proportional to $p(z\\mid x)^2/q(z)$: its samples come up among $K$ draws from $q$ once $K$ is of the order of "
    "$e^{\\mathrm{KL}}$ of that density from $q$, which for log-normal weights is $e^{2\\mathrm{Var}[\\log w]}$.",
)  # fmt: skip
