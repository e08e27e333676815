"""Images to train and to evaluate on, and how grey becomes black and white.

    grey       x is the ink itself, in [0, 1]
    dynamic    x ~ Bernoulli(ink), drawn anew whenever an image is used
    fixed      x ~ Bernoulli(ink), drawn once, from a seed

The same model differs by hundreds of nats between them, so every result names which one it was.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from toyiwae import checks
from toyiwae.arguments import whole_number
from toyiwae.errors import InputError
from toyiwae.extras import import_extra
from toyiwae.networks.data import fetch
from toyiwae.problems.idx import find_idx, read_idx
from toyiwae.problems.mnist import flat_images
from toyiwae.problems.ready import GREY_LEVELS

Binarisation = Literal["dynamic", "fixed", "grey"]
BINARISATIONS = get_args(Binarisation)
"""How images become observations."""

DIGITS_TEST = 297
"""Of scikit-learn's 1,797 digits, the last so many are for evaluation."""

_BLOCK = 4096


@dataclass(frozen=True)
class Images:
    """Images of one size.

    Attributes:
        name: of the data set.
        train: `[N, D_x]`, ink in [0, 1] as float32, or uint8 with 255 for a full pixel.
        test: the same, for evaluation.
        size: height and width.
        binarisation: one of `BINARISATIONS`; with `"fixed"` the arrays hold nothing but no and full ink.
        binarisation_seed: of `"fixed"`, else 0.
    """

    name: str
    train: np.ndarray
    test: np.ndarray
    size: tuple[int, int]
    binarisation: str = "grey"
    binarisation_seed: int = 0

    @property
    def description(self) -> str:
        """The data set and how it is binarised, as results name it: "digits, fixed binarisation (seed 3)"."""
        if self.binarisation == "grey":
            return f"{self.name}, grey"
        seed = f" (seed {self.binarisation_seed})" if self.binarisation == "fixed" else ""
        return f"{self.name}, {self.binarisation} binarisation{seed}"

    @property
    def content_hash(self) -> str:
        """The SHA-256 of all images; that of other images, or of the same ones in another order, differs."""
        found = hashlib.sha256()
        for array in (self.train, self.test):
            found.update(f"{array.dtype} {array.shape} ".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()

    def first(self, train: int | None = None, test: int | None = None) -> Images:
        """The first so many images; ``None`` for all.

        Raises:
            InputError: for more than there are.
        """
        counts = {"train": train, "test": test}
        for field, count in counts.items():
            if count is not None:
                whole_number(count, f"data.{field}", maximum=len(getattr(self, field)))
        return replace(self, train=self.train[:train], test=self.test[:test])

    def binarised(self, binarisation: str, seed: int = 0) -> Images:
        """These images with a binarisation, drawn now if it is a fixed one.

        Args:
            binarisation: one of `BINARISATIONS`.
            seed: of a fixed one; no global seed is read or set.

        Raises:
            InputError: an unknown binarisation, or images that were binarised before.
        """
        if binarisation not in BINARISATIONS:
            raise InputError(
                f"binarisation is {checks.shown(binarisation)}: expected {', '.join(BINARISATIONS)}"
            )
        if self.binarisation != "grey":
            raise InputError(f"{self.description}: expected grey images, to binarise them")
        if binarisation != "fixed":
            return replace(self, binarisation=binarisation)
        seeds = np.random.SeedSequence(whole_number(seed, "binarisation_seed", minimum=0)).spawn(2)
        train, test = (
            _drawn(array, part) for array, part in zip((self.train, self.test), seeds, strict=True)
        )
        return replace(self, train=train, test=test, binarisation="fixed", binarisation_seed=seed)


def images_named(name: str, folder: Any = None) -> Images:
    """A data set's images, grey.

    Args:
        name: `"digits"`, scikit-learn's (8×8 pixels, nothing is downloaded); `"mnist"`, checked byte for byte; or
            `"idx"`, any IDX files of images.
        folder: where the IDX files lie, raw or gzipped; for `"mnist"` by default where `toyiwae data fetch` puts them.

    Raises:
        InputError: an unknown name, a folder for digits, files that are missing or damaged, or not MNIST's.
        MissingExtraError: scikit-learn, or for a default folder pooch, is not installed.
    """
    if name == "digits":
        if folder:
            raise InputError(
                "data.name is digits, which lie in no folder: set it to mnist or idx for files of yours"
            )
        return _digits()
    if name in fetch.DATASETS:
        home = Path(folder or fetch.default_folder(name))
        if not home.is_dir():
            raise InputError(
                f"no {name} in {str(home)!r}: run `toyiwae data fetch {name}`, or give --data-dir"
            )
        return _idx(name, home)
    if name != "idx":
        raise InputError(
            f"data.name is {checks.shown(name)}: expected digits, {', '.join(fetch.DATASETS)} or idx"
        )
    if not folder:
        raise InputError(
            "data.name is idx: expected the folder of the files, in data.folder or by --data-dir"
        )
    return _idx(name, Path(folder))


def of_arrays(name: str, train: Any, test: Any) -> Images:
    """Images of the user's own, grey.

    Args:
        name: what results call them.
        train: `[N, height, width]` or `[N, pixels]`: ink in [0, 1], or uint8, or booleans.
        test: the same, of the same size.

    Raises:
        InputError: for values outside [0, 1], and sizes that differ.
    """
    size = tuple(np.shape(train)[1:])
    size = (int(size[0]), int(size[1])) if len(size) == 2 else (1, int(size[0]) if size else 0)
    flat = [flat_images(array, f"data.{field}") for field, array in (("train", train), ("test", test))]
    checks.axis(flat[1], -1, flat[0].shape[1], "data.test", f"data.train has {flat[0].shape[1]} pixels")
    kept = [array if array.dtype == np.uint8 else array.astype(np.float32) for array in flat]
    return Images(name, kept[0], kept[1], size)


def _digits() -> Images:
    datasets = import_extra("sklearn.datasets", extra="networks", purpose="the data set digits")
    ink = datasets.load_digits().images / GREY_LEVELS
    return of_arrays("digits", ink[:-DIGITS_TEST], ink[-DIGITS_TEST:])


def _idx(name: str, folder: Path) -> Images:
    """Training and test images of a folder; those of a known data set are compared with what they should be."""
    found = {split: read_idx(find_idx(folder, split)) for split in ("train", "t10k")}
    if name in fetch.DATASETS:
        for split, array in found.items():
            original = fetch.DATASETS[name].files[f"{split}-images-idx3-ubyte"]
            if fetch.sha256_of(array) != original.sha256:
                raise InputError(
                    f"{str(find_idx(folder, split))!r} is not {name}'s (by its SHA-256): "
                    'fetch it again, or set data.name = "idx" for other images'
                )
    return of_arrays(folder.resolve().name if name == "idx" else name, found["train"], found["t10k"])


def _drawn(ink: np.ndarray, seed: np.random.SeedSequence) -> np.ndarray:
    """Bernoulli draws of ink as uint8, 0 and 255; a full pixel is always drawn, an empty one never."""
    generator, full = np.random.default_rng(seed), 255 if ink.dtype == np.uint8 else 1
    drawn = np.empty(ink.shape, np.uint8)
    for start in range(0, len(ink), _BLOCK):
        block = ink[start : start + _BLOCK]
        drawn[start : start + _BLOCK] = 255 * (generator.random(block.shape) * full < block)
    return drawn
