"""Signal, noise, direction and error of every estimator's gradient in φ: exact curves, slopes and constants."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

import toyiwae
from analysis import example, measures, style
from analysis.settings import Settings
from analysis.study import Claim, Study, Table
from toyiwae import Problem, estimators, plot
from toyiwae.errors import InputError

PARAMETER = "proposal_mean"
BIASED, UNBIASED, PLAIN = "iwae_stl", "dreg", "iwae"


class RatioSettings(Settings):
    """The range of K."""

    largest_k: int = 1_000_000
    per_decade: int = 2

    def reads(self) -> tuple[Path, ...]:
        """The problem of the documentation."""
        return (example.FILE,)


def compute(settings: RatioSettings) -> Table:
    """Exact norms of mean, noise and error of every estimator at every K, and the laws that the series give."""
    problem = example.problem()
    counts = sorted({2, *measures.counts(settings.largest_k, settings.per_decade)} - {1})
    chosen = [one for one in estimators.all() if one.min_particles <= counts[0]]
    truth = toyiwae.exact(problem, K=counts, estimators=chosen, parameters=PARAMETER, covariance=True)
    rows, last = [], []
    missing = [
        (one.name, counts[0], f"needs {one.min_particles} particles: the curves start at {counts[0]}")
        for one in estimators.all()
        if one.min_particles > counts[0]
    ]
    for cell in truth.results:
        for one in chosen:
            found = cell.gradients[one.name]
            moments = found.parameters[PARAMETER]
            if moments.var is None or moments.snr is None or np.isnan(moments.snr).any():
                missing.append((one.name, cell.K, moments.reason))
                continue
            rows.append({"estimator": one.name, "K": cell.K} | _norms(found))
            if cell.K in counts[-2:]:
                last += [(one.name, cell.K, place, value) for place, value in enumerate(moments.snr)]
    return {
        "curves": pd.DataFrame(rows),
        "laws": _laws(problem, pd.DataFrame(last, columns=["estimator", "K", "index", "snr"])),
        "missing": pd.DataFrame(missing, columns=["estimator", "K", "reason"]),
    }


def _norms(found: Any) -> dict[str, float]:
    """Of one estimator at one K: of the vector, and the direction's ratio with what it would be without signal."""
    moments = found.parameters[PARAMETER]
    mean, noise = np.linalg.norm(moments.mean), np.sqrt(np.sum(moments.var))
    norms = {"snr": mean / noise, "std": noise, "bias": np.linalg.norm(moments.bias)}
    norms["rmse"] = np.linalg.norm(moments.rmse)
    directional = (found.directional_snr or {}).get("proposal")
    if directional is None:
        return norms | {"directional": np.nan, "noise_alone": np.nan}
    along, cov = np.asarray(moments.mean) / mean, np.asarray(found.cov["proposal"])
    inside = float(along @ cov @ along)
    return norms | {"directional": directional, "noise_alone": np.sqrt(inside / (np.trace(cov) - inside))}


def _laws(problem: Problem, last: pd.DataFrame) -> pd.DataFrame:
    """SNR at the two largest K beside `constant · K^exponent` of the expansion in 1/K, by coordinate."""
    parts = []
    for name, own in last.groupby("estimator", sort=False):
        form = estimators.get(str(name)).form
        if form is None or own.K.nunique() < 2:
            continue
        try:
            law = toyiwae.series.snr_constant(problem, form, PARAMETER)
        except InputError:  # no function of the mean weight, so no expansion
            continue
        wide = own.pivot(index="index", columns="K", values="snr")
        few, many = wide.columns
        columns = {
            "exponent": np.ravel(law.exponent), "constant": np.ravel(law.constant), "K": many,
            "slope": np.log(wide[many] / wide[few]) / np.log(many / few), "snr": wide[many],
        }  # fmt: skip
        parts.append(pd.DataFrame({"estimator": name, "index": wide.index} | columns))
    return pd.concat(parts, ignore_index=True)


def draw(table: Table) -> Figure:
    """SNR, directional SNR, noise and error against K, one line for estimators that are equal."""
    curves = table["curves"]
    figure, panels = style.panels(2, 2, aspect=0.8, sharex=True)
    what = {
        "snr": (
            "Signal-to-noise ratio",
            r"$K^{-1/2}\,\Vert\mathrm{mean}\Vert\,/\,\sqrt{\mathrm{tr\,cov}}$",
            -0.5,
        ),
        "directional": ("Directional ratio", "$K^{-1/2}$ along / across", -0.5),
        "std": ("Noise", r"$\sqrt{K\,\mathrm{tr\,cov}}$", 0.5),
        "rmse": ("Error to its own target", "root-mean-square error", 0.0),
    }
    groups = _groups(curves)
    for axes, letter, (name, (title, label, power)) in zip(panels.flat, "abcd", what.items(), strict=True):
        for group in groups:
            own, look = curves[curves.estimator == group[0]], plot.look(group[0])
            text = ", ".join(plot.short(one) for one in group)
            axes.plot(
                own.K,
                own[name] * own.K**power,
                label=text,
                linewidth=1.0,
                markersize=3.2,
                markevery=(0, 3),
                **look,
            )
        axes.set(xscale="log", yscale="log", ylabel=label)
        style.label_panel(axes, letter, title)
    panels[0, 0].set_ylim(0.02, 3)
    panels[0, 1].set_ylim(0.1, 10)
    panels[1, 0].set_ylim(0.2, 40)
    panels[1, 1].set_ylim(1e-5, 1e2)
    for axes in panels[1]:
        axes.set_xlabel("particles $K$")
    handles, labels = panels[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize="small", handlelength=3.6)
    return figure


def _groups(curves: pd.DataFrame) -> list[list[str]]:
    """Estimators with a curve, those with equal ones together."""
    columns = ["K", "snr", "rmse"]
    values = {str(name): own[columns].to_numpy() for name, own in curves.groupby("estimator", sort=False)}
    groups: list[list[str]] = []
    for name, known in values.items():
        if len(known) < 2:
            continue
        same = [
            g
            for g in groups
            if values[g[0]].shape == known.shape and np.allclose(values[g[0]], known, rtol=1e-8)
        ]
        if same:
            same[0].append(name)
        else:
            groups.append([name])
    return groups


def verdicts(table: Table) -> list[Claim]:
    """Slopes and constants of all, what a bias hides, and what becomes of the direction."""
    return [*_growth(table["laws"]), *_errors(table["curves"]), *_directions(table["curves"])]


def _growth(laws: pd.DataFrame) -> list[Claim]:
    by = laws.groupby("exponent").estimator.unique()
    listed = "; ".join(f"{power:g}: {', '.join(plot.short(n) for n in names)}" for power, names in by.items())
    ratio = laws.snr / (laws.constant * laws.K**laws.exponent)
    largest = int(laws.K.max())
    where = f"{laws.estimator.nunique()} estimators, both coordinates, $K$ = {largest:,}"
    return [
        Claim.near(
            "Every estimator's ratio has the power of $K$ that its expansion gives.",
            r"\mathrm{SNR}(\phi)=\Theta(K^a),\;a\in\{-\frac{3}{2},-\frac{1}{2},\frac{1}{2}\}",
            measures.farthest(laws.slope - laws.exponent, 0.0),
            expected=0.0,
            within=100 / largest,
            note=f"The exact local slope less the exponent, the farthest of {where}. The exponents: {listed}.",
            source="rainforth2018tighter; tucker2019dreg; lievin2020ovis; daudel2023alphadivergence",
            condition=r"$\mathrm{E}[w^4]<\infty$ and $\partial_\phi\mathrm{Var}[w]\ne 0$",
        ),
        Claim.near(
            "And the constant.",
            r"K^{-a}\,\mathrm{SNR}(\phi)\to c",
            measures.farthest(ratio, 1.0),
            expected=1.0,
            within=100 / largest,
            note=f"The exact ratio over the leading term of its expansion, the farthest from 1 of {where}. "
            f"The constants are "
            "moments of the weight, the ratios integrals at finite $K$.",
            source="rainforth2018tighter; tucker2019dreg; lievin2020ovis; daudel2023alphadivergence",
            condition=r"$\mathrm{E}[w^4]<\infty$ and $\partial_\phi\mathrm{Var}[w]\ne 0$",
        ),
    ]


def _errors(curves: pd.DataFrame) -> list[Claim]:
    biased, right = (curves[curves.estimator == name].set_index("K") for name in (BIASED, UNBIASED))
    largest = int(biased.index.max())
    return [
        Claim(
            "A biased estimator can win on its ratio: sticking the landing has more signal to its noise than DReG.",
            r"\mathrm{SNR}_\mathrm{STL}(\phi)>\mathrm{SNR}_\mathrm{DReG}(\phi)",
            float((biased.snr / right.snr).min()),
            low=1.0,
            note=f"The smallest quotient of the two exact ratios, $K$ from {biased.index.min()} to {largest:,}.",
            source="slide: SNR; tucker2019dreg",
            condition="the proposal is that of this problem",
        ),
        Claim(
            "Its error is the larger one all the same.",
            r"\mathrm{RMSE}_\mathrm{STL}>\mathrm{RMSE}_\mathrm{DReG}",
            float((biased.rmse / right.rmse).min()),
            low=1.0,
            note="The smallest quotient of the exact errors to $\\nabla_\\phi L_K$; at the largest $K$ it is "
            f"{biased.rmse[largest] / right.rmse[largest]:,.0f}.",
            source="tucker2019dreg",
        ),
    ]


def _directions(curves: pd.DataFrame) -> list[Claim]:
    plain, right = (curves[curves.estimator == name].set_index("K") for name in (PLAIN, UNBIASED))
    (few, many) = right.index[-2:]
    slope = np.log(right.directional[many] / right.directional[few]) / np.log(many / few)
    return [
        Claim.near(
            "The direction of IWAE's gradient in φ becomes that of its noise.",
            r"\mathrm{DSNR}^2\to\frac{u^T\Sigma u}{\mathrm{tr}\,\Sigma-u^T\Sigma u}",
            float(plain.directional[many] / plain.noise_alone[many]),
            expected=1.0,
            within=10 / many,
            note=f"The directional ratio at $K$ = {many:,} over the one without any mean, with the exact "
            f"covariance $\\Sigma$ "
            "and the mean's direction $u$.",
            source="slide: directional SNR; rainforth2018tighter",
            condition=r"$\mathrm{Var}[w]<\infty$",
        ),
        Claim.near(
            "DReG's direction settles on the gradient's.",
            r"\mathrm{DSNR}_\mathrm{DReG}=\Theta(\sqrt{K})",
            float(slope),
            expected=0.5,
            within=100 / many,
            note=f"The exact local slope between $K$ = {few:,} and {many:,}.",
            source="slide: directional SNR; tucker2019dreg",
            condition=r"$\mathrm{E}[w^4]<\infty$",
        ),
    ]


def caption(table: Table) -> str:
    """What the figure shows."""
    shown = {name for group in _groups(table["curves"]) for name in group}
    missing = [name for name in dict.fromkeys(table["missing"].estimator) if name not in shown]
    least = int(table["curves"].K.min())
    few = [plot.short(name) for name in missing if estimators.get(name).min_particles > least]
    absent = [short for name in missing if (short := plot.short(name)) not in few]
    return (
        "Gradients by the mean of the proposal, two latents, one observation, $M$ = 1, all registered "
        "estimators whose "
        "variance is exact; estimators that are equal share a line. (a) Norm of the mean over $\\sqrt{K}$ "
        "and over the root of "
        "the covariance's "
        "trace. (b) Root of the mean square along the mean's direction over that across it, where the "
        "covariance is exact. "
        "(c) Root of the covariance's trace, times $\\sqrt{K}$. (d) Root-mean-square error to the gradient "
        "that the estimator "
        "is meant to "
        "follow: level lines are biases, and the best ratio in (a) may stand on one. "
        + (f"Without exact variance: {', '.join(absent)}." if absent else "")
        + (f" In need of more particles than the least $K$: {', '.join(few)}." if few else "")
    )


STUDY = Study(
    name="ratios",
    order=14,
    title="Every estimator: signal, noise, direction, error",
    question="How do ratio and error of each estimator go with $K$, and does the one say anything of the other?",
    settings=RatioSettings,
    quick={"largest_k": 100_000, "per_decade": 1},
    full={"largest_k": 10**9, "per_decade": 4},
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="Means, variances and covariances are exact at every $K$; powers and constants come from "
    "expansions in $1/K$.",
    cost=8.0,
)
