from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchio as tio

from mpfnl.errors import FormatError, NotFoundError
from mpfnl.phases import PHASES, Phase
from mpfnl.transforms import RandomDegradation, RandomRotation90, RecordedDegradation, WindowIntensity
from mpfnl.transforms.degradation import SECOND_ORDER_V1
from mpfnl.transforms.torchio_transforms import Rotation90

AFFINE = np.diag([0.8, 0.9, 2.5, 1.0])


def subject(*phases: Phase) -> tio.Subject:
    generator = torch.Generator().manual_seed(0)
    images = {
        phase.value: tio.ScalarImage(
            tensor=torch.randn(1, 12, 10, 8, generator=generator) * 100, affine=AFFINE
        )
        for phase in phases or PHASES
    }
    labels = torch.randint(0, 4, (1, 12, 10, 8), generator=generator)
    return tio.Subject(images | {"pancreas": tio.LabelMap(tensor=labels, affine=AFFINE)})


def equal(a: tio.Subject, b: tio.Subject) -> bool:
    names = a.get_images_names()
    return names == b.get_images_names() and all(torch.equal(a[n].data, b[n].data) for n in names)


def test_window_equals_the_formula() -> None:
    clean = subject()
    windowed = WindowIntensity(level=40.0, width=300.0)(clean)
    for phase in PHASES:
        hu = clean[phase].numpy().astype(np.float64)
        expected = np.clip((hu - (40 - 150)) / 300, 0, 1)
        np.testing.assert_allclose(windowed[phase].numpy(), expected, atol=1e-6)
    assert torch.equal(windowed["pancreas"].data, clean["pancreas"].data)


def test_window_reads_integers_and_replays() -> None:
    hu = torch.tensor([-1024, -175, 50, 275, 3071], dtype=torch.int16).reshape(1, 5, 1, 1)
    clean = tio.Subject(portal_venous=tio.ScalarImage(tensor=hu))
    windowed = WindowIntensity()(clean)
    assert windowed["portal_venous"].data.flatten().tolist() == [0.0, 0.0, 0.5, 1.0, 1.0]
    assert equal(windowed.get_composed_history()(clean), windowed)


def test_degradation_replays_from_the_history() -> None:
    clean = subject()
    degraded = RandomDegradation()(clean)
    assert [step.name for step in degraded.history] == ["RecordedDegradation"]
    assert not equal(degraded, clean)
    assert equal(degraded.get_composed_history()(clean), degraded)
    parameters = json.loads(json.dumps(degraded.history[0].parameters))
    assert equal(RecordedDegradation(parameters)(clean), degraded)


def test_a_whole_pipeline_replays_from_the_history() -> None:
    clean = subject()
    pipeline = tio.Compose([RandomRotation90(axes=(0, 1, 2)), RandomDegradation(), WindowIntensity()])
    for seed in range(6):
        torch.manual_seed(seed)
        result = pipeline(clean)
        assert equal(result.get_composed_history()(clean), result)


def test_degradation_leaves_labels_and_geometry_and_the_input() -> None:
    clean, untouched = subject(), subject()
    degraded = RandomDegradation()(clean)
    assert torch.equal(degraded["pancreas"].data, clean["pancreas"].data)
    assert degraded["pancreas"].data.dtype == clean["pancreas"].data.dtype
    for phase in PHASES:
        np.testing.assert_array_equal(degraded[phase].affine, AFFINE)
    assert equal(clean, untouched)


def test_probability_zero_is_the_identity() -> None:
    clean = subject()
    assert equal(RandomDegradation(p=0.0)(clean), clean)
    quiet = tuple(
        replace(stage, blur_probability=0.0, resize_probability=0.0, noise_probability=0.0)
        for stage in SECOND_ORDER_V1.stages
    )
    assert equal(RandomDegradation(preset=replace(SECOND_ORDER_V1, stages=quiet))(clean), clean)


def test_every_phase_has_its_own_draw() -> None:
    parameters = RandomDegradation()(subject()).history[0].parameters
    assert sorted(parameters) == sorted(PHASES)
    drawn = [json.dumps(record["operations"]) for record in parameters.values()]
    assert len(set(drawn)) == len(PHASES)


def test_draws_follow_torchs_generator() -> None:
    clean = subject()
    torch.manual_seed(1)
    first = RandomDegradation()(clean)
    torch.manual_seed(1)
    assert equal(RandomDegradation()(clean), first)
    assert not equal(RandomDegradation()(clean), first)


def test_with_a_seed_a_phase_is_degraded_alike_whatever_else_there_is() -> None:
    clean = subject()
    degrade = RandomDegradation(seed=5)
    first = degrade(clean)
    assert equal(degrade(clean), first)
    alone = tio.Subject(portal_venous=clean["portal_venous"])
    assert torch.equal(degrade(alone)["portal_venous"].data, first["portal_venous"].data)
    only = RandomDegradation(phases=[Phase.PORTAL_VENOUS], seed=5)(clean)
    assert torch.equal(only["portal_venous"].data, first["portal_venous"].data)
    assert torch.equal(only["arterial"].data, clean["arterial"].data)


def test_the_clean_target_can_be_kept() -> None:
    clean = subject()
    degraded = RandomDegradation(keep={"portal_venous": "target"})(clean)
    assert torch.equal(degraded["target"].data, clean["portal_venous"].data)
    assert not torch.equal(degraded["portal_venous"].data, clean["portal_venous"].data)


def test_subjects_that_cannot_be_degraded_are_refused() -> None:
    other = tio.Subject(scan=tio.ScalarImage(tensor=torch.zeros(1, 4, 4, 4)))
    with pytest.raises(NotFoundError, match="portal_venous"):
        RandomDegradation()(other)
    with pytest.raises(NotFoundError, match="arterial"):
        RecordedDegradation({"arterial": {"operations": []}})(subject(Phase.PORTAL_VENOUS))
    vectors = tio.Subject(arterial=tio.ScalarImage(tensor=torch.zeros(2, 4, 4, 4)))
    with pytest.raises(FormatError, match="phase arterial"):
        RandomDegradation()(vectors)


def test_rotation_turns_all_images_alike_and_keeps_the_world() -> None:
    clean = subject()
    rotated = Rotation90(axis=2, turns=1)(clean)
    assert rotated.spatial_shape == (10, 12, 8)
    assert rotated.spacing == pytest.approx((0.9, 0.8, 2.5))
    for image in rotated.get_images(intensity_only=False):
        np.testing.assert_array_equal(image.affine, rotated["arterial"].affine)
    for name in clean.get_images_names():
        expected = np.rot90(clean[name].numpy(), 1, (1, 2))
        np.testing.assert_array_equal(rotated[name].numpy(), expected)
    assert equal(rotated.apply_inverse_transform(), clean)


def test_random_rotation_takes_every_angle_about_the_axes_given() -> None:
    clean = subject()
    torch.manual_seed(0)
    seen = set()
    for _ in range(60):
        step = RandomRotation90(axes=(0, 2))(clean).history[-1]
        seen.add((step.axis, step.turns))
    assert seen == {(axis, turns) for axis in (0, 2) for turns in range(4)}
    axial = {RandomRotation90()(clean).history[-1].axis for _ in range(10)}
    assert axial == {2}


def test_axes_that_are_not_ones_are_refused() -> None:
    for axes in ((), (3,)):
        with pytest.raises(ValueError, match="axis"):
            RandomRotation90(axes=axes)


def test_every_phase_of_the_subject_is_degraded() -> None:
    clean = subject(*Phase)
    degraded = RandomDegradation(seed=1)(clean)
    assert sorted(degraded.history[0].parameters) == sorted(Phase)
    for phase in Phase:
        assert not torch.equal(degraded[phase].data, clean[phase].data)
    paper = RandomDegradation(seed=1)(subject())  # further phases change no other phase's draw
    for phase in PHASES:
        assert paper.history[0].parameters[phase] == degraded.history[0].parameters[phase]
