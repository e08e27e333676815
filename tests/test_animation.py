"""An animated figure: the same bytes for the same numbers, on its own in the report, and none left behind."""

import io

import numpy as np
import pandas as pd
from PIL import Image

from analysis import derivations, output, runner
from analysis.studies import _alpha_movie
from analysis.studies.divergences import TARGET
from analysis.style import house_style
from tests.made_study import Small, make
from tests.test_report import page_of


def test_the_sweep_has_a_frame_for_each_order_and_the_same_bytes_each_time():
    columns = {"alpha": [-2.0, 0.0, 3.0], "mean": [0.1, 0.2, 0.3], "std": [0.6, 0.7, 1.9]}
    sweep = pd.DataFrame(columns | {"pair_variance": [0.4, 0.5, 1.4]})
    with house_style():
        first, again = (_alpha_movie.animate(sweep, TARGET, 0.7) for _ in range(2))
    assert first == again
    with Image.open(io.BytesIO(first)) as image:
        assert getattr(image, "n_frames", 1) == len(sweep)
        assert image.info["loop"] == 0
        assert image.info["duration"] == _alpha_movie.END


def gif(table):
    """Two frames of one colour each."""
    frames = [np.full((4, 6, 3), shade, dtype=np.uint8) for shade in (0, 200)]
    return output.animation_bytes(frames, [100, 200])


def test_an_animated_study_has_its_gif_among_its_files_and_folded_in_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr(derivations, "formulas", dict)  # which take seconds
    outcome = runner.run(make(animate=gif), Small())
    assert outcome.files["small.gif"].startswith(b"GIF89a")
    html, page = page_of(outcome)
    assert html.index("<details") < html.index("data:image/gif;base64,") < html.index("</details>")
    assert "small.gif" in page.references
    assert "prefers-reduced-motion: reduce" in html
    output.write_all(tmp_path, outcome.files)
    still = runner.run(make(), Small()).files
    assert [path.name for path in output.stale(tmp_path, "small", still)] == ["small.gif"]
    assert "data:image/gif" not in page_of(runner.run(make(), Small()))[0]
