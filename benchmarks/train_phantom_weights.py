"""Trains the phantom weights: python benchmarks/train_phantom_weights.py -o weights.safetensors.

A small nnU-Net (PlainConvUNet) learns seven organs on portal venous phantoms at 3 mm, so that the real
TotalSegmentator can run from end to end, offline. The script makes the phantoms (about two minutes on two
cores), then trains for at most `--minutes`. The learning rate falls to zero at the last step, or at the last
minute if the machine does not reach the last step; only in the first case does the seed determine the weights
(up to the order of floating-point sums).

`-o` names the output; `mpfnl/segmentation/phantom_weights.safetensors` is the shipped file.
"""

from __future__ import annotations

import json
import math
import sys
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from common import cpu_name
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from phantom_patches import Mixture, Patches, Size, make_examples, measure_intensity
from rich.progress import Progress, track
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from mpfnl.files import atomic_file
from mpfnl.segmentation.phantom_weights import PATCH, STRUCTURES, TRAINING_SEED, Intensity, plans

WARM_UP_STEPS = 100
REPORT_STEPS = 200
SMALL_PATCH, SMALL_SHARE = (32, 48, 48), 0.6  # quicker at first
AVERAGING = 0.995  # of the weights, over the last two hundred steps or so
DICE_WEIGHTS = torch.tensor([3.0 if name == "pancreas" else 1.0 for name in STRUCTURES])


@dataclass(frozen=True)
class Budget:
    """How long to train.

    Args:
        steps: The last step.
        minutes: Time limit in minutes.
    """

    steps: int
    minutes: float

    def spent(self, step: int, started: float) -> float:
        """The share of the budget that is used up, 0 to 1."""
        return min(1.0, max(step / self.steps, (time.monotonic() - started) / (60 * self.minutes)))


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Args:
        batch: Patches a step.
        learning_rate: Its highest value.
        mixture: The training phantoms.
        seed: Seed of the network's initial weights and of the patches; the phantoms' seed is a constant.
    """

    batch: int
    learning_rate: float
    mixture: Mixture
    seed: int


class SampleNorm(nn.InstanceNorm3d):
    """Instance normalisation of a single sample, which is batch normalisation: here several times as fast."""

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[0] != 1:
            raise ValueError(f"{input.shape[0]} samples were given; this norm takes one")
        return functional.batch_norm(
            input, None, None, self.weight, self.bias, training=True, momentum=0.0, eps=self.eps
        )


def make_network(intensity: Intensity) -> nn.Module:
    """nnU-Net's network of the plans, with an output at each resolution, the finest first."""
    kwargs = plans("phantoms", intensity)["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    classes = {"conv_op": nn.Conv3d, "norm_op": SampleNorm, "nonlin": nn.LeakyReLU}
    network = PlainConvUNet(
        input_channels=1, num_classes=len(STRUCTURES) + 1, deep_supervision=True, **(kwargs | classes)
    )
    network.apply(network.initialize)
    return network


def loss_of(outputs: Sequence[Tensor], shares: Tensor) -> Tensor:
    """The mean loss over the resolutions, each with a quarter of the weight of the finer one (nnU-Net: half).

    Args:
        outputs: Logits (1, 8, z, y, x) at each resolution.
        shares: Fractions of background and of each structure in each voxel, (1, 8, z, y, x).
    """
    weights = [0.25**level for level in range(len(outputs))]
    losses = []
    for weight, logits in zip(weights, outputs, strict=True):
        losses.append(weight * _loss_at(logits.float(), shares))
        shares = functional.avg_pool3d(shares, 2)
    return torch.stack(losses).sum() / sum(weights)


def _loss_at(logits: Tensor, shares: Tensor) -> Tensor:
    """Cross-entropy plus one minus the weighted mean of the organs' soft Dice.

    Both are least where the probabilities are the shares: at a border that says where in the voxel it lies.
    The Dice has squares below, as in V-Net (Milletari et al. 2016).
    """
    logs = logits.log_softmax(dim=1)
    probabilities = logs.exp()
    over = (0, 2, 3, 4)
    common = (probabilities * shares).sum(over)
    both = (probabilities.square() + shares.square()).sum(over)
    dice = ((2 * common + 1) / (both + 1))[1:]
    entropy = -(logs * shares).sum(dim=1).mean()
    return entropy + 1 - (dice * DICE_WEIGHTS).sum() / DICE_WEIGHTS.sum()


def gradients(
    network: nn.Module, patches: Patches, size: Size, number: int
) -> tuple[float, tuple[Tensor, ...]]:
    """The loss of one sample, and its gradients."""
    scan, shares = patches.draw(number, size)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(scan.to(memory_format=torch.channels_last_3d))
    loss = loss_of(outputs, shares)
    return loss.item(), torch.autograd.grad(loss, list(network.parameters()))


def train(
    patches: Patches,
    intensity: Intensity,
    recipe: Recipe,
    budget: Budget,
    threads: int,
    first: Path | None = None,
) -> tuple[nn.Module, dict[str, Any]]:
    """Trains the network within the budget, from weights in `first`; returns its average over the last steps.

    Each sample of a batch is one thread's: operations this small gain little from several.
    """
    torch.manual_seed(recipe.seed)
    network = make_network(intensity).to(memory_format=torch.channels_last_3d)
    if first is not None:
        network.load_state_dict(read_weights(first))
    average = torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGING)
    averaged = torch.optim.swa_utils.AveragedModel(network, multi_avg_fn=average)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.learning_rate, weight_decay=1e-3)
    started, cpu_started = time.monotonic(), time.process_time()
    step, recent = 0, math.nan
    with Progress() as progress, ThreadPoolExecutor(threads, initializer=_one_thread) as pool:
        task = progress.add_task("training", total=1.0)
        while (spent := budget.spent(step, started)) < 1:
            rate = recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * spent))
            optimizer.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / WARM_UP_STEPS)
            numbers = range(step * recipe.batch, (step + 1) * recipe.batch)
            size = SMALL_PATCH if spent < SMALL_SHARE else PATCH
            made = list(pool.map(partial(gradients, network, patches, size), numbers))
            for parameter, *grads in zip(network.parameters(), *(grads for _, grads in made), strict=True):
                parameter.grad = torch.stack(grads).mean(dim=0)
            nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            averaged.update_parameters(network)
            step += 1
            loss = sum(loss for loss, _ in made) / recipe.batch
            recent = loss if math.isnan(recent) else 0.99 * recent + 0.01 * loss
            progress.update(task, completed=spent, description=f"step {step}, loss {recent:.3f}")
            if step % REPORT_STEPS == 0:
                progress.print(f"step {step}: loss {recent:.3f}")
    minutes = round((time.monotonic() - started) / 60, 2)
    cpu_minutes = round((time.process_time() - cpu_started) / 60, 2)
    facts = {"steps": step, "minutes": minutes, "cpu_minutes": cpu_minutes, "loss": round(recent, 4)}
    return averaged.module, facts


def _one_thread() -> None:
    torch.set_num_threads(1)


def write_weights(path: Path, network: nn.Module, facts: dict[str, Any]) -> None:
    """Writes each tensor once, as half floats; names that share one tensor are listed in the metadata."""
    seen: dict[int, str] = {}
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    for name, tensor in network.state_dict().items():
        if tensor.data_ptr() in seen:
            aliases[name] = seen[tensor.data_ptr()]
        else:
            seen[tensor.data_ptr()] = name
            tensors[name] = tensor.detach().half().contiguous(memory_format=torch.contiguous_format)
    metadata = {"aliases": json.dumps(aliases), "facts": json.dumps(facts), "format": "pt"}
    with atomic_file(path) as file:
        file.write(save(tensors, metadata))


def read_weights(path: Path) -> dict[str, Tensor]:
    """What `write_weights` wrote, under all the names of the network."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        aliases: dict[str, str] = json.loads(file.metadata()["aliases"])
    return tensors | {alias: tensors[name] for alias, name in aliases.items()}


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that `write_weights` wrote."""
    with safe_open(path, framework="pt") as file:
        facts: dict[str, Any] = json.loads(file.metadata()["facts"])
    return facts


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="the weights' file, *.safetensors")
    parser.add_argument("--minutes", type=float, default=10.0, help="when to stop at the latest (10)")
    parser.add_argument("--steps", type=int, default=2400, help="the last step (2400)")
    parser.add_argument("--seed", type=int, default=0, help="of first weights and patches (0)")
    parser.add_argument(
        "--first", type=Path, help="weights to go on from; of the network's own draw if not given"
    )
    parser.add_argument("--rate", type=float, default=3e-3, help="the highest learning rate (3e-3)")
    parser.add_argument("--threads", type=int, default=2, help="cores to use (2)")
    chosen = parser.parse_args()
    recipe = Recipe(2, chosen.rate, Mixture(three_mm=70, small=15, other_fields=10, default=5), chosen.seed)
    count = len(recipe.mixture.configs())
    started = time.monotonic()
    making = make_examples(recipe.mixture, chosen.threads)
    examples = list(track(making, "making phantoms", total=count))
    generation = round((time.monotonic() - started) / 60, 2)
    torch.set_num_threads(1)
    intensity = measure_intensity(examples)
    patches = Patches(examples, intensity, chosen.seed)
    network, trained = train(
        patches, intensity, recipe, Budget(chosen.steps, chosen.minutes), chosen.threads, chosen.first
    )
    facts = {
        "what": "a small nnU-Net trained on phantoms, for phantoms; it knows nothing about patients",
        "training_seed": TRAINING_SEED,
        "intensity": asdict(intensity),
        "recipe": asdict(recipe),
        "first": None if chosen.first is None else read_facts(chosen.first),
        **trained,
        "generation_minutes": generation,
        "torch": torch.__version__,
        "cpu": cpu_name(),
        "threads": chosen.threads,
    }
    write_weights(chosen.output, network, facts)
    print(f"{chosen.output}: {chosen.output.stat().st_size / 1e6:.2f} MB; {json.dumps(facts)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
