"""Model cards: what the Hub's client reads from them, and that they hide nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import ModelCard

import mpfnl
from mpfnl.models import TrainingRecord
from mpfnl.models.card import EFFECT, NOT_STATED
from mpfnl.models.provenance import Score

SECTIONS = [
    "What it is",
    "Training data",
    "Recipe",
    "Metrics",
    "Intended use",
    "Limits",
    "How to load it",
    "How to cite",
]
RECORD = TrainingRecord(
    data="CT of one | hospital\n2019 to 2021",
    studies=120,
    degradation="second-order-v1",
    patch_size=32,
    batch_size=8,
    steps=15000,
    phase_dropout=0.3,
    seed=5,
    recipe={"optimiser": "Adam"},
    versions={"mpfnl": "1.0"},
    metrics={"PSNR (dB)": Score(33.25, 16, 'held-out "scans": all'), "SSIM": Score(0.91, 16, "the same")},
    notes="Not for\nchildren.",
)


def card(record: TrainingRecord | None, folder: Path, **options: object) -> ModelCard:
    model = mpfnl.PFNL3D(features=8, blocks=1, **options)  # type: ignore[arg-type]
    model.training_record = record
    return ModelCard.load(model.save_pretrained(folder / "weights") / "README.md")


def section(text: str, name: str) -> str:
    return text.split(f"\n## {name}\n")[1].split("\n## ")[0]


def test_the_hubs_client_reads_what_was_recorded(tmp_path: Path) -> None:
    read = card(RECORD, tmp_path)
    assert read.data.library_name == "mpfnl"
    assert read.data.pipeline_tag == "image-to-image"
    assert "multiphase" in read.data.tags
    assert "phantoms" not in read.data.tags
    scores = {result.metric_name: result for result in read.data.eval_results}
    assert (scores["PSNR (dB)"].metric_value, scores["PSNR (dB)"].metric_type) == (33.25, "psnr")
    assert scores["PSNR (dB)"].dataset_name == 'held-out "scans": all'
    assert scores["SSIM"].metric_value == 0.91


def test_every_section_is_there_and_says_what_is_known(tmp_path: Path) -> None:
    text = card(RECORD, tmp_path).text
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    assert NOT_STATED not in text
    for name, words in [
        ("Training data", ["CT of one \\| hospital 2019 to 2021", "| 120 |", "second-order-v1"]),
        ("Recipe", ["32^3", "| 8 |", "15000", "0.3", "Adam", "mpfnl 1.0"]),
        ("Metrics", ['| PSNR (dB) | 33.25 | 16 | held-out "scans": all |']),
        (
            "Limits",
            ["Not a medical device", "with probability 0.3", "Not for children."],
        ),
        ("How to load it", ["mpfnl.PFNL3D.from_pretrained"]),
        ("How to cite", ["2501.14013"]),
    ]:
        for word in words:
            assert word in section(text, name)
    for line in section(text, "Training data").splitlines():
        assert line.replace("\\|", "").count("|") in (0, 3)  # each row has two cells


def test_what_nobody_said_is_called_so(tmp_path: Path) -> None:
    for record in (None, TrainingRecord()):
        read = card(record, tmp_path)
        assert read.data.eval_results is None
        for name in ("Training data", "Recipe", "Metrics", "Limits"):
            assert NOT_STATED in section(read.text, name)
        assert "| steps | *not stated* |" in read.text
        assert EFFECT not in read.text


@pytest.mark.parametrize(
    "record", [TrainingRecord(phantoms=True), TrainingRecord(started_from=TrainingRecord(phantoms=True))]
)
def test_phantoms_are_told_before_anything_else(record: TrainingRecord, tmp_path: Path) -> None:
    read = card(record, tmp_path)
    before, _ = read.text.split("## What it is")
    assert EFFECT in before
    assert EFFECT in section(read.text, "Limits")
    assert "phantoms" in read.data.tags


def test_a_fine_tuning_tells_what_it_started_from(tmp_path: Path) -> None:
    text = card(TrainingRecord(studies=3, started_from=RECORD), tmp_path).text
    assert "for 15000 steps on 120 studies" in section(text, "Training data")
    assert "| 3 |" in section(text, "Training data")


def test_its_example_names_the_phases_and_compiles(tmp_path: Path) -> None:
    text = card(RECORD, tmp_path, phases=["arterial", "portal_venous"]).text
    code = section(text, "How to load it").split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert '{"arterial": "arterial.nii.gz", "portal_venous": "portal_venous.nii.gz"}' in code
    assert "noncontrast.nii.gz" not in code
