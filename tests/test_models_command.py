"""The verb that lists the models: its table, its JSON, and what it fetches."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from app.asr.catalogue import MODELS_VARIABLE, CatalogueEntry, listing
from app.asr.errors import InputError
from app.cli import main
from app.models_command import models


@pytest.fixture(autouse=True)
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    return tmp_path


def test_the_table_has_a_line_for_each_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    head, *rows = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert [row.split()[0] for row in rows] == [wanted.name for wanted in listing()]
    for column in ("languages", "download", "memory", "hot words", "backends", "here"):
        assert column in head
    demo = rows[-1]
    assert demo.endswith("fp16, int8") and "onnx, torch" in demo
    assert rows[0].endswith("-") and "247.3 M" in rows[0]


def test_the_table_says_what_is_here(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (empty / "uniasr").mkdir()
    (empty / "uniasr" / "model.pt").touch()
    assert main(["models"]) == 0
    [row] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("uniasr")]
    assert row.endswith("files")


def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["models"]
    assert len(data) == len(listing())
    whisper = next(item for item in data if item["name"] == "whisper-tiny")
    assert (whisper["extra"], whisper["longest_seconds"], whisper["here"]) == ("openai-whisper", 30.0, [])


def test_fetching_hands_the_entry_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen: list[str] = []

    def fetch(wanted: CatalogueEntry, progress: Callable[[str], None]) -> Path:
        seen.append(wanted.name)
        progress("under way")
        return tmp_path

    assert models(argparse.Namespace(fetch="SenseVoice", check=None, json=False), fetch) == 0
    assert seen == ["sensevoice-small"]
    told = capsys.readouterr()
    assert told.out == "" and "under way" in told.err and str(tmp_path) in told.err


def test_a_model_that_wants_a_pack_is_not_fetched() -> None:
    with pytest.raises(InputError, match="runs from a pack") as caught:
        models(argparse.Namespace(fetch="paraformer-small", check=None, json=False))
    assert "python -m app pack paraformer-small" in caught.value.fix


def test_fetching_an_unknown_model_fails_with_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--fetch", "seaco-large"]) == 2
    assert "sensevoice-small" in capsys.readouterr().err


def test_a_check_says_what_is_here_or_how_to_get_it(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--check", "demo"]) == 0
    assert "demo is here" in capsys.readouterr().err
    assert main(["models", "--check", "seaco"]) == 2
    assert "app pack seaco-paraformer-large" in capsys.readouterr().err
    assert main(["models", "--check", "whisper-tiny"]) == 2
    assert "--fetch whisper-tiny" in capsys.readouterr().err
    (empty / "whisper-tiny").mkdir()
    (empty / "whisper-tiny" / "tiny.pt").touch()
    assert main(["models", "--check", "whisper"]) == 0
    assert main(["models", "--check", "nobody-knows-it"]) == 2
    assert "There is no model named" in capsys.readouterr().err
