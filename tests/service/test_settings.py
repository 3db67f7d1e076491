"""Settings: where they come from, and what is said about those that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.asr.engine import EngineOptions
from app.asr.errors import InputError, OutputError
from app.service.settings import Settings, load_settings


def test_defaults_listen_on_this_machine_only(tmp_path: Path) -> None:
    settings = load_settings({"data_dir": tmp_path})
    assert (settings.host, settings.port, settings.model, settings.api_keys) == (
        "127.0.0.1",
        8000,
        "demo",
        (),
    )
    assert settings.uploads.is_dir()


def test_the_environment_sets_and_the_command_line_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASR_PORT", "9000")
    monkeypatch.setenv("ASR_DEVICE", "cpu")
    monkeypatch.setenv("ASR_MODEL_ALIASES", "whisper-1, base")
    monkeypatch.setenv("ASR_IDLE_SECONDS", "")
    settings = load_settings({"data_dir": tmp_path, "port": "9001"})
    assert (settings.port, settings.device, settings.idle_seconds) == (9001, "cpu", None)
    assert settings.model_aliases == ("whisper-1", "base")


def test_the_engine_is_set_up_as_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASR_VRAM_LIMIT", "1.5GiB")
    monkeypatch.setenv("ASR_BATCH_SIZE", "4")
    monkeypatch.setenv("ASR_HOTWORDS", "off")
    monkeypatch.setenv("ASR_SEGMENT_SECONDS", "20")
    options = load_settings({"data_dir": tmp_path, "threads": "2"}).engine_options
    assert options == EngineOptions(
        vram_limit=3 << 29, batch_size=4, hotwords=False, segment_seconds=20.0, threads=2
    )


def test_every_setting_is_explained() -> None:
    assert not [name for name, field in Settings.model_fields.items() if not field.description]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "70000"),
        ("port", "http"),
        ("device", "gpu"),
        ("precision", "int4"),
        ("max_upload_bytes", "0"),
        ("allowed_hosts", "asr,http://asr"),
        ("allowed_hosts", "asr:8000"),
        ("allowed_hosts", "*.example.org"),
        ("queue_seconds", "-1"),
        ("max_audio_seconds", "nan"),
        ("metrics", "everyone"),
        ("root_path", "speech/"),
        ("api_keys", "short"),
        ("log_format", "xml"),
        ("vram_limit", "much"),
        ("batch_size", "0"),
        ("segment_seconds", "600"),
        ("hotwords", "maybe"),
        ("variant", "a b"),
    ],
)
def test_a_value_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"ASR_{name.upper()}", value)
    with pytest.raises(InputError) as caught:
        load_settings({"data_dir": tmp_path})
    assert f"ASR_{name.upper()}" in caught.value.problem
    assert caught.value.fix


def test_keys_come_from_both_places_and_are_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys"
    file.write_text("# ours\nkey-of-the-file\n\n", encoding="utf-8")
    monkeypatch.setenv("ASR_API_KEYS", "key-of-anna,key-of-bert")
    monkeypatch.setenv("ASR_API_KEYS_FILE", str(file))
    settings = load_settings({"data_dir": tmp_path})
    assert [key.get_secret_value() for key in settings.api_keys] == [
        "key-of-anna",
        "key-of-bert",
        "key-of-the-file",
    ]
    assert "key-of" not in repr(settings)


def test_a_bad_key_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load_settings({"data_dir": tmp_path, "api_keys": "gut-genug,hush"})
    assert "hush" not in str(caught.value)
    assert "gut-genug" not in str(caught.value)


@pytest.mark.parametrize("content", [None, "", "# none\n", "short\n", "schlüssel-eins\n"])
def test_a_file_of_keys_that_opens_nothing_stops_the_start(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="API keys"):
        load_settings({"data_dir": tmp_path, "api_keys_file": file})


def test_a_data_directory_that_cannot_be_written_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    given: dict[str, Any] = {"data_dir": tmp_path / "file" / "data"}
    with pytest.raises(OutputError, match="ASR_DATA_DIR"):
        load_settings(given)
