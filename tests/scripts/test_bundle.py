"""The archive for hosts without internet: only whole packs and images that are here go in, and all is summed."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from app.asr.catalogue import DEMO_PACKS
from scripts import bundle
from tests.scripts.test_up import FakeDocker, docker

__all__ = ["docker"]


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    target = tmp_path / "packs"
    for file in DEMO_PACKS.rglob("*"):
        if file.is_file():
            copy = target / file.relative_to(DEMO_PACKS)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
    return target


def test_the_files_of_all_packs_are_found(packs: Path) -> None:
    (packs / "int8" / "left-over").write_text("not part of the pack", encoding="utf-8")
    found = {path.as_posix() for path in bundle.pack_files(packs)}
    assert {"int8/manifest.json", "fp16/manifest.json"} <= found
    assert "int8/left-over" not in found


def test_a_damaged_pack_does_not_travel(packs: Path) -> None:
    file = next(path for path in (packs / "int8").iterdir() if path.suffix == ".onnx")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(bundle.MissingError, match=file.name):
        bundle.pack_files(packs)


def test_a_directory_without_a_pack_is_told(tmp_path: Path) -> None:
    with pytest.raises(bundle.MissingError, match="no model pack"):
        bundle.pack_files(tmp_path)


def test_an_image_that_is_not_here_is_told(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.answer([("image inspect seaco-speech:0.1.0-exporter", 1, "", "")])
    monkeypatch.setenv("OUTPUT", str(tmp_path / "out"))
    assert bundle.main() == 2
    assert "make image VARIANT=exporter" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_the_archive_checks_itself(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, packs: Path, tmp_path: Path
) -> None:
    """With a fake Docker, which saves nothing: the file of the images is laid where it would be."""
    real = subprocess.run

    def run(command: list[str], **more: Any) -> Any:
        if command[:2] == ["docker", "save"]:
            Path(command[3]).write_bytes(b"images")
        return real(command, **more)

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setenv("OUTPUT", str(tmp_path / "out"))
    monkeypatch.setenv("PACK", str(packs))
    assert bundle.main() == 0
    with tarfile.open(tmp_path / "out" / "seaco-speech-0.1.0.tar.gz") as archive:
        archive.extractall(tmp_path / "host", filter="data")
    host = tmp_path / "host" / "seaco-speech-0.1.0"
    lines = (host / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
    files = {path.relative_to(host).as_posix() for path in host.rglob("*") if path.is_file()} - {"SHA256SUMS"}
    assert set(sums) == files
    assert sums["images.tar"] == hashlib.sha256(b"images").hexdigest()
    assert {
        "install.sh",
        "scripts/up.py",
        "scripts/picking/plan.py",
        "models/packs/int8/manifest.json",
    } <= files
    docker.answer([])
    (host / "images" / "variants.json").write_text("{}", encoding="utf-8")
    done = subprocess.run([host / "install.sh"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "damaged" in done.stderr
