"""Signal-to-noise ratios of gradients against K and M: exact for every coordinate, every estimator that has one."""

from __future__ import annotations

import numpy as np
import pandas as pd

import toyiwae
from analysis import measures
from analysis.sampling import sample
from analysis.studies._snr_figure import GENERATIVE, INFERENCE, SAMPLED, along, caption, draw
from analysis.study import Claim, Settings, Study, Table, track
from analysis.witness import Witness
from toyiwae import estimators, stats


class SnrSettings(Settings):
    """The toy problem, the ranges of K and M, and the size of the sample."""

    dimension: int = 20
    rows: int = 128
    perturbation_std: float = 0.01
    seed: int = 0
    largest_k: int = 1_000_000
    largest_m: int = 1024
    fixed_k: int = 8
    fixed_m: int = 8
    sampled: tuple[int, ...] = (1, 4, 16)
    replicates: int = 3_000
    sample_seed: int = 2


def compute(settings: SnrSettings) -> Table:
    """Exact moments of IWAE by coordinate, of all estimators by quantile, sampled points, and limits."""
    problem = toyiwae.paper_problem(
        settings.dimension, settings.rows, settings.perturbation_std, settings.seed
    )
    parameters = GENERATIVE + INFERENCE
    over_k = measures.counts(settings.largest_k, 2)
    over_m = [2**power for power in range(settings.largest_m.bit_length())]
    against_k = toyiwae.exact(problem, K=sorted({*over_k, *settings.sampled}), parameters=parameters)
    against_m = toyiwae.exact(
        problem, K=settings.fixed_k, M=sorted({*over_m, *settings.sampled}), parameters=parameters
    )
    iwae = pd.concat(
        [against_k.to_dataframe().assign(axis="K"), against_m.to_dataframe().assign(axis="M")],
        ignore_index=True,
    )
    iwae = iwae[["axis", "K", "M", "parameter", "index", "mean", "var", "snr", "mean_error", "var_error"]]
    return {
        "iwae": iwae,
        "samples": _samples(problem, settings, iwae),
        "estimators": _estimators(problem, settings, over_k),
        "limits": _limits(problem),
        "identity": _identity(problem, over_k),
    }


def _samples(problem: toyiwae.Problem, settings: SnrSettings, iwae: pd.DataFrame) -> pd.DataFrame:
    """Sampled mean and SNR of every coordinate of the vector parameters, each beside its exact mean."""
    cells = [("K", n, 1) for n in settings.sampled] + [("M", settings.fixed_k, n) for n in settings.sampled]
    parts = []
    for axis, k, m in track(cells, lambda cell: f"sampling K = {cell[1]}, M = {cell[2]}"):
        found = sample(
            problem, K=k, M=m, estimators="iwae", parameters=SAMPLED,
            replicates=settings.replicates, seed=settings.sample_seed,
        ).gradients["iwae"]  # fmt: skip
        for name in SAMPLED:
            truth = iwae[(iwae.axis == axis) & (iwae.K == k) & (iwae.M == m) & (iwae.parameter == name)]
            moments = found[name]
            columns = {
                "index": truth["index"].to_numpy(),
                "mean": moments.mean,
                "mean_se": moments.mean_se,
                "z": stats.z_score(moments.mean, truth["mean"].to_numpy(), moments.mean_se),
                "snr": moments.snr,
                "snr_se": moments.snr_se,
                "std": moments.std,
            }
            labels = {"axis": axis, "K": k, "M": m, "parameter": name, "replicates": moments.count}
            parts.append(pd.DataFrame(labels | columns))
    return pd.concat(parts, ignore_index=True)


def _estimators(problem: toyiwae.Problem, settings: SnrSettings, over_k: list[int]) -> pd.DataFrame:
    """Median over coordinates of SNR and of |target|/RMSE, for all registered estimators with exact moments."""
    counts = sorted({2, *over_k} - {1})
    names = [e.name for e in estimators.all() if e.form is not None and e.min_particles <= counts[0]]
    truth = toyiwae.exact(problem, K=counts, M=settings.fixed_m, estimators=names, parameters=INFERENCE)
    rows = []
    for cell in truth.results:
        for name in names:
            found = cell.gradients[name].parameters
            if any(found[parameter].var is None for parameter in INFERENCE):
                continue
            snr = np.concatenate([np.ravel(found[parameter].snr) for parameter in INFERENCE])
            mean, bias, rmse = (
                np.concatenate([np.ravel(getattr(found[p], what)) for p in INFERENCE])
                for what in ("mean", "bias", "rmse")
            )
            against = np.abs(mean - bias) / rmse
            rows.append((cell.K, cell.M, name, np.median(snr), np.median(against)))
    return pd.DataFrame(rows, columns=["K", "M", "estimator", "snr", "target_over_rmse"])


def _limits(problem: toyiwae.Problem) -> pd.DataFrame:
    """The constants of the SNR's growth at M = 1, by coordinate: SNR times or over √K as K grows."""
    witness = Witness(problem)
    drift, noise, dreg = (
        witness.inference_drift(), witness.inference_noise(), witness.inference_noise_dreg(),
    )  # fmt: skip
    parts = []
    for estimator, parameter, mean, var in [
        ("iwae", "prior_mean", witness.evidence_slope(), witness.generative_noise()),
        *(("iwae", name, drift, noise) for name in INFERENCE),
        *(("dreg", name, drift, dreg) for name in INFERENCE),
    ]:
        signal = np.abs(witness.average(mean, parameter))
        constant = signal / np.sqrt(witness.average(var, parameter, squared=True))
        index = [",".join(map(str, place)) for place in np.ndindex(constant.shape)]
        labels = {"estimator": estimator, "parameter": parameter, "index": index}
        parts.append(pd.DataFrame(labels | {"constant": constant.ravel()}))
    return pd.concat(parts, ignore_index=True)


def _identity(problem: toyiwae.Problem, over_k: list[int]) -> pd.DataFrame:
    """E[STL], ∇L_K and E[wake-φ] of every coordinate, and DReG's SNR."""
    repaired = "dreg"
    terms = ("iwae_stl", "iwae", "rws_wake_phi")
    names = [*terms, repaired]
    frame = toyiwae.exact(problem, K=over_k, estimators=names, parameters=INFERENCE).to_dataframe()
    keys = ["K", "parameter", "index"]
    wide = frame.pivot(index=keys, columns="estimator", values="mean")[names]
    snr = frame[frame.estimator == repaired].set_index(keys).snr.rename("dreg_snr")
    return wide.join(snr).reset_index()


def verdicts(table: Table) -> list[Claim]:
    """Slopes in K and M, their constants, DReG's repair, and the agreement of Monte Carlo."""
    iwae, identity = table["iwae"], table["identity"]
    over_k = along(iwae, "K").pivot(index="K", columns=["parameter", "index"], values="snr")
    over_m = along(iwae, "M").pivot(index="M", columns=["parameter", "index"], values="snr")
    dreg = identity.pivot(index="K", columns=["parameter", "index"], values="dreg_snr")
    inference, generative = over_k[list(INFERENCE)], over_k[list(GENERATIVE)]
    limits = table["limits"].set_index(["estimator", "parameter", "index"]).constant
    return [
        _slope(inference, -0.5, "inference", r"\mathrm{SNR}(\phi)=\Theta(\sqrt{M/K})"),
        _slope(generative, 0.5, "generative", r"\mathrm{SNR}(\theta)=\Theta(\sqrt{MK})"),
        Claim.near(
            "Both ratios grow with the root of the number of groups $M$.",
            r"\mathrm{SNR}_{M,K}=\sqrt{M}\,\mathrm{SNR}_{1,K}",
            measures.farthest(measures.slopes(over_m.index, over_m.to_numpy()), 0.5),
            expected=0.5,
            within=1e-9,
            note="The local slope in $M$ farthest from 1/2, over all coordinates and all $M$.",
        ),
        _constant(
            inference, limits["iwae"], 0.5,
            "The inference network's ratio has the constant that the theory gives.",
            r"\sqrt{K}\,\mathrm{SNR}(\phi)\to\frac{\sqrt{M}|\partial_\phi\mathrm{Var}[w]|}"
            r"{2Z\sqrt{\mathrm{E}[(\partial_\phi w)^2]}}",
        ),
        _constant(
            generative, limits["iwae"], -0.5,
            "So has the generative network's.",
            r"\frac{\mathrm{SNR}(\theta)}{\sqrt{K}}\to\frac{\sqrt{M}|\partial_\theta Z|}"
            r"{\sqrt{\mathrm{E}[w^2(\partial_\theta\log p-\partial_\theta\log Z)^2]}}",
        ),
        _constant(
            dreg, limits["dreg"], -0.5,
            "With DReG the inference network's ratio grows with $K$ as well.",
            r"\mathrm{SNR}_\mathrm{DReG}(\phi)=\Theta(\sqrt{MK})",
        ),
        *_means(identity),
        _agreement(table["samples"]),
    ]  # fmt: skip


def _slope(snr: pd.DataFrame, expected: float, network: str, formula: str) -> Claim:
    last = snr.iloc[-2:]
    verb = "falls" if expected < 0 else "grows"
    return Claim.near(
        f"The signal-to-noise ratio of the {network} network {verb} with √K.",
        formula,
        measures.farthest(measures.slopes(last.index, last.to_numpy()), expected),
        expected=expected,
        within=0.005,
        note=f"The exact local slope in $K$ farthest from {expected:g} over {snr.shape[1]} coordinates, between "
        f"$K$ = {last.index[0]:,} and {last.index[1]:,}.",
    )


def _constant(snr: pd.DataFrame, limits: pd.Series, power: float, text: str, formula: str) -> Claim:
    largest = snr.index[-1]
    ratio = snr.iloc[-1] * float(largest) ** power / limits.reindex(snr.columns)
    return Claim.near(
        text,
        formula,
        measures.farthest(ratio, 1.0),
        expected=1.0,
        within=0.001,
        note=f"The exact ratio at $K$ = {largest:,} over its limit, a closed Gaussian integral: the farthest from "
        f"1 of {ratio.size} coordinates.",
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
        ),
        Claim(
            "Sticking the landing adds the mean of wake-φ, a bias that does not fall with $K$.",
            r"\mathrm{E}[\Delta_\mathrm{STL}]=\nabla_\phi L_K+\mathrm{E}[\Delta_\text{wake}]",
            float((stl / size.iwae_stl).max()),
            high=1e-12,
            note="The largest difference of both sides, relative to the largest mean at the same $K$. All three come "
            "from the same integrals, so this checks how they are put together. The ratio in panel (c) is excellent, "
            "for the wrong direction: panel (d).",
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
        note=f"The largest $|z|$ of {tests} tests with a family-wise false-alarm rate of {measures.RATE_TEXT}. "
        f"A shift of {shift:.2f} standard deviations of a replicate would have been found with probability "
        f"{measures.POWER}.",
    )


STUDY = Study(
    name="snr",
    order=2,
    title="Signal-to-noise ratios",
    question="Do more particles make the gradient estimates better or worse, and for which network?",
    settings=SnrSettings,
    quick={"dimension": 4, "rows": 4, "largest_m": 16, "sampled": (1, 4), "replicates": 300},
    compute=compute,
    draw=draw,
    verdicts=verdicts,
    caption=caption,
    method="Mean and variance of every coordinate are exact at every $K$ and $M$; nothing is sampled but the points. "
    "The gradients are those of the average over the data: of the prior's mean (θ), and of weight and offset of "
    "the proposal's mean (φ).",
)
