"""Fine-tuning: frozen parts, learning rates by part, warm-up, averaged weights."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import OneCycleLR

import mpfnl
from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.errors import ConflictError, InputError, OptionError
from mpfnl.models import EnhancementModule, FreezeParts, TrainingRecord
from mpfnl.models.freezing import frozen_parts
from mpfnl.models.loading import load_model
from mpfnl.models.rates import OTHERS, WarmUpCosine, parameter_groups

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers",
    "ignore:.*isinstance.treespec, LeafSpec.*",  # inside Lightning
)

PARTS = {
    "PFNL3D": ("nonlocal_block", "first", "trunk", "merge", "reconstruct"),
    "RCAN3D": ("first", "groups", "body_end", "upscale", "last"),
}


def small(**options: object) -> mpfnl.PFNL3D:
    return mpfnl.PFNL3D(features=8, blocks=1, **options)  # type: ignore[arg-type]


def single() -> mpfnl.RCAN3D:
    return mpfnl.RCAN3D(channels=8, groups=1, blocks=1, scale=2)


def trainer(folder: Path, epochs: int, *callbacks: Callback, **options: object) -> Trainer:
    quiet: dict[str, object] = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        "num_sanity_val_steps": 0,
    }
    return Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        default_root_dir=folder,
        callbacks=list(callbacks),
        **(quiet | options),  # type: ignore[arg-type]
    )


@pytest.fixture
def data(cohort: Path) -> MultiphaseDataModule:
    return MultiphaseDataModule(cohort, batch_size=2, patch_size=16, patches_per_study=2, workers=0)


def values(model: EnhancementModule) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.network.state_dict().items()}


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    return {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("make", [small, single])
def test_parts_make_up_the_network(make: type[EnhancementModule]) -> None:
    model = make()
    assert model.parts == PARTS[type(model).__name__]
    assert {name.split(".")[0] for name, _ in model.network.named_parameters()} <= set(model.parts)


def test_parts_keep_their_names_in_a_compiled_network() -> None:
    model = small()
    model.network = torch.compile(model.network, backend="eager")  # type: ignore[assignment]
    assert model.parts == PARTS["PFNL3D"]
    model.freeze("trunk")
    assert frozen_parts(model.network) == ["trunk"]


def test_frozen_parts_do_not_move(data: MultiphaseDataModule, tmp_path: Path) -> None:
    model = small().freeze("first", "merge", "nonlocal_block").unfreeze("merge")
    assert frozen_parts(model.network) == ["nonlocal_block", "first"]
    before = values(model)
    trainer(tmp_path, 2).fit(model, data)
    assert moved(before, values(model)) == {"trunk", "merge", "reconstruct"}
    assert model.training_record is not None
    assert model.training_record.recipe["frozen parts"] == "nonlocal_block, first"


def test_without_a_name_it_is_lightnings() -> None:
    model = small().freeze()
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    model.unfreeze()
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_what_cannot_be_frozen_is_told() -> None:
    model = small()
    with pytest.raises(OptionError, match=r"head.*nonlocal_block, first, trunk"):
        model.freeze("trunk", "head")
    assert frozen_parts(model.network) == []
    with pytest.raises(OptionError, match="frozen"):
        model.freeze(*model.parts).configure_optimizers()


class Moves(Callback):
    """Notes which parts each epoch has moved."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, EnhancementModule)
        self.before = values(pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, EnhancementModule)
        self.moved.append(moved(self.before, values(pl_module)))


def test_the_callback_thaws_at_its_epoch_also_when_resumed(
    data: MultiphaseDataModule, tmp_path: Path
) -> None:
    def make() -> mpfnl.PFNL3D:
        torch.manual_seed(0)
        model = small(lr_scheduler=partial(WarmUpCosine, warm_up=2, steps=20), lr_interval="step")
        for (
            parameter
        ) in model.network.parameters():  # so that each part has a gradient from the first step on
            nn.init.normal_(parameter, std=0.1)
        return model

    frozen = FreezeParts(["first", "trunk"], until_epoch=2)
    moves = Moves()
    whole = make()
    trainer(tmp_path, 3, frozen, moves).fit(whole, data)
    rest = set(whole.parts) - {"first", "trunk"}
    assert moves.moved == [rest, rest, set(whole.parts)]
    run = trainer(tmp_path, 1, frozen)
    run.fit(make(), data)
    run.save_checkpoint(tmp_path / "one.ckpt")
    resumed, moves = make(), Moves()
    run = trainer(tmp_path, 3, frozen, moves)
    run.fit(resumed, data, ckpt_path=tmp_path / "one.ckpt", weights_only=True)
    assert moves.moved == [rest, set(whole.parts)]
    for name, tensor in values(whole).items():
        torch.testing.assert_close(values(resumed)[name], tensor, rtol=0, atol=0)


def test_the_callback_freezes_for_good(data: MultiphaseDataModule, tmp_path: Path) -> None:
    model = small()
    before = values(model)
    trainer(tmp_path, 1, FreezeParts(["first", "trunk"])).fit(model, data)
    assert moved(before, values(model)) <= {"nonlocal_block", "merge", "reconstruct"}
    optimizer = model.trainer.optimizers[0]
    known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    assert not any(id(parameter) in known for parameter in model.network.trunk.parameters())
    with pytest.raises(OptionError, match="body"):
        trainer(tmp_path, 1, FreezeParts(["body"])).fit(small(), data)


@given(
    st.dictionaries(st.sampled_from(PARTS["PFNL3D"]), st.floats(0.01, 10), max_size=5),
    st.sets(st.sampled_from(PARTS["PFNL3D"])),
)
@settings(deadline=None, max_examples=30)
def test_groups_hold_each_trained_parameter_once(factors: dict[str, float], frozen: set[str]) -> None:
    model = small().unfreeze()
    if frozen:
        model.freeze(*frozen)
    beside = nn.Parameter(torch.zeros(1))
    groups = parameter_groups(model.network, factors, [beside])
    held = [parameter for group in groups for parameter in group["params"]]
    assert len({id(parameter) for parameter in held}) == len(held)
    expected = [p for p in (*model.network.parameters(), beside) if p.requires_grad]
    assert {id(parameter) for parameter in held} == {id(parameter) for parameter in expected}
    assert [group["name"] for group in groups if group["name"] != OTHERS] == [
        p for p in factors if p not in frozen
    ]


def rates(model: EnhancementModule) -> dict[str, float]:
    configured = model.configure_optimizers()
    optimizer = configured["optimizer"] if isinstance(configured, dict) else configured
    assert isinstance(optimizer, Optimizer)
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def test_each_part_has_its_own_rate() -> None:
    model = small(optimizer=partial(Adam, lr=0.01), lr_factors={"first": 0.1, "reconstruct": 2.0})
    assert rates(model) == pytest.approx({"first": 0.001, "reconstruct": 0.02, OTHERS: 0.01})
    assert rates(model) == pytest.approx({"first": 0.001, "reconstruct": 0.02, OTHERS: 0.01})  # not squared
    with pytest.raises(OptionError, match="head"):
        rates(small(lr_factors={"head": 0.1}))
    for factor in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(OptionError, match="first"):
            rates(small(lr_factors={"first": factor}))


def test_a_step_of_plain_descent_moves_each_part_by_its_factor(
    data: MultiphaseDataModule, tmp_path: Path
) -> None:
    steps = []
    for factors in (None, {"reconstruct": 0.25}):
        torch.manual_seed(1)
        model = small(optimizer=partial(SGD, lr=0.01), lr_factors=factors)
        for parameter in model.network.parameters():
            nn.init.normal_(parameter, std=0.1)
        before = values(model)
        trainer(tmp_path, 1, max_steps=1).fit(model, data)
        steps.append({name: tensor - before[name] for name, tensor in values(model).items()})
    for name, plain in steps[0].items():
        factor = 0.25 if name.startswith("reconstruct") else 1.0
        torch.testing.assert_close(steps[1][name], factor * plain, rtol=1e-3, atol=1e-7)


def test_a_schedule_keeps_the_factors_or_is_refused() -> None:
    factors = {"first": 0.1}
    warm = partial(WarmUpCosine, warm_up=3, steps=10)
    assert rates(small(lr_scheduler=warm, lr_factors=factors)) == pytest.approx({"first": 1e-5, OTHERS: 1e-4})
    with pytest.raises(ConflictError, match="OneCycleLR"):
        rates(small(lr_scheduler=partial(OneCycleLR, max_lr=0.1, total_steps=9), lr_factors=factors))
    small(lr_scheduler=partial(OneCycleLR, max_lr=0.1, total_steps=9)).configure_optimizers()


@given(st.integers(1, 20), st.integers(1, 40), st.floats(0.01, 1.0))
@settings(deadline=None, max_examples=30)
def test_warm_up_is_a_line_then_half_a_cosine_then_nothing(warm_up: int, fall: int, start: float) -> None:
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": rate} for rate in (1.0, 0.2)]
    optimizer = SGD(groups)
    schedule = WarmUpCosine(optimizer, warm_up, warm_up + fall, start)
    for step in range(warm_up + fall + 5):
        if step < warm_up:
            share = start + (1 - start) * step / warm_up
        else:
            share = (1 + math.cos(math.pi * min(1.0, (step - warm_up) / fall))) / 2
        found = [group["lr"] for group in optimizer.param_groups]
        assert found == pytest.approx([share, 0.2 * share], abs=1e-9)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(("warm_up", "steps", "start"), [(0, 5, 0.1), (5, 5, 0.1), (1, 5, 0.0), (1, 5, 2.0)])
def test_a_warm_up_that_cannot_be_is_refused(warm_up: int, steps: int, start: float) -> None:
    with pytest.raises(InputError):
        WarmUpCosine(SGD([nn.Parameter(torch.zeros(1))], lr=1.0), warm_up, steps, start)


DECAY = 0.8


class OwnAverage(Callback):
    """The exponential average of the weights after each step, by its formula."""

    def __init__(self) -> None:
        self.average: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        assert isinstance(pl_module, EnhancementModule)
        for name, tensor in values(pl_module).items():
            kept = self.average.get(name, tensor)
            self.average[name] = DECAY * kept + (1 - DECAY) * tensor


@pytest.mark.filterwarnings("ignore:.*exists and is not empty")
def test_lightnings_average_is_what_is_validated_saved_and_resumed(
    data: MultiphaseDataModule, tmp_path: Path
) -> None:
    """EMAWeightAveraging does all that fine-tuning needs: no average of our own."""
    torch.manual_seed(2)
    own, model = OwnAverage(), small()
    keep = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    run = trainer(tmp_path, 2, own, EMAWeightAveraging(decay=DECAY), keep)
    run.fit(model, data)
    saved = load_model(model.save_pretrained(tmp_path / "weights"))
    checkpoint = load_model(tmp_path / "epoch=1.ckpt")
    for name, tensor in own.average.items():
        torch.testing.assert_close(saved.network.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(checkpoint.network.state_dict()[name], tensor, rtol=1e-5, atol=1e-6)
    assert checkpoint.training_record == saved.training_record
    logged = float(run.callback_metrics["val_psnr"])
    again = trainer(tmp_path, 1)
    again.validate(saved, data, verbose=False)
    assert float(again.callback_metrics["val_psnr"]) == pytest.approx(logged, abs=1e-3)
    torch.manual_seed(2)
    resumed = small()
    run = trainer(tmp_path, 2, EMAWeightAveraging(decay=DECAY), keep)
    run.fit(resumed, data, ckpt_path=tmp_path / "epoch=0.ckpt", weights_only=True)
    for name, tensor in values(model).items():
        torch.testing.assert_close(values(resumed)[name], tensor, rtol=0, atol=0)


def test_the_base_class_loads_either_model_with_its_training_options(tmp_path: Path) -> None:
    made = [small(target="arterial"), single()]
    for model in made:
        model.training_record = TrainingRecord(steps=3)
        folder = model.save_pretrained(tmp_path / type(model).__name__)
        loaded = EnhancementModule.from_pretrained(
            str(folder), optimizer=partial(SGD, lr=0.5), lr_factors={"first": 0.1}
        )
        assert type(loaded) is type(model)
        assert loaded.config == model.config
        assert loaded.training
        assert loaded.training_record == TrainingRecord(steps=3)
        assert rates(loaded) == pytest.approx({"first": 0.05, OTHERS: 0.5})
