"""Phantom weights: a small nnU-Net trained on phantoms, in the layout of TotalSegmentator's own weights.

With these weights TotalSegmentator runs offline, end to end, on phantoms. They are useless on clinical CT.
`benchmarks/train_phantom_weights.py` trains them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from mpfnl.errors import OutputError
from mpfnl.files import atomic_file, file_digest, write_text

TRAINING_SEED = 2_971_298
"""Seed of the training phantoms, which no test may use."""

NOTICE = (
    "segmented with phantom weights, made for phantoms: the numbers show that the path works "
    "and say nothing about patients"
)
"""Caution that every table and figure made with these weights repeats."""

STRUCTURES = ("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "stomach", "pancreas")
"""Structures in the order of the network's outputs 1 to 7; the numbers are TotalSegmentator's."""

SPACING_MM = 3.0
PATCH = (48, 64, 64)  # (z, y, x) voxels; half a small phantom's extent in plane
FEATURES = (16, 32, 48, 64)
WEIGHTS = Path(__file__).with_suffix(".safetensors")

_CONFIGURATION, _PLANS = "3d_fullres", "nnUNetPlans"
_TRAINER = "nnUNetTrainer"
_LONG_TRAINER = "nnUNetTrainer_4000epochs_NoMirroring"
_NO_MIRRORING = "nnUNetTrainerNoMirroring"
_DATASETS = {
    "Dataset291_TotalSegmentator_part1_organs_1559subj": _NO_MIRRORING,
    "Dataset297_TotalSegmentator_total_3mm_1559subj": _LONG_TRAINER,
    "Dataset298_TotalSegmentator_total_6mm_1559subj": _LONG_TRAINER,
}
_EMPTY_DATASETS = (  # these folders must exist even if none of their structures is requested
    "Dataset292_TotalSegmentator_part2_vertebrae_1532subj",
    "Dataset293_TotalSegmentator_part3_cardiac_1559subj",
    "Dataset294_TotalSegmentator_part4_muscles_1559subj",
    "Dataset295_TotalSegmentator_part5_ribs_1559subj",
)


@dataclass(frozen=True)
class Intensity:
    """Parameters of nnU-Net's CTNormalization: HU are clipped to a window, then shifted and scaled.

    Args:
        low: Lower end of the window in HU.
        high: Upper end of the window in HU.
        mean: Mean of the labelled voxels of the training phantoms in HU.
        sd: Standard deviation of those voxels in HU.
    """

    low: float
    high: float
    mean: float
    sd: float


def materialise(folder: Path) -> Path:
    """Writes the weights in TotalSegmentator's layout: the datasets 291, 297 and 298.

    All three hold the same 3 mm network; 292 to 295, which the full task requires too, are empty folders.

    Args:
        folder: New or empty folder, never TotalSegmentator's own; created if it does not exist.

    Returns:
        Folder for TOTALSEG_WEIGHTS_PATH.

    Raises:
        OutputError: The folder is not empty.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(f"{folder}: phantom weights are written into an empty folder only; choose another")
    checkpoint = {
        "network_weights": state_dict(),
        "trainer_name": _TRAINER,
        "init_args": {"configuration": _CONFIGURATION},
        "inference_allowed_mirroring_axes": None,
    }
    intensity = Intensity(**facts()["intensity"])
    for dataset, trainer in _DATASETS.items():
        model = folder / dataset / f"{trainer}__{_PLANS}__{_CONFIGURATION}"
        (model / "fold_0").mkdir(parents=True)
        write_text(model / "plans.json", json.dumps(plans(dataset, intensity), indent=1) + "\n")
        write_text(model / "dataset.json", json.dumps(dataset_description(), indent=1) + "\n")
        with atomic_file(model / "fold_0" / "checkpoint_final.pth") as file:
            torch.save(checkpoint, file)
    for dataset in _EMPTY_DATASETS:
        (folder / dataset).mkdir()
    return folder


def digest() -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the weights' file."""
    return file_digest(WEIGHTS)[:16]


def facts() -> Mapping[str, Any]:
    """Provenance of the weights: seed, steps, minutes, phantoms, intensity, versions."""
    return json.loads(_load()[1]["facts"])


def state_dict() -> dict[str, torch.Tensor]:
    """The tensors of the network, float32, under all names that they have in nnU-Net's checkpoint."""
    tensors, metadata = _load()
    aliases: dict[str, str] = json.loads(metadata["aliases"])
    full = {name: tensor.float() for name, tensor in tensors.items()}
    return full | {alias: full[name] for alias, name in aliases.items()}


def plans(dataset: str, intensity: Intensity) -> dict[str, Any]:
    """nnU-Net's plans of the network.

    Args:
        dataset: Name of the dataset.
        intensity: Normalisation of HU.
    """
    stages = len(FEATURES)
    spacing = [SPACING_MM] * 3
    percentiles = {"percentile_00_5": intensity.low, "percentile_99_5": intensity.high}
    statistics = {"mean": intensity.mean, "std": intensity.sd, "median": intensity.mean}
    ends = {"min": intensity.low, "max": intensity.high}
    resampling = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    architecture = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": list(FEATURES),
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[3, 3, 3]] * stages,
            "strides": [[1, 1, 1], *[[2, 2, 2]] * (stages - 1)],
            "n_conv_per_stage": [1] + [2] * (stages - 1),
            "n_conv_per_stage_decoder": [2] * (stages - 1),
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }
    configuration = {
        "data_identifier": f"{_PLANS}_{_CONFIGURATION}",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": list(PATCH),
        "median_image_size_in_voxels": list(PATCH),
        "spacing": spacing,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": resampling | {"is_seg": True},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        # Linear interpolation to the full resolution of 1.5 mm would shrink the outlines of thin organs.
        "resampling_fn_probabilities_kwargs": resampling | {"order": 3},
        "architecture": architecture,
        "batch_dice": True,
    }
    return {
        "dataset_name": dataset,
        "plans_name": _PLANS,
        "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": list(PATCH),
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {_CONFIGURATION: configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": percentiles | statistics | ends},
    }


def dataset_description() -> dict[str, Any]:
    """The content of nnU-Net's `dataset.json`: one CT channel, labels in the order of the outputs."""
    labels = {"background": 0} | {name: number for number, name in enumerate(STRUCTURES, 1)}
    return {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 0, "file_ending": ".nii.gz"}


@cache
def _load() -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(WEIGHTS, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
