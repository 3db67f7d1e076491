"""Model packs: one directory that holds a model, says what it is, and proves that it is whole.

Here: the format, its checks on opening, and readers for the small parts. Making packs is packing.py's work, running
them a backend's. A pack is read with json, hashlib and onnxruntime or safetensors only: nothing in it is executed.

    manifest.json        what this is, where it came from, size and sha256 of every other file
    tokens.json          token list;  seg_dict: words and their pieces, where the model has one
    frontend.json        filter bank, frame stacking, normalisation
    golden.wav           a clip whose tokens the manifest gives
    weights.safetensors  all large tensors, mapped into memory, never copied whole
    <stage>.onnx         the graphs, a few hundred KB each; their weights point into weights.safetensors
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from app.asr.architecture import Architecture
from app.asr.audio import FrontendConfig
from app.asr.errors import PackError
from app.asr.tokens import Vocabulary

FORMAT = "paraformer-pack"
PUNCTUATION_FORMAT = "punctuation-pack"  # of punctuation_pack.py
FORMAT_VERSION = 2
MANIFEST = "manifest.json"
WEIGHTS = "weights.safetensors"
TOKENS = "tokens.json"
SEG_DICT = "seg_dict"
FRONTEND = "frontend.json"
GOLDEN = "golden.wav"
PRECISIONS = ("fp32", "fp16", "int8")

# The graphs, in the order in which a segment passes them; the last three only where the network has that part.
ENCODER, DECODER, TIMESTAMPS = "encoder.onnx", "decoder.onnx", "timestamps.onnx"
HOTWORD_ENCODER, BIAS_DECODER, BIAS_HEAD = "hotword_encoder.onnx", "bias_decoder.onnx", "bias_head.onnx"

_ALLOWED = re.compile(r"[A-Za-z0-9_]+(\.(safetensors|onnx|json|wav))?")
_PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_CHUNK_BYTES = 1 << 20
_MAX_MANIFEST_BYTES = 4 << 20
REMAKE = "Make the pack again with `python -m app pack`, or fetch it again."


@dataclass(frozen=True)
class FileRecord:
    """What the manifest promises of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Golden:
    """The clip that proves a pack on a device: its fp32 token ids, and those this precision gave when packed."""

    tokens: tuple[int, ...]
    packed_tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True)
class Manifest:
    """Everything about a pack but its bytes.

    Args:
        name: what users call the model.
        source: where it came from: kind ("directory" or "hub"), id, revision, sha256 of the checkpoint.
        prescales: per layer, the power of two (as its exponent, <= 0) that keeps the layer's output within float16.
    """

    name: str
    precision: str
    source: Mapping[str, str]
    architecture: Architecture
    golden: Golden
    files: Mapping[str, FileRecord]
    prescales: Mapping[str, int] = field(default_factory=dict)
    note: str = ""

    def to_json(self) -> str:
        """The text of manifest.json."""
        data = {"format": FORMAT, "format_version": FORMAT_VERSION} | asdict(self)
        return json.dumps(data, ensure_ascii=False, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Raises KeyError, TypeError or ValueError when the text is not such a manifest."""
        data = json.loads(text)
        form = data.pop("format")
        if form == PUNCTUATION_FORMAT:
            raise ValueError("it is that of a punctuation pack, which --punctuation takes, not --model")
        if form != FORMAT:
            raise ValueError("another format")
        version = data.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version}, this program reads {FORMAT_VERSION}")
        data["architecture"] = Architecture.from_json(data["architecture"])
        golden = data["golden"]
        data["golden"] = Golden(tuple(golden["tokens"]), tuple(golden["packed_tokens"]), golden["text"])
        data["files"] = {name: FileRecord(**record) for name, record in data["files"].items()}
        if data["precision"] not in PRECISIONS:
            raise ValueError(f"precision {data['precision']!r}")
        return Manifest(**data)


class Pack:
    """An opened, checked pack. Small parts are read when first asked for."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self.directory = directory
        self.manifest = manifest

    @classmethod
    def open(cls, directory: Path) -> Pack:
        """Opens a pack and checks every file against the manifest.

        Reading all bytes once costs well under a second for the large model, and warms the page cache for the load.

        Raises:
            PackError: the directory is no pack, or a file is missing, truncated, damaged, foreign or a pickle; the
                file is named.
        """
        manifest = _read_manifest(directory)
        check_files(directory, manifest.files, needed=(TOKENS, FRONTEND, WEIGHTS, ENCODER, DECODER))
        return cls(directory, manifest)

    @property
    def name(self) -> str:
        """What users call the model."""
        return self.manifest.name

    @property
    def precision(self) -> str:
        """fp32, fp16 or int8."""
        return self.manifest.precision

    @property
    def identity(self) -> str:
        """Tells packs apart: the sum of the weights, shortened."""
        return self.manifest.files[WEIGHTS].sha256[:16]

    def has(self, name: str) -> bool:
        """Whether the pack holds this file."""
        return name in self.manifest.files

    def path(self, name: str) -> Path:
        """Path of a file of the pack. Raises PackError when the pack has no such part."""
        if name not in self.manifest.files:
            raise PackError(f"The pack {self.directory} has no {name}", fix=REMAKE)
        return self.directory / name

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Tokens, and the word dictionary where there is one. Raises PackError."""
        return Vocabulary.load(self.path(TOKENS), self.path(SEG_DICT) if self.has(SEG_DICT) else None)

    @cached_property
    def frontend(self) -> FrontendConfig:
        """Raises PackError when frontend.json does not describe a frontend."""
        try:
            data = json.loads(self.path(FRONTEND).read_text(encoding="utf-8"))
            shift = np.array(data.pop("cmvn_shift"), dtype=np.float32)
            scale = np.array(data.pop("cmvn_scale"), dtype=np.float32)
            return FrontendConfig(cmvn_shift=shift, cmvn_scale=scale, **data)
        except (KeyError, TypeError, ValueError) as error:
            raise PackError(
                f"{self.path(FRONTEND)} does not describe a frontend ({error!r})", fix=REMAKE
            ) from error


def not_this_network(path: Path) -> PackError:
    """The error for weights that are not those of the manifest's architecture."""
    return PackError(f"{path} holds other tensors than the manifest's network has", fix=REMAKE)


def frontend_to_json(config: FrontendConfig) -> str:
    """The text of frontend.json; floats keep every bit."""
    data = asdict(config)
    for key in ("cmvn_shift", "cmvn_scale"):
        data[key] = [float(value) for value in data[key]]
    return json.dumps(data) + "\n"


def record_of(path: Path) -> FileRecord:
    """Size and sha256 of a file, read in pieces."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return FileRecord(bytes=size, sha256=digest.hexdigest())


def precision_of(directory: Path) -> str:
    """A pack's precision, read from its manifest alone. Raises PackError when it is no pack."""
    return _read_manifest(directory).precision


def _read_manifest(directory: Path) -> Manifest:
    path = directory / MANIFEST
    text = manifest_text(directory)
    try:
        return Manifest.from_json(text)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackError(f"{path} is not a manifest this program reads ({error})", fix=REMAKE) from error


def manifest_text(directory: Path) -> str:
    """What stands in a pack's manifest. Raises PackError when there is none."""
    path = directory / MANIFEST
    if not directory.is_dir():
        raise PackError(f"There is no model pack at {directory}", fix="Check the path, or use --model demo.")
    if not path.is_file():
        if (directory / "configuration.json").exists() or (directory / "model.pt").exists():
            raise PackError(
                f"{directory} is a FunASR model directory, not a pack",
                fix=f"Pack it first: python -m app pack {directory} --output DIR --precision int8",
            )
        raise PackError(f"{directory} holds no {MANIFEST}, so it is not a model pack", fix=REMAKE)
    try:
        if path.stat().st_size > _MAX_MANIFEST_BYTES:
            raise ValueError("it is too large")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise PackError(f"{path} is not a manifest this program reads ({error})", fix=REMAKE) from error


def check_files(directory: Path, files: Mapping[str, FileRecord], needed: Collection[str]) -> None:
    """Every file against its record, and that the needed ones are among them. Raises PackError."""
    for name, record in files.items():
        _check_file(directory, name, record)
    for name in needed:
        if name not in files:
            raise PackError(f"The pack {directory} lists no {name}", fix=REMAKE)


def _check_file(directory: Path, name: str, record: FileRecord) -> None:
    path = directory / name
    if not _ALLOWED.fullmatch(name):
        raise PackError(f"{path} is of a kind that packs may not hold", fix=REMAKE)
    if not path.is_file() or path.is_symlink():
        raise PackError(f"{path} is listed in the manifest but is not there as a plain file", fix=REMAKE)
    try:
        with path.open("rb") as file:
            if file.read(4).startswith(_PICKLE_STARTS):
                raise PackError(f"{path} is a pickle, which could run code when loaded", fix=REMAKE)
        size = path.stat().st_size
        if size != record.bytes:
            raise PackError(f"{path} has {size} bytes, the manifest says {record.bytes}", fix=REMAKE)
        if record_of(path).sha256 != record.sha256:
            raise PackError(f"{path} is damaged: its sha256 is not the manifest's", fix=REMAKE)
    except OSError as error:
        raise PackError(f"{path} cannot be read ({error.strerror})", fix="Check its permissions.") from error
