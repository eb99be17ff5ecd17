"""Which weights a job needs: what the real API asks for, and the commands that fetch them."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from totalsegmentator import python_api
from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS

from mpfnl.errors import InputError
from mpfnl.segmentation.home import environment, make_home
from mpfnl.segmentation.weights import Job, check_weights, class_numbers

JOBS = [
    Job("total", True, ("pancreas",), False),
    Job("total", True, ("pancreas",), True),
    Job("total", False, ("pancreas",), True),
    Job("total", False, ("pancreas", "aorta"), True),
    Job("total", False, tuple(class_numbers("total")), False),
    Job("total_mr", False, ("pancreas",), True),
    Job("liver_vessels", False, ("liver_vessels",), False),
    Job("vertebrae_pp_refined", False, ("vertebrae_L1",), False),
    Job("body", True, ("body_trunc",), False),
]


def make(root: Path, job: Job, without: int | None = None) -> None:
    for dataset, computes in job.datasets().items():
        if dataset == without:
            continue
        entry = TASK_ID_WEIGHTS_CONFIGS[dataset]
        folder = root / (entry.get("rel_path") or "") / entry["foldername"]
        folder.mkdir(parents=True)
        if computes:
            (folder / "trainer" / "fold_0").mkdir(parents=True)
            (folder / "trainer" / "fold_0" / "checkpoint_final.pth").write_bytes(b"weights")


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.task}-{job.fast}-{job.roi_subset}")
def test_the_real_api_asks_for_no_other_weights(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
        task=job.task,
        fast=job.fast,
        roi_subset=list(job.structures) if job.roi_subset else None,
    )
    assert asked
    assert set(asked) == set(job.datasets())


@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job.task}-{job.fast}-{job.roi_subset}")
def test_each_missing_dataset_is_named_with_a_command_that_fetches_it(job: Job, tmp_path: Path) -> None:
    from totalsegmentator.bin.totalseg_download_weights import TASK_TO_ID

    for dataset in job.datasets():
        root = tmp_path / str(dataset)
        make(root, job, without=dataset)
        with pytest.raises(InputError) as caught:
            check_weights(root, job)
        message = str(caught.value)
        assert "\n" not in message
        assert f"Dataset{dataset:03d}" in message
        command = message.split("fetch them with  ")[1]
        fetched = [name.split("-t ")[1] for name in command.split(" && ")]
        assert any(dataset in TASK_TO_ID[name] for name in fetched)


def test_the_command_is_the_tasks_own_where_all_is_missing(tmp_path: Path) -> None:
    for job, name in ((JOBS[0], "total_fast"), (JOBS[2], "total")):
        with pytest.raises(
            InputError, match=rf"TOTALSEG_WEIGHTS_PATH={tmp_path} totalseg_download\w+ -t {name}$"
        ):
            check_weights(tmp_path, job)


def test_a_folder_without_its_checkpoint_is_not_enough(tmp_path: Path) -> None:
    job = JOBS[0]
    make(tmp_path, job)
    next(tmp_path.rglob("checkpoint_final.pth")).unlink()
    with pytest.raises(InputError, match="delete that folder first"):
        check_weights(tmp_path, job)


def test_unknown_tasks_and_structures_are_refused() -> None:
    with pytest.raises(InputError, match="no task 'totall'"):
        class_numbers("totall")
    with pytest.raises(InputError, match="no structure 'pancras'"):
        Job("total", True, ("pancras",), False)
    with pytest.raises(InputError, match="knows no roi_subset"):
        Job("liver_vessels", False, ("liver_vessels",), True)
    assert class_numbers("total")["pancreas"] == 7
