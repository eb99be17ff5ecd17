"""What a model knows of its weights: what they were trained on, their parts, and how they are stored."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

from lightning.pytorch import LightningModule
from torch import nn
from torch.optim import Adam

from mpfnl.errors import InputError
from mpfnl.models.hub import upload
from mpfnl.models.parts import part_names, set_trained
from mpfnl.models.pretrained import build, read_weights, save_weights
from mpfnl.models.rates import Interval, OptimizerFactory, SchedulerFactory
from mpfnl.models.record import TrainingRecord
from mpfnl.models.recording import Recorder
from mpfnl.models.sources import find_weights, say_phantoms
from mpfnl.phases import Phase

MODEL_KEY = "mpfnl_model"  # where a checkpoint says which model it is of
RECORD_KEY = "mpfnl_training"  # and what it was trained on


class TrainedModule(LightningModule):
    """A network with its weights: frozen in parts, recorded in training, written to folders and read again.

    Attributes:
        network: The network.
        loss: What it is trained with.
        phase_dropout: Probability with which a training step leaves out each phase but the target.
        training_record: What the weights were trained on; None for new ones. Training fills it in, and it may
            be set by hand after that.
    """

    network: nn.Module
    loss: nn.Module
    phase_dropout: float = 0.0
    training_record: TrainingRecord | None = None
    _recorder: Recorder | None = None

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor arguments that define the network, as JSON values."""

    @property
    def description(self) -> dict[str, Any]:
        """What the model is, as JSON values: its class (`model`) and `arguments`."""
        return {"model": type(self).__name__, "arguments": self.config}

    @property
    def patch_size(self) -> int | None:
        """Edge of its training patches in voxels, where it is known."""
        return None if self.training_record is None else self.training_record.patch_size

    @property
    def trained_without_phases(self) -> bool:
        """Whether phases were left out in its training, so that it makes use of what there is."""
        return self.training_record is not None and bool(self.training_record.phase_dropout)

    @property
    def optional_phases(self) -> tuple[Phase, ...]:
        """The phases that the model can do without."""
        return ()

    def drop_phases(self, probability: float) -> None:
        """Leaves phases out of training steps from now on.

        Args:
            probability: With which each phase but the target is left out; 0: none is.

        Raises:
            InputError: If it is no probability below 1, or the model cannot do without a phase.
        """
        if not 0 <= probability < 1:
            raise InputError(f"phase_dropout is {probability}; it must lie in [0, 1)")
        if probability and not self.optional_phases:
            raise InputError(f"this {type(self).__name__} cannot do without a phase; leave phase_dropout out")
        self.phase_dropout = probability

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the network's parts, for `freeze` and `lr_factors`."""
        return tuple(part_names(self.network))

    def freeze(self, *parts: str) -> Self:
        """Keeps parts of the network as they are in training; without a name all of it, as Lightning does.

        Call it before `fit`.

        Raises:
            InputError: If the network has no such part.
        """
        if not parts:
            super().freeze()
        set_trained(self.network, parts, trained=False)
        return self

    def unfreeze(self, *parts: str) -> Self:
        """Lets parts be trained again; without a name all of them, as Lightning does.

        Raises:
            InputError: If the network has no such part.
        """
        if not parts:
            super().unfreeze()
        set_trained(self.network, parts, trained=True)
        return self

    def setup(self, stage: str) -> None:
        """Begins to record a training."""
        if stage == "fit":
            self._recorder = Recorder(self.training_record)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes which model the checkpoint is of, and what it was trained on."""
        checkpoint[MODEL_KEY] = type(self).__name__
        record = self._recorded()
        checkpoint[RECORD_KEY] = None if record is None else record.to_json()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes up what the checkpoint was trained on."""
        if checkpoint.get(RECORD_KEY) is None:  # written by an older mpfnl
            return
        self.training_record = TrainingRecord.from_json(checkpoint[RECORD_KEY])
        if self._recorder is not None:
            self._recorder.resume(self.training_record)

    def on_train_start(self) -> None:
        """Begins to count the steps."""
        if self._recorder is not None:
            self._recorder.start(self.trainer.global_step)

    def on_train_end(self) -> None:
        """Notes what the weights were trained on."""
        self.training_record = self._recorded()
        self._recorder = None

    def _recorded(self) -> TrainingRecord | None:
        if self._recorder is None:
            return self.training_record
        return self._recorder.record(self.trainer, self.network, self.loss, self.phase_dropout)

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes a weights folder, whole or not at all: `config.json`, `model.safetensors`, `README.md`.

        The README is a model card, made from the configuration and `training_record`. A weights folder that
        is there is replaced; other files in it are left alone.

        Returns:
            The folder.

        Raises:
            InputError: If it cannot be written.
        """
        name, record = type(self).__name__, self._recorded()
        return save_weights(Path(folder), name, self.config, self.network, record)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Weights from mpfnl",
    ) -> str:
        """Sends the weights folder that `save_pretrained` would write to the Hugging Face Hub, in one commit.

        Args:
            repo_id: `owner/name`; made if it does not exist.
            revision: The branch; None: the main one.
            private: Whether a new repository is private; None: the owner's default.
            token: Of the Hub; None: that of the login.
            message: Of the commit.

        Returns:
            The commit's address; empty on all but the first of several processes.

        Raises:
            InputError: If the Hub refuses or cannot be reached.
            MissingExtraError: If `huggingface_hub` is not installed.
        """
        if self.global_rank:
            return ""
        with TemporaryDirectory() as folder:
            saved = self.save_pretrained(Path(folder) / "weights")
            return upload(saved, repo_id, revision=revision, private=private, token=token, message=message)

    @classmethod
    def from_pretrained(
        cls,
        weights: str | Path,
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory = Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_interval: Interval = "epoch",
        lr_factors: Mapping[str, float] | None = None,
        phase_dropout: float | None = None,
        channels_last: bool = True,
        activation_checkpointing: bool = False,
    ) -> Self:
        """Loads a model, to enhance with or to train on.

        Args:
            weights: A folder that `save_pretrained` wrote; a name of `shipped_weights()`; or `owner/name` on
                the Hugging Face Hub. A folder of that name comes first.
            revision: A branch, tag or commit on the Hub.
            local_files_only: Take from the Hub only what was fetched before; so with HF_HUB_OFFLINE=1.
            loss: As for the constructor, and so the others.
            optimizer: Makes the optimiser from the parameters.
            lr_scheduler: Makes a schedule from the optimiser.
            lr_interval: When the schedule moves on.
            lr_factors: Part of the network to what its learning rate is multiplied by.
            phase_dropout: Probability with which each phase but the target is left out of a training step;
                None: as the weights were trained.
            channels_last: Keep the weights in the layout that is fast in mixed precision.
            activation_checkpointing: Train in less memory and more time.

        Raises:
            InputError: If there are no such weights, they are damaged, of another model or a pickle, or
                cannot be had without a network; or the model cannot do without phases and was to learn it.
        """
        folder = find_weights(weights, revision=revision, local_files_only=local_files_only)
        stored = read_weights(folder, expected=cls.__name__)
        training = {
            "loss": loss,
            "optimizer": optimizer,
            "lr_scheduler": lr_scheduler,
            "lr_interval": lr_interval,
            "lr_factors": lr_factors,
            "channels_last": channels_last,
            "activation_checkpointing": activation_checkpointing,
        }
        model = build(cls, stored.config, training, folder)
        stored.put_into(model.network)
        # Weights that nobody described are no new ones: a fine-tuning of them says so.
        record = model.training_record = stored.config.training or TrainingRecord()
        model.drop_phases(record.phase_dropout or 0.0 if phase_dropout is None else phase_dropout)
        if record.saw_phantoms:
            say_phantoms(folder)
        return model
