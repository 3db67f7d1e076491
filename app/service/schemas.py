"""What clients send and get, as OpenAI defines it: options read from a form, and models for the OpenAPI document.

Options are read by hand, because the form is streamed to disk: a bad value is refused with its name, an unknown
field is ignored. The words of the answers are put together in answers.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.service.errors import RequestError
from app.service.uploads import Form

FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
STREAMED = ("json", "text")
GRANULARITIES = ("segment", "word")
_LANGUAGE = re.compile(r"([A-Za-z]{2,3})([-_][A-Za-z0-9]{2,8}){0,3}")
LANGUAGE_NAMES = {"zh": "chinese", "yue": "cantonese", "en": "english", "ja": "japanese", "ko": "korean"}
_TRUE, _FALSE = {"true", "1", "yes", "on"}, {"false", "0", "no", "off", ""}


@dataclass(frozen=True)
class TranscriptionOptions:
    """The fields of POST /v1/audio/transcriptions that matter here.

    Attributes:
        model: as the client called it.
        hotwords: text of hot words, of whichever field they came; None without any.
        hotwords_wanted: they were asked for by name, not taken from the prompt.
        language: code, or "" when the client leaves it open.
    """

    model: str
    form: str
    granularities: frozenset[str]
    stream: bool
    language: str
    hotwords: str | None
    hotwords_wanted: bool


@dataclass(frozen=True)
class Offer:
    """What a request may ask of this service: names of the model, its languages (None: any), and how many bytes of
    hot words."""

    models: tuple[str, ...]
    languages: tuple[str, ...] | None
    max_hotword_bytes: int


def options_of(form: Form, offer: Offer) -> TranscriptionOptions:
    """The options in a form.

    Raises:
        RequestError: a field is missing or has a value that cannot be honoured.
    """
    response_format = (form.last("response_format") or "json").strip()
    if response_format not in FORMATS:
        raise bad_value("response_format", response_format, FORMATS)
    granularities = [
        value.strip() for value in form.all("timestamp_granularities[]", "timestamp_granularities")
    ]
    for value in granularities:
        if value not in GRANULARITIES:
            raise bad_value("timestamp_granularities[]", value, GRANULARITIES)
    if "word" in granularities and response_format != "verbose_json":
        raise RequestError(
            f"Times of words are not part of the format {response_format}",
            fix="Ask for response_format=verbose_json.",
            param="timestamp_granularities[]",
            code="invalid_value",
        )
    stream = _flag(form, "stream")
    if stream and response_format not in STREAMED:
        raise RequestError(
            f"The format {response_format} cannot be streamed",
            fix="Leave stream out, or ask for response_format=json.",
            param="stream",
            code="invalid_value",
        )
    _check_temperature(form)
    hotwords, wanted = _hotwords(form, offer.max_hotword_bytes)
    return TranscriptionOptions(
        model=_model(form, offer.models),
        form=response_format,
        granularities=frozenset(granularities) or frozenset({"segment"}),
        stream=stream,
        language=_language(form, offer.languages),
        hotwords=hotwords,
        hotwords_wanted=wanted,
    )


def unknown_model(name: str, models: Collection[str]) -> RequestError:
    """OpenAI's answer to a model that is not there."""
    shown = name if len(name) <= 80 else name[:77] + "..."
    return RequestError(
        f"The model '{shown}' does not exist here",
        fix=f"This service answers to {', '.join(models)}.",
        status=404,
        param="model",
        code="model_not_found",
    )


def bad_value(param: str, value: str, allowed: Collection[str]) -> RequestError:
    """The error for a value that is none of those allowed."""
    shown = value if len(value) <= 40 else value[:37] + "..."
    return RequestError(
        f"'{shown}' is not a value of {param}",
        fix=f"It is one of {', '.join(allowed)}.",
        param=param,
        code="invalid_value",
    )


def _model(form: Form, models: Collection[str]) -> str:
    name = (form.last("model") or "").strip()
    if not name:
        raise RequestError(
            "The field model is missing",
            fix="Add model=whisper-1, or a name that GET /v1/models lists.",
            param="model",
            code="missing_required_parameter",
        )
    if name.casefold() not in {known.casefold() for known in models}:
        raise unknown_model(name, models)
    return name


def _flag(form: Form, name: str) -> bool:
    value = (form.last(name) or "").strip().casefold()
    if value in _TRUE or value in _FALSE:
        return value in _TRUE
    raise bad_value(name, value, ("true", "false"))


def _language(form: Form, known: tuple[str, ...] | None) -> str:
    value = (form.last("language") or "").strip()
    if not value or value.casefold() == "auto":
        return ""
    found = _LANGUAGE.fullmatch(value)
    if found is None:
        raise RequestError(
            f"'{value[:40]}' is not a language code",
            fix="Give an ISO 639-1 code such as zh or en, or leave it out.",
            param="language",
            code="invalid_value",
        )
    code = found[1].casefold()
    if known is not None and code not in known:
        raise bad_value("language", value, known)
    return code


def _check_temperature(form: Form) -> None:
    """Checked and ignored: nothing is sampled here."""
    value = (form.last("temperature") or "0").strip()
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise bad_value("temperature", value, ("the numbers from 0 to 1",))


def _hotwords(form: Form, max_bytes: int) -> tuple[str | None, bool]:
    """Text of hot words, and whether it was meant as such. `keywords` is OpenAI's newer field for the same."""
    for names, wanted in (
        (("hotwords", "hotwords[]"), True),
        (("keywords[]", "keywords"), True),
        (("prompt",), False),
    ):
        text = "\n".join(value for value in form.all(*names) if value.strip())
        if not text:
            continue
        size = len(text.encode("utf-8", "replace"))
        if size > max_bytes:
            raise RequestError(
                f"The text of {names[0]} has {size} bytes, more than the {max_bytes} allowed",
                fix="Keep the words that this recording needs.",
                param=names[0],
                code="string_above_max_length",
            )
        return text, wanted
    return None, False


class ErrorObject(BaseModel):
    """What went wrong, and what to do."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """Body of every answer that is not 2xx."""

    error: ErrorObject


class Usage(BaseModel):
    """How much audio it was."""

    type: Literal["duration"] = "duration"
    seconds: float


class TranscriptionBody(BaseModel):
    """Answer for response_format=json."""

    text: str = Field(examples=["今天下午三点开会"])
    usage: Usage


class TranscribedWord(BaseModel):
    """A word with its times in seconds."""

    word: str
    start: float
    end: float


class TranscribedSegment(BaseModel):
    """A stretch of speech. Fields of Whisper that mean nothing for this model have neutral values."""

    id: int
    start: float
    end: float
    text: str
    seek: int = 0
    tokens: list[int] = []
    temperature: float = 0.0
    avg_logprob: float = 0.0
    compression_ratio: float = 1.0
    no_speech_prob: float = 0.0


class UnusableHotword(BaseModel):
    """A hot word that is not listened for, and why."""

    text: str
    reason: str


class HotwordReport(BaseModel):
    """What became of the hot words."""

    used: list[str]
    unusable: list[UnusableHotword]
    warnings: list[str]


class VerboseTranscriptionBody(BaseModel):
    """Answer for response_format=verbose_json; words and segments as asked for with timestamp_granularities[]."""

    task: Literal["transcribe"] = "transcribe"
    language: str
    duration: float
    text: str
    words: list[TranscribedWord] | None = None
    segments: list[TranscribedSegment] | None = None
    usage: Usage
    hotwords: HotwordReport | None = None
    notes: list[str] = Field([], description="damage in the file that was worked around")


class ModelBody(BaseModel):
    """A name that stands for the model served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelListBody(BaseModel):
    """All names."""

    object: Literal["list"] = "list"
    data: list[ModelBody]


def error_responses(*codes: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI document."""
    return {code: {"model": ErrorBody} for code in codes}


TRANSCRIPTION_FORM: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file", "model"],
                "properties": {
                    "file": {
                        "type": "string",
                        "format": "binary",
                        "description": "audio or video, any container",
                    },
                    "model": {"type": "string", "example": "whisper-1"},
                    "language": {"type": "string", "example": "zh"},
                    "prompt": {"type": "string", "description": "taken as hot words when there are none"},
                    "hotwords": {
                        "type": "string",
                        "example": "张筱雨，New York",
                        "description": "words to expect, separated by commas or lines",
                    },
                    "response_format": {"type": "string", "enum": list(FORMATS), "default": "json"},
                    "temperature": {"type": "number", "minimum": 0, "maximum": 1, "description": "ignored"},
                    "timestamp_granularities[]": {
                        "type": "array",
                        "items": {"type": "string", "enum": list(GRANULARITIES)},
                        "description": "word: with verbose_json only",
                    },
                    "stream": {
                        "type": "boolean",
                        "default": False,
                        "description": "server-sent events; json and text only",
                    },
                },
            }
        }
    },
}
