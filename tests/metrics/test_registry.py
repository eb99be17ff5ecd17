"""Metrics of one's own join PSNR and SSIM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torchmetrics import MeanAbsoluteError

from mpfnl.errors import ConflictError, OptionError
from mpfnl.metrics import psnr, register_metric, ssim
from mpfnl.metrics.registry import image_metrics, unregister_metric


@pytest.fixture(autouse=True)
def only_built_in_metrics() -> Iterator[None]:
    before = {metric.name for metric in image_metrics()}
    yield
    for metric in image_metrics():
        if metric.name not in before:
            unregister_metric(metric.name)


@pytest.fixture
def scans() -> tuple[Tensor, Tensor]:
    reference = torch.rand(1, 1, 12, 12, 12, generator=torch.Generator().manual_seed(0))
    return (reference + 0.25).clip(0, 1), reference


def columns() -> list[str]:
    return [metric.column for metric in image_metrics()]


def test_the_built_in_metrics_are_the_functions(scans: tuple[Tensor, Tensor]) -> None:
    first, second = image_metrics()
    assert first(*scans) == pytest.approx(float(psnr(*scans)))
    assert second(*scans) == pytest.approx(float(ssim(*scans)))


def test_a_function_and_a_torchmetrics_class_give_the_same(scans: tuple[Tensor, Tensor]) -> None:
    function = register_metric("MAE", lambda a, b: (a - b).abs().mean(), higher_is_better=False)
    module = register_metric("MAE 2", lambda a, b: MeanAbsoluteError()(a, b), higher_is_better=False)
    assert columns() == ["psnr_db", "ssim", "mae", "mae_2"]
    assert function(*scans) == pytest.approx(module(*scans))
    assert not function.higher_is_better


def test_the_unit_is_part_of_the_column() -> None:
    metric = register_metric("Noise (liver)", lambda a, b: 0.0, unit="HU", decimals=1)
    assert metric.column == "noise_liver_hu"


def test_a_name_registered_again_is_replaced(scans: tuple[Tensor, Tensor]) -> None:
    register_metric("constant", lambda a, b: 1.0)
    register_metric("constant", lambda a, b: 2.0)
    assert columns() == ["psnr_db", "ssim", "constant"]
    assert image_metrics()[-1](*scans) == 2.0


@pytest.mark.parametrize(("name", "unit"), [("PSNR", "dB"), ("psnr db", ""), ("ssim", "")])
def test_psnr_and_ssim_are_not_replaced(name: str, unit: str) -> None:
    with pytest.raises(ConflictError, match=name):
        register_metric(name, lambda a, b: 0.0, unit=unit)
    assert columns() == ["psnr_db", "ssim"]


@pytest.mark.parametrize("name", ["DSC", "nsd", "Method", "patient ID"])
def test_the_evaluations_other_columns_are_reserved(name: str) -> None:
    with pytest.raises(ConflictError, match=name):
        register_metric(name, lambda a, b: 0.0)


def test_two_names_do_not_share_a_column() -> None:
    register_metric("edge error", lambda a, b: 0.0)
    with pytest.raises(ConflictError, match="edge_error"):
        register_metric("Edge-error", lambda a, b: 0.0)


def test_a_name_without_letters_and_a_metric_that_is_not_there_are_errors() -> None:
    with pytest.raises(OptionError, match="'--'"):
        register_metric("--", lambda a, b: 0.0)
    for name in ("SSIM", "MAE"):
        with pytest.raises(OptionError, match=name):
            unregister_metric(name)
