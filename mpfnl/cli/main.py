"""Entry point: finds the command, runs it, and turns errors into one line and an exit status."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from mpfnl.cli.ablation import ablate
from mpfnl.cli.commands import demo, manifest, phantom
from mpfnl.cli.degradation import degrade
from mpfnl.cli.enhancement import enhance
from mpfnl.cli.evaluation import evaluate
from mpfnl.cli.parsing import VERBOSE, Command
from mpfnl.cli.preparation import prepare
from mpfnl.datasets.registry import dataset_names
from mpfnl.errors import IncompleteError, MpfnlError

COMMANDS = {
    command.name: command
    for command in (
        Command(ablate, "mpfnl ablate cohort.csv --small -o ablation"),
        Command(
            degrade, "mpfnl degrade scan.nii.gz -o low.nii.gz --preset paper --seed 1 --record params.json"
        ),
        Command(demo, "mpfnl demo -o demo"),
        Command(
            enhance,
            "mpfnl enhance --weights pfnl3d-phantoms --noncontrast nc.nii.gz --arterial art.nii.gz "
            "--portal-venous pv.nii.gz -o enhanced.nii.gz",
        ),
        Command(
            evaluate,
            "mpfnl evaluate cohort.csv --models RCAN3D=rcan3d/ PFNL3D=pfnl3d/ --segment full -o evaluation",
        ),
        Command(manifest, "mpfnl manifest vindr vindr-multiphase/ -o cohort.csv", {"dataset": dataset_names}),
        Command(prepare, "mpfnl prepare raw.csv -o prepared --jobs 4"),
        Command(phantom, "mpfnl phantom --patients 24 --seed 0 -o phantoms"),
    )
}
TRAINER_COMMANDS = {
    "fit": "Train a model on a cohort, e.g.  mpfnl fit --config pfnl3d.yaml --data.manifest cohort.csv",
    "validate": "Score a checkpoint on validation patches: --config config.yaml --ckpt_path last.ckpt",
    "test": "Score a checkpoint on whole test volumes; the same options.",
    "predict": "Write a checkpoint's test volumes as NIfTI into predictions/; the same options.",
}
RESUMABLE = ("ablate", "demo", "evaluate", "phantom", "prepare")
INCOMPLETE = 1
BAD_INPUT = 2
INTERRUPTED = 130
TERMINATED = 143


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        arguments: The words after `mpfnl`; those of the process if None.

    Returns:
        The exit status: 0; 1 where some studies of a cohort failed and the others are done; 2 for input that
        cannot be used; 130 when interrupted. Ended by SIGTERM
        it leaves with status 143.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    words = [word for word in given if word != VERBOSE]
    try:
        with _ended_by_sigterm(), _told(VERBOSE in given):
            return _dispatch(words)
    except IncompleteError as error:
        print(f"mpfnl: {error}", file=sys.stderr)
        return INCOMPLETE
    except MpfnlError as error:
        print(f"mpfnl: error: {error}", file=sys.stderr)
        return BAD_INPUT
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"mpfnl: error: {where}{error.strerror or error}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        advice = "; the same command goes on from what is finished" if words[0] in RESUMABLE else ""
        print(f"mpfnl: interrupted{advice}", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """A scheduler's SIGTERM unwinds the program, so that temporary folders and processes go with it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _told(verbose: bool) -> Iterator[None]:
    """Tells on the standard error what readers of scans passed over, if it is asked for."""
    logger = logging.getLogger("mpfnl.volumes")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("mpfnl: %(message)s"))
    before = logger.level
    if verbose:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    name, *rest = words
    if name == "--version":
        from mpfnl import __version__

        print(__version__)
    elif name in COMMANDS:
        COMMANDS[name].run(rest)
    elif name in TRAINER_COMMANDS:
        from mpfnl.cli.training import run_trainer  # imports Lightning: slow

        run_trainer(words)
    else:
        raise MpfnlError(f"there is no command {name!r}; see  mpfnl --help")
    return 0


def _help() -> str:
    described = {name: command.summary for name, command in COMMANDS.items()} | TRAINER_COMMANDS
    rows = "\n".join(f"  {name:<10} {text}" for name, text in described.items())
    return (
        "usage: mpfnl COMMAND ...\n\n"
        "Multiphase abdominal CT enhancement: degraded phases in, one better portal venous scan out.\n\n"
        f"commands:\n{rows}\n\n"
        "mpfnl COMMAND --help tells a command's options; mpfnl --version the version. With --verbose a\n"
        "command also tells which files in a DICOM folder it passed over.\n"
        "Research only: an enhanced scan must not be used for diagnosis."
    )
