"""Weights of a model: saved, shared, loaded, and kept with the record of their training."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, Unpack

from lightning.pytorch import LightningModule
from torch import nn

from mpfnl.models.provenance import Recorder, TrainingRecord
from mpfnl.models.rates import TrainingOptions
from mpfnl.models.sources import find_weights, say_phantoms, upload, weights_name
from mpfnl.models.weights import ModelConfig, read_weights, save_weights
from mpfnl.samples import ReferenceNoise
from mpfnl.window import Window

CHECKPOINT_KEY = "mpfnl"  # entry of a Lightning checkpoint with the model's configuration


@dataclass(frozen=True)
class WeightsSource:
    """Origin of a model's weights.

    Args:
        name: Name of shipped weights, `owner/name` on the Hub, or path.
        sha256: SHA-256 of the file of the weights.
    """

    name: str
    sha256: str


class PretrainedModule(LightningModule):
    """A network whose weights are saved, shared and loaded, and whose training is recorded.

    Attributes:
        network: The network.
        loss: Training loss of (prediction, target).
        window: HU window of the network's input.
        phase_dropout: Probability with which a training step leaves out each phase but the target.
        training_record: Record of the weights' training; None for new weights. Training fills it in.
        source: Origin of the weights; None for new ones, and after a training.
    """

    network: nn.Module
    loss: nn.Module
    window: Window
    phase_dropout: float = 0.0
    training_record: TrainingRecord | None = None
    source: WeightsSource | None = None
    _recorder: Recorder | None = None

    @property
    @abstractmethod
    def name(self) -> str:
        """The name of the network: the registered one, or that of its class."""

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Phases, target and options of the network, as JSON values."""

    @property
    @abstractmethod
    def registered(self) -> bool:
        """Whether the network can be built by its name."""

    @classmethod
    @abstractmethod
    def from_config(
        cls, config: ModelConfig, path: Path, network: nn.Module | None, training: Mapping[str, Any]
    ) -> Self:
        """A new model from a configuration."""

    @abstractmethod
    def drop_phases(self, probability: float) -> None:
        """Sets the probability of phase dropout."""

    @property
    def description(self) -> dict[str, Any]:
        """The network as JSON values: its name (`model`) and `arguments`."""
        return {"model": self.name, "arguments": self.config}

    @property
    def patch_size(self) -> int | None:
        """Edge of the training patches in voxels, where it is known."""
        return None if self.training_record is None else self.training_record.patch_size

    @property
    def trained_without_phases(self) -> bool:
        """Whether phases were left out in the training."""
        return self.training_record is not None and bool(self.training_record.phase_dropout)

    @property
    def reference_noise(self) -> ReferenceNoise | None:
        """Noise of the training's references, where the strength of an enhancement depends on it."""
        return None if self.training_record is None else self.training_record.reference_noise

    def setup(self, stage: str) -> None:
        """Begins to record a training."""
        if stage == "fit":
            self._recorder = Recorder(self.training_record)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the configuration, with the record of the training, to the checkpoint."""
        checkpoint[CHECKPOINT_KEY] = self._model_config().to_json()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continues the training record of the checkpoint."""
        record = ModelConfig.from_json(checkpoint[CHECKPOINT_KEY]).training
        if record is None:
            return
        self.training_record = record
        if self._recorder is not None:
            self._recorder.resume(record)

    def on_train_start(self) -> None:
        """Begins to count the steps."""
        if self._recorder is not None:
            self._recorder.start(self.trainer.global_step)

    def on_train_end(self) -> None:
        """Completes the record of the training."""
        self.training_record, self.source = self._recorded(), None
        self._recorder = None

    def _recorded(self) -> TrainingRecord | None:
        if self._recorder is None:
            return self.training_record
        return self._recorder.record(self.trainer, self)

    def _model_config(self) -> ModelConfig:
        return ModelConfig(self.name, self.config, self.window, self.registered, self._recorded())

    def save_pretrained(self, folder: str | Path) -> Path:
        """Writes a weights folder, whole or not at all: `config.json`, `model.safetensors`, `README.md`.

        The README is a model card, made from the configuration and `training_record`. An existing weights
        folder is replaced; other files in it are left alone.

        Args:
            folder: Weights folder.

        Returns:
            The folder.

        Raises:
            OutputError: If it cannot be written.
        """
        return save_weights(Path(folder), self._model_config(), self.network)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        revision: str | None = None,
        private: bool | None = None,
        token: str | None = None,
        message: str = "Weights from mpfnl",
    ) -> str:
        """Uploads the weights folder that `save_pretrained` writes to the Hugging Face Hub, in one commit.

        Args:
            repo_id: Repository, `owner/name`; made if it does not exist.
            revision: Branch; None: the main one.
            private: Whether a new repository is private; None: the owner's default.
            token: Access token of the Hub; None: that of the login.
            message: Commit message.

        Returns:
            The commit's address; empty in all but the first of several processes.

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
        network: nn.Module | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        phase_dropout: float | None = None,
        **training: Unpack[TrainingOptions],
    ) -> Self:
        """Loads a model, for inference or for fine-tuning.

        Args:
            weights: Folder that `save_pretrained` wrote, name of `shipped_weights()`, or `owner/name` on the
                Hugging Face Hub. A folder of that name comes first.
            network: Network that receives the weights; needed only where it is not registered.
            revision: Branch, tag or commit on the Hub.
            local_files_only: Whether only the Hub's cache on this machine is searched, as with
                HF_HUB_OFFLINE=1.
            phase_dropout: Probability with which each phase but the target is left out of a training step;
                None: that of the weights' training.
            **training: Options of the training, as for the constructor.

        Raises:
            NotFoundError: If there are no such weights, or the network is not registered.
            FormatError: If the folder is no weights folder, or holds a pickle.
            DamagedError: If the weights cannot be read.
            ConflictError: If the weights are another model's.
            OptionError: If the model cannot do without a phase and phase dropout is asked for.
        """
        folder = find_weights(weights, revision=revision, local_files_only=local_files_only)
        stored = read_weights(folder)
        model = cls.from_config(stored.config, folder, network, training)
        stored.put_into(model.network)
        # Weights without a record are not new ones: a fine-tuning of them records that.
        record = model.training_record = stored.config.training or TrainingRecord()
        model.drop_phases(record.phase_dropout or 0.0 if phase_dropout is None else phase_dropout)
        model.source = WeightsSource(weights_name(folder), stored.sha256)
        if record.origin:
            say_phantoms(folder, record.origin)
        return model
