"""Adapt trained weights to another degradation, and measure the gain on held-out phantoms.

python examples/fine_tune.py --degradation motion                         # the shipped weights, minutes
python examples/fine_tune.py --weights weights/ --steps 50 --patients 3   # your own weights, a quick test
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from time import perf_counter
from typing import TypeAlias

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import EMAWeightAveraging

import mpfnl
from mpfnl.data.manifest import SplitCounts
from mpfnl.metrics import psnr
from mpfnl.models import EnhancementModule
from mpfnl.models.provenance import Score
from mpfnl.models.rates import WarmUpCosine
from mpfnl.phantoms import write_cohort
from mpfnl.phantoms.config import SMALL

Scores: TypeAlias = Mapping[str, float]

TRAINING_SEED, HELD_OUT_SEED = 7001, 7002  # seeds of the phantoms: none is in both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--weights", default="pfnl3d-phantoms", help="folder, shipped weights or Hub id")
    parser.add_argument("--degradation", default="motion", help="preset of docs/degradation.md")
    parser.add_argument("--patients", type=int, default=8, help="number of phantoms for training")
    parser.add_argument("--held-out", type=int, default=6, help="number of held-out phantoms")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--patch-size", type=int, default=32)
    parser.add_argument("--output", type=Path, default=Path("fine_tuned"))
    options = parser.parse_args()

    seed_everything(0, workers=True)
    started = perf_counter()
    model = EnhancementModule.from_pretrained(
        options.weights,
        optimizer=partial(torch.optim.Adam, lr=1e-3),
        lr_scheduler=partial(WarmUpCosine, warm_up=max(1, options.steps // 10), steps=options.steps),
        lr_interval="step",
        lr_factors={"first": 0.3},  # the convolution of the scan itself needs the least change
    )
    training, held_out = phantoms(options, model)
    untouched, before = scores(None, held_out), scores(model, held_out)
    trainer = Trainer(
        max_steps=options.steps,
        accelerator="cpu",
        callbacks=[EMAWeightAveraging(decay=0.95)],
        default_root_dir=options.output,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(model, training)
    after = scores(model, held_out)
    tell(untouched, before, after)
    print(f"{perf_counter() - started:.0f} s in all, {options.steps} steps")
    print("weights:", save(model, after, options))


def phantoms(
    options: argparse.Namespace, model: EnhancementModule
) -> tuple[mpfnl.MultiphaseDataModule, mpfnl.MultiphaseDataModule]:
    """Phantoms for training, and others for evaluation."""
    made = partial(write_cohort, config=SMALL, progress=True)
    patients, measured = options.patients, options.held_out
    split = SplitCounts(train=patients, val=1, test=0)
    training = made(options.output / "phantoms", patients + 1, TRAINING_SEED, splits=split)
    split = SplitCounts(train=0, val=measured, test=0)
    held_out = made(options.output / "held_out", measured, HELD_OUT_SEED, splits=split)
    data = partial(
        mpfnl.MultiphaseDataModule,
        phases=model.phases,
        target=model.target,
        degradation=options.degradation,
        batch_size=2,
        patch_size=options.patch_size,
        workers=0,
    )
    return data(training), data(held_out, val_patches_per_study=6)


@torch.inference_mode()
def scores(model: EnhancementModule | None, data: mpfnl.MultiphaseDataModule) -> dict[str, float]:
    """Mean PSNR in dB of each held-out phantom's patches, enhanced, or degraded without a model."""
    if model is not None:
        model.eval()
    place = data.phases.index(data.target)
    found: dict[str, list[float]] = {}
    for batch in data.val_dataloader():
        phases = batch["phases"]
        enhanced = phases[:, [place]] if model is None else model(phases).clamp(0, 1)
        for study, restored, target in zip(batch["study_id"], enhanced, batch["target"], strict=True):
            found.setdefault(study, []).append(float(psnr(restored[None], target[None])))
    if model is not None:
        model.train()
    return {study: fmean(values) for study, values in found.items()}


def tell(untouched: Scores, before: Scores, after: Scores) -> None:
    """The paired table."""
    print("PSNR (dB) on held-out phantoms")
    print("                    degraded  before   after  difference of the last two")
    for study in before:
        print(f"{study:18} {_row(untouched[study], before[study], after[study])}")
    means = [fmean(column.values()) for column in (untouched, before, after)]
    print(f"{'mean':18} {_row(*means)}")


def _row(untouched: float, before: float, after: float) -> str:
    return f"{untouched:9.2f} {before:7.2f} {after:7.2f}  {after - before:+.2f}"


def save(model: EnhancementModule, after: Scores, options: argparse.Namespace) -> Path:
    """The weights folder with its model card, which holds the scores and their data."""
    on = f"held-out phantoms (6 patches each), degraded by {options.degradation}"
    assert model.training_record is not None  # set by the training
    model.training_record = replace(
        model.training_record,
        data="phantoms of mpfnl: simulated anatomy, no patients",
        metrics={"PSNR (dB)": Score(fmean(after.values()), len(after), on)},
    )
    return model.save_pretrained(options.output / "weights")


if __name__ == "__main__":
    main()
