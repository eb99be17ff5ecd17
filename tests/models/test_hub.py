"""Weights from the Hugging Face Hub and to it, without a network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

import mpfnl
from mpfnl.errors import InputError, MissingExtraError, NotFoundError, OptionError
from mpfnl.models import TrainingRecord
from mpfnl.models.loading import load_model
from mpfnl.models.sources import find_weights

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def model() -> mpfnl.PFNL3D:
    torch.manual_seed(3)
    made = mpfnl.PFNL3D(features=8, blocks=1)
    torch.nn.init.normal_(made.network.reconstruct[0].weight)  # type: ignore[arg-type]
    made.training_record = TrainingRecord(phantoms=True)
    return made


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return model().save_pretrained(tmp_path / "saved")


class FakeHub:
    """Answers `snapshot_download` with a folder or an error, and notes how it was asked."""

    def __init__(self, answer: Path | Exception) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []

    def snapshot_download(self, repo_id: str, **options: Any) -> str:
        self.asked.append({"repo_id": repo_id} | options)
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


def hub(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> FakeHub:
    fake = FakeHub(answer)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fake.snapshot_download)
    return fake


def test_an_id_is_fetched_at_its_revision(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = hub(monkeypatch, weights)
    loaded = mpfnl.PFNL3D.from_pretrained("owner/name-1.0", revision="v1", local_files_only=True)
    load_model("owner/name-1.0")
    assert [asked["repo_id"] for asked in fake.asked] == ["owner/name-1.0"] * 2
    assert [asked["revision"] for asked in fake.asked] == ["v1", None]
    assert [asked["local_files_only"] for asked in fake.asked] == [True, False]
    assert set(fake.asked[0]["allow_patterns"]) == {"config.json", "model.safetensors", "README.md"}
    x = torch.rand(1, 3, 8, 8, 8)
    assert torch.equal(loaded(x), model()(x))


def test_the_hub_is_not_asked_for_what_is_or_may_be_a_folder(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = hub(monkeypatch, weights)
    monkeypatch.chdir(tmp_path)
    model().save_pretrained("owner/name")
    assert find_weights("owner/name") == Path("owner/name")
    for path in ("owner/mistyped", "./owner/x", "~/a", "one", "a/b/c", "../a/b", "/no/such", Path("no/such")):
        with pytest.raises(NotFoundError, match=re.escape(str(path))):
            load_model(path)
    with pytest.raises(OptionError, match="owner/name"):
        find_weights("owner/name", revision="v1")
    assert not fake.asked


@pytest.mark.parametrize(
    "error",
    [
        errors.LocalEntryNotFoundError("Got: ConnectError\n\nAn error happened\nplease"),
        errors.HFValidationError("bad id"),
        errors.OfflineModeIsEnabled("offline"),
        ConnectionResetError(104, "reset"),
        RuntimeError(""),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("offline", [False, True])
def test_what_cannot_be_had_is_told_in_one_line(
    error: Exception, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub(monkeypatch, error)
    named = "HF_HUB_OFFLINE" if offline else "Hugging Face Hub"
    with pytest.raises(NotFoundError, match=f"^owner/name.*{named}") as caught:
        load_model("owner/name", local_files_only=offline)
    assert "\n" not in str(caught.value)


SCRIPT = """
import json, socket, sys
def refuse(*arguments, **options):
    raise AssertionError("the network was asked for")
socket.socket.connect = socket.getaddrinfo = refuse
import torch, mpfnl
from mpfnl.errors import InputError
from mpfnl.models.loading import load_model
for name, revision, local in json.loads(sys.argv[1]):
    try:
        model = load_model(name, revision=revision, local_files_only=local)
        print(repr(float(model(torch.ones(1, 3, 8, 8, 8)).detach().double().sum())))
    except InputError as error:
        print(error)
"""


@pytest.mark.parametrize("offline", ["0", "1"])
def test_the_hubs_own_cache_serves_offline(offline: str, weights: Path, tmp_path: Path) -> None:
    """A cache laid out as the Hub's client does it: blobs, a snapshot of links to them, a reference."""
    repository = tmp_path / "hub" / "models--owner--name"
    snapshot = repository / "snapshots" / COMMIT
    for folder in (snapshot, repository / "blobs", repository / "refs"):
        folder.mkdir(parents=True)
    for number, file in enumerate(sorted(weights.iterdir())):
        blob = repository / "blobs" / f"{number:040x}"
        file.rename(blob)
        (snapshot / file.name).symlink_to(f"../../blobs/{blob.name}")
    (repository / "refs" / "main").write_text(COMMIT)
    local = offline == "0"
    asked = [["owner/name", None, local], ["owner/name", COMMIT, local], ["owner/other", None, local]]
    asked.append(["owner/name", "v2", True])
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": offline},
    )
    assert result.returncode == 0, result.stderr[-2000:]
    expected = repr(float(model()(torch.ones(1, 3, 8, 8, 8)).detach().double().sum()))
    *sums, missing, no_revision = result.stdout.splitlines()
    assert sums == [expected] * 2
    assert missing.startswith("owner/other: not in the Hub's cache here, and offline")
    assert no_revision.startswith("owner/name, revision v2: not in the Hub's cache here")
    assert result.stderr.count("owner/name: trained on phantoms") == 1


class FakeApi:
    """Notes what is done, in order; keeps a copy of what is sent."""

    calls: list[tuple[str, dict[str, Any]]]
    sent: dict[str, bytes]

    def __init__(self, token: str | None = None) -> None:
        self.calls.append(("login", {"token": token}))

    def create_repo(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_repo", {"repo_id": repo_id} | options))

    def create_branch(self, repo_id: str, **options: Any) -> None:
        self.calls.append(("create_branch", {"repo_id": repo_id} | options))

    def upload_folder(self, *, folder_path: Path, **options: Any) -> SimpleNamespace:
        self.calls.append(("upload_folder", options))
        self.sent.update({file.name: file.read_bytes() for file in Path(folder_path).iterdir()})
        return SimpleNamespace(commit_url="https://hub/commit/1")


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    FakeApi.calls, FakeApi.sent = [], {}
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    return FakeApi


def test_the_options_that_the_fakes_take_are_the_clients() -> None:
    from inspect import signature

    upload = {"repo_id", "folder_path", "revision", "commit_message", "allow_patterns"}
    assert upload <= set(signature(huggingface_hub.HfApi.upload_folder).parameters)
    assert {"private", "exist_ok"} <= set(signature(huggingface_hub.HfApi.create_repo).parameters)
    assert {"branch", "exist_ok"} <= set(signature(huggingface_hub.HfApi.create_branch).parameters)
    fetched = set(signature(huggingface_hub.snapshot_download).parameters)
    assert {"revision", "local_files_only", "allow_patterns"} <= fetched


def test_what_is_sent_is_a_weights_folder(api: type[FakeApi], tmp_path: Path) -> None:
    address = model().push_to_hub("owner/name", private=True, token="t", revision="dev", message="first")
    assert address == "https://hub/commit/1"
    assert [name for name, _ in api.calls] == ["login", "create_repo", "create_branch", "upload_folder"]
    told = dict(api.calls)
    assert told["login"] == {"token": "t"}
    assert told["create_repo"] == {"repo_id": "owner/name", "private": True, "exist_ok": True}
    assert told["create_branch"] == {"repo_id": "owner/name", "branch": "dev", "exist_ok": True}
    assert (told["upload_folder"]["revision"], told["upload_folder"]["commit_message"]) == ("dev", "first")
    for name, content in api.sent.items():
        (tmp_path / name).write_bytes(content)
    x = torch.rand(1, 3, 8, 8, 8)
    assert torch.equal(mpfnl.PFNL3D.from_pretrained(tmp_path)(x), model()(x))


def test_a_hub_that_refuses_is_told_in_one_line(api: type[FakeApi], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: FakeApi, repo_id: str, **options: Any) -> None:
        raise errors.LocalTokenNotFoundError("Token is required\nlog in")

    monkeypatch.setattr(api, "create_repo", refuse)
    with pytest.raises(InputError, match=r"^owner/name: .*Token") as caught:
        model().push_to_hub("owner/name")
    assert "\n" not in str(caught.value)
    assert not api.sent


def test_without_the_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for act in (lambda: load_model("owner/name"), lambda: model().push_to_hub("owner/name")):
        with pytest.raises(MissingExtraError, match=r"pip install 'mpfnl\[hub\]'"):
            act()
