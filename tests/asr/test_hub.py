"""Fetching from the hub with a fake client: only what a pack is made of, room first, and words for each failure."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("modelscope_hub", reason="the hub's client is not installed")

from modelscope_hub import api as client
from modelscope_hub import errors as client_errors

from app.asr import hub
from app.asr.errors import AsrError, ResourceError, SourceError


class DiskUsage(NamedTuple):
    total: int
    used: int
    free: int


@dataclass
class FakeFile:
    path: str
    size: int
    is_dir: bool = False


class FakeHub:
    """A client that lists some files and notes what it is to fetch; `failing` is raised while it fetches."""

    failing: Exception | None = None
    fetched: dict[str, Any]
    endpoint = ""

    def __init__(self, endpoint: str = "") -> None:
        FakeHub.endpoint = endpoint

    def list_repo_files(self, model_id: str, kind: str) -> list[FakeFile]:
        weights = FakeFile("model.pt", 900_000_000)
        return [
            weights,
            FakeFile("config.yaml", 1000),
            FakeFile("example/x.wav", 10**9),
            FakeFile("example", 0, True),
        ]

    def download_repo(self, model_id: str, kind: str, **options: Any) -> None:
        if self.failing is not None:
            raise self.failing
        FakeHub.fetched = options


@pytest.fixture(autouse=True)
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "HubApi", FakeHub)
    monkeypatch.setattr(FakeHub, "failing", None)
    room(monkeypatch, 10**10)


def room(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr("app.asr.hub.shutil.disk_usage", lambda _: DiskUsage(10**11, 10**11 - free, free))


def fetch(cache: Path, **options: Any) -> list[str]:
    """What was told on the way."""
    told: list[str] = []
    assert hub.fetch("owner/model", cache, told.append, **options) == cache / "owner/model"
    return told


def test_only_what_a_pack_is_made_of_is_fetched(tmp_path: Path) -> None:
    told = fetch(tmp_path, endpoint="http://mirror.example")
    assert FakeHub.endpoint == "http://mirror.example"
    assert FakeHub.fetched["local_dir"] == str(tmp_path / "owner/model")
    assert "*.pt" in FakeHub.fetched["allow_patterns"] and "*.wav" not in FakeHub.fetched["allow_patterns"]
    assert "downloading 900 MB" in told[-1], "the example's gigabyte is not fetched, and not told"


def test_room_is_looked_for_before_anything_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(monkeypatch, 1_050_000_000)
    with pytest.raises(ResourceError, match="1050 MB free, the download needs 1110 MB") as caught:
        fetch(tmp_path)
    assert "--cache" in caught.value.fix


def test_what_is_there_already_needs_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    half = tmp_path / "owner/model/model.pt"
    half.parent.mkdir(parents=True)
    with half.open("wb") as file:
        file.truncate(600_000_000)  # without taking a block of the disk
    room(monkeypatch, 600_000_000)
    fetch(tmp_path)


@pytest.mark.parametrize(
    ("failure", "problem", "fix"),
    [
        (client_errors.NotExistError("404"), "the hub has no model owner/model", "Check the spelling"),
        (client_errors.NetworkError("timed out"), "cannot be reached", "goes on where it stopped"),
        (client_errors.HubError("checksum"), "fetching owner/model failed", "goes on where it stopped"),
        (OSError(28, "No space left on device"), "No space left on device", "goes on where it stopped"),
    ],
)
def test_each_failure_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception, problem: str, fix: str
) -> None:
    monkeypatch.setattr(FakeHub, "failing", failure)
    with pytest.raises(SourceError, match=problem) as caught:
        fetch(tmp_path)
    assert fix in caught.value.fix


def test_without_the_client_it_says_which_environment_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "modelscope_hub.api", None)
    with pytest.raises(AsrError, match="needs the package modelscope") as caught:
        fetch(tmp_path)
    assert "make_venv.sh pack" in caught.value.fix
