"""How the bound tightens with K: the exact gap, Monte Carlo beside it, and its limit law −Var[w]/(2KZ²)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

import toyiwae
from analysis import measures, report, style
from analysis.closed_limits import ClosedLimits
from analysis.sampling import SampleSettings, paper_problem, sample, with_engine
from analysis.settings import Settings
from analysis.study import Claim, Study, Table
from analysis.sweep import cells
from analysis.sweep.experiment import Experiment, Row, seed_of
from analysis.sweep.moments import sums, together
from toyiwae import stats
from toyiwae.oracle.enclosure import enclose, precision
from toyiwae.problems.linear_gaussian import Data


def sampled_bound(settings: SampleSettings, block: int) -> Row:
    """Moments of log Ẑ over a block of replicates."""
    seed = seed_of(settings.sample_seed, block)
    found = sample(
        paper_problem(settings),
        K=settings.K,
        replicates=settings.replicates,
        seed=seed,
        engine=settings.engine,
    )
    return sums({"bound": found.bound})


def mean_bound(rows: Sequence[Row]) -> Row:
    """The mean of log Ẑ over all replicates, and its standard error."""
    found = together(rows)["bound"]
    return {"mean": float(found.mean), "mean_se": float(found.mean_se), "replicates": found.count}


SAMPLES = Experiment("gap_samples", 1, SampleSettings, sampled_bound, with_engine, mean_bound)


OWN = ("K", "engine")
"""What is not a study's setting."""


class GapSettings(Settings):
    """The toy problem, the range of K, and the size of the sample: so many blocks of replicates."""

    dimension: int = 20
    rows: int = 1024
    perturbation_std: float = 0.01
    seed: int = 0
    largest_k: int = 1_000_000
    per_decade: int = 8
    sampled_k: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    replicates: int = 200
    blocks: int = 1
    sample_seed: int = 1
    checked_rows: int = 3
    checked_k: tuple[int, ...] = (1, 8, 1000, 1_000_000)


def compute(settings: GapSettings) -> Table:
    """The exact gaps, the sampled bounds and the constants of the expansion."""
    problem = toyiwae.paper_problem(
        settings.dimension, settings.rows, settings.perturbation_std, settings.seed
    )
    grid = measures.counts(settings.largest_k, settings.per_decade)
    asked = sorted({*grid, *(k + 1 for k in grid), *settings.sampled_k})
    truth = toyiwae.exact(problem, K=asked, estimators="elbo", parameters="prior_mean")
    curve = pd.DataFrame(
        [(cell.K, cell.gap, cell.gap_error) for cell in truth.results], columns=["K", "gap", "gap_error"]
    )
    constants = _constants(problem)
    curve["asymptote"] = constants["limit"] / curve.K
    curve["departure"] = curve.K * curve.gap / constants["limit"] - 1
    curve["drawn"] = curve.K.isin(grid)
    samples = []
    sampled = _cells(settings)
    rows = cells.rows(SAMPLES, sampled, lambda cell: f"sampling K = {cell.K}", blocks=settings.blocks)
    for cell, found in zip(sampled, rows, strict=True):
        z = stats.z_score(found["mean"], truth.cell(cell.K).bound, found["mean_se"])
        gap = truth.log_evidence - found["mean"]
        samples.append((cell.K, gap, found["mean_se"], float(z), found["replicates"]))
    columns = ["K", "gap", "se", "z", "replicates"]
    return {
        "curve": curve,
        "samples": pd.DataFrame(samples, columns=columns),
        "constants": pd.DataFrame([constants]),
        "check": _check(problem, settings),
    }


def _cells(settings: GapSettings) -> list[SampleSettings]:
    """The values of K that are sampled."""
    shared = {name: getattr(settings, name) for name in SampleSettings.model_fields if name not in OWN}
    return [SampleSettings(**shared, K=k) for k in settings.sampled_k]


def _check(problem: toyiwae.Problem, settings: GapSettings) -> pd.DataFrame:
    """The gaps of the first rows beside those of the multiprecision integrals, right to thirty digits."""
    few = dataclasses.replace(problem, data=Data(problem.data.x[: settings.checked_rows]))
    truth = toyiwae.exact(few, K=settings.checked_k, estimators="elbo", parameters="prior_mean")
    right = precision.rounded(enclose.bounds(few, settings.checked_k, digits=30, with_ess=False).gap).value
    rows = []
    for column, cell in enumerate(truth.results):
        for row, gap in enumerate((cell.per_row or {})["gap"]):
            known = right[row, column]
            rows.append((cell.K, row, gap, float(abs((gap - known) / known))))
    return pd.DataFrame(rows, columns=["K", "row", "gap", "relative_error"])


def _constants(problem: toyiwae.Problem) -> dict[str, float]:
    """Var[w]/(2Z²), and the next term of K·gap times K, 3μ₂²/4 − μ₃/3, averaged over the rows."""
    limits = ClosedLimits(problem)
    second, third = limits.weight_variance(), limits.weight_skew()
    return {"limit": float(second.mean()) / 2, "next": float((0.75 * second**2 - third / 3).mean())}


def draw(table: Table) -> Figure:
    """The gap against K, and how far K·gap is from its limit."""
    curve, samples = table["curve"][table["curve"].drawn], table["samples"]
    figure, (left, right) = style.panels(1, 2, aspect=0.8)
    left.loglog(curve.K, curve.gap, label="exact", **style.EXACT)
    left.loglog(curve.K, curve.asymptote, label=r"limit $\mathrm{Var}[w]\,/\,(2KZ^2)$", **style.LIMIT)
    left.errorbar(
        samples.K, samples.gap, samples.se, label="Monte Carlo, ± 1 s.e.", color=style.BLUE, **style.SAMPLED
    )
    left.set(xlabel="particles $K$", ylabel=r"gap $\log Z-L_K$ (nats)")
    left.legend(loc="lower left")
    style.label_panel(left, "a", "The bound tightens")
    departure = curve.departure.abs()
    order = table["constants"].next[0] / table["constants"].limit[0] / curve.K
    right.loglog(curve.K, departure, label="exact", **style.EXACT)
    right.loglog(curve.K, order.abs(), label="next term of the expansion", **style.LIMIT)
    right.set(xlabel="particles $K$", ylabel="relative distance from the limit")
    right.legend(loc="lower left")
    style.label_panel(right, "b", "What the limit leaves out")
    return figure


def verdicts(table: Table) -> list[Claim]:
    """The bound is monotone, Monte Carlo agrees, and K times the gap tends to Var[w]/(2Z²)."""
    curve, samples = table["curve"], table["samples"]
    constants = table["constants"].iloc[0]
    drawn = curve[curve.drawn]
    following = curve.set_index("K").gap.reindex(drawn.K + 1).to_numpy()
    steps = drawn.K.to_numpy() * (drawn.gap.to_numpy() - following) / drawn.gap.to_numpy()
    z, limit, tests = measures.agreement(samples.z, samples.replicates[0])
    shift = measures.detectable(samples.se, tests) / samples.gap
    largest = drawn.iloc[-1]
    following_term = constants.next / constants.limit / largest.K
    tail = drawn[drawn.K >= largest.K ** (2 / 3)]
    slope = measures.slopes(tail.K, tail.departure)
    check = table["check"]
    shown = ", ".join(f"{k:,}" for k in check.K.unique())
    stated = float((curve.gap_error / curve.gap).max())
    return [
        Claim(
            "The bound never loosens as $K$ grows.",
            r"L_K\le L_{K+1}",
            float(steps.min()),
            low=0.0,
            note=f"The smallest relative step $K(L_{{K+1}}-L_K)/(\\log Z-L_K)$ over {len(drawn)} values of $K$ "
            f"up to {largest.K:,.0f}.",
            source="slide: IWAE 1; burda2016iwae",
        ),
        Claim(
            "Monte Carlo agrees with the exact bound.",
            r"\mathrm{E}\,\log\frac{1}{K}\sum_k w_k=L_K",
            z,
            high=limit,
            note=f"The largest $|z|$ of {tests} tests with a family-wise error rate of "
            f"{measures.RATE_TEXT}. A shift of the gap by {shift.min():.1%} at $K$ = "
            f"{samples.K[shift.idxmin()]} and by {shift.max():.0%} at $K$ = {samples.K[shift.idxmax()]} would "
            f"have been found with probability {measures.POWER}.",
        ),
        Claim.near(
            "The gap falls like $1/K$, with the weight's variance as its constant.",
            r"K(\log Z-L_K)\to\frac{\mathrm{Var}[w]}{2Z^2}",
            float(largest.K * largest.gap / constants.limit - following_term),
            expected=1.0,
            within=1e-11,
            note=f"The ratio of both sides at $K$ = {largest.K:,.0f}, less the next term of the expansion, "
            f"{report.in_prose(float(following_term), 3)}. Both terms are closed Gaussian integrals by other code.",
            source="nowozin2018jvi; rainforth2018tighter",
            condition=r"$\mathrm{Var}[w]<\infty$",
        ),
        Claim.near(
            "What is left falls like $1/K$ in turn.",
            r"\frac{2KZ^2}{\mathrm{Var}[w]}(\log Z-L_K)-1\propto K^{-1}",
            measures.farthest(slope, -1.0),
            expected=-1.0,
            within=0.01,
            note=f"The local slope of panel (b) farthest from −1 for $K\\ge$ {tail.K.iloc[0]:,}.",
            source="nowozin2018jvi",
            condition=r"$\mathrm{E}[w^3]<\infty$",
        ),
        Claim(
            "The gaps are right to twelve digits.",
            r"\log Z-L_K",
            float(check.relative_error.max()),
            high=1e-12,
            note="The largest relative difference from integrals evaluated in multiprecision arithmetic, right to "
            f"thirty digits, for {check.row.nunique()} observations at $K$ = {shown}. "
            f"The error bound that the oracle states for the average is {report.in_prose(stated)} at most.",
        ),
    ]


def caption(table: Table) -> str:
    """What the figure shows."""
    samples, last = table["samples"], table["curve"][table["curve"].drawn].iloc[-1]
    return (
        "The toy problem, averaged over the data. (a) The exact gap between the log-evidence and the bound, with "
        f"Monte Carlo estimates from {samples.replicates[0]:,} replicates (bars: one standard error) and the "
        "leading term $\\mathrm{Var}[w]/(2KZ^2)$. (b) The relative distance of the exact gap from that term, and "
        f"what the next term of the expansion predicts for it, up to $K$ = {last.K:,.0f}. The dip is a change of sign."
    )


STUDY = Study(
    name="gap",
    order=1,
    title="The bound and its gap",
    question="How fast does the bound $L_K$ approach the log-evidence as $K$ grows?",
    settings=GapSettings,
    quick={"dimension": 5, "rows": 4, "per_decade": 2, "sampled_k": (1, 4, 16), "replicates": 500},
    full={"sampled_k": tuple(2**power for power in range(10)), "replicates": 100, "blocks": 20},
    experiments=(SAMPLES,),
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="The gap is an integral over the Laplace transform of the weight, $\\log Z-L_K=\\int (E(t)^K-e^{-t})\\,"
    "\\frac{1}{t}dt$ with $E(t)=\\mathrm{E}[e^{-tw/(KZ)}]$, computed by quadrature with an error bound; nothing is "
    "sampled in it.",
    cost=45.0,
)
