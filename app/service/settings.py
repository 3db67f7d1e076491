"""Every knob of the service: its default, its limits, what it does. Read from ASR_* variables and the command line.

What is not here cannot be set. A value that cannot be honoured stops the start with a sentence, never a traceback.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.asr.engine import (
    DEFAULT_MODEL,
    DEVICE,
    MAX_SEGMENT_SECONDS,
    MIN_SEGMENT_SECONDS,
    EngineOptions,
    bytes_of,
)
from app.asr.errors import InputError, OutputError
from app.service.hosts import check_name

PREFIX = "ASR_"
Exposure = Literal["public", "key", "off"]
# Names that unmodified clients send; all of them stand for the model served here.
DEFAULT_ALIASES = (
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
)
MIN_KEY_LENGTH = 8
_LIST = re.compile(r"[,\s]+")


class Settings(BaseSettings):
    """Settings of `python -m app serve`; each is ASR_ and its name in capitals in the environment."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", str_max_length=65536)

    model: str = Field(
        DEFAULT_MODEL, min_length=1, max_length=4096, description="model name or pack directory"
    )
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    precision: Literal["auto", "fp32", "fp16", "int8"] = Field("auto", description="of the network")
    punctuation: str = Field(
        "auto",
        min_length=1,
        max_length=4096,
        description="auto (ct-punc-c where its pack is), off, or a punctuation pack",
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="of computation; empty: the processors granted"
    )
    hotwords: Literal["on", "off"] = Field("on", description="off does not load that part of the model")
    batch_size: int | None = Field(
        None, ge=1, le=4096, description="segments at once at most, whatever memory there is; empty: planned"
    )
    vram_limit: int | None = Field(
        None,
        ge=1 << 20,
        description="GPU memory for weights and batches, such as 1.5GiB; empty: weights and 120 MiB",
    )
    segment_seconds: float | None = Field(
        None,
        ge=MIN_SEGMENT_SECONDS,
        le=MAX_SEGMENT_SECONDS,
        description="longest stretch recognised at once; empty: 30, and sentences are joined up to 15",
    )
    variant: str = Field(
        "",
        max_length=100,
        pattern=r"^[\w.-]*$",
        description="name of the image this runs in, for the metrics",
    )
    model_aliases: Annotated[tuple[str, ...], NoDecode] = Field(
        DEFAULT_ALIASES, max_length=32, description="names that stand for the model in requests"
    )

    host: str = Field("127.0.0.1", min_length=1, max_length=255, description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="port to listen on; 0 takes a free one")
    root_path: str = Field("", max_length=255, description="path below which a reverse proxy serves this")
    data_dir: Path = Field(Path("data"), description="directory for uploads and jobs")

    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (),
        max_length=1000,
        description="keys that clients must give, separated by commas; empty: none needed",
    )
    api_keys_file: Path | None = Field(None, description="file with one key a line, in addition")
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        max_length=100,
        description="names this service is asked by, beside its own; without keys others are refused; * is any",
    )

    max_upload_bytes: int = Field(2 << 30, ge=1 << 10, le=1 << 40, description="largest request body")
    max_audio_seconds: float = Field(12 * 3600, ge=1, le=7 * 86400, description="longest file")
    max_hotword_bytes: int = Field(
        256 << 10, ge=0, le=1 << 20, description="longest text of hot words or prompt"
    )
    queue_seconds: float = Field(
        4 * 3600, ge=1, le=365 * 86400, description="audio that may wait before requests are refused"
    )
    idle_seconds: float | None = Field(
        None, ge=1, le=30 * 86400, description="without work for so long, the model is unloaded; empty: never"
    )
    upload_idle_seconds: float = Field(
        30, ge=0.1, le=3600, description="longest pause of an upload, longest time for the head of a request"
    )
    request_seconds: float = Field(4 * 3600, ge=0.1, le=7 * 86400, description="longest time for one request")
    jobs_at_once: int = Field(4, ge=1, le=64, description="jobs that run at the same time")
    jobs_keep_seconds: float = Field(
        7 * 86400, ge=60, le=10 * 365 * 86400, description="ended jobs are forgotten when they are older"
    )
    jobs_keep_bytes: int = Field(
        20 << 30, ge=1 << 20, le=1 << 50, description="disk for uploads and results of jobs"
    )
    grace_seconds: float = Field(25, ge=0, le=3600, description="at the end, work may take so long to finish")

    page: Literal["on", "off"] = Field("on", description="the page for people at /ui: on or off")
    page_batch_files: int = Field(10, ge=1, le=100, description="most files in one batch of the page")

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least level that is logged"
    )
    log_format: Literal["json", "text"] = Field("json", description="form of a log line")
    metrics: Exposure = Field("public", description="who may read /metrics: public, key or off")
    docs: Exposure = Field("public", description="who may read /docs and /openapi.json: public, key or off")

    @field_validator(
        "threads",
        "idle_seconds",
        "api_keys_file",
        "batch_size",
        "vram_limit",
        "segment_seconds",
        mode="before",
    )
    @classmethod
    def _empty_is_none(cls, value: Any) -> Any:
        return None if value == "" else value

    @field_validator("model_aliases", "api_keys", "allowed_hosts", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(part for part in _LIST.split(value) if part) if isinstance(value, str) else value

    @field_validator("vram_limit", "jobs_keep_bytes", "max_upload_bytes", mode="before")
    @classmethod
    def _size(cls, value: Any) -> Any:
        return bytes_of(value) if isinstance(value, str) and not value.strip().isdigit() else value

    @field_validator("device")
    @classmethod
    def _known_device(cls, value: str) -> str:
        if not DEVICE.fullmatch(value):
            raise ValueError("is none of auto, cpu, cuda, cuda:N")
        return value

    @field_validator("root_path")
    @classmethod
    def _plain_path(cls, value: str) -> str:
        if value and not re.fullmatch(r"(/[\w.~-]+)+", value):
            raise ValueError("is not a path such as /speech")
        return value

    @field_validator("api_keys")
    @classmethod
    def _long_enough(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for key in value:
            check_key(key.get_secret_value())
        return value

    @field_validator("allowed_hosts")
    @classmethod
    def _names_of_hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(name.casefold().rstrip(".") for name in value)
        for name in names:
            check_name(name)
        return names

    @property
    def engine_options(self) -> EngineOptions:
        """What of this concerns the engine."""
        return EngineOptions(
            model=self.model,
            precision=self.precision,
            device=self.device,
            vram_limit=self.vram_limit,
            threads=self.threads,
            hotwords=self.hotwords == "on",
            segment_seconds=self.segment_seconds,
            batch_size=self.batch_size,
        )

    @property
    def uploads(self) -> Path:
        """Where files on their way through a request lie."""
        return self.data_dir / "uploads"


def check_key(key: str) -> None:
    """Raises ValueError for what cannot be a key; the key itself is never repeated."""
    if len(key) < MIN_KEY_LENGTH or len(key) > 512 or not key.isascii() or not key.isprintable():
        raise ValueError(f"holds a key that is not of {MIN_KEY_LENGTH} to 512 visible ASCII characters")


def load_settings(given: Mapping[str, Any] | None = None) -> Settings:
    """The settings of the environment, with `given` in front of them; keys of the key file are read in.

    Raises:
        InputError: a value that cannot be used.
        OutputError: the data directory cannot be written.
    """
    try:
        settings = Settings(**dict(given or {}))
    except ValidationError as error:
        raise _told(error) from None
    if settings.api_keys_file is not None:
        keys = (*settings.api_keys, *_keys_of(settings.api_keys_file))
        settings = settings.model_copy(update={"api_keys": keys})
    _prepare(settings)
    return settings


def _keys_of(path: Path) -> tuple[SecretStr, ...]:
    try:
        with path.open("rb") as file:
            text = file.read(1 << 20).decode("utf-8")
        keys = [line.strip() for line in text.splitlines()]
        keys = [key for key in keys if key and not key.startswith("#")]
        for key in keys:
            check_key(key)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text, or a key is too short"
        raise InputError(
            f"The file of API keys {path} cannot be used ({reason})",
            fix=f"Give a text file with one key a line, {MIN_KEY_LENGTH} visible ASCII characters or more each.",
        ) from error
    if not keys:
        # Whoever names a file of keys wants a closed service; an empty one must not open it.
        raise InputError(
            f"The file of API keys {path} holds no key", fix="Put one key a line into it, or do not give it."
        )
    return tuple(SecretStr(key) for key in keys)


def _prepare(settings: Settings) -> None:
    """The data directory exists and can be written."""
    try:
        settings.uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
        probe = settings.uploads / f".{secrets.token_hex(8)}"
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise OutputError(
            f"The data directory {settings.data_dir} cannot be written ({error.strerror})",
            fix=f"Give another with {PREFIX}DATA_DIR or --data-dir, or let user {os.getuid()} write there.",
        ) from error


def _told(error: ValidationError) -> InputError:
    """The first fault, in the words of who set it. Values are left out: one of them may be a key."""
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    name = str(fault["loc"][0]) if fault["loc"] else "the settings"
    reason = fault["msg"].removeprefix("Value error, ")
    field = Settings.model_fields.get(name)
    meaning = f" ({field.description})" if field is not None else ""
    return InputError(
        f"The setting {PREFIX}{name.upper()}{meaning} cannot be used: {reason}",
        fix=f"Change {PREFIX}{name.upper()}, or --{name.replace('_', '-')} where it was given.",
    )
