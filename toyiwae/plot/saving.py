"""Figures as files: PNG, PDF or SVG, whole or not at all, the same bytes for the same figure."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toyiwae.errors import InputError
from toyiwae.extras import import_extra
from toyiwae.files import write_atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 220
KINDS: dict[str, dict[str, Any]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Producer": None, "Creator": None},
    ".svg": {"Date": None, "Creator": None},
}
"""Ending of a file's name -> what matplotlib would write of itself and of the time."""

RC: dict[str, Any] = {
    "font.family": "STIXGeneral",
    "mathtext.fontset": "stix",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.titlelocation": "left",
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.5,
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "toyiwae",
}
"""Type as in the papers, by the fonts that matplotlib brings; thin lines."""


@contextmanager
def style() -> Iterator[None]:
    """Within the block, matplotlib draws in the style of the package, whatever the user's own settings.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    matplotlib = import_extra("matplotlib", extra="plot", purpose="a figure")
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(RC)
        yield


def check_file(path: str | os.PathLike[str]) -> Path:
    """A file that a figure can be written to, before anything is computed.

    Raises:
        InputError: an ending other than .png, .pdf and .svg, a folder that does not exist, a directory.
        MissingExtraError: if matplotlib is not installed.
    """
    file = Path(path)
    if file.suffix.lower() not in KINDS:
        raise InputError(
            f"{str(path)!r} is no name of a figure: expected one that ends in .png, .pdf or .svg"
        )
    if file.is_dir():
        raise InputError(f"{str(path)!r} is a directory: expected a file name")
    if not file.parent.is_dir():
        raise InputError(f"{str(path)!r}: there is no folder {str(file.parent)!r}")
    import_extra("matplotlib", extra="plot", purpose="a figure")
    return file


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure, all or nothing; its kind is that of the name.

    Raises:
        InputError: as `check_file`.
        OSError: if the file cannot be written; an old one is then untouched.
    """
    file, buffer = check_file(path), io.BytesIO()
    kind = file.suffix.lower()
    with style():
        figure.savefig(buffer, format=kind[1:], dpi=PNG_DPI, metadata=KINDS[kind])
    write_atomic(file, buffer.getvalue())
