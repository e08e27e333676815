"""Files of the studies: figures, data and the report, each written whole or not at all."""

from __future__ import annotations

import importlib.util
import inspect
import io
import platform
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tomli_w

from analysis.settings import Settings
from analysis.study import Study, Table
from toyiwae.errors import InputError
from toyiwae.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 220


def write_all(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files into a folder, in the mapping's order, each all or nothing.

    Raises:
        OSError: if the folder cannot be written; what stood there under the name at fault is untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomic(folder / name, content)


def check_folder(folder: Path) -> None:
    """Makes the folder, before anything is computed whose results it is to hold.

    Raises:
        InputError: one line, if it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"--out is {str(folder)!r}: no files can be written there ({error.strerror})"
        ) from None


def code(study: Study) -> dict[str, bytes]:
    """The study's own source beside its figure, so that whoever reads the report can read it.

    Returns:
        {"STUDY.py.txt": content}; a name that a browser shows rather than saves.
    """
    path = inspect.getsourcefile(study.compute)
    return {f"{study.name}.py.txt": Path(path).read_bytes()} if path else {}


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as PNG or PDF, without time or program in it: same figure, same bytes."""
    metadata = (
        {"Software": None} if kind == "png" else {"CreationDate": None, "Producer": None, "Creator": None}
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=metadata)
    return buffer.getvalue()


def animation_bytes(frames: Sequence[np.ndarray], milliseconds: Sequence[int]) -> bytes:
    """An endless GIF, all of whose frames share one palette of 64 colours: same frames, same bytes.

    Args:
        frames: RGB pixels [height, width, 3] each, of one size.
        milliseconds: how long each is shown.
    """
    from PIL import Image  # comes with matplotlib

    some = np.concatenate([frames[0], frames[len(frames) // 2], frames[-1]])
    palette = Image.fromarray(some).quantize(64, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    colors = np.reshape(palette.getpalette(), (-1, 3))
    colors[np.all(colors > 247, axis=1)] = 255  # the mean of white and of what is nearly white
    palette.putpalette(colors.ravel().tolist())
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    images[0].save(
        buffer, "GIF", save_all=True, append_images=images[1:], duration=list(milliseconds), loop=0
    )
    return buffer.getvalue()


def csv_files(study: str, table: Table) -> dict[str, bytes]:
    """The data frames of a study as CSV, every number with all its digits.

    Returns:
        {"STUDY-PART.csv": content}.
    """
    return {
        f"{study}-{part}.csv": frame.to_csv(index=False, lineterminator="\n").encode("utf-8")
        for part, frame in table.items()
    }


def caption_text(study: Study, settings: Settings, caption: str, venue: str) -> str:
    """What stands beside a figure: its caption, the settings as TOML for `--settings`, and versions; no time.

    Args:
        study: the study.
        settings: it ran with.
        caption: of the figure, formulas between dollars.
        venue: the style of the figure.
    """
    values = {key: value for key, value in settings.model_dump().items() if value is not None}
    names = (
        "toyiwae",
        "numpy",
        "scipy",
        "torch",
        "matplotlib",
    )  # whether or not this process has loaded them
    found = [f"{name} {metadata.version(name)}" for name in names if _installed(name)]
    versions = ", ".join([*found, f"Python {platform.python_version()}"])
    return f"{caption}\n\n{tomli_w.dumps({study.name: values})}\n# python -m analysis, --style {venue}\n# {versions}\n"


def _installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def stale(folder: Path, study: str, files: Mapping[str, bytes]) -> list[Path]:
    """Files that an earlier run of a study left in the folder and this one does not write."""
    own = [folder / f"{study}.{kind}" for kind in ("png", "pdf", "gif", "txt", "py.txt")]
    candidates = [*folder.glob(f"{study}-*.csv"), *filter(Path.exists, own)]
    return [path for path in candidates if path.name not in files]
