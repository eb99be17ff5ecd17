"""Weights of a request: those that the real API loads, and the commands that download them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from totalsegmentator import python_api
from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS

from mpfnl.errors import NotFoundError, OptionError
from mpfnl.segmentation.process import environment, make_home
from mpfnl.segmentation.weights import Request, check_weights, class_numbers

REQUESTS = [
    Request("total", True, ("pancreas",), False),
    Request("total", True, ("pancreas",), True),
    Request("total", False, ("pancreas",), True),
    Request("total", False, ("pancreas", "aorta"), True),
    Request("total", False, tuple(class_numbers("total")), False),
    Request("total_mr", False, ("pancreas",), True),
    Request("liver_vessels", False, ("liver_vessels",), False),
    Request("vertebrae_pp_refined", False, ("vertebrae_L1",), False),
    Request("body", True, ("body_trunc",), False),
]


def install(root: Path, wanted: Request, without: int | None = None) -> None:
    for dataset, computes in wanted.datasets().items():
        if dataset == without:
            continue
        entry = TASK_ID_WEIGHTS_CONFIGS[dataset]
        folder = root / (entry.get("rel_path") or "") / entry["foldername"]
        folder.mkdir(parents=True)
        if computes:
            (folder / "trainer" / "fold_0").mkdir(parents=True)
            (folder / "trainer" / "fold_0" / "checkpoint_final.pth").write_bytes(b"weights")


@pytest.mark.parametrize("wanted", REQUESTS, ids=lambda it: f"{it.task}-{it.fast}-{it.roi_subset}")
def test_the_real_api_asks_for_no_other_weights(
    wanted: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole API runs, but for the networks, which find nothing."""
    from totalsegmentator import nnunet

    asked = []
    image = nib.Nifti1Image(np.zeros((8, 8, 8), np.int32), np.diag([-3.0, -3.0, 3.0, 1.0]))
    empty = nib.Nifti1Image(np.zeros((8, 8, 8), np.uint8), image.affine)
    monkeypatch.setattr(python_api, "download_pretrained_weights", asked.append)
    monkeypatch.setattr(nnunet, "nnUNet_predict_image", lambda *_, **__: (empty, image, None))
    make_home(tmp_path / "home")
    for name, value in environment(tmp_path / "home", tmp_path / "weights").items():
        monkeypatch.setenv(name, value)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, "")  # the API sets them; so they are put back
    python_api.totalsegmentator(
        image,
        ml=True,
        quiet=True,
        device="cpu",
        task=wanted.task,
        fast=wanted.fast,
        roi_subset=list(wanted.structures) if wanted.roi_subset else None,
    )
    assert asked
    assert set(asked) == set(wanted.datasets())


@pytest.mark.parametrize("wanted", REQUESTS, ids=lambda it: f"{it.task}-{it.fast}-{it.roi_subset}")
def test_each_missing_dataset_is_named_with_a_command_that_fetches_it(
    wanted: Request, tmp_path: Path
) -> None:
    from totalsegmentator.bin.totalseg_download_weights import TASK_TO_ID

    for dataset in wanted.datasets():
        root = tmp_path / str(dataset)
        install(root, wanted, without=dataset)
        with pytest.raises(NotFoundError) as caught:
            check_weights(root, wanted)
        message = str(caught.value)
        assert "\n" not in message
        assert f"Dataset{dataset:03d}" in message
        command = message.split("fetch them with  ")[1]
        fetched = [name.split("-t ")[1] for name in command.split(" && ")]
        assert any(dataset in TASK_TO_ID[name] for name in fetched)


def test_the_command_is_the_tasks_own_where_all_is_missing(tmp_path: Path) -> None:
    for wanted, name in ((REQUESTS[0], "total_fast"), (REQUESTS[2], "total")):
        with pytest.raises(
            NotFoundError, match=rf"TOTALSEG_WEIGHTS_PATH={tmp_path} totalseg_download\w+ -t {name}$"
        ):
            check_weights(tmp_path, wanted)


def test_a_folder_without_its_checkpoint_is_not_enough(tmp_path: Path) -> None:
    wanted = REQUESTS[0]
    install(tmp_path, wanted)
    next(tmp_path.rglob("checkpoint_final.pth")).unlink()
    with pytest.raises(NotFoundError, match="Dataset297"):
        check_weights(tmp_path, wanted)


def test_unknown_tasks_and_structures_are_refused() -> None:
    with pytest.raises(OptionError, match="'totall'"):
        class_numbers("totall")
    with pytest.raises(OptionError, match="'pancras'"):
        Request("total", True, ("pancras",), False)
    with pytest.raises(OptionError, match=r"liver_vessels.*roi_subset"):
        Request("liver_vessels", False, ("liver_vessels",), True)
    assert class_numbers("total")["pancreas"] == 7
