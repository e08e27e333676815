"""Signal-to-noise ratios of gradients against K and M: exact for every coordinate, every estimator that has one."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd

import toyiwae
from analysis import measures
from analysis.closed_limits import ClosedLimits
from analysis.settings import Settings
from analysis.studies._snr_figure import COMPARED, GENERATIVE, INFERENCE, along, caption, draw
from analysis.studies._snr_samples import SAMPLES, samples
from analysis.study import Claim, Study, Table
from toyiwae import estimators, plot
from toyiwae.problems.linear_gaussian import Data

TERMS = ("iwae", "iwae_stl", "rws_wake_phi")
REPAIRED = "dreg"
HAS_DRIFT = r"$\mathrm{Var}[w]<\infty$ and $\partial_\phi\mathrm{Var}[w]\ne 0$"
HAS_SLOPE = r"$\mathrm{Var}[w]<\infty$ and $\partial_\theta\log Z\ne 0$"


class SnrSettings(Settings):
    """The toy problem, the ranges of K and M, the size of the sample, and of the problem all estimators meet on."""

    dimension: int = 20
    rows: int = 1024
    perturbation_std: float = 0.01
    seed: int = 0
    largest_k: int = 10**9
    largest_m: int = 1024
    fixed_k: int = 8
    fixed_m: int = 8
    sampled_k: tuple[int, ...] = (1, 4, 16)
    sampled_m: tuple[int, ...] = (2, 8)
    replicates: int = 400
    blocks: int = 1
    sample_seed: int = 2
    compared_rows: int = 8
    compared_k: int = 1_000_000


def compute(settings: SnrSettings) -> Table:
    """Exact moments of IWAE by coordinate, of all estimators by quantile, sampled points, and limits."""
    problem = toyiwae.paper_problem(
        settings.dimension, settings.rows, settings.perturbation_std, settings.seed
    )
    parameters = GENERATIVE + INFERENCE
    over_k = measures.counts(settings.largest_k, 2)
    over_m = [2**power for power in range(settings.largest_m.bit_length())]
    counts = sorted({*over_k, *settings.sampled_k})
    against_k = toyiwae.exact(problem, K=counts, estimators=(*TERMS, REPAIRED), parameters=parameters)
    against_m = toyiwae.exact(
        problem, K=settings.fixed_k, M=sorted({*over_m, *settings.sampled_m}), parameters=parameters
    )
    frame = against_k.to_dataframe()
    iwae = pd.concat(
        [frame[frame.estimator == "iwae"].assign(axis="K"), against_m.to_dataframe().assign(axis="M")],
        ignore_index=True,
    )
    iwae = iwae[["axis", "K", "M", "parameter", "index", "mean", "var", "snr", "mean_error", "var_error"]]
    few = dataclasses.replace(problem, data=Data(problem.data.x[: settings.compared_rows]))
    curves, missing = _estimators(few, settings)
    return {
        "iwae": iwae,
        "samples": samples(settings, iwae),
        "estimators": curves,
        "missing": missing,
        "compared": pd.DataFrame({"rows": [few.n_rows]}),
        "limits": _limits(problem),
        "identity": _identity(frame[frame.parameter.isin(INFERENCE)]),
    }


def _estimators(problem: toyiwae.Problem, settings: SnrSettings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Medians over coordinates of SNR and of |target|/RMSE for all registered estimators; and where there are none.

    What is known at a single K, as the variance of vimco_geometric is at 2, makes no curve and is left out.
    """
    counts = sorted({2, *measures.counts(settings.compared_k, 2)} - {1})
    chosen = [e for e in estimators.all() if e.min_particles <= counts[0]]
    truth = toyiwae.exact(problem, K=counts, M=settings.fixed_m, estimators=chosen, parameters=COMPARED)
    rows, missing = [], []
    for cell in truth.results:
        for estimator in chosen:
            found = cell.gradients[estimator.name].parameters[COMPARED]
            if found.var is None or found.snr is None or found.mean is None or found.rmse is None:
                missing.append((estimator.name, cell.K, found.reason))
                continue
            against = np.abs(found.mean - found.bias) / found.rmse
            if np.isnan(found.snr).any():  # masked where it is not known well enough
                missing.append((estimator.name, cell.K, found.reason))
                continue
            kind = plot.kind(estimator)
            rows.append((cell.K, cell.M, estimator.name, kind, np.median(found.snr), np.median(against)))
    columns = ["K", "M", "estimator", "kind", "snr", "target_over_rmse"]
    frame = pd.DataFrame(rows, columns=columns)
    curves = frame[frame.groupby("estimator").K.transform("count") > 1].reset_index(drop=True)
    return curves, pd.DataFrame(missing, columns=["estimator", "K", "reason"])


def _limits(problem: toyiwae.Problem) -> pd.DataFrame:
    """The constants of the SNR's growth at M = 1, by coordinate: SNR times or over √K as K grows."""
    limits = ClosedLimits(problem)
    drift, noise, dreg = (
        limits.inference_drift(), limits.inference_noise(), limits.inference_noise_dreg(),
    )  # fmt: skip
    parts = []
    for estimator, parameter, mean, var in [
        ("iwae", "prior_mean", limits.evidence_slope(), limits.generative_noise()),
        *(("iwae", name, drift, noise) for name in INFERENCE),
        *(("dreg", name, drift, dreg) for name in INFERENCE),
    ]:
        signal = np.abs(limits.average(mean, parameter))
        constant = signal / np.sqrt(limits.average(var, parameter, squared=True))
        index = [",".join(map(str, place)) for place in np.ndindex(constant.shape)]
        labels = {"estimator": estimator, "parameter": parameter, "index": index}
        parts.append(pd.DataFrame(labels | {"constant": constant.ravel()}))
    return pd.concat(parts, ignore_index=True)


def _identity(frame: pd.DataFrame) -> pd.DataFrame:
    """E[STL], ∇L_K and E[wake-φ] of every coordinate, and DReG's SNR."""
    keys, names = ["K", "parameter", "index"], [*TERMS, REPAIRED]
    wide = frame.pivot(index=keys, columns="estimator", values="mean")[names]
    snr = frame[frame.estimator == REPAIRED].set_index(keys).snr.rename("dreg_snr")
    return wide.join(snr).reset_index()


def verdicts(table: Table) -> list[Claim]:
    """Slopes in K and M, their constants, DReG's repair, and the agreement of Monte Carlo."""
    iwae, identity = table["iwae"], table["identity"]
    over_k = along(iwae, "K").pivot(index="K", columns=["parameter", "index"], values="snr")
    dreg = identity.pivot(index="K", columns=["parameter", "index"], values="dreg_snr")
    inference, generative = over_k[list(INFERENCE)], over_k[list(GENERATIVE)]
    limits = table["limits"].set_index(["estimator", "parameter", "index"]).constant
    return [
        _slope(inference, -0.5, "inference", r"\mathrm{SNR}(\phi)=\Theta(\sqrt{M/K})", HAS_DRIFT),
        _slope(generative, 0.5, "generative", r"\mathrm{SNR}(\theta)=\Theta(\sqrt{MK})", HAS_SLOPE),
        _groups(table["samples"]),
        _constant(
            inference, limits["iwae"], 0.5,
            "The inference network's ratio has the constant that the theory gives.",
            r"\sqrt{K}\,\mathrm{SNR}(\phi)\to\frac{\sqrt{M}|\partial_\phi\mathrm{Var}[w]|}"
            r"{2Z\sqrt{\mathrm{E}[(\partial_\phi w)^2]}}", "rainforth2018tighter", HAS_DRIFT,
        ),
        _constant(
            generative, limits["iwae"], -0.5,
            "So has the generative network's.",
            r"\frac{\mathrm{SNR}(\theta)}{\sqrt{K}}\to\frac{\sqrt{M}|\partial_\theta Z|}"
            r"{\sqrt{\mathrm{E}[w^2(\partial_\theta\log p-\partial_\theta\log Z)^2]}}",
            "rainforth2018tighter", HAS_SLOPE,
        ),
        _constant(
            dreg, limits["dreg"], -0.5,
            "With DReG the inference network's ratio grows with $K$ as well.",
            r"\mathrm{SNR}_\mathrm{DReG}(\phi)=\Theta(\sqrt{MK})", "tucker2019dreg",
            r"$\mathrm{E}[w^4]<\infty$ and $\partial_\phi\mathrm{Var}[w]\ne 0$",
        ),
        *_means(identity),
        _agreement(table["samples"]),
    ]  # fmt: skip


def _slope(snr: pd.DataFrame, expected: float, network: str, formula: str, condition: str) -> Claim:
    last = snr.iloc[-2:]
    verb = "falls" if expected < 0 else "grows"
    return Claim.near(
        f"The signal-to-noise ratio of the {network} network {verb} with √K.",
        formula,
        measures.farthest(measures.slopes(last.index, last.to_numpy()), expected),
        expected=expected,
        within=1e-6,
        note=f"The exact local slope in $K$ farthest from {expected:g} over {snr.shape[1]} coordinates, between "
        f"$K$ = {last.index[0]:,} and {last.index[1]:,}.",
        source="slide: SNR; rainforth2018tighter",
        condition=condition,
    )


def _constant(
    snr: pd.DataFrame, limits: pd.Series, power: float, text: str, formula: str, source: str, condition: str
) -> Claim:
    largest = snr.index[-1]
    ratio = snr.iloc[-1] * float(largest) ** power / limits.reindex(snr.columns)
    return Claim.near(
        text,
        formula,
        measures.farthest(ratio, 1.0),
        expected=1.0,
        within=1e-6,
        note=f"The exact ratio at $K$ = {largest:,} over its limit, a closed Gaussian integral: the farthest from "
        f"1 of {ratio.size} coordinates.",
        source=source,
        condition=condition,
    )


def _groups(samples: pd.DataFrame) -> Claim:
    """The variance of groups averaged, sampled: exact values at M > 1 are those at 1 divided by M."""
    several = samples[samples.M > 1]
    z, limit, tests = measures.agreement(several.z_var, several.replicates.iloc[0])
    ratio = np.exp(measures.detectable(np.sqrt(2 / several.replicates.iloc[0]), tests))
    return Claim(
        "Both ratios grow with the root of the number of groups $M$.",
        r"\mathrm{SNR}_{M,K}=\sqrt{M}\,\mathrm{SNR}_{1,K}",
        z,
        high=limit,
        note=f"The largest $|z|$ of {tests} sampled variances at $M$ = "
        f"{' and '.join(str(m) for m in several.M.unique())} against the exact variance at $M$ = 1 divided by $M$, on "
        f"the scale of logarithms, with a family-wise error rate of {measures.RATE_TEXT}. A variance {ratio:.2f} "
        f"times as large would have been found with probability {measures.POWER}.",
        source="slide: SNR in M and K; rainforth2018tighter",
    )


def _means(identity: pd.DataFrame) -> list[Claim]:
    size = identity[["iwae", "iwae_stl"]].abs().groupby(identity.K).max()
    stl = (identity.iwae_stl - identity.iwae - identity.rws_wake_phi).abs().groupby(identity.K).max()
    dreg = (identity.dreg - identity.iwae).abs().groupby(identity.K).max()
    return [
        Claim(
            "DReG has the mean of IWAE at every $K$.",
            r"\mathrm{E}[\Delta_\mathrm{DReG}(\phi)]=\nabla_\phi L_K",
            float((dreg / size.iwae).max()),
            high=1e-12,
            note="The largest difference over all coordinates, relative to the largest mean at the same $K$; the worst "
            "$K$. The two come from different integrals: of the first and of the second power of the weights.",
            source="tucker2019dreg",
        ),
        Claim(
            "Sticking the landing adds the mean of wake-φ, a bias that does not fall with $K$.",
            r"\mathrm{E}[\Delta_\mathrm{STL}]=\nabla_\phi L_K+\mathrm{E}[\Delta_\text{wake}]",
            float((stl / size.iwae_stl).max()),
            high=1e-12,
            note="The largest difference of both sides, relative to the largest mean at the same $K$. All three come "
            "from the same integrals, so this checks how they are put together. The ratio in panel (d) is excellent, "
            "for the wrong direction: its dashed line.",
            source="roeder2017sticking; tucker2019dreg",
        ),
    ]


def _agreement(samples: pd.DataFrame) -> Claim:
    z, limit, tests = measures.agreement(samples.z, samples.replicates.iloc[0])
    shift = measures.detectable(1 / np.sqrt(samples.replicates.iloc[0]), tests)
    return Claim(
        "Monte Carlo agrees with the exact mean gradients.",
        r"\mathrm{E}[\Delta_{M,K}]",
        z,
        high=limit,
        note=f"The largest $|z|$ of {tests} tests with a family-wise error rate of {measures.RATE_TEXT}. "
        f"A shift of {shift:.2f} standard deviations of a replicate would have been found with probability "
        f"{measures.POWER}.",
    )


STUDY = Study(
    name="snr",
    order=2,
    title="Signal-to-noise ratios",
    question="Do more particles make the gradient estimates better or worse, and for which network?",
    settings=SnrSettings,
    quick={
        "dimension": 4,
        "rows": 4,
        "largest_m": 16,
        "sampled_k": (1, 4),
        "sampled_m": (4,),
        "compared_rows": 2,
        "compared_k": 1_000,
    },
    full={"sampled_k": (1, 4, 16, 64, 256), "sampled_m": (2, 8, 32), "replicates": 100, "blocks": 20},
    experiments=(SAMPLES,),
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="Mean and variance of every coordinate are exact at every $K$ and $M$; nothing is sampled but the points. "
    "The gradients are those of the average over the data: of the prior's mean (θ), and of weight and offset of "
    "the proposal's mean (φ).",
    cost=60.0,
)
