"""The figures of an evaluation: image quality by method, and slices of cases picked by a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mpfnl.data.manifest import Manifest, Study
from mpfnl.files import atomic_file
from mpfnl.phases import ABDOMEN, Phase
from mpfnl.plots.orientation import axial_slice
from mpfnl.plots.slices import montage
from mpfnl.study.cases import Case, values_by_method
from mpfnl.study.evaluate import volume_files
from mpfnl.study.tables import BASELINE, IMAGE_METRICS, Metric
from mpfnl.volumes import Volume, read_mask, read_volume


@dataclass(frozen=True)
class Picture:
    """A figure on disk.

    Args:
        path: The PNG.
        caption: What it shows, and by which rule it was picked.
    """

    path: Path
    caption: str


def draw_figures(manifest: Manifest, cases: Sequence[Case], target: Phase, folder: Path) -> list[Picture]:
    """Draws all figures of an evaluation into its `figures/` folder.

    Args:
        manifest: The cohort.
        cases: The evaluation's rows.
        target: The phase that was restored.
        folder: The evaluation folder, with its volumes.
    """
    figures = folder / "figures"
    figures.mkdir(exist_ok=True)
    quality = figures / "image_quality.png"
    _save(quality_figure(cases), quality)
    studies = len({case.study_id for case in cases})
    caption = f"Image quality by method, n = {studies}; a line joins the values of one study."
    return [Picture(quality, caption), *_case_figures(manifest, cases, target, folder)]


def quality_figure(cases: Sequence[Case], metrics: Sequence[Metric] = IMAGE_METRICS) -> Figure:
    """Box plots of each metric by method, with the paired points joined."""
    figure = Figure(figsize=(4.2 * len(metrics), 3.6), dpi=130, layout="constrained")
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        _draw_boxes(axes, values_by_method(cases, metric.column), metric.title)
    return figure


def _draw_boxes(axes: Axes, values: Mapping[str, Sequence[float]], title: str) -> None:
    table = np.array(list(values.values()))
    places = np.arange(1, len(values) + 1)
    axes.plot(places, table, color="0.75", linewidth=0.7, zorder=1)
    axes.boxplot([row[np.isfinite(row)] for row in table], positions=places, widths=0.45, showfliers=False)
    for place, row in zip(places, table, strict=True):
        axes.scatter(np.full(len(row), place), row, s=14, color="tab:blue", zorder=3)
    axes.set_xticks(places, list(values))
    axes.set_ylabel(title)
    axes.grid(axis="y", color="0.92")


def pick_cases(cases: Sequence[Case], method: str) -> dict[str, str]:
    """Picks studies by a rule: the worst, the median and the best PSNR gain of a method.

    Returns:
        The rule's name to the study's; a study is shown once.
    """
    values = values_by_method(cases, "psnr_db")
    studies = list(dict.fromkeys(case.study_id for case in cases))
    gains = np.subtract(values[method], values[BASELINE])
    order = np.argsort(gains, kind="stable")
    picked = {"worst": order[0], "median": order[len(order) // 2], "best": order[-1]}
    named = {rule: studies[int(place)] for rule, place in picked.items()}
    shown: dict[str, str] = {}
    for rule, study in named.items():
        if study not in shown.values():
            shown[rule] = study
    return shown


def _case_figures(manifest: Manifest, cases: Sequence[Case], target: Phase, folder: Path) -> list[Picture]:
    methods = list(dict.fromkeys(case.method for case in cases))
    by_name = {study.study_id: study for study in manifest}
    pictures = []
    for rule, study_id in pick_cases(cases, methods[-1]).items():
        files = volume_files(folder, study_id, methods, target)
        path = folder / "figures" / f"case_{rule}.png"
        index = _draw_case(by_name[study_id], files, target, path)
        caption = (
            f"Study {study_id} ({rule} PSNR gain of {methods[-1]}), axial slice {index}, window "
            f"[{ABDOMEN.lower:g}, {ABDOMEN.upper:g}] HU; below, the difference to the reference."
        )
        pictures.append(Picture(path, caption))
    return pictures


def _draw_case(study: Study, files: Mapping[str, Path], target: Phase, path: Path) -> int:
    reference = read_volume(study.file(target), target)
    index = _slice_of(study, reference)
    clean = _windowed(reference, index)
    shown = {method: _windowed(read_volume(file, target), index) for method, file in files.items()}
    errors = {method: scan - clean for method, scan in shown.items()}
    rows = [shown | {"reference": clean}, errors]
    _save(montage(rows, error_rows=[1], title=f"study {study.study_id}, axial slice {index}"), path)
    return index


def _slice_of(study: Study, reference: Volume) -> int:
    """The slice with most of the pancreas, where there is a mask; else the middle one."""
    if study.pancreas is None:
        return reference.shape[2] // 2
    return int(read_mask(study.pancreas, like=reference).sum(axis=(0, 1)).argmax())


def _windowed(volume: Volume, index: int) -> NDArray[np.float64]:
    return ABDOMEN.normalize(axial_slice(volume.data, volume.affine, index).astype(np.float64))


def _save(figure: Figure, path: Path) -> None:
    with atomic_file(path) as file:
        figure.savefig(file, format="png")
