"""Sources of weights: a folder, the weights that ship with the package, or the Hugging Face Hub.

Only the functions that call the Hub need `huggingface_hub`.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info

from mpfnl.errors import InputError, MissingExtraError, NotFoundError, OptionError
from mpfnl.models.weights import FILES

_SHIPPED = Path(str(files("mpfnl.models"))) / "shipped"
_CACHED = "models--"  # beginning of a repository's folder in the Hub's cache
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def shipped_weights() -> tuple[str, ...]:
    """The names of the weights that ship with this package, as `from_pretrained` accepts them.

    Those named `phantoms` were trained on phantoms alone, those named `patients` on phantoms and on the scans
    of a few patients; see docs/shipped.md.

    >>> shipped_weights()
    ('pfnl3d-patients', 'pfnl3d-phantoms', 'rcan3d-patients', 'rcan3d-phantoms')
    """
    if not _SHIPPED.is_dir():
        return ()
    return tuple(sorted(folder.name for folder in _SHIPPED.iterdir() if folder.is_dir()))


def find_weights(weights: str | Path, *, revision: str | None = None, local_files_only: bool = False) -> Path:
    """The folder of weights.

    An existing folder comes first, then a name of shipped weights, then `owner/name` on the Hugging Face Hub,
    unless a folder `owner` exists, in which `name` was probably mistyped.

    Args:
        weights: Folder, name of shipped weights, or `owner/name`.
        revision: Branch, tag or commit of the Hub's repository.
        local_files_only: Whether only the Hub's cache on this machine is searched.

    Raises:
        NotFoundError: If there are no such weights, or they cannot be downloaded.
        OptionError: If a revision is given for weights that are not the Hub's.
    """
    path, name = Path(weights), str(weights)
    is_id = isinstance(weights, str) and _HUB_ID.fullmatch(weights) and not path.parent.exists()
    if is_id and not path.exists():
        return _download(name, revision, local_files_only)
    if revision is not None:
        raise OptionError(f"{weights}: revision is for weights of the Hub (owner/name), which this is not")
    if path.exists():
        return path
    if name in shipped_weights():
        return _SHIPPED / name
    raise NotFoundError(f"{weights}: no such weights folder; {_known_weights()}")


def weights_name(folder: Path) -> str:
    """The name of a weights folder for users: that of shipped weights, the Hub's id, or the path."""
    if folder.parent == _SHIPPED:
        return folder.name
    cached = [part for part in folder.parts if part.startswith(_CACHED)]
    return cached[-1].removeprefix(_CACHED).replace("--", "/", 1) if cached else str(folder)


@cache
def say_phantoms(folder: Path, origin: str) -> None:
    """Reports once that the weights of a folder were trained on phantoms.

    Args:
        folder: Folder of the weights.
        origin: Kind of data of the training, see `TrainingRecord.origin`.
    """
    rank_zero_info(f"{weights_name(folder)}: {origin}; its effect on patients' scans is unknown")


def _download(repo_id: str, revision: str | None, local_files_only: bool) -> Path:
    """The folder of a Hub repository in the Hub's cache, downloaded if it is not there."""
    snapshot_download, offline = _client().snapshot_download, _client().constants.HF_HUB_OFFLINE
    try:
        folder = snapshot_download(
            repo_id, revision=revision, local_files_only=local_files_only, allow_patterns=list(FILES)
        )
    except Exception as error:  # the client's errors and those of its own libraries share no base
        where = repo_id if revision is None else f"{repo_id}, revision {revision}"
        if local_files_only or offline:
            raise NotFoundError(
                f"{where}: not in the Hub's cache here, and offline (HF_HUB_OFFLINE or local_files_only); "
                "download it once with a network, or give a folder"
            ) from error
        raise NotFoundError(
            f"{where}: no such folder, and no download from the Hugging Face Hub ({_reason(error)}); check "
            "the name, the network and your access, or give a folder"
        ) from error
    return Path(folder)


def upload(
    folder: Path, repo_id: str, *, revision: str | None, private: bool | None, token: str | None, message: str
) -> str:
    """Uploads a weights folder in one commit, into a repository that is made if it does not exist.

    Args:
        folder: Folder that `save_pretrained` wrote.
        repo_id: Repository, `owner/name`.
        revision: Branch; None: the main one.
        private: Whether a new repository is private; None: the owner's default.
        token: Access token of the Hub; None: that of the login.
        message: Commit message.

    Returns:
        The commit's address.

    Raises:
        InputError: If the Hub refuses or cannot be reached.
        MissingExtraError: If `huggingface_hub` is not installed.
    """
    api = _client().HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repo_id, branch=revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            allow_patterns=list(FILES),
        )
    except Exception as error:  # as above
        raise InputError(
            f"{repo_id}: not uploaded to the Hugging Face Hub ({_reason(error)}); log in with  hf auth login "
            " and check the name and the network"
        ) from error
    return str(commit.commit_url)


def _known_weights() -> str:
    shipped = ", ".join(shipped_weights())
    return "give a folder that save_pretrained wrote, or owner/name on the Hugging Face Hub" + (
        f", or one of: {shipped}" if shipped else ""
    )


def _client() -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise MissingExtraError("huggingface_hub", "hub") from None
    return huggingface_hub


def _reason(error: Exception) -> str:
    """The first line of an error, without the request's number."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
