"""The record of an evaluation: means over images with standard errors, tables, files."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from toyiwae import records, stats
from toyiwae.extras import import_extra
from toyiwae.files import write_atomic
from toyiwae.networks.evaluation import diagnostics
from toyiwae.networks.evaluation.annealing import Annealed, Sandwich
from toyiwae.networks.evaluation.bounds import ImageBounds
from toyiwae.networks.evaluation.exact import RATE, ExactBounds, ExactSnr
from toyiwae.networks.members import Member

HEAVY = 0.7
"""Pareto k̂ above which an image's weights are too heavy-tailed for its bound to be trusted."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What was measured of a run, on its test images.

    Attributes:
        members: of the run's stack, in the order of the member axis E.
        step: of the checkpoint.
        data: the data set and its binarisation.
        bounds: of every image.
        unit_variances: `Var_x E_q[z_i]` `[E, D]`; a unit is active above 0.01.
        snr: signal-to-noise ratios of the encoder's weights `[E, P]`, if asked for.
        annealed: forward annealed importance sampling on the first images, if asked for.
        sandwich: both sides on images that the model has drawn, if asked for.
        exact, exact_snr: exact values beside the estimates, for a linear decoder.
        pictures: name -> bytes `[E, height, width]`, dark on white.
        provenance: settings, arguments, versions.
    """

    members: tuple[Member, ...]
    step: int
    data: str
    bounds: ImageBounds
    unit_variances: np.ndarray
    snr: np.ndarray | None = None
    annealed: Annealed | None = None
    sandwich: Sandwich | None = None
    exact: ExactBounds | None = None
    exact_snr: list[ExactSnr] | None = None
    pictures: Mapping[str, np.ndarray] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for strict JSON: a record for every member, means over images with standard errors."""
        return {
            "data": self.data,
            "step": self.step,
            "images": self.bounds.bound.shape[-1],
            "members": [{**vars(member), **self._of(e)} for e, member in enumerate(self.members)],
            "provenance": dict(self.provenance),
        }

    def to_dataframe(self) -> Any:
        """A pandas data frame with a row for every member, image and K.

        Raises:
            MissingExtraError: if pandas is not installed; the message names the extra.
        """
        found = self.bounds
        return records.to_dataframe(
            {
                "member": e,
                **vars(member),
                "image": n,
                "particles": count,
                "bound_estimate": found.bound[e, i, n],
                "bound_se": found.bound_se[e, i, n],
                "ess": found.ess[e, i, n],
                "pareto_k": found.pareto_k[e, n],
                "bound_exact": None if self.exact is None else self.exact.bound[e, i, n],
            }
            for e, member in enumerate(self.members)
            for i, count in enumerate(found.K)
            for n in range(found.bound.shape[-1])
        )

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Writes `evaluation-STEP.json`, the images' numbers as `.npz`, and the pictures as PNG files.

        Raises:
            MissingExtraError: matplotlib, which writes PNG files, is not installed.
            OSError: the folder does not exist, is not writable, or is full.
        """
        base = Path(folder) / f"evaluation-{self.step}"
        content: dict[str, bytes | str] = {".json": records.dumps(self.to_dict()) + "\n"}
        arrays = {name: getattr(self.bounds, name) for name in ("bound", "bound_se", "ess", "pareto_k")}
        arrays |= {"K": np.array(self.bounds.K), "unit_variances": self.unit_variances}
        arrays |= {} if self.exact is None else {"exact_bound": self.exact.bound, "exact_ess": self.exact.ess}
        arrays |= {} if self.annealed is None else {"annealed": self.annealed.log_p}
        arrays |= {} if self.snr is None else {"snr": self.snr}
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        content[".npz"] = stream.getvalue()
        paths = [base.with_name(base.name + suffix) for suffix in content]
        for path, one in zip(paths, content.values(), strict=True):
            write_atomic(path, one)
        image: Any = import_extra("matplotlib.image", extra="networks", purpose="pictures")
        for name, pictures in self.pictures.items():
            for e, picture in enumerate(pictures):
                stream = io.BytesIO()
                image.imsave(stream, picture, cmap="gray", vmin=0, vmax=255, format="png")
                paths.append(base.with_name(f"{base.name}-{name}-{e}.png"))
                write_atomic(paths[-1], stream.getvalue())
        return paths

    def _of(self, e: int) -> dict[str, Any]:
        """The numbers of one member."""
        found, images = self.bounds, self.bounds.bound.shape[-1]
        largest = found.bound[e, -1]
        entry: dict[str, Any] = {
            "bounds": [
                {
                    "K": count,
                    "bound": found.bound[e, i].mean(),
                    "se": _se(found.bound[e, i]),
                    "particles_se": np.sqrt((found.bound_se[e, i] ** 2).sum()) / images,
                    "ess": found.ess[e, i].mean(),
                    "minus_kl": (found.bound[e, i] - largest).mean() if count < found.K[-1] else None,
                    **self._exact_of(e, i),
                }
                for i, count in enumerate(found.K)
            ],
            "active_units": int((self.unit_variances[e] > diagnostics.ACTIVE).sum()),
            "units": self.unit_variances.shape[-1],
        }
        if np.isfinite(found.pareto_k[e]).any():
            entry["pareto_k"] = {
                "median": np.nanmedian(found.pareto_k[e]),
                "above_0.7": np.mean(found.pareto_k[e] > HEAVY),
            }
        if self.exact is not None:
            entry["log_p"] = self.exact.log_p[e]
        if self.snr is not None:
            entry["encoder_snr"] = _quartiles(self.snr[e])
        if self.annealed is not None:
            log_p = self.annealed.log_p[e]
            entry["annealed"] = {"images": len(log_p), "log_p": log_p.mean(), "se": _se(log_p)}
            entry["annealed"] |= {"same_images_bound": largest[: len(log_p)].mean()}
            entry["annealed"] |= {"accepted": self.annealed.accepted[e].mean()}
        if self.sandwich is not None:
            entry["sandwich"] = {name: value[e] for name, value in vars(self.sandwich).items()}
        if self.exact_snr is not None:
            entry["exact_snr"] = self._exact_snr_of(e)
        return entry

    def _exact_snr_of(self, e: int) -> dict[str, Any]:
        """Agreement of one member's signal-to-noise ratios, and the shifts that would have been seen."""
        assert self.exact_snr is not None
        known = [np.isfinite(found.z) for found in self.exact_snr]
        z, detectable = (getattr(self.exact_snr[e], name)[known[e]] for name in ("z", "detectable"))
        if not z.size:
            return {"tests": 0, "largest_z": None, "reason": "the estimator's variance has no exact value"}
        return {
            "images": len(known[e]),
            "tests": z.size,
            "largest_z": np.abs(z).max(),
            "threshold": stats.family_threshold(sum(int(one.sum()) for one in known), RATE),
            "detectable_median": np.median(detectable),
            "detectable_max": detectable.max(),
        }

    def _exact_of(self, e: int, i: int) -> dict[str, Any]:
        if self.exact is None:
            return {}
        exact = self.exact
        return {
            "exact": exact.bound[e, i].mean(),
            "exact_ess": exact.ess[e, i].mean(),
            "z": exact.z[e, i],
            "detectable": exact.detectable[e, i],
        }


def _se(values: np.ndarray) -> float | None:
    """Standard error of a mean over images; None for one."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None


def _quartiles(values: np.ndarray) -> dict[str, Any]:
    """Of those weights whose gradient is not always 0."""
    own = values[np.isfinite(values)]
    first, median, third = np.quantile(own, [0.25, 0.5, 0.75]) if len(own) else (None,) * 3
    return {"weights": len(own), "first_quartile": first, "median": median, "third_quartile": third}
