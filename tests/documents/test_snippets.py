"""Every command and every Python block of the documents runs, on small stand-ins for the files that it names.

A ```bash or ```python block is run as it stands, but for what is written down here: budgets are made small,
what cannot run in a test is left out, and TotalSegmentator has a stand-in. Output belongs into a block that
names no language.
"""

from __future__ import annotations

import os
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from documents import ROOT, Block, all_blocks, blocks, documents
from stand_ins import SMALL_FIT, SMALL_PFNL3D, STAND_INS, Shelf, named_in

from mpfnl.cli.main import main
from mpfnl.segmentation import TotalSegmentatorSegmenter, totalsegmentator
from mpfnl.volumes import Volume

pytestmark = [
    pytest.mark.timeout(240),  # seconds: a budget that is not small is found out soon
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*"),  # inside Lightning
    pytest.mark.filterwarnings("ignore:Precision bf16-mixed is not supported by the model summary"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
    pytest.mark.filterwarnings("ignore:The dirpath has changed"),  # a run of its own has its own log
    pytest.mark.filterwarnings("ignore:The number of training batches"),  # fewer than log_every_n_steps
]

SMALLER_COMMANDS = {
    "mpfnl ablate": "--small --epochs 1 --patches-per-study 2 --patch-size 16",
    "mpfnl fit": SMALL_FIT,
    "mpfnl fit --config pfnl3d.yaml": SMALL_PFNL3D,
    "mpfnl phantom": "--small --patients 2",
    "mpfnl predict": "--trainer.accelerator=cpu --trainer.devices=1",
    "mpfnl prepare": "--steps rigid --grid-mm 8 --jobs 1",
    "python examples/fine_tune.py": "--patients 1 --held-out 1 --steps 2 --patch-size 16",
}
"""What is added to a command that begins so; the last of two equal options counts."""

SMALLER_TEXT = {
    "mpfnl.PFNL3D()": "mpfnl.PFNL3D(features=8, blocks=1)",
    "Trainer(max_epochs=1000": "Trainer(max_epochs=1",
    "max_steps=500": "max_steps=2",
    'DataModule("prepared/cohort.csv"': (
        'DataModule("prepared/cohort.csv", patch_size=16, patches_per_study=2, batch_size=2, workers=0'
    ),
}
"""What stands in a Python block, and what stands there when it is run."""

NOT_RUN = {
    "make": "sets up a virtual environment, or runs these tests",
    "mpfnl demo": "takes minutes; tests/experiments/test_demo.py runs it with a small budget",
    "pip install": "changes the environment; the package is tried in fresh ones before a release",
    "totalseg_download_weights": "fetches gigabytes; `soft_tissue` takes their place here",
    "sbatch": "needs SLURM; tests/test_examples.py runs the script with a stand-in for srun",
    "MPFNL_NONLOCAL_ATTENTION=sdpa python train.py": "train.py is the reader's",
    "export PYTHONPATH=.": "only for the benchmarks that follow",
    "python benchmarks/nonlocal_attention.py --device cuda": "needs a GPU",
    "python benchmarks/networks.py --device cuda": "needs a GPU",
    "python benchmarks/plot_nonlocal_attention.py": "plots what was measured on a GPU",
    'model = mpfnl.PFNL3D.from_pretrained("owner/name"': "needs the Hugging Face Hub",
    'model.push_to_hub("owner/name"': "needs the Hugging Face Hub",
}
"""Lines that begin so are left out, and why."""

BLOCKS_NOT_RUN = {"from dask_jobqueue import SLURMCluster": "needs SLURM"}
"""Python blocks with such a line are left out, and why; they still compile."""

SLOW = (
    "mpfnl ablate",
    "mpfnl evaluate",
    "mpfnl fit",
    "mpfnl manifest vindr",
    "mpfnl predict",
    "mpfnl prepare",
    "prepare_cohort(",
    "last.ckpt",
    "= evaluate(",
    "Trainer(",
    "write_vindr_cohort",
    "python examples/",
)
"""Blocks with one of these take more than a few seconds."""

OTHER_LANGUAGES = {"", "bibtex", "csv", "json", "text", "toml"}
"""Blocks that show something and are not run."""

PROMISED = re.compile(r"^print\(.*#.*?prints:? (.+)$", re.M)


def cases(*languages: str) -> list[object]:
    """The blocks as parameters, the slow ones marked."""
    return [
        pytest.param(block, id=str(block), marks=[pytest.mark.slow] if is_slow(block) else [])
        for block in all_blocks(*languages)
    ]


def is_slow(block: Block) -> bool:
    return any(word in block.text for word in SLOW)


def is_left_out(line: str) -> bool:
    return any(line.startswith(beginning) for beginning in NOT_RUN)


@pytest.fixture(scope="session")
def shelf(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("stand_ins"), cohort)


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty working folder; afterwards the process is as it was."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(totalsegmentator, "check_weights", lambda root, job: {})
    monkeypatch.setattr(TotalSegmentatorSegmenter, "_labels", soft_tissue)
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # about Lightning's own use of it
    environment = dict(os.environ)
    yield tmp_path
    os.environ.clear()
    os.environ.update(environment)
    torch.use_deterministic_algorithms(False)


def soft_tissue(segmenter: TotalSegmentatorSegmenter, scan: Volume) -> np.ndarray:
    """In place of TotalSegmentator, whose weights are not here: whatever is bright is the first structure."""
    number = segmenter._numbers[segmenter.structures[0]]
    return np.where((scan.data > 60) & (scan.data < 160), number, 0).astype(np.uint8)


def lay_out(block: Block, shelf: Shelf, sandbox: Path) -> None:
    for name in named_in(block.text):
        shelf.lend(name, sandbox)


def smaller(words: list[str]) -> list[str]:
    """The words of a command, and those that make it small."""
    line = " ".join(words)
    added = [more for beginning, more in SMALLER_COMMANDS.items() if line.startswith(beginning)]
    return [*words, *(word for more in added for word in more.split())]


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs `mpfnl ...` in this process, and `python FILE` of the repository likewise."""
    if words[0] == "python":
        monkeypatch.setattr(sys, "argv", smaller(words)[1:])
        runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        return
    assert words[0] == "mpfnl", f"neither run nor in NOT_RUN: {shlex.join(words)}"
    assert main(smaller(words)[1:]) == 0
    written = [after for before, after in pairwise(words) if before in ("-o", "--output")]
    assert all(Path(name).exists() for name in written)


@pytest.mark.parametrize("block", cases("bash"))
def test_commands_run(block: Block, shelf: Shelf, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(block, shelf, sandbox)
    for words in block.commands:
        if not is_left_out(" ".join(words)):
            run_command(words, monkeypatch)


@pytest.mark.parametrize("block", cases("python"))
def test_python_runs(block: Block, shelf: Shelf, sandbox: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "\n".join("" if is_left_out(line) else line for line in block.text.splitlines())
    for stands, runs in SMALLER_TEXT.items():
        text = text.replace(stands, runs)
    code = compile(text, str(block), "exec")
    if any(line in block.text for line in BLOCKS_NOT_RUN):
        return
    lay_out(block, shelf, sandbox)
    exec(code, {"__name__": "__main__"})
    printed = capsys.readouterr().out
    for promised in PROMISED.findall(text):
        assert promised in printed


@pytest.mark.parametrize("block", cases("yaml"))
def test_configurations_run(
    block: Block, shelf: Shelf, sandbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that begins with `# mpfnl fit --config NAME` is written to NAME, and trains."""
    assert yaml.safe_load(block.text)
    command = re.match(r"# (mpfnl \w+ --config (\S+).*)\n", block.text)
    assert command, "begin the block with the command that takes it"
    lay_out(block, shelf, sandbox)
    Path(command[2]).write_text(block.text, "utf-8")
    run_command(shlex.split(command[1]), monkeypatch)


def test_tables_name_only_what_the_documents_show() -> None:
    """So that no exception outlives its reason."""
    shown = all_blocks("bash", "python", "yaml")
    lines = [" ".join(words) for block in all_blocks("bash") for words in block.commands]
    lines += [
        line.removeprefix("# ") for block in all_blocks("python", "yaml") for line in block.text.splitlines()
    ]
    unused = [
        beginning
        for beginning in [*SMALLER_COMMANDS, *NOT_RUN]
        if not any(line.startswith(beginning) for line in lines)
    ]
    texts = [*SMALLER_TEXT, *BLOCKS_NOT_RUN, *SLOW]
    unused += [text for text in texts if not any(text in block.text for block in shown)]
    unused += [name for name in STAND_INS if not any(name in named_in(block.text) for block in shown)]
    assert not unused


def test_what_is_neither_run_nor_listed_fails(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in ("cd elsewhere", "mpfnl degrade none.nii.gz -o low.nii.gz"):
        assert not is_left_out(line)
        with pytest.raises(AssertionError):
            run_command(line.split(), monkeypatch)


def test_no_block_escapes_by_its_language() -> None:
    taken = {"bash", "python", "yaml", *OTHER_LANGUAGES}
    found = {block.language: str(block) for path in documents() for block in blocks(path)}
    strange = {name: place for name, place in found.items() if name not in taken and not name.startswith("{")}
    assert not strange
