"""Weights folders: the same model in another process, whole or not at all, and nothing else is loaded."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import mpfnl
from mpfnl.errors import (
    ConflictError,
    DamagedError,
    FormatError,
    InputError,
    InputWarning,
    NotFoundError,
    OutputError,
)
from mpfnl.models import EnhancementModule, TrainingRecord, shipped_weights, sources
from mpfnl.models.loading import load_model
from mpfnl.models.provenance import Score
from mpfnl.models.weights import ModelConfig

FILES = ["README.md", "config.json", "model.safetensors"]
RECORD = TrainingRecord(
    data="noise | of\nnobody",
    patch_size=24,
    metrics={"PSNR (dB)": Score(31.5, 3, "three scans")},
    started_from=TrainingRecord(steps=7, phase_dropout=0.5),
)


def randomised(seed: int = 0, **options: object) -> mpfnl.PFNL3D:
    torch.manual_seed(seed)
    model = mpfnl.PFNL3D(features=8, blocks=1, **options)  # type: ignore[arg-type]
    for parameter in model.network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    model.training_record = RECORD
    return model


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    "model",
    [
        lambda: randomised(nonlocal_mode="embedded_gaussian", phases=["portal_venous", "arterial"], scale=2),
        lambda: mpfnl.RCAN3D(channels=8, groups=1, blocks=2, target="arterial"),
    ],
    ids=["PFNL3D", "RCAN3D"],
)
def test_a_new_process_computes_the_same(model: Callable[[], EnhancementModule], tmp_path: Path) -> None:
    made = model()
    folder = made.save_pretrained(tmp_path / "deep" / "weights")
    assert names(folder) == FILES
    assert names(folder.parent) == ["weights"]
    x = torch.rand(1, len(made.phases), 8, 8, 8)
    torch.save(x, tmp_path / "x.pt")
    script = f"""
import torch, mpfnl
from mpfnl.models.loading import load_model
x = torch.load("x.pt", weights_only=True)
for model in (mpfnl.{type(made).__name__}.from_pretrained("deep/weights"), load_model("deep/weights")):
    with torch.inference_mode():
        torch.save(model(x), "y.pt")
    print(model.training_record.to_json() == {RECORD.to_json()!r}, len(model.network.state_dict()))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    known = str(made.training_record is not None)
    assert result.stdout.split() == [known, str(len(made.network.state_dict()))] * 2
    with torch.inference_mode():
        assert torch.equal(torch.load(tmp_path / "y.pt", weights_only=True), made(x))


def test_weights_of_a_16_bit_training_are_kept_in_32(tmp_path: Path) -> None:
    model = randomised()
    model.network.to(torch.bfloat16)
    loaded = load_model(model.save_pretrained(tmp_path / "weights"))
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor.float())


def changed(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file)


def cut(folder: Path, size: int) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])


def config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def first(tensors: dict[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
    return {name: change(t).contiguous() if name == "first.weight" else t for name, t in tensors.items()}


SPOILT: dict[str, tuple[Callable[[Path], object], type[InputError], str]] = {
    "pickle beside": (
        lambda f: (f / "pytorch_model.bin").write_bytes(pickle.dumps({})),
        FormatError,
        "pytorch_model.bin",
    ),
    "checkpoint beside": (lambda f: (f / "best.ckpt").write_bytes(b""), FormatError, r"best\.ckpt"),
    "pickle instead": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        FormatError,
        "pytorch_model.bin",
    ),
    "pickle in disguise": (lambda f: torch.save({}, f / "model.safetensors"), DamagedError, "safetensors"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), NotFoundError, "model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), NotFoundError, "config.json"),
    "truncated": (lambda f: cut(f, 5000), DamagedError, "safetensors"),
    "empty": (lambda f: cut(f, 0), DamagedError, "safetensors"),
    "header cut": (lambda f: cut(f, 100), DamagedError, "safetensors"),
    "shape": (
        lambda f: changed(f, lambda t: first(t, lambda w: w[:4])),
        ConflictError,
        r"first\.weight.*\(4, .*\(8, ",
    ),
    "number type": (
        lambda f: changed(f, lambda t: first(t, Tensor.half)),
        ConflictError,
        r"first\.weight, float16",
    ),
    "missing": (
        lambda f: changed(f, lambda t: t | {"first.weight": t.pop("first.weight")[:0]}),
        ConflictError,
        "first",
    ),
    "gone": (
        lambda f: changed(f, lambda t: {n: v for n, v in t.items() if n != "merge.bias"}),
        ConflictError,
        r"merge\.bias",
    ),
    "unexpected": (lambda f: changed(f, lambda t: t | {"extra": torch.ones(2)}), ConflictError, "extra"),
    "other values": (
        lambda f: changed(f, lambda t: first(t, torch.zeros_like)),
        ConflictError,
        "config.json",
    ),
    "not JSON": (lambda f: (f / "config.json").write_bytes(b"\xff{"), FormatError, "config.json"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), FormatError, "config.json"),
    "record": (lambda f: config(f, training={"patch_size": "large"}), FormatError, "config.json.*large"),
    "format": (lambda f: config(f, format=99), FormatError, "99"),
    "arguments": (lambda f: config(f, arguments={"features": "\n8"}), FormatError, "PFNL3D"),
    "other model": (lambda f: config(f, model="UNet"), NotFoundError, "UNet"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_no_whole_weights_folder_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    folder = randomised().save_pretrained(tmp_path / "weights")
    spoil, kind, named = SPOILT[name]
    spoil(folder)
    for load in (load_model, mpfnl.PFNL3D.from_pretrained):
        with pytest.raises((kind, ConflictError) if name == "other model" else kind, match=named) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)


def test_no_pickle_is_opened(tmp_path: Path) -> None:
    """One that would leave a mark if it were."""

    class Mark:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "opened"),)

    folder = randomised().save_pretrained(tmp_path / "weights")
    torch.save(Mark(), folder / "model.safetensors")
    torch.save(Mark(), tmp_path / "model.ckpt")
    for path in (folder, tmp_path / "model.ckpt"):
        with pytest.raises(InputError):
            load_model(path)
    assert not (tmp_path / "opened").exists()
    torch.load(tmp_path / "model.ckpt", weights_only=False)
    assert (tmp_path / "opened").exists()


def first_format(model: EnhancementModule, folder: Path) -> Path:
    written = json.loads((model.save_pretrained(folder) / "config.json").read_text())
    old = {name: written[name] for name in ("model", "arguments", "window_hu")} | {"format": 1}
    (folder / "config.json").write_text(json.dumps(old))
    return folder


def test_folders_of_the_first_format_still_load(tmp_path: Path) -> None:
    model = mpfnl.RCAN3D(channels=8, groups=1, blocks=1)
    loaded = load_model(first_format(model, tmp_path / "weights"))
    x = torch.rand(1, 1, 8, 8, 8)
    assert torch.equal(loaded(x), model(x))
    assert (loaded.patch_size, loaded.trained_without_phases) == (None, False)


def test_a_pfnl3d_of_the_first_format_is_refused(tmp_path: Path) -> None:
    """Its network took intensities in another range."""
    folder = first_format(randomised(), tmp_path / "weights")
    with pytest.raises(FormatError, match=str(folder)):
        mpfnl.PFNL3D.from_pretrained(folder)


def test_an_older_folder_is_replaced_and_other_files_are_left(tmp_path: Path) -> None:
    folder = randomised(1).save_pretrained(tmp_path / "weights")
    (folder / "notes.txt").write_text("mine")
    (folder / "figures").mkdir()
    model = randomised(2)
    model.save_pretrained(folder)
    assert names(folder) == sorted([*FILES, "notes.txt", "figures"])
    assert (folder / "notes.txt").read_text() == "mine"
    assert torch.equal(mpfnl.PFNL3D.from_pretrained(folder).network.first.weight, model.network.first.weight)


def test_saving_beside_a_pickle_warns_that_it_will_not_load(tmp_path: Path) -> None:
    (tmp_path / "last.ckpt").write_bytes(b"mine")
    with pytest.warns(InputWarning, match=r"last\.ckpt"):
        randomised().save_pretrained(tmp_path)
    assert (tmp_path / "last.ckpt").read_bytes() == b"mine"


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("at", range(3))
@pytest.mark.parametrize("when", ["writing", "moving"])
def test_a_failure_leaves_everything_as_it_was(
    exists: bool, at: int, when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    before = randomised(1)
    if exists:
        before.save_pretrained(folder)
    calls = {"writing": "write_bytes", "moving": "replace" if exists else "rename"}
    real: Callable[..., object] = getattr(Path, calls[when])
    taken: list[Path] = []

    def fails(self: Path, *arguments: object) -> object:
        taken.append(self)
        if len(taken) == min(at, 2 if exists or when == "writing" else 0) + 1:
            raise OSError(28, "No space left on device")
        return real(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Path, calls[when], fails)
        with pytest.raises(OutputError, match=str(folder)):
            randomised(2).save_pretrained(folder)
    assert taken
    if not exists:
        assert names(tmp_path) == []
        return
    assert names(folder) == FILES
    assert torch.equal(mpfnl.PFNL3D.from_pretrained(folder).network.first.weight, before.network.first.weight)


def weight_sum(model: mpfnl.PFNL3D) -> float:
    return float(model.network.first.weight.detach().sum())


def test_a_reader_never_sees_halves(tmp_path: Path) -> None:
    """One thread replaces the folder again and again by two models in turn, another reads it."""
    models = [randomised(seed) for seed in (1, 2)]
    folder = models[0].save_pretrained(tmp_path / "weights")
    sums = {weight_sum(model) for model in models}
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for model in models:
                model.save_pretrained(folder)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        seen = {weight_sum(mpfnl.PFNL3D.from_pretrained(folder)) for _ in range(20)}
    finally:
        stop.set()
        writer.join()
    assert seen == sums


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "weights"):
        with pytest.raises(OutputError, match=str(folder)):
            randomised().save_pretrained(folder)


def test_a_checkpoint_of_a_16_bit_training_loads(tmp_path: Path) -> None:
    model = randomised()
    state = {name: tensor.bfloat16() for name, tensor in model.state_dict().items()}
    described = ModelConfig("PFNL3D", model.config, model.window)
    checkpoint = {"mpfnl": described.to_json(), "state_dict": state}
    torch.save(checkpoint, tmp_path / "half.ckpt")
    loaded = load_model(tmp_path / "half.ckpt")
    assert torch.equal(loaded.network.first.weight, model.network.first.weight.bfloat16().float())  # type: ignore[union-attr]


def test_shipped_weights_are_found_by_name_and_say_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shipped = tmp_path / "shipped"
    monkeypatch.setattr(sources, "_SHIPPED", shipped)
    sources.say_phantoms.cache_clear()
    assert shipped_weights() == ()
    model = randomised()
    model.training_record = replace(RECORD, phantoms=True)
    model.save_pretrained(shipped / "pfnl3d-phantoms")
    assert shipped_weights() == ("pfnl3d-phantoms",)
    with caplog.at_level("INFO"):
        for _ in range(2):
            load_model("pfnl3d-phantoms")
    assert caplog.text.count("trained on phantoms, not on patients") == 1
    monkeypatch.chdir(tmp_path)
    other = randomised(5)
    other.save_pretrained("pfnl3d-phantoms")  # a folder of the user's comes first
    loaded = load_model("pfnl3d-phantoms")
    assert torch.equal(loaded.network.first.weight, other.network.first.weight)  # type: ignore[union-attr]
    with pytest.raises(NotFoundError, match=r"rcan3d-phantom.*pfnl3d-phantoms"):
        load_model("rcan3d-phantom")


@pytest.mark.parametrize("name", shipped_weights())
def test_what_ships_loads_and_names_its_phantoms(name: str) -> None:
    record = load_model(name).training_record
    assert record is not None
    assert record.saw_phantoms
    assert record.metrics
