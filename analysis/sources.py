"""Where a claim comes from: a slide of the source deck, or a work in docs/references.bib."""

from __future__ import annotations

import difflib
import re
import unicodedata
from functools import cache
from pathlib import Path

BIBLIOGRAPHY = Path(__file__).parents[1] / "docs" / "references.bib"
SLIDES = (
    "generative process", "simplest estimator", "importance sampling", "IWAE 1", "IWAE 2", "P_IS", "VIMCO",
    "discrete latents", "tightening or variance", "gradient histograms", "SNR", "SNR part 1", "SNR part 2",
    "SNR in M and K", "directional SNR", "inference gradient", "MIWAE", "CIWAE", "PIWAE", "VAE optimum",
    "inference or likelihood", "alpha divergence", "effective sample size", "toy problem", "MNIST",
)  # fmt: skip
"""The slides of the deck *Tighter variational bounds are not necessarily better*, by what each is about."""

_ENTRY = re.compile(r"^@\w+\{([^,\s]+),(.*?)^\}", re.MULTILINE | re.DOTALL)
_ACCENTS = {'"': "\u0308", "'": "\u0301", "`": "\u0300", "^": "\u0302", "~": "\u0303"}


@cache
def works() -> dict[str, str]:
    """Key of the bibliography -> how a text names the work: `Burda et al. (2016)`."""
    text = BIBLIOGRAPHY.read_text(encoding="utf-8")
    return {key: _short(body) for key, body in _ENTRY.findall(text)}


def parts(source: str) -> list[str]:
    """The slides and keys of a source, which `"; "` separates: `"slide: SNR; rainforth2018tighter"`.

    Raises:
        ValueError: for a slide or a key that does not exist; names it and the nearest.
    """
    found = [part.strip() for part in source.split(";") if part.strip()]
    for part in found:
        slide = part.removeprefix("slide: ")
        known = SLIDES if slide != part else tuple(works())
        if slide not in known:
            near = difflib.get_close_matches(slide, known, n=1)
            what = "slide" if slide != part else "key of docs/references.bib"
            raise ValueError(f"no {what} {slide!r}" + (f"; did you mean {near[0]}?" if near else ""))
    return found


def shown(source: str) -> str:
    """A source as a reader sees it: `slide "SNR", Rainforth et al. (2018)`; nothing for a check of our own.

    Raises:
        ValueError: as `parts` does.
    """
    return ", ".join(
        f"slide “{part.removeprefix('slide: ')}”" if part.startswith("slide: ") else works()[part]
        for part in parts(source)
    )


def _short(entry: str) -> str:
    """Surnames and year of an entry."""
    fields = dict(re.findall(r"^\s*(author|year)\s*=\s*\{(.*)\},?$", entry, re.MULTILINE))
    names = [_surname(one) for one in fields["author"].split(" and ")]
    many = len(names) > 2 or names[-1] == "others"
    who = f"{names[0]} et al." if many else " and ".join(names)
    return f"{who} ({fields['year']})"


def _surname(name: str) -> str:
    last = name.partition(",")[0] if "," in name else name.rpartition(" ")[2]
    marked = re.sub(
        r"\{?\\([\"'`^~])\{?(\w)\}?\}?", lambda found: found[2] + _ACCENTS[found[1]], last.strip()
    )
    return unicodedata.normalize("NFC", marked.replace("{", "").replace("}", ""))
