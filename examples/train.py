"""Train PFNL3D with a Lightning Trainer, and enhance a scan with it.

python examples/train.py cohort.csv --epochs 100
python examples/train.py --phantoms 6 --epochs 2 --patch-size 16   # without data
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim.lr_scheduler import CosineAnnealingLR

import mpfnl
from mpfnl.models.montage import MontageCallback
from mpfnl.phantoms import write_cohort
from mpfnl.phantoms.config import SMALL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("manifest", type=Path, nargs="?", help="CSV of the cohort")
    parser.add_argument("--phantoms", type=int, default=0, help="number of phantoms to simulate instead")
    parser.add_argument("--output", type=Path, default=Path("trained"))
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--patch-size", type=int, default=32)
    parser.add_argument("--features", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=20)
    options = parser.parse_args()
    if options.manifest is None and not options.phantoms:
        parser.error("give a manifest, or --phantoms N")
    manifest = options.manifest or write_cohort(
        options.output / "phantoms", options.phantoms, config=SMALL, progress=True
    )

    seed_everything(0, workers=True)
    model = mpfnl.PFNL3D(
        features=options.features,
        blocks=options.blocks,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3),
        lr_scheduler=lambda optimizer: CosineAnnealingLR(optimizer, options.epochs),
    )
    data = mpfnl.MultiphaseDataModule(manifest, patch_size=options.patch_size)
    best = ModelCheckpoint(monitor="val_psnr", mode="max")
    trainer = Trainer(
        max_epochs=options.epochs,
        precision="bf16-mixed",
        default_root_dir=options.output,
        callbacks=[best, MontageCallback(every_n_epochs=10)],
    )
    trainer.fit(model, data)
    trainer.test(model, data)
    print("weights:", model.save_pretrained(options.output / "weights"))


if __name__ == "__main__":
    main()
