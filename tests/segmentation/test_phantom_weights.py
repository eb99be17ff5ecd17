"""The phantom weights: what ships, TotalSegmentator's layout, nnU-Net's own network, an unseen phantom."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import zoom

from mpfnl.errors import OutputError
from mpfnl.metrics import dice
from mpfnl.phantoms import generate_study
from mpfnl.phantoms.config import SMALL
from mpfnl.phantoms.labels import NUMBERS
from mpfnl.phases import Phase
from mpfnl.segmentation import phantom_weights
from mpfnl.segmentation.phantom_weights import STRUCTURES, TRAINING_SEED, materialise
from mpfnl.window import ABDOMEN

ROOT = Path(__file__).resolve().parents[2]
MODELS = {
    "Dataset291_TotalSegmentator_part1_organs_1559subj": "nnUNetTrainerNoMirroring",
    "Dataset297_TotalSegmentator_total_3mm_1559subj": "nnUNetTrainer_4000epochs_NoMirroring",
    "Dataset298_TotalSegmentator_total_6mm_1559subj": "nnUNetTrainer_4000epochs_NoMirroring",
}
UNSEEN_SEED = 6007


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return materialise(tmp_path_factory.mktemp("totalsegmentator") / "weights")


@pytest.fixture
def quiet_nnunet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """nnU-Net asks for its three folders when it is imported, and uses all threads there are."""
    pytest.importorskip("nnunetv2", reason="the extra segment is not installed")
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def model_folder(root: Path, dataset: str) -> Path:
    return root / dataset / f"{MODELS[dataset]}__nnUNetPlans__3d_fullres"


def checkpoint_of(folder: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(folder / "fold_0" / "checkpoint_final.pth", weights_only=True)
    return loaded


def plans_of(folder: Path) -> dict[str, Any]:
    plans: dict[str, Any] = json.loads((folder / "plans.json").read_text(encoding="utf-8"))
    return plans


def test_the_file_is_small_and_says_what_it_is() -> None:
    assert phantom_weights.WEIGHTS.stat().st_size < 2_000_000
    facts = phantom_weights.facts()
    assert facts["training_seed"] == TRAINING_SEED
    assert facts["cpu_minutes"] <= 20  # ten minutes of two cores, without what others took of them
    assert "nothing about patients" in facts["what"]
    assert re.fullmatch("[0-9a-f]{16}", phantom_weights.digest())
    assert "\n" not in phantom_weights.NOTICE


def test_every_dataset_that_totalsegmentator_asks_for_is_there(root: Path) -> None:
    tasks = pytest.importorskip("totalsegmentator.map_tasks_config", reason="the extra segment is missing")
    asked = {tasks.TASK_ID_WEIGHTS_CONFIGS[n]["foldername"] for n in (291, 292, 293, 294, 295, 297, 298)}
    assert {folder.name for folder in root.iterdir()} == asked
    for number, mode in ((291, "default"), (297, "fast"), (298, "fastest")):
        config = tasks.TASK_CONFIGS["total"]["sub_modes"][mode]
        dataset = tasks.TASK_ID_WEIGHTS_CONFIGS[number]["foldername"]
        assert number in np.atleast_1d(config["task_id"])
        assert MODELS[dataset] == config["trainer"]
        folder = model_folder(root, dataset)
        assert plans_of(folder)["dataset_name"] == dataset
        assert checkpoint_of(folder)["trainer_name"] == "nnUNetTrainer"


def test_the_window_is_the_papers(root: Path) -> None:
    plans = plans_of(model_folder(root, "Dataset297_TotalSegmentator_total_3mm_1559subj"))
    intensity = plans["foreground_intensity_properties_per_channel"]["0"]
    assert (intensity["percentile_00_5"], intensity["percentile_99_5"]) == (ABDOMEN.lower, ABDOMEN.upper)
    assert ABDOMEN.lower < intensity["mean"] < ABDOMEN.upper
    assert 0 < intensity["std"] < ABDOMEN.width


def test_the_labels_are_totalsegmentators(root: Path) -> None:
    names = pytest.importorskip("totalsegmentator.map_to_binary", reason="the extra segment is not installed")
    description = json.loads(
        (model_folder(root, "Dataset291_TotalSegmentator_part1_organs_1559subj") / "dataset.json").read_text()
    )
    labels = description["labels"]
    assert labels.pop("background") == 0
    assert tuple(labels) == STRUCTURES
    for task in (names.class_map["total"], names.class_map_5_parts["class_map_part_organs"]):
        assert {name: number for number, name in task.items() if name in STRUCTURES} == labels
    assert {name: NUMBERS[name] for name in STRUCTURES} == labels
    assert labels["pancreas"] == 7


def test_nothing_is_written_into_a_folder_in_use(tmp_path: Path) -> None:
    (tmp_path / "Dataset297_TotalSegmentator_total_3mm_1559subj").mkdir()
    with pytest.raises(OutputError, match=str(tmp_path)):
        materialise(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=str(tmp_path / "file")):
        materialise(tmp_path / "file")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "Dataset297_TotalSegmentator_total_3mm_1559subj",
        "file",
    ]


@pytest.mark.usefixtures("quiet_nnunet")
def test_nnunets_own_network_takes_the_weights(root: Path) -> None:
    from nnunetv2.utilities.get_network_from_plans import get_network_from_plans

    folder = model_folder(root, "Dataset298_TotalSegmentator_total_6mm_1559subj")
    architecture = plans_of(folder)["configurations"]["3d_fullres"]["architecture"]
    network = get_network_from_plans(
        architecture["network_class_name"],
        architecture["arch_kwargs"],
        architecture["_kw_requires_import"],
        1,
        8,
        deep_supervision=False,
    )
    network.load_state_dict(checkpoint_of(folder)["network_weights"], strict=True)
    with torch.no_grad():
        assert network(torch.zeros(1, 1, 16, 16, 16)).shape == (1, 8, 16, 16, 16)


@pytest.mark.usefixtures("quiet_nnunet")
@pytest.mark.filterwarnings("ignore")  # nnU-Net's own
def test_nnunet_finds_the_organs_of_an_unseen_phantom(root: Path) -> None:
    """In this process, on the 3 mm grid: the whole way through the real API is tested elsewhere."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    study = generate_study(UNSEEN_SEED, 0, SMALL)
    factors = [side / phantom_weights.SPACING_MM for side in study.spacing]
    scan = zoom(study.phases[Phase.PORTAL_VENOUS].astype(np.float32), factors, order=1, mode="nearest")
    predictor = nnUNetPredictor(
        tile_step_size=0.8,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    folder = model_folder(root, "Dataset297_TotalSegmentator_total_3mm_1559subj")
    predictor.initialize_from_trained_model_folder(str(folder), (0,))
    spacing = {"spacing": [phantom_weights.SPACING_MM] * 3}
    found = np.asarray(predictor.predict_single_npy_array(scan.T[None], spacing)).T
    scores = {}
    for name in ("pancreas", "liver", "kidney_right", "kidney_left"):
        truth = (
            zoom((study.labels == NUMBERS[name]).astype(np.float32), factors, order=1, mode="nearest") > 0.5
        )
        scores[name] = dice(found == STRUCTURES.index(name) + 1, truth)
    assert min(scores.values()) > 0.8, scores


def test_the_training_seed_is_used_nowhere_else() -> None:
    digits = re.compile("_?".join(str(TRAINING_SEED)))
    folders = ("mpfnl", "tests", "benchmarks", "examples", "docs")
    kinds = {".py", ".toml", ".yaml", ".md", ".csv", ".ipynb", ".json"}
    files = [path for name in folders for path in (ROOT / name).rglob("*") if path.suffix in kinds]
    files += [ROOT / "Makefile", ROOT / "README.md"]
    home = Path(phantom_weights.__file__)
    assert home in files
    texts = {path: path.read_text(encoding="utf-8", errors="replace") for path in files}
    assert [path for path, text in texts.items() if digits.search(text)] == [home]
    making = re.compile(r"(generate_study|write_cohort|write_vindr_cohort)\([^)]*TRAINING_SEED")
    assert [path.name for path, text in texts.items() if making.search(text)] == ["phantom_patches.py"]
