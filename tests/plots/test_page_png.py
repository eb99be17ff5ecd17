"""Small files that look like the figure."""

from __future__ import annotations

import io

import numpy as np
from IPython.core.formatters import DisplayFormatter
from matplotlib.figure import Figure
from PIL import Image

from mpfnl.plots.page import LARGEST, small_png


def noisy(size: float, seed: int = 0) -> Figure:
    figure = Figure(figsize=(size, size), dpi=100)
    axes = figure.add_axes((0, 0, 1, 0.6))
    noise = np.random.default_rng(seed).normal(0.4, 0.2, (int(60 * size), int(100 * size)))
    axes.imshow(noise, cmap="gray", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.contour(noise[:20, :20], levels=[0.4], colors=["#ffa500"])
    bar = figure.add_axes((0, 0.7, 1, 0.3))
    bar.imshow(np.linspace(-1, 1, 400)[None], cmap="RdBu_r", aspect="auto")
    return figure


def test_colours_stay_what_they_are() -> None:
    figure = noisy(4)
    exact = io.BytesIO()
    figure.savefig(exact, format="png")
    expected = np.asarray(Image.open(exact).convert("RGB")).astype(int)
    shown = np.asarray(Image.open(io.BytesIO(small_png(figure))).convert("RGB")).astype(int)
    error = np.abs(shown - expected).max(axis=-1)
    grey = np.ptp(expected, axis=-1) == 0
    assert error[grey].max() <= 1
    bar = slice(0, 110)  # the colour map
    assert np.percentile(error[bar], 99) <= 12
    assert error[bar].mean() < 4
    contour = (np.abs(expected - [255, 165, 0]).max(axis=-1) <= 2) & ~grey
    assert contour.sum() > 100
    assert error[contour].max() <= 12


def test_the_same_bytes_with_the_resolution_and_no_date() -> None:
    assert small_png(noisy(2)) == small_png(noisy(2))
    image = Image.open(io.BytesIO(small_png(noisy(2))))
    assert (image.mode, set(image.info)) == ("P", {"dpi"})
    assert round(image.info["dpi"][0]) == 100


def test_a_large_figure_gets_fewer_greys() -> None:
    large = small_png(noisy(11.5))
    few = len(np.unique(np.asarray(Image.open(io.BytesIO(large)).convert("RGB"))[600:, :, 0]))
    many = np.asarray(Image.open(io.BytesIO(small_png(noisy(4)))).convert("RGB"))[200:, :, 0]
    assert few <= 52 < len(np.unique(many)) <= 86
    assert len(large) < 1.4 * LARGEST


def test_a_notebook_shows_it() -> None:
    picture = small_png(noisy(1))
    data, _ = DisplayFormatter().format(picture)
    assert data["image/png"] == bytes(picture)
    assert data["text/plain"] == "a picture"
