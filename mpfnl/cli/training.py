"""fit, validate, test and predict: LightningCLI over the models and the data module."""

from __future__ import annotations

import warnings
from importlib.resources import as_file, files
from pathlib import Path

from lightning.pytorch import Callback
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.data.manifest import read_manifest
from mpfnl.data.prediction_writer import PredictionWriter
from mpfnl.errors import OptionError
from mpfnl.models.enhancement import EnhancementModule

RECIPES = files("mpfnl") / "recipes"


class TrainingCLI(LightningCLI):
    """Gives the data module the model's phases, grid and window; requires a checkpoint for scores."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links the arguments that model and data module share."""
        for name in ("phases", "target", "scale", "window.level", "window.width"):
            parser.link_arguments(f"model.init_args.{name}", f"data.{name}")

    def before_instantiate_classes(self) -> None:
        """Refuses to score an untrained network, and to run code from a checkpoint.

        Raises:
            OptionError: If validate, test or predict has no checkpoint.
            InputError: If the manifest cannot be used.
        """
        if self.subcommand != "fit" and not self.config[self.subcommand].get("ckpt_path"):
            raise OptionError(f"mpfnl {self.subcommand} needs a trained model: give --ckpt_path CHECKPOINT")
        if self.config[self.subcommand].get("weights_only") is None:  # Lightning unpickles downloads
            self.config[self.subcommand].weights_only = True
        read_manifest(self.config[self.subcommand].data.manifest)  # before a log folder is made

    def before_predict(self) -> None:
        """Adds the callback that writes the predictions."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]  # untyped in Lightning
        callbacks.append(PredictionWriter())

    def _parse_ckpt_path(self) -> None:
        """Leaves the model to the configuration: a checkpoint's hyperparameters are not merged into it."""


def run_trainer(words: list[str]) -> None:
    """Runs a Trainer command.

    Args:
        words: Command and options, as LightningCLI takes them. `--config` takes a file, or the bare name of a
            recipe that ships with the package, such as `pfnl3d.yaml`.
    """
    # The words are passed on because a recipe's name may have become a path.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    TrainingCLI(
        EnhancementModule,
        MultiphaseDataModule,
        subclass_mode_model=True,
        save_config_kwargs={"overwrite": True},
        args=with_recipes(words),
    )


def with_recipes(words: list[str]) -> list[str]:
    """Replaces the names of shipped recipes by their paths; a file in the working folder comes first."""
    return [_with_recipe(before, word) for before, word in zip(["", *words], words, strict=False)]


def _with_recipe(before: str, word: str) -> str:
    if word.startswith("--config="):
        return f"--config={_recipe(word.removeprefix('--config='))}"
    return _recipe(word) if before in ("--config", "-c") else word


def _recipe(name: str) -> str:
    if Path(name).name != name or Path(name).exists() or not (RECIPES / name).is_file():
        return name
    with as_file(RECIPES / name) as recipe:
        return str(recipe)
