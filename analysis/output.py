"""Files of the studies: figures, data and the report, each written whole or not at all."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.study import Table
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


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """A figure as PNG or PDF, without time or program in it: same figure, same bytes."""
    metadata = (
        {"Software": None} if kind == "png" else {"CreationDate": None, "Producer": None, "Creator": None}
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=PNG_DPI, metadata=metadata)
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


def stale(folder: Path, study: str, files: Mapping[str, bytes]) -> list[Path]:
    """Files that an earlier run of a study left in the folder and this one does not write."""
    candidates = [*folder.glob(f"{study}-*.csv"), *folder.glob(f"{study}.png"), *folder.glob(f"{study}.pdf")]
    return [path for path in candidates if path.name not in files]
