"""The words of the page in its languages: one file for Gradio's labels and for our scripts, own/texts.json.

A text may have places for values, as in "{files} files"; `labels` fills in those that are settings.
"""

from __future__ import annotations

import json
from pathlib import Path

from app.service.settings import Settings

OWN = Path(__file__).resolve().parent / "own"
FALLBACK = "en"
# Every kind of Chinese that a browser may ask for by name; a browser that asks for anything else gets English.
LOCALES = {"en": "en", "zh": "zh", "zh-CN": "zh", "zh-TW": "zh", "zh-HK": "zh"}


def load_texts() -> dict[str, dict[str, str]]:
    """Texts by language and name."""
    found: dict[str, dict[str, str]] = json.loads((OWN / "texts.json").read_text(encoding="utf-8"))
    return found


def labels(settings: Settings) -> dict[str, dict[str, str]]:
    """Texts by locale, with the limits of this service filled in, for Gradio."""
    texts = load_texts()
    limits = {
        "size": shown_bytes(settings.max_upload_bytes),
        "files": str(settings.page_batch_files),
        "hotword_size": shown_bytes(settings.max_hotword_bytes),
    }
    return {
        locale: {name: _filled(text, limits) for name, text in texts[language].items()}
        for locale, language in LOCALES.items()
    }


def shown_bytes(count: int) -> str:
    """A size as people write it: 256 KiB, 1.5 GiB."""
    value, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            break
        value, unit = value / 1024, larger
    return f"{value:.1f}".removesuffix(".0") + f" {unit}"


def _filled(text: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        text = text.replace("{" + name + "}", value)
    return text
