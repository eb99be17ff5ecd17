"""fit, validate, test and predict: LightningCLI over the models and the data module."""

from __future__ import annotations

import warnings
from importlib.resources import as_file, files
from pathlib import Path

from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from mpfnl.data.datamodule import MultiphaseDataModule
from mpfnl.models.enhancement import EnhancementModule

RECIPES = files("mpfnl") / "recipes"


class TrainingCLI(LightningCLI):
    """Keeps the data module's phases those of the model."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Links what model and data must agree on."""
        parser.link_arguments("model.init_args.phases", "data.phases")
        parser.link_arguments("model.init_args.target", "data.target")

    def _parse_ckpt_path(self) -> None:
        """Leaves the model to the configuration: a checkpoint's hyperparameters are not merged into it."""


def run_trainer(words: list[str]) -> None:
    """Runs a Trainer command.

    Args:
        words: The command and its options, as LightningCLI takes them. `--config` takes a file, or the name
            of a recipe that ships with the package, such as `pfnl3d.yaml`.
    """
    # The words are given because a recipe's name may have become a path.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter")
    TrainingCLI(
        EnhancementModule,
        MultiphaseDataModule,
        subclass_mode_model=True,
        save_config_kwargs={"overwrite": True},
        args=[_recipe_or_file(word, before) for before, word in zip(["", *words], words, strict=False)],
    )


def _recipe_or_file(word: str, before: str) -> str:
    if before in ("--config", "-c") and not Path(word).exists() and (RECIPES / Path(word).name).is_file():
        with as_file(RECIPES / Path(word).name) as recipe:
            return str(recipe)
    return word
