"""Images to train on: where they come from, and how grey becomes black and white."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy.special import chdtr, chdtrc

from toyiwae import InputError
from toyiwae.networks.data import fetch
from toyiwae.networks.data.images import images_named, of_arrays

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases" / "data" / "idx"
MNIST = Path(__file__).resolve().parents[2] / "shared" / "data" / "mnist"
GREY = np.random.default_rng(8).integers(0, 256, (60, 4, 5), np.uint8)


def idx_folder(folder: Path, train: np.ndarray = GREY[:40], test: np.ndarray = GREY[40:]) -> Path:
    """A folder with IDX files of these images."""
    folder.mkdir(exist_ok=True)
    for name, array in (("train-images-idx3-ubyte", train), ("t10k-images.idx3-ubyte", test)):
        header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        (folder / name).write_bytes(header + array.tobytes())
    return folder


def test_digits_are_scikit_learns():
    pytest.importorskip("sklearn")
    digits = images_named("digits")
    assert (digits.train.shape, digits.test.shape, digits.size) == ((1500, 64), (297, 64), (8, 8))
    assert set(np.unique(digits.train * 16)) == set(range(17))
    assert digits.description == "digits, grey"
    few = digits.first(7, 3)
    np.testing.assert_array_equal(few.train, digits.train[:7])
    assert len(few.test) == 3
    assert few.content_hash != digits.content_hash == images_named("digits").content_hash


def test_folders_of_idx_files_are_read_under_their_own_name(tmp_path):
    found = images_named("idx", idx_folder(tmp_path / "fashion"))
    np.testing.assert_array_equal(found.train, GREY[:40].reshape(40, 20))
    np.testing.assert_array_equal(found.test, GREY[40:].reshape(20, 20))
    assert (found.name, found.size, found.train.dtype) == ("fashion", (4, 5), np.uint8)


@pytest.mark.parametrize("of", ["uint8", "ink"])
def test_fixed_binarisation_is_bernoulli_once(of):
    """Squared z-scores of all pixels against their law; 2,000 images see one pixel's ink off by 0.07."""
    ink = GREY[:1] if of == "uint8" else GREY[:1].astype(np.float32) / 255
    grey = of_arrays("mine", np.repeat(ink, 2000, axis=0), ink)
    drawn = grey.binarised("fixed", 3)
    assert set(np.unique(drawn.train)) == {0, 255}
    p = GREY[0].ravel() / 255
    inner = (p > 0) & (p < 1)
    z = (drawn.train[:, inner] / 255 - p[inner]).sum(axis=0) / np.sqrt(2000 * p * (1 - p))[inner]
    squares = float(np.sum(z**2))
    assert min(chdtr(inner.sum(), squares), chdtrc(inner.sum(), squares)) > 5e-7
    np.testing.assert_array_equal(drawn.train, grey.binarised("fixed", 3).train)
    assert (drawn.train != grey.binarised("fixed", 4).train).any()
    assert drawn.description == "mine, fixed binarisation (seed 3)"


def test_full_and_empty_pixels_stay_what_they_are():
    black_and_white = np.array([[[0, 255]] * 3] * 500, np.uint8)
    drawn = of_arrays("mine", black_and_white, black_and_white).binarised("fixed", 1)
    np.testing.assert_array_equal(drawn.train.reshape(500, 3, 2), black_and_white)


def test_dynamic_and_grey_leave_the_images_alone():
    grey = of_arrays("mine", GREY, GREY)
    dynamic = grey.binarised("dynamic")
    assert dynamic.train is grey.train
    assert dynamic.description == "mine, dynamic binarisation"
    with pytest.raises(
        InputError, match=r"^mine, dynamic binarisation: expected grey images, to binarise them$"
    ):
        dynamic.binarised("fixed")


REFUSED = {
    "bytes as floats": (
        lambda _: of_arrays("m", GREY.astype(float), GREY),
        "data.train has ink from 0 to 255",
    ),
    "standardised": (lambda _: of_arrays("m", GREY, GREY / 255 - 0.5), "data.test has ink from -0.5 to 0.5"),
    "just above": (
        lambda _: of_arrays("m", np.full((2, 3), 1.0000001), GREY),
        "data.train has ink from 1 to 1",
    ),
    "nan": (lambda _: of_arrays("m", np.full((2, 3), np.nan), GREY), "is nan: every entry must be a finite"),
    "other sizes": (
        lambda _: of_arrays("m", GREY, GREY[:, :2]),
        "data.test has shape 60×10 but data.train has 20",
    ),
    "labels": (
        lambda _: of_arrays("m", GREY[:, 0, 0], GREY),
        "data.train has 60 entries: expected [N, pixels]",
    ),
    "too many": (lambda _: of_arrays("m", GREY, GREY).first(61), "data.train is 61: expected at most 60"),
    "threshold": (
        lambda _: of_arrays("m", GREY, GREY).binarised("threshold"),
        "binarisation is 'threshold': expected dynamic, fixed, grey",
    ),
    "name": (lambda _: images_named("mnits"), "data.name is 'mnits': expected digits, mnist or idx"),
    "folder": (
        lambda p: images_named("digits", p),
        "data.name is digits, which lie in no folder: set it to mnist",
    ),
    "no folder": (lambda _: images_named("idx"), "data.name is idx: expected the folder of the files"),
    "not fetched": (
        lambda p: images_named("mnist", p / "x"),
        "run `toyiwae data fetch mnist`, or give --data-dir",
    ),
    "not MNIST's": (
        lambda p: images_named("mnist", idx_folder(p)),
        "train-images-idx3-ubyte' is not mnist's (by its SHA-256): fetch it again, or set data.name = \"idx\"",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_what_is_no_ink_and_no_data_set_is_refused_in_one_line(fault, tmp_path):
    call, message = REFUSED[fault]
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        call(tmp_path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(not CASES.is_dir(), reason="the shared cases do not stand beside this clone")
def test_the_shared_idx_files_are_read_or_refused_in_one_line(tmp_path):
    """`good-…` are read, the others refused; the name that t10k's images also go by is found."""
    for path in sorted(CASES.iterdir()):
        if "labels-idx1" in path.name:
            continue
        home = tmp_path / path.name
        home.mkdir()
        for split in ("train", "t10k"):
            end = ".gz" if path.suffix == ".gz" else ""
            (home / f"{split}-images-idx3-ubyte{end}").write_bytes(path.read_bytes())
        if path.name.startswith(("good", "gzip-in-disguise", "t10k")):
            assert len(images_named("idx", home).train)
        else:
            with pytest.raises(InputError) as caught:
                images_named("idx", home)
            assert len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST's files do not stand beside this clone")
def test_mnist_itself():
    found = images_named("mnist", MNIST)
    assert (found.train.shape, found.test.shape, found.size) == ((60_000, 784), (10_000, 784), (28, 28))
    assert fetch.fetch("mnist", MNIST, mirrors=["http://127.0.0.1:9/"]) == MNIST  # nothing to fetch
