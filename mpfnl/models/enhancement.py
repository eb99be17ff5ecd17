"""The LightningModule of every model: steps, metrics, optimiser, phase dropout, whole volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from lightning.pytorch.utilities.types import LRSchedulerConfigType, OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Adam

from mpfnl.errors import ConflictError, FormatError, NotFoundError, OptionError
from mpfnl.inference.sweep import tiled_forward
from mpfnl.inference.tiling import Tiling, network_tiling
from mpfnl.losses import L1SobelLoss
from mpfnl.metrics.aggregation import MeanLoss, PeakSignalNoiseRatio3D, StructuralSimilarity3D
from mpfnl.models.dropout import drawn_phases, uncover
from mpfnl.models.freezing import part_names, set_trained
from mpfnl.models.pretrained import PretrainedModule
from mpfnl.models.rates import Interval, OptimizerFactory, SchedulerFactory, check_schedule, make_optimizer
from mpfnl.models.weights import ModelConfig, one_line
from mpfnl.networks import build_network
from mpfnl.networks.capabilities import network_capabilities
from mpfnl.networks.coverage import run_covered
from mpfnl.networks.registry import network_options
from mpfnl.phases import Phase, PhaseName, resolve_phases
from mpfnl.samples import PhaseSource, StudyBatch
from mpfnl.shapes import PhaseBatch, Scalar, TargetBatch
from mpfnl.window import ABDOMEN, Window

if TYPE_CHECKING:
    from mpfnl.volumes import Volume

STACKING = ("phases", "target")
"""Arguments of a configuration that are not options of the network."""


class EnhancementModule(PretrainedModule):
    """A network trained to restore one phase of a study from its degraded phases.

    Whole volumes are enhanced in tiles that suit the network and its training patches (see `network_tiling`),
    or in those of the attribute `tiling` if it is set.

    Args:
        network: Name of a registered network (`mpfnl.networks.register_network`), or a network that maps
            `(batch, P, x, y, z)` in [0, 1] to `(batch, 1, x, y, z)`.
        phases: Input phases, or their number (1: the target; 3: the paper's).
        target: Phase that the model restores.
        options: Options of a network that is given by its name.
        window: HU window that is mapped to [0, 1].
        phase_dropout: Probability with which each phase but the target is left out of a training step, and
            with which one that remains ends within a patch, for a network that computes without some. The
            draws depend on the seed and the step alone.
        loss: Loss of (prediction, target); None: L1 + 0.7 L1-Sobel (eq. 1).
        optimizer: Optimiser, made from the parameters.
        lr_scheduler: Learning-rate schedule, made from the optimiser; None: a constant rate.
        lr_interval: Interval of the schedule: epoch or step.
        lr_factors: Factors of the learning rate by part of the network; other parts have factor 1.
        channels_last: Whether weights lie in `torch.channels_last_3d`, the fast layout in mixed precision.
        activation_checkpointing: Whether training computes the inside of each block again in the backward
            pass instead of storing it: less memory, a third more time.

    Raises:
        NotFoundError: If no network has the name.
        OptionError: If an option cannot be used.
        ValueError: If the phases cannot be used.

    >>> model = EnhancementModule("RCAN3D", phases=1, options={"channels": 8, "groups": 1, "blocks": 1})
    >>> tuple(model(torch.rand(1, 1, 8, 8, 8)).shape)
    (1, 1, 8, 8, 8)
    >>> model.window
    Window(level=50.0, width=450.0)
    """

    network_name: ClassVar[str | None] = None
    """The registered network of a subclass; None in this class, which accepts any network."""

    _subclasses: ClassVar[dict[str, type[EnhancementModule]]] = {}

    def __init_subclass__(cls, network: str | None = None, **others: Any) -> None:
        super().__init_subclass__(**others)
        if network is not None:
            cls.network_name = network
            EnhancementModule._subclasses[network] = cls

    def __init__(
        self,
        network: str | nn.Module,
        phases: int | Sequence[PhaseName] = 3,
        target: PhaseName = "portal_venous",
        options: Mapping[str, Any] | None = None,
        window: Window = ABDOMEN,
        phase_dropout: float = 0.0,
        loss: nn.Module | None = None,
        optimizer: OptimizerFactory = Adam,
        lr_scheduler: SchedulerFactory | None = None,
        lr_interval: Interval = "epoch",
        lr_factors: Mapping[str, float] | None = None,
        channels_last: bool = True,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()
        self.phases = resolve_phases(phases, target)
        self.target = Phase(target)
        self.window = _as_window(window)
        self._name = network if isinstance(network, str) else type(network).__name__
        self._registered = isinstance(network, str)
        self._options: dict[str, Any] = {}
        if isinstance(network, str):
            self._options = network_options(network, options or {})
            extra = {"activation_checkpointing": True} if activation_checkpointing else {}
            built = build_network(network, self.phases, self.target, **self._options, **extra)
        elif options or activation_checkpointing:
            raise OptionError(f"network {self._name}: is built already; options are for networks by name")
        else:
            built = network
        self.network = built.to(memory_format=torch.channels_last_3d) if channels_last else built
        if phase_dropout and not network_capabilities(built).missing_phases:
            raise OptionError(f"phase_dropout is {phase_dropout}: {self._name} cannot do without a phase")
        self.phase_dropout = _probability(phase_dropout)
        self.loss = loss or L1SobelLoss()
        self.optimizer_factory = optimizer
        self.scheduler_factory = lr_scheduler
        self.lr_interval = lr_interval
        self.lr_factors = dict(lr_factors or {})
        self.tiling: Tiling | None = None
        self.val_loss = MeanLoss()
        self.val_psnr = PeakSignalNoiseRatio3D()
        self.val_ssim = StructuralSimilarity3D()
        self.test_psnr = PeakSignalNoiseRatio3D()
        self.test_ssim = StructuralSimilarity3D()
        # Plain values only: a checkpoint's hyperparameters load without unpickling classes.
        self.save_hyperparameters(self._hyperparameters())

    def _hyperparameters(self) -> dict[str, Any]:
        """The constructor's arguments that define the model, as JSON values."""
        window = {"window": asdict(self.window)}
        if self.network_name is not None:
            return self.config | window
        stacked = {"phases": [str(phase) for phase in self.phases], "target": str(self.target)}
        named = {"network": self._name, "options": self._options} if self._registered else {}
        return named | stacked | window

    @classmethod
    def from_config(
        cls, config: ModelConfig, path: Path, network: nn.Module | None, training: Mapping[str, Any]
    ) -> Self:
        """A new model from its configuration.

        Args:
            config: Configuration of a weights folder or checkpoint.
            path: Its path, for messages.
            network: Network to use in place of a registered one; None: the registered one.
            training: Options of the training.

        Raises:
            ConflictError: If the class is another network's.
            NotFoundError: If the network is not registered.
            FormatError: If the configuration does not fit the network.
        """
        if cls.network_name is not None and config.network != cls.network_name:
            raise ConflictError(
                f"{path}: holds a {config.network}, not a {cls.network_name}; load it with "
                "EnhancementModule.from_pretrained"
            )
        if network is None and not config.registered:
            raise NotFoundError(
                f"{path}: holds a {config.network}, which is not registered; give network= to "
                "from_pretrained, or use @register_network and save again"
            )
        kind: Any = cls
        if network is None and cls.network_name is None:
            kind = cls._subclasses.get(config.network, cls)
        arguments = config.arguments | {"window": config.window} | dict(training)
        try:
            if kind.network_name is None:
                options = {name: arguments.pop(name) for name in config.arguments if name not in STACKING}
                arguments["network"] = network or config.network
                arguments["options"] = None if network is not None else options
            model: Self = kind(**arguments)
        except NotFoundError as error:
            raise NotFoundError(f"{path}: holds a {config.network}; {error}") from None
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"{path}: its configuration does not make a {config.network} ({one_line(error)}); "
                "save the model again"
            ) from None
        return model

    @property
    def name(self) -> str:
        """The name of the network: the registered one, or that of its class."""
        return self._name

    @property
    def registered(self) -> bool:
        """Whether the network can be built by its name."""
        return self._registered

    @property
    def config(self) -> dict[str, Any]:
        """Phases, target and options of the network, as JSON values."""
        stacked = {"phases": [str(phase) for phase in self.phases], "target": str(self.target)}
        return stacked | self._options

    @property
    def scale(self) -> int:
        """Refinement of the result's grid along each axis."""
        return network_capabilities(self.network).scale

    @property
    def optional_phases(self) -> tuple[Phase, ...]:
        """The phases that the model can do without: all but the target, or none."""
        if not network_capabilities(self.network).missing_phases:
            return ()
        return tuple(phase for phase in self.phases if phase is not self.target)

    def drop_phases(self, probability: float) -> None:
        """Sets the probability of phase dropout in training steps.

        Args:
            probability: Probability with which each phase but the target is left out.

        Raises:
            OptionError: If it is no probability below 1, or the model cannot do without a phase.
        """
        if probability and not self.optional_phases:
            raise OptionError(f"phase_dropout is {probability}: {self.name} cannot do without a phase")
        self.phase_dropout = _probability(probability)

    @property
    def parts(self) -> tuple[str, ...]:
        """The names of the network's parts, for `freeze` and `lr_factors`."""
        return tuple(part_names(self.network))

    def freeze(self, *parts: str) -> Self:
        """Freezes parts of the network before `fit`; without a name all of it, as Lightning does.

        Args:
            *parts: Names of parts, as in `parts`.

        Raises:
            OptionError: If the network has no such part.
        """
        if not parts:
            super().freeze()
        set_trained(self.network, parts, trained=False)
        return self

    def unfreeze(self, *parts: str) -> Self:
        """Unfreezes parts; without a name all of them, as Lightning does.

        Args:
            *parts: Names of parts, as in `parts`.

        Raises:
            OptionError: If the network has no such part.
        """
        if not parts:
            super().unfreeze()
        set_trained(self.network, parts, trained=True)
        return self

    def setup(self, stage: str) -> None:
        """Checks that the data module yields what this model takes.

        Raises:
            ConflictError: If phases, target, scale or window differ.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        if isinstance(data, PhaseSource):
            self._check_data(data)
        super().setup(stage)

    def _check_data(self, data: PhaseSource) -> None:
        if data.scale != self.scale:
            raise ConflictError(
                f"this {self.name} has scale {self.scale}, and the data module yields targets of scale "
                f"{data.scale}; make it with scale={self.scale}"
            )
        if (data.phases, data.target) != (self.phases, self.target):
            wanted = f"phases={[str(phase) for phase in self.phases]}, target={str(self.target)!r}"
            raise ConflictError(
                f"this {self.name} does not take what the data module yields "
                f"({', '.join(data.phases)}; target {data.target}); make it with {wanted}"
            )
        if data.window != self.window:
            raise ConflictError(
                f"this {self.name} has window level {self.window.level:g}, width {self.window.width:g} HU, "
                f"the data module level {data.window.level:g}, width {data.window.width:g} HU; make both "
                f"with window={self.window}"
            )

    def forward(self, phases: PhaseBatch, present: Sequence[int] | None = None) -> TargetBatch:
        """Enhances a batch of patches.

        Args:
            phases: Phases `(batch, P, x, y, z)` in [0, 1] in stacking order; NaN where a phase has no voxel.
            present: Ascending indices of the phases that `phases` holds; None: all.

        Returns:
            The enhanced phase `(batch, 1, x, y, z)`.
        """
        place = self.phases.index(self.target)
        target = place if present is None else list(present).index(place)
        return run_covered(self.network, phases, target, present)

    def training_forward(self, phases: PhaseBatch) -> TargetBatch:
        """The network over the phases, and the parts of their fields of view, that phase dropout leaves."""
        present = self.drawn_phases(self.global_step)
        if self.phase_dropout:
            target = self.phases.index(self.target)
            phases = uncover(phases, target, self.phase_dropout, self.global_step)
        enhanced: Tensor
        enhanced = self(phases[:, present], present) if len(present) < phases.shape[1] else self(phases)
        return enhanced

    def drawn_phases(self, step: int) -> list[int]:
        """The phases of a training step, as indices: the target, and those that phase dropout leaves.

        Args:
            step: Step of the training; all processes of a training draw alike.
        """
        return drawn_phases(len(self.phases), self.phases.index(self.target), self.phase_dropout, step)

    def training_step(self, batch: StudyBatch, batch_idx: int) -> Scalar:
        """The loss of a batch of patches; logged as `train_loss`."""
        loss: Tensor = self.loss(self.training_forward(batch["phases"]), batch["target"])
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch["target"]))
        return loss

    def validation_step(self, batch: StudyBatch, batch_idx: int) -> TargetBatch:
        """Logs `val_loss`, `val_psnr` (dB) and `val_ssim` over the validation patches."""
        enhanced: Tensor = self(batch["phases"]).float()
        self.val_loss.update(self.loss(enhanced, batch["target"]), len(enhanced))
        self.log("val_loss", self.val_loss)
        self.val_psnr.update(enhanced.clamp(0, 1), batch["target"])
        self.val_ssim.update(enhanced.clamp(0, 1), batch["target"])
        self.log("val_psnr", self.val_psnr, prog_bar=True)
        self.log("val_ssim", self.val_ssim, prog_bar=True)
        return enhanced

    def test_step(self, batch: StudyBatch, batch_idx: int) -> None:
        """Logs `test_psnr` (dB) and `test_ssim` over whole volumes, in tiles."""
        enhanced = self.predict_step(batch, batch_idx)
        self.test_psnr.update(enhanced, batch["target"])
        self.test_ssim.update(enhanced, batch["target"])
        self.log("test_psnr", self.test_psnr)
        self.log("test_ssim", self.test_ssim)

    def predict_step(self, batch: StudyBatch, batch_idx: int) -> TargetBatch:
        """Enhances whole volumes in tiles: `(batch, 1, x, y, z)` in [0, 1], on the network's output grid."""
        device = batch["phases"].device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
        tiling = self.tiling or network_tiling(self.network, self.patch_size)
        target = self.phases.index(self.target)
        volumes = [
            tiled_forward(self.network, phases, tiling, precision, target=target)
            for phases in batch["phases"]
        ]
        return torch.stack(volumes).unsqueeze(1)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimiser over the parameters that are not frozen, and its schedule.

        Raises:
            OptionError: If all parts are frozen.
            ConflictError: If the schedule excludes `lr_factors`.
        """
        optimizer = make_optimizer(self.optimizer_factory, self.network, self.parameters(), self.lr_factors)
        if self.scheduler_factory is None:
            return optimizer
        scheduler = self.scheduler_factory(optimizer)
        check_schedule(scheduler, self.lr_factors)
        schedule: LRSchedulerConfigType = {"scheduler": scheduler, "interval": self.lr_interval}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def enhance(
        self,
        phases: Mapping[Phase | str, str | Path | Volume],
        output: str | Path | None = None,
        *,
        tiling: Tiling | None = None,
        precision: torch.dtype | None = None,
        progress: bool = False,
        self_ensemble: bool = False,
        max_memory: int | None = None,
        strength: float | None = None,
    ) -> Volume:
        """Enhances one study from NIfTI files.

        HU and geometry are kept. Where the scan truly lies outside the window (bone, gas, metal, bright
        vessels) the result keeps the input's HU.

        Args:
            phases: File or `Volume` of each phase that the model takes, on one grid.
            output: File of the result (`.nii` or `.nii.gz`); not written if None.
            tiling: Tile, overlap and halo in voxels; None: the model's own, or those that suit it.
            precision: Number type of the convolutions; chosen by the device if None.
            progress: Whether a progress bar is shown.
            self_ensemble: Whether the mean over eight orientations of each tile is taken, for eight times the
                work.
            max_memory: Memory limit of this process in bytes; None: its present memory and 0.8 of the free
                memory.
            strength: Share of the enhanced scan in the result, 0 to 1; None: 1, or less where the scan is as
                good as the training's references.

        Returns:
            The enhanced target phase in HU, on the input's grid; with scale 2 or 4 on the grid that divides
            each of its voxels.

        Raises:
            InputError: If a phase is missing, a file cannot be used or memory does not suffice, with the
                reason.
        """
        from mpfnl.inference.enhancement import EnhanceOptions, enhance_study  # needs nibabel

        options = EnhanceOptions(
            tiling or self.tiling, precision, progress, self_ensemble, max_memory, strength
        )
        named = {Phase(phase): source for phase, source in phases.items()}
        return enhance_study(self, named, output, options)


def _probability(phase_dropout: float) -> float:
    if not 0 <= phase_dropout < 1:
        raise OptionError(f"phase_dropout is {phase_dropout}; it must lie in [0, 1)")
    return phase_dropout


def _as_window(window: Window | Mapping[str, float]) -> Window:
    """A window, also from a checkpoint's hyperparameters."""
    return window if isinstance(window, Window) else Window(**window)
