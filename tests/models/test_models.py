"""The LightningModules: training, determinism, resuming, weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

import mpfnl
from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.errors import ConflictError, FormatError, NotFoundError
from mpfnl.models.enhancement import EnhancementModule
from mpfnl.models.loading import load_model
from mpfnl.models.montage import MontageCallback
from mpfnl.phases import PHASES, Phase

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",  # one process is what a small test wants
    "ignore:.*isinstance.treespec, LeafSpec.*",  # inside Lightning
)


def small_data(cohort: Path, **options: object) -> MultiphaseDataModule:
    settings: dict[str, object] = {"batch_size": 2, "patch_size": 16, "patches_per_study": 2, "workers": 0}
    return MultiphaseDataModule(cohort, **(settings | options))  # type: ignore[arg-type]


def small_model(**options: object) -> mpfnl.PFNL3D:
    return mpfnl.PFNL3D(features=8, blocks=1, **options)  # type: ignore[arg-type]


def trainer(folder: Path, epochs: int, **options: object) -> Trainer:
    settings: dict[str, object] = {
        "max_epochs": epochs,
        "accelerator": "cpu",
        "default_root_dir": folder,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(**(settings | options))  # type: ignore[arg-type]


def weights(model: EnhancementModule) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in model.network.parameters()])


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_fit_logs_and_draws_and_changes_the_weights(cohort: Path, tmp_path: Path, precision: str) -> None:
    seed_everything(0, verbose=False)
    model = small_model()
    before = weights(model)
    run = trainer(tmp_path, 2, precision=precision, callbacks=[MontageCallback()])
    run.fit(model, small_data(cohort))
    assert not torch.equal(weights(model), before)
    assert {"train_loss", "val_loss", "val_psnr", "val_ssim"} <= set(run.callback_metrics)
    assert 5 < run.callback_metrics["val_psnr"] < 60
    montages = sorted((tmp_path / "montages").iterdir())
    assert [picture.name for picture in montages] == ["epoch=0000.png", "epoch=0001.png"]
    assert montages[0].read_bytes()[:4] == b"\x89PNG"


def test_the_same_seed_gives_the_same_weights(cohort: Path, tmp_path: Path) -> None:
    results = []
    for seed in (1, 1, 2):
        seed_everything(seed, verbose=False)
        model = small_model()
        trainer(tmp_path, 1, deterministic=True).fit(model, small_data(cohort))
        results.append(weights(model))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])


def test_a_resumed_run_ends_as_one_that_was_not_interrupted(cohort: Path, tmp_path: Path) -> None:
    seed_everything(4, verbose=False)
    whole = small_model()
    trainer(tmp_path, 2).fit(whole, small_data(cohort))
    seed_everything(4, verbose=False)
    first = small_model()
    stopped = trainer(tmp_path, 1)
    stopped.fit(first, small_data(cohort))
    stopped.save_checkpoint(tmp_path / "stopped.ckpt")
    seed_everything(99, verbose=False)
    resumed = small_model()
    run = trainer(tmp_path, 2)
    run.fit(resumed, small_data(cohort), ckpt_path=tmp_path / "stopped.ckpt", weights_only=True)
    torch.testing.assert_close(weights(resumed), weights(whole), rtol=0, atol=0)


def test_training_lowers_the_loss(cohort: Path, tmp_path: Path) -> None:
    seed_everything(0, verbose=False)
    model = mpfnl.RCAN3D(channels=16, groups=1, blocks=1)
    data = small_data(cohort, phases=1, patches_per_study=8)
    run = trainer(tmp_path, 1)
    run.validate(model, data, verbose=False)
    before = float(run.callback_metrics["val_loss"])
    run = trainer(tmp_path, 6)
    run.fit(model, data)
    assert float(run.callback_metrics["val_loss"]) < 0.7 * before


def test_testing_and_predicting_take_whole_volumes(cohort: Path, tmp_path: Path) -> None:
    model, data = small_model(), small_data(cohort)
    run = trainer(tmp_path, 1)
    (scores,) = run.test(model, data, verbose=False)
    assert set(scores) == {"test_psnr", "test_ssim"}
    predictions = run.predict(model, data)
    assert predictions is not None
    assert [tuple(volume.shape) for volume in predictions] == [(1, 1, 40, 36, 30)] * 2  # type: ignore[union-attr]


def test_a_model_refuses_data_that_it_does_not_take(cohort: Path, tmp_path: Path) -> None:
    for model in (small_model(target="arterial"), small_model(phases=["portal_venous", "arterial"])):
        with pytest.raises(ConflictError, match="phases="):
            trainer(tmp_path, 1).fit(model, small_data(cohort))


def test_optimiser_and_schedule_are_arguments() -> None:
    model = small_model(
        optimizer=lambda parameters: SGD(parameters, lr=0.5),
        lr_scheduler=lambda optimizer: StepLR(optimizer, 3),
        lr_interval="step",
    )
    configured = model.configure_optimizers()
    assert isinstance(configured["optimizer"], SGD)  # type: ignore[index, call-overload]
    assert configured["lr_scheduler"]["interval"] == "step"  # type: ignore[index, call-overload]
    default = small_model().configure_optimizers()
    assert isinstance(default, torch.optim.Adam)
    assert default.defaults["lr"] == 1e-3  # the paper's


def test_frozen_parameters_stay_out_of_the_optimiser() -> None:
    model = small_model()
    model.network.first.requires_grad_(False)
    optimizer = model.configure_optimizers()
    count = sum(len(group["params"]) for group in optimizer.param_groups)  # type: ignore[union-attr]
    assert count == len(list(model.network.parameters())) - 2


@pytest.mark.parametrize(
    ("phases", "target", "taken"),
    [
        (3, Phase.PORTAL_VENOUS, PHASES),
        (4, Phase.DELAYED, tuple(Phase)),
        (1, Phase.ARTERIAL, (Phase.ARTERIAL,)),
        (["portal_venous", "noncontrast"], Phase.NONCONTRAST, (Phase.NONCONTRAST, Phase.PORTAL_VENOUS)),
    ],
)
def test_phases_are_stacked_in_their_order(phases: object, target: Phase, taken: tuple[Phase, ...]) -> None:
    model = small_model(phases=phases, target=target)
    assert model.phases == taken
    assert model.network.target == taken.index(target)


@pytest.mark.parametrize(
    "arguments",
    [
        {"phases": 2},
        {"phases": ["arterial"]},
        {"phases": ["arterial", "arterial"]},
        {"phases": 3, "target": "delayed"},
        {"phases": "arterial"},
    ],
)
def test_phases_that_cannot_be_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="phase"):
        small_model(**arguments)


def randomised() -> mpfnl.PFNL3D:
    model = small_model(nonlocal_mode="embedded_gaussian", phases=["portal_venous", "arterial"])
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def test_weights_folder_round_trip(tmp_path: Path) -> None:
    model = randomised()
    folder = model.save_pretrained(tmp_path / "weights")
    assert sorted(file.name for file in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    x = torch.rand(1, 2, 8, 8, 8)
    for loaded in (mpfnl.PFNL3D.from_pretrained(folder), load_model(folder)):
        assert loaded.config == model.config
        assert torch.equal(loaded(x), model(x))


def test_compiled_models_are_saved_under_the_networks_own_names(tmp_path: Path) -> None:
    model = randomised()
    x = torch.rand(1, 2, 8, 8, 8)
    expected = model(x)
    model.network = torch.compile(model.network, backend="eager")  # type: ignore[assignment]
    loaded = load_model(model.save_pretrained(tmp_path / "weights"))
    assert torch.equal(loaded(x), expected)


def test_fine_tuning_takes_its_own_optimiser(tmp_path: Path) -> None:
    folder = randomised().save_pretrained(tmp_path / "weights")
    model = mpfnl.PFNL3D.from_pretrained(folder, optimizer=lambda p: SGD(p, lr=0.25))
    assert model.configure_optimizers().defaults["lr"] == 0.25  # type: ignore[union-attr]


def test_activation_checkpointing_is_an_option_of_training(cohort: Path, tmp_path: Path) -> None:
    results = []
    for on in (False, True):
        seed_everything(1, verbose=False)
        model = small_model(activation_checkpointing=on)
        assert model.network.activation_checkpointing is on
        assert "activation_checkpointing" not in model.config
        trainer(tmp_path, 1, precision="bf16-mixed").fit(model, small_data(cohort))
        results.append(weights(model))
    assert torch.equal(*results)
    folder = model.save_pretrained(tmp_path / "weights")
    assert not mpfnl.PFNL3D.from_pretrained(folder).network.activation_checkpointing
    assert mpfnl.PFNL3D.from_pretrained(
        folder, activation_checkpointing=True
    ).network.activation_checkpointing
    rcan3d = mpfnl.RCAN3D(channels=8, groups=1, blocks=1, activation_checkpointing=True)
    assert rcan3d.network.activation_checkpointing


def test_checkpoints_load_without_unpickling_code(cohort: Path, tmp_path: Path) -> None:
    model = randomised()
    data = small_data(cohort, phases=model.phases)
    run = trainer(tmp_path, 1)
    run.fit(model, data)
    run.save_checkpoint(tmp_path / "model.ckpt")
    loaded = load_model(tmp_path / "model.ckpt")
    assert isinstance(loaded, mpfnl.PFNL3D)
    assert torch.equal(weights(loaded), weights(model))
    again = mpfnl.PFNL3D.load_from_checkpoint(tmp_path / "model.ckpt", weights_only=True)
    assert torch.equal(weights(again), weights(model))


def test_bad_weights_are_refused_in_one_line(tmp_path: Path) -> None:
    folder = randomised().save_pretrained(tmp_path / "weights")
    other = mpfnl.PFNL3D(features=16, blocks=1).save_pretrained(tmp_path / "other")
    (tmp_path / "text.ckpt").write_text("no checkpoint")
    torch.save({"weights": 1}, tmp_path / "foreign.ckpt")
    shutil.copy(other / "model.safetensors", folder / "model.safetensors")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps(config | {"model": "UNet"}))
    window = randomised().save_pretrained(tmp_path / "window")
    config = json.loads((window / "config.json").read_text())
    (window / "config.json").write_text(json.dumps(config | {"window_hu": {"level": 40, "width": 0}}))
    arguments = randomised().save_pretrained(tmp_path / "arguments")
    (arguments / "config.json").write_text(
        (arguments / "config.json").read_text().replace('"blocks"', '"block"')
    )
    for path, kind, named in [
        (window, FormatError, "width"),
        (arguments, FormatError, "block"),
        (tmp_path / "nowhere", NotFoundError, "nowhere"),
        (tmp_path, NotFoundError, "config.json"),
        (folder, ConflictError, "model.safetensors"),
        (other, NotFoundError, "UNet"),
        (tmp_path / "text.ckpt", FormatError, "text.ckpt"),
        (tmp_path / "foreign.ckpt", FormatError, "foreign.ckpt"),
    ]:
        with pytest.raises(kind, match=named) as caught:
            load_model(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConflictError, match="RCAN3D"):
        mpfnl.RCAN3D.from_pretrained(folder)
