"""A data set from outside the package: one registered function, then `mpfnl manifest NAME`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mpfnl.cli.main import main
from mpfnl.data import read_manifest
from mpfnl.datasets import register_dataset, registry
from mpfnl.datasets.cohort import Cohort, Exclusion, SourceStudy, assemble_cohort, find_masks
from mpfnl.datasets.registry import dataset_names, find_dataset
from mpfnl.errors import OptionError
from mpfnl.phantoms import PhantomConfig, write_cohort
from mpfnl.phases import PHASES
from mpfnl.volumes import read_volume
from mpfnl.volumes.masks import read_label_volume

TINY = PhantomConfig(
    in_plane_mm=(6.0, 7.0), slice_mm=(8.0, 9.0), coverage_mm=(130.0, 140.0), depth_fraction=0.8
)


def test_the_package_registers_its_own() -> None:
    assert dataset_names() == ("vindr", "waw-tace")
    assert find_dataset("vindr").description == "VinDr-Multiphase"
    with pytest.raises(OptionError, match=r"mri.*vindr, waw-tace"):
        find_dataset("mri")


def test_a_data_set_from_outside_is_written_and_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_ADAPTERS", {})

    @register_dataset("folders", "One folder a study, one file a phase")
    def find_folders(root: Path, seed: int = 0, masks: Path | None = None) -> Cohort:
        studies, excluded = [], []
        for folder in sorted(path for path in root.iterdir() if path.is_dir()):
            scans = {phase: folder / f"{phase}.nii.gz" for phase in PHASES}
            missing = [phase for phase, path in scans.items() if not path.is_file()]
            if missing:
                excluded.append(Exclusion(folder.name, f"no {missing[0].value}"))
                continue
            found = find_masks(masks, dict.fromkeys(scans, folder.name))
            studies.append(SourceStudy(folder.name, folder.name, scans, found))
        return assemble_cohort(root, seed, studies, excluded)

    root = write_cohort(tmp_path / "downloaded", 3, seed=4, config=TINY).parent
    (root / "phantom-4-0001" / "arterial.nii.gz").unlink()
    output = tmp_path / "cohort.csv"
    assert main(["manifest", "folders", str(root), "-o", str(output), "--masks", str(root)]) == 0
    assert "2 studies, 1 excluded" in capsys.readouterr().out
    assert "phantom-4-0001,no arterial" in (tmp_path / "cohort.excluded.csv").read_text()
    cohort = read_manifest(output)
    assert [study.study_id for study in cohort] == ["phantom-4-0000", "phantom-4-0002"]
    for study in cohort:
        shape = read_label_volume(study.masks["arterial_labels"]).shape
        assert {read_volume(study.file(phase), phase).shape for phase in PHASES} == {shape}


def test_the_page_registers_a_data_set_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ADAPTERS", {})
    page = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(code, {"__name__": "page"})
    for name, phases in (("a", PHASES), ("b", PHASES[:1])):
        (tmp_path / name).mkdir()
        for phase in phases:
            (tmp_path / name / f"{phase}.nii.gz").touch()
    cohort = find_dataset("folders").read(tmp_path)
    assert [study.study_id for study in cohort.studies] == ["a"]
    assert [study.study_id for study in cohort.excluded] == ["b"]


def test_the_command_line_offers_what_is_registered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(registry, "_ADAPTERS", {})
    for name in ("second", "first"):
        register_dataset(name, name)(lambda root, seed=0, masks=None: Cohort((), ()))
    assert dataset_names() == ("first", "second")
    with pytest.raises(SystemExit):
        main(["manifest", "--help"])
    assert "{first,second}" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["manifest", "third", str(tmp_path), "-o", str(tmp_path / "cohort.csv")])
    assert "second" in capsys.readouterr().err
