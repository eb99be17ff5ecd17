"""What every operation of a degradation keeps to: the acceptance list of the model, as properties."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
import torchio as tio
from hypothesis import given, settings
from hypothesis import strategies as st

from mpfnl.errors import FormatError
from mpfnl.transforms import RandomDegradation
from mpfnl.transforms.degradation import (
    SECOND_ORDER_V1,
    Degradation,
    Preset,
    apply_parameters,
    find_preset,
    registered_degradations,
    registered_presets,
    sample_parameters,
)
from mpfnl.transforms.degradation.blur import Blur
from mpfnl.transforms.degradation.low_dose import LowDose, mean_shift_hu
from mpfnl.transforms.degradation.metal import Implant, MetalStreaks
from mpfnl.transforms.degradation.motion import MotionBlur
from mpfnl.transforms.degradation.noise import GaussianNoise, PoissonNoise
from mpfnl.transforms.degradation.resampling import Resampling
from mpfnl.transforms.degradation.resize import Resize
from mpfnl.transforms.degradation.thick_slices import SliceProfile, ThickSlices

SPACING = (0.8, 0.8, 2.5)
SCREWS = (
    Implant((0.4, 0.6, 0.5), (3.0, 3.0), 20.0),
    Implant((0.6, 0.6, 0.5), (2.0, 4.0), 12.5),
)

millimetres = st.floats(0.5, 6.0)
seeds = st.integers(0, 2**63 - 1)
operations = st.one_of(
    st.builds(Blur, st.tuples(millimetres, millimetres, millimetres)),
    st.builds(
        Resize,
        st.tuples(millimetres, millimetres, millimetres),
        st.sampled_from(list(Resampling)),
        st.sampled_from([Resampling.LINEAR, Resampling.CUBIC]),
    ),
    st.builds(GaussianNoise, st.floats(1, 60), st.floats(0, 2), seeds),
    st.builds(PoissonNoise, st.floats(1, 60), st.floats(0, 2), seeds),
    st.builds(LowDose, st.floats(0.05, 0.9), seeds),
    st.builds(ThickSlices, millimetres, millimetres, st.sampled_from(list(SliceProfile))),
    st.builds(MotionBlur, st.tuples(millimetres, millimetres, millimetres), st.floats(0, 1)),
    st.builds(MetalStreaks, st.just(SCREWS), st.floats(1, 100), seeds),
)

NOTHING: list[Degradation] = [
    Blur((0.0, 0.0, 0.0)),
    Resize((0.0, 0.0, 0.0), Resampling.AREA, Resampling.LINEAR),
    GaussianNoise(0.0, 0.5, 1),
    PoissonNoise(0.0, 0.5, 1),
    LowDose(1.0, 1),
    ThickSlices(SPACING[2], SPACING[2]),
    MotionBlur((0.0, 0.0, 0.0), 0.5),
    MetalStreaks(SCREWS, 0.0, 1),
]


def scan(*shape: int) -> torch.Tensor:
    """Tissue in air, so that there is a body for whatever needs one."""
    hu = torch.full(shape, -1000.0)
    x, y = (slice(size // 6, size - size // 6) for size in shape[:2])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 30
    hu[x, y] = 50 + noise[x, y]
    return hu


def applied(hu: torch.Tensor, operation: Degradation) -> torch.Tensor:
    return apply_parameters(hu, SPACING, {"operations": [operation.to_json()]})


@pytest.mark.parametrize("operation", NOTHING, ids=lambda operation: operation.kind)
def test_strength_zero_is_the_identity(operation: Degradation) -> None:
    hu = scan(24, 20, 12)
    result = applied(hu, operation)
    assert torch.equal(result, hu)
    assert result.data_ptr() != hu.data_ptr()


def test_every_kind_is_among_these_tests() -> None:
    package = {
        kind
        for kind, cls in registered_degradations().items()
        if cls.__module__.startswith("mpfnl.transforms")
    }
    assert {operation.kind for operation in NOTHING} | {"clip"} == package


@settings(deadline=None, max_examples=60)
@given(operation=operations, shape=st.tuples(st.integers(1, 26), st.integers(1, 26), st.integers(1, 9)))
def test_a_record_replays_exactly(operation: Degradation, shape: tuple[int, int, int]) -> None:
    hu = scan(*shape)
    before = hu.clone()
    record = json.loads(json.dumps(operation.to_json()))
    assert Degradation.from_json(record) == operation
    threads = torch.get_num_threads()
    first = applied(hu, operation)
    torch.set_num_threads(3 - min(threads, 2))
    try:
        again = apply_parameters(hu, SPACING, {"operations": [record]})
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first, again)
    assert first.shape == hu.shape
    assert torch.isfinite(first).all()
    assert torch.equal(hu, before)


@settings(deadline=None, max_examples=40)
@given(operation=operations, tissue_hu=st.sampled_from([-100.0, 0.0, 60.0, 200.0]))
def test_the_mean_of_a_uniform_region_stays_within_1_hu(operation: Degradation, tissue_hu: float) -> None:
    hu = torch.full((64, 64, 16), tissue_hu)
    degraded = applied(hu, operation)
    if isinstance(operation, MetalStreaks):  # all but the metal, which next to no streaks leave alone
        metal = (applied(hu, MetalStreaks(SCREWS, 1e-6, operation.seed)) - hu).abs() > 1e-3
        assert 0 < metal.float().mean() < 0.2
        degraded = degraded[~metal]
    shift = mean_shift_hu(operation.dose_fraction) if isinstance(operation, LowDose) else 0.0
    assert abs(shift) <= 1.0
    # Noise of standard deviation s leaves the mean an uncertainty: voxels of a correlated field count less.
    correlated = 8 * (1 + getattr(operation, "correlation_mm", 0.5)) ** 3
    uncertainty = 4.5 * float(degraded.std()) * (correlated / hu.numel()) ** 0.5
    noisy = isinstance(operation, (GaussianNoise, PoissonNoise, LowDose))
    assert abs(float(degraded.double().mean()) - tissue_hu - shift) <= (uncertainty if noisy else 1.0)


def labelled() -> tio.Subject:
    labels = torch.randint(0, 5, (1, 24, 24, 12), generator=torch.Generator().manual_seed(1))
    affine = np.diag([*SPACING, 1.0])
    return tio.Subject(
        arterial=tio.ScalarImage(tensor=scan(24, 24, 12)[None], affine=affine),
        portal_venous=tio.ScalarImage(tensor=scan(24, 24, 12)[None], affine=affine),
        organs=tio.LabelMap(tensor=labels, affine=affine),
    )


def always(degradation: Degradation, seed: int = 3) -> RandomDegradation:
    """A degradation with the same numbers for every scan, as a TorchIO transform."""
    return RandomDegradation(Preset(f"always {degradation.kind}", 1, (degradation,)), seed=seed)


TRANSFORMS: list[tio.Transform] = [
    always(LowDose(0.25, 0)),
    always(ThickSlices(6.0, 6.0)),
    always(MotionBlur((0.0, 2.0, 6.0), 0.5)),
    always(MetalStreaks(SCREWS, 40.0, 0)),
    *(RandomDegradation(preset, seed=2) for preset in registered_presets()),
]


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda each: each.preset.name)
def test_torchio_leaves_labels_and_replays_its_history(transform: tio.Transform) -> None:
    subject = labelled()
    degraded = transform(subject)
    assert torch.equal(degraded["organs"].data, subject["organs"].data)
    for phase in ("arterial", "portal_venous"):
        assert not torch.equal(degraded[phase].data, subject[phase].data)
        np.testing.assert_array_equal(degraded[phase].affine, subject[phase].affine)
    replayed = degraded.get_composed_history()(subject)
    for phase in ("arterial", "portal_venous"):
        assert torch.equal(replayed[phase].data, degraded[phase].data)


def test_each_image_has_noise_of_its_own() -> None:
    degraded = always(LowDose(0.25, 0))(labelled())
    change = [degraded[phase].data - scan(24, 24, 12)[None] for phase in ("arterial", "portal_venous")]
    correlation = np.corrcoef(change[0].flatten().numpy(), change[1].flatten().numpy())[0, 1]
    assert abs(correlation) < 0.2
    assert torch.equal(always(LowDose(0.25, 0))(labelled())["arterial"].data, degraded["arterial"].data)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LowDose(0.0, 1), "dose_fraction"),
        (lambda: LowDose(0.5, seed=-1), "seed"),
        (lambda: ThickSlices(-1.0, 1.0), "thickness_mm"),
        (lambda: MotionBlur((0.0, 0.0, 1.0), 2.0), "double_exposure"),
        (lambda: MetalStreaks(SCREWS, -3.0, 1), "streak_hu"),
    ],
)
def test_impossible_numbers_are_refused_at_once(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", registered_presets())
def test_every_preset_records_plainly_and_by_name(name: str) -> None:
    record = sample_parameters(find_preset(name), 3)
    assert record["preset"] == name
    assert json.loads(json.dumps(record)) == record
    assert any(sample_parameters(find_preset(name), seed)["operations"] for seed in range(3, 6))


def sideways() -> tio.Subject:
    affine = np.array([[0, 0, 0.8, 0], [0, 0.8, 0, 0], [5.0, 0, 0, 0], [0, 0, 0, 1]])
    return tio.Subject(arterial=tio.ScalarImage(tensor=scan(12, 24, 24)[None], affine=affine))


@pytest.mark.parametrize(
    "transform", [always(LowDose(0.5, 0)), always(ThickSlices(9.0, 9.0)), RandomDegradation("metal", seed=1)]
)
def test_the_order_of_axes_does_not_change_the_result(transform: tio.Transform) -> None:
    degraded = transform(sideways())
    canonical = tio.ToCanonical()(sideways())
    assert not torch.equal(transform(canonical)["arterial"].data, canonical["arterial"].data)
    turned = tio.ToCanonical()(degraded)["arterial"]
    assert torch.equal(turned.data, transform(canonical)["arterial"].data)
    assert np.array_equal(degraded["arterial"].affine, sideways()["arterial"].affine)


BAD_NUMBERS = [True, "4", None, [1], float("nan"), float("inf"), 10**400, -(10**9), 1e9, {}]


@pytest.mark.parametrize("value", BAD_NUMBERS, ids=lambda value: str(value)[:8])
@pytest.mark.parametrize(
    ("operation", "field"),
    [
        (operation, field)
        for operation in NOTHING
        for field in operation.to_json()
        if field not in ("kind", "down", "up", "profile", "implants")
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_record_with_an_impossible_number_is_refused_in_one_line(
    operation: Degradation, field: str, value: object
) -> None:
    record = operation.to_json()
    if field == "seed" and value == 1e9:
        value = 1e9 + 0.5
    for bad in [value] if not isinstance(record[field], list) else [value, [value] * 3]:
        with pytest.raises(FormatError, match=operation.kind) as caught:
            Degradation.from_json(record | {field: bad})
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "implants", [5, "ab", [5], [[1, 2]], {"position": 1}, [{"position": [0.5] * 3}], [{"length_mm": 1e9}]]
)
def test_implants_that_are_none_are_refused(implants: object) -> None:
    with pytest.raises(FormatError, match="metal_streaks"):
        Degradation.from_json(MetalStreaks(SCREWS, 1.0, 1).to_json() | {"implants": implants})


def test_any_float_becomes_float32_and_whole_numbers_and_gaps_are_refused() -> None:
    record = sample_parameters(SECOND_ORDER_V1, 4)
    expected = apply_parameters(scan(16, 16, 8), SPACING, record)
    assert torch.equal(apply_parameters(scan(16, 16, 8).double(), SPACING, record), expected)
    for bad, message in (
        (torch.full((4, 4, 4), float("nan")), "NaN"),
        (torch.full((4, 4, 4), float("-inf")), "infinite"),
        (torch.zeros(4, 0, 4), "empty"),
        (torch.zeros(4, 4, 4, dtype=torch.int16), "float"),
    ):
        with pytest.raises(ValueError, match=message):
            apply_parameters(bad, SPACING, record)
    with pytest.raises(ValueError, match="spacing"):
        apply_parameters(scan(4, 4, 4), (0.0008, 0.0008, 0.005), record)


@pytest.mark.parametrize("name", ["paper", "thick-slices"])
def test_the_coarse_grid_lies_anywhere(name: str) -> None:
    # In patches, a grid that always lay alike would tell the network where it is.
    shifts = [
        shift
        for seed in range(40)
        for operation in sample_parameters(find_preset(name), seed)["operations"]
        if "grid_shift" in operation
        for shift in np.atleast_1d(operation["grid_shift"])
    ]
    assert len(shifts) > 10
    assert min(shifts) < -0.25
    assert max(shifts) > 0.25


@settings(deadline=None, max_examples=40)
@given(
    length=st.integers(1, 30),
    factor=st.floats(1.01, 8.0),
    shift=st.floats(-0.5, 0.5),
    thickness=st.floats(0.1, 40.0),
)
def test_a_shifted_grid_keeps_a_uniform_volume(
    length: int, factor: float, shift: float, thickness: float
) -> None:
    hu = torch.full((3, 2, length), 71.0)
    slices = ThickSlices(thickness, 2.5 * factor, SliceProfile.RECTANGLE, shift)
    for down in Resampling:
        coarse = Resize((1.0, 1.0, 2.5 * factor), down, Resampling.CUBIC, 8.0, (0.0, 0.0, shift))
        torch.testing.assert_close(applied(hu, coarse), hu, rtol=0, atol=1e-3)
    torch.testing.assert_close(applied(hu, slices), hu, rtol=0, atol=1e-3)
