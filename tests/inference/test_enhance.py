"""One study through a model: HU, geometry and number type are kept."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from scipy import ndimage

import mpfnl
from mpfnl.errors import DamagedError, GridError, NotFoundError, OptionError
from mpfnl.inference.enhancement import EnhanceOptions, enhance_study
from mpfnl.inference.tiling import Tiling, network_tiling
from mpfnl.models import TrainingRecord
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.phases import Phase
from mpfnl.volumes import Volume, read_volume, write_volume

TILING = Tiling(32, 8)


def models() -> dict[str, EnhancementModule]:
    """Small models with drawn weights, so that they change the scan."""
    torch.manual_seed(0)
    rcan3d = mpfnl.RCAN3D(channels=16, groups=1, blocks=1)
    pfnl3d = mpfnl.PFNL3D(features=8, blocks=1)
    for parameter in pfnl3d.network.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return {"RCAN3D": rcan3d, "PFNL3D": pfnl3d}


def check_result(source: Path, result: Path) -> None:
    """Acceptance 3: shape, affine, type; equal bit by bit where the smoothed input lies outside."""
    before, after = nib.load(source), nib.load(result)
    assert after.shape == before.shape
    assert after.get_data_dtype() == before.get_data_dtype()
    np.testing.assert_allclose(after.affine, before.affine, atol=1e-6)
    np.testing.assert_allclose(after.get_sform(), after.get_qform(), atol=1e-4)
    hu, enhanced = np.asanyarray(before.dataobj), np.asanyarray(after.dataobj)
    smoothed = ndimage.uniform_filter(hu.astype(np.float64), size=3, mode="nearest")
    outside = (smoothed < -225) | (smoothed > 325)
    assert 0.05 < outside.mean() < 0.95
    assert np.array_equal(hu[outside], enhanced[outside])
    assert (hu != enhanced)[~outside].mean() > 0.5
    ours, theirs = sitk.ReadImage(str(result)), sitk.ReadImage(str(source))
    for name in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(getattr(ours, name)(), getattr(theirs, name)(), atol=1e-4)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours).transpose(2, 1, 0), enhanced)


@pytest.mark.parametrize("name", ["RCAN3D", "PFNL3D"])
def test_a_study_keeps_its_geometry_type_and_what_lies_outside_the_window(
    cohort: Path, tmp_path: Path, name: str
) -> None:
    model = models()[name]
    folder = cohort.parent / "test0"
    files = {phase: folder / f"{phase}.nii.gz" for phase in model.phases}
    scan = model.enhance(files, tmp_path / "out.nii.gz", tiling=TILING)
    check_result(folder / "portal_venous.nii.gz", tmp_path / "out.nii.gz")
    assert np.array_equal(read_volume(tmp_path / "out.nii.gz").data, scan.data)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["RCAN3D", pytest.param("PFNL3D", marks=pytest.mark.slow)])
def test_a_real_scan(real_data: Path, tmp_path: Path, name: str) -> None:
    """The real portal venous scan stands for all three phases: a test of the software, not of enhancement."""
    model = models()[name]
    source = real_data / "crlm_pv_1004" / "CRLM-CT-1004_pv_bodycrop.nii.gz"
    model.enhance(dict.fromkeys(model.phases, source), tmp_path / "out.nii.gz", tiling=Tiling(48, 8))
    check_result(source, tmp_path / "out.nii.gz")


def test_volumes_in_memory_give_the_same_as_files(cohort: Path) -> None:
    model = models()["RCAN3D"]
    file = cohort.parent / "test0" / "portal_venous.nii.gz"
    from_file = model.enhance({Phase.PORTAL_VENOUS: file})
    from_memory = model.enhance({"portal_venous": read_volume(file)})
    assert np.array_equal(from_file.data, from_memory.data)


def test_enhancing_leaves_the_model_as_it_was(cohort: Path) -> None:
    model = models()["RCAN3D"].train()
    model.enhance({Phase.PORTAL_VENOUS: cohort.parent / "test0" / "portal_venous.nii.gz"})
    assert model.network.training


def test_a_network_that_gives_nan_is_refused(cohort: Path, tmp_path: Path) -> None:
    files = {"portal_venous": cohort.parent / "test0" / "portal_venous.nii.gz"}
    broken = mpfnl.RCAN3D(channels=16, groups=1, blocks=1)
    torch.nn.init.constant_(broken.network.last.bias, float("nan"))
    with pytest.raises(DamagedError, match="RCAN3D"):
        broken.enhance(files, tmp_path / "out.nii.gz")
    assert not list(tmp_path.iterdir())


def test_missing_phases_and_other_grids_are_named(cohort: Path, tmp_path: Path) -> None:
    model = models()["PFNL3D"]
    folder = cohort.parent / "test0"
    files = {phase: folder / f"{phase}.nii.gz" for phase in model.phases}
    with pytest.raises(NotFoundError, match="portal venous"):
        model.enhance({phase: file for phase, file in files.items() if phase is not Phase.PORTAL_VENOUS})
    stacking = mpfnl.RCAN3D(phases=3, channels=8, groups=1, blocks=1)
    with pytest.raises(NotFoundError, match="--arterial"):
        stacking.enhance({phase: file for phase, file in files.items() if phase is not Phase.ARTERIAL})
    arterial = read_volume(files[Phase.ARTERIAL])
    shifted = arterial.affine.copy()
    shifted[2, 3] += 1.5
    moved = Volume.from_array(arterial.data, shifted, tmp_path / "moved.nii.gz", Phase.ARTERIAL)
    write_volume(moved.path, moved.data, like=moved)
    with pytest.raises(GridError, match=r"moved.nii.gz \(arterial phase\).*1\.5"):
        model.enhance(files | {Phase.ARTERIAL: moved.path}, tmp_path / "out.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()


def test_a_model_takes_tiles_as_large_as_its_training_patches(cohort: Path) -> None:
    """Files, and tensors of a Trainer's predict; until `tiling` is set."""
    model = models()["RCAN3D"].eval()
    file = cohort.parent / "test0" / "portal_venous.nii.gz"
    batch = {"phases": torch.rand(1, 1, 40, 30, 20, generator=torch.Generator().manual_seed(0))}

    def results() -> list[np.ndarray]:
        with torch.inference_mode():
            predicted = model.predict_step(batch, 0)
        return [model.enhance({"portal_venous": file}).data, predicted.numpy()]

    model.training_record = TrainingRecord(patch_size=16)
    own = results()
    assert model.tiling is None
    model.tiling = network_tiling(model.network, 16)
    for ours, same in zip(own, results(), strict=True):
        np.testing.assert_array_equal(ours, same)
    model.tiling = Tiling(12, 2)
    for ours, other in zip(own, results(), strict=True):
        assert np.abs(ours - other).max() > 0


def test_self_ensemble_and_memory_reach_the_study(cohort: Path) -> None:
    model = models()["RCAN3D"]
    files = {"portal_venous": cohort.parent / "test0" / "portal_venous.nii.gz"}
    options = EnhanceOptions(TILING, self_ensemble=True)
    expected = enhance_study(model, {Phase.PORTAL_VENOUS: files["portal_venous"]}, options=options)
    found = model.enhance(files, tiling=TILING, self_ensemble=True)
    np.testing.assert_array_equal(found.data, expected.data)
    with pytest.raises(OptionError, match="--max-memory"):
        model.enhance(files, tiling=TILING, max_memory=10**7)
