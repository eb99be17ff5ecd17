"""The Hugging Face Hub: weights folders down and up. Only what is called here needs `huggingface_hub`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mpfnl.errors import InputError, MissingExtraError
from mpfnl.models.pretrained import FILES


def download(repo_id: str, revision: str | None, local_files_only: bool) -> Path:
    """Fetches a weights folder, or finds it in the Hub's cache.

    Args:
        repo_id: `owner/name`.
        revision: A branch, a tag or a commit; None: the newest.
        local_files_only: Look in the cache only, as with the environment variable HF_HUB_OFFLINE=1.

    Returns:
        The folder in the cache.

    Raises:
        InputError: If it cannot be had.
        MissingExtraError: If `huggingface_hub` is not installed.
    """
    snapshot_download, offline = _client().snapshot_download, _client().constants.HF_HUB_OFFLINE
    try:
        folder = snapshot_download(
            repo_id, revision=revision, local_files_only=local_files_only, allow_patterns=list(FILES)
        )
    except Exception as error:  # the client's errors, and those of what it is built on, share no base
        where = repo_id if revision is None else f"{repo_id}, revision {revision}"
        if local_files_only or offline:
            raise InputError(
                f"{where}: not in the Hub's cache here, and offline (HF_HUB_OFFLINE or local_files_only); "
                "fetch it once with a network, or give a folder"
            ) from error
        raise InputError(
            f"{where}: no such folder, and not to be had from the Hugging Face Hub "
            f"({_reason(error)}); check the name, the network and your access, or give a folder"
        ) from error
    return Path(folder)


def upload(
    folder: Path, repo_id: str, *, revision: str | None, private: bool | None, token: str | None, message: str
) -> str:
    """Sends a weights folder, in one commit; makes the repository where there is none.

    Args:
        folder: What `save_pretrained` wrote.
        repo_id: `owner/name`.
        revision: The branch; None: the main one.
        private: Whether a new repository is private; None: the owner's default.
        token: Of the Hub; None: that of the login.
        message: Of the commit.

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
            f"{repo_id}: not sent to the Hugging Face Hub ({_reason(error)}); log in with  hf auth login  "
            "and check the name and the network"
        ) from error
    return str(commit.commit_url)


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
