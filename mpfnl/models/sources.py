"""Where weights come from: a folder, what ships with the package, or the Hugging Face Hub."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from mpfnl.errors import InputError
from mpfnl.models.hub import download

_SHIPPED = Path(str(files("mpfnl.models"))) / "shipped"
_CACHED = "models--"  # so the folder of a repository begins in the Hub's cache
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def shipped_weights() -> tuple[str, ...]:
    """The names of the weights that come with this package, which `from_pretrained` takes.

    All were trained on phantoms, which are no patients.
    """
    if not _SHIPPED.is_dir():
        return ()
    return tuple(sorted(folder.name for folder in _SHIPPED.iterdir() if folder.is_dir()))


def find_weights(weights: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The folder of weights.

    A folder that exists is always taken. Then comes a name of shipped weights, then an id of the Hugging Face
    Hub: `owner/name`, unless there is a folder `owner`, in which `name` was probably mistyped.

    Args:
        weights: A folder, a name or an id.
        revision: Of the Hub's repository: a branch, a tag or a commit.
        local_files_only: Take from the Hub only what was downloaded before.

    Raises:
        InputError: If there are no such weights, or they cannot be had without a network.
    """
    path, name = Path(weights), str(weights)
    is_id = isinstance(weights, str) and _HUB_ID.fullmatch(weights) and not path.parent.exists()
    if is_id and not path.exists():
        return download(name, revision, local_files_only)
    if revision is not None:
        raise InputError(f"{weights}: revision is for weights of the Hub (owner/name), which this is not")
    if path.exists():
        return path
    if name in shipped_weights():
        return _SHIPPED / name
    raise InputError(f"{weights}: no such weights folder; {_offer()}")


@cache
def say_phantoms(folder: Path) -> None:
    """Says once that the weights of a folder were trained on phantoms."""
    rank_zero_info(
        f"{_name(folder)}: trained on phantoms, not on patients; what it does to a patient's scan is unknown"
    )


def _name(folder: Path) -> str:
    """What a user calls a folder: the name of shipped weights, the Hub's id, or its path."""
    if folder.parent == _SHIPPED:
        return folder.name
    cached = [part for part in folder.parts if part.startswith(_CACHED)]
    return cached[-1].removeprefix(_CACHED).replace("--", "/", 1) if cached else str(folder)


def _offer() -> str:
    shipped = ", ".join(shipped_weights())
    return "give a folder that save_pretrained wrote, or owner/name on the Hugging Face Hub" + (
        f", or one of: {shipped}" if shipped else ""
    )
