"""The words of the page: complete in both languages, and no word is asked for that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.service.page.texts import LOCALES, OWN, labels, load_texts, shown_bytes
from tests.support.service import settings_in

TEXTS = load_texts()
PLACE = re.compile(r"\{\w+\}")


def test_both_languages_have_the_same_texts_with_the_same_places() -> None:
    assert set(TEXTS) == {"en", "zh"}
    assert list(TEXTS["en"]) == list(TEXTS["zh"])
    for name, text in TEXTS["en"].items():
        assert sorted(PLACE.findall(text)) == sorted(PLACE.findall(TEXTS["zh"][name])), name
        assert text.strip() and TEXTS["zh"][name].strip(), name


def test_the_chinese_texts_are_chinese() -> None:
    alike = [name for name, text in TEXTS["zh"].items() if text == TEXTS["en"][name]]
    assert set(alike) <= {"hotwords_placeholder"}


def test_every_text_is_used_and_every_used_text_is_there() -> None:
    folder = OWN.parent
    source = "\n".join(path.read_text(encoding="utf-8") for path in [*folder.glob("*.py"), *OWN.glob("*.js")])
    named = set(re.findall(r"""(?:\bt|\bwords|\bhas)\(\s*["'](\w+)["']""", source))
    named |= set(re.findall(r"""texts\[["'](\w+)["']\]""", source))
    named |= set(re.findall(r"""["'](system_\w+)["']""", source))
    assert named - {"system_"} <= set(TEXTS["en"])
    # Names that are put together: error_ and a code, job_ and a state ...
    built = (
        "error_",
        "fix_",
        "engine_",
        "job_",
        "limits_",
        "tab_",
        "file_",
        "batch_",
        "lost",
        "hide_text",
        "show_text",
    )
    assert [name for name in TEXTS["en"] if name not in named and not name.startswith(built)] == []


def test_every_state_and_every_usual_code_has_words() -> None:
    for state in ("queued", "running", "done", "failed", "cancelled"):
        assert f"job_{state}" in TEXTS["en"]
    for state in ("starting", "ready", "asleep", "failed", "draining"):
        assert f"engine_{state}" in TEXTS["en"]
    for code in (
        "invalid_file",
        "file_too_large",
        "audio_too_long",
        "rate_limit_exceeded",
        "engine_unavailable",
    ):
        assert f"error_{code}" in TEXTS["en"]


def test_limits_stand_in_the_labels_of_every_locale(tmp_path: Path) -> None:
    made = labels(settings_in(tmp_path, page_batch_files=3, max_hotword_bytes=2048))
    assert set(made) == set(LOCALES)
    assert made["en"]["batch_label"] == "Recordings or videos, up to 3"
    assert "3 个" in made["zh-CN"]["batch_label"] and "2 KiB" in made["zh-TW"]["hotwords_info"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (2 << 30, "2 GiB"), (3 << 50, "3072 TiB")],
)
def test_sizes_are_written_as_people_do(count: int, shown: str) -> None:
    assert shown_bytes(count) == shown
