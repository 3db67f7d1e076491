"""Packs of punctuation models: what lies in one, and reading single rows of its table without holding the table.

    manifest.json        what this is, where it came from, size and sha256 of the other files, golden text
    weights.safetensors  keys: a 64-bit hash of each token, in order;  rows: the tokens' embeddings, in that order
                         (int8 packs: 8-bit numbers, and in scales what each row is multiplied by);  the graph's weights
    punctuation.onnx     the graph: embeddings of tokens in, scores of marks out

The table is most of the model (272,727 rows of 256 numbers), and a text uses a few thousand rows. They are read from
the file, not mapped: mapped, each would bring pages of its neighbours into this process's memory. Making such packs is
punctuation_packing.py's work, running them punctuation.py's.
"""

from __future__ import annotations

import hashlib
import json
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.asr.architecture import PunctuationShape
from app.asr.errors import PackError
from app.asr.pack import (
    MANIFEST,
    PUNCTUATION_FORMAT,
    REMAKE,
    WEIGHTS,
    FileRecord,
    check_files,
    manifest_text,
)
from app.asr.tensor_file import TensorFile, tensor_offsets

FORMAT_VERSION = 1
GRAPH = "punctuation.onnx"
PRECISIONS = ("int8", "fp32")  # the one to take first comes first
KEYS, ROWS, SCALES = "keys", "rows", "scales"
ROW_TYPES = {"int8": np.int8, "fp32": np.float32}
_HALF = np.dtype(np.float16)


@dataclass(frozen=True)
class GoldenText:
    """The text that proves a pack: its tokens, the marks of fp32, and those this precision gave when packed."""

    tokens: tuple[str, ...]
    marks: tuple[int, ...]
    packed_marks: tuple[int, ...]


@dataclass(frozen=True)
class PunctuationManifest:
    """Everything about a punctuation pack but its bytes; `unknown_row` is the row of tokens that the table lacks."""

    name: str
    precision: str
    source: Mapping[str, str]
    shape: PunctuationShape
    unknown_row: int
    golden: GoldenText
    files: Mapping[str, FileRecord]

    def to_json(self) -> str:
        """The text of manifest.json."""
        data = {"format": PUNCTUATION_FORMAT, "format_version": FORMAT_VERSION} | asdict(self)
        return json.dumps(data, ensure_ascii=False, indent=1) + "\n"

    @staticmethod
    def from_json(text: str) -> PunctuationManifest:
        """Raises KeyError, TypeError or ValueError when the text is not such a manifest."""
        data = json.loads(text)
        form, version = data.pop("format"), data.pop("format_version")
        if form != PUNCTUATION_FORMAT:
            raise ValueError(f"it is of the format {form}, not of a punctuation pack")
        if version != FORMAT_VERSION:
            raise ValueError(f"format version {version}, this program reads {FORMAT_VERSION}")
        data["shape"] = PunctuationShape(**data["shape"] | {"marks": tuple(data["shape"]["marks"])})
        golden = data["golden"]
        data["golden"] = GoldenText(*(tuple(golden[name]) for name in ("tokens", "marks", "packed_marks")))
        data["files"] = {name: FileRecord(**record) for name, record in data["files"].items()}
        if data["precision"] not in PRECISIONS:
            raise ValueError(f"precision {data['precision']!r}")
        return PunctuationManifest(**data)


class PunctuationPack:
    """An opened, checked pack."""

    def __init__(self, directory: Path, manifest: PunctuationManifest) -> None:
        self.directory, self.manifest = directory, manifest

    @classmethod
    def open(cls, directory: Path) -> PunctuationPack:
        """Opens a pack and checks every file against the manifest.

        Raises:
            PackError: the directory is no such pack, or a file is missing, truncated, damaged or foreign.
        """
        manifest = read_manifest(directory)
        check_files(directory, manifest.files, needed=(WEIGHTS, GRAPH))
        return cls(directory, manifest)

    @property
    def graph(self) -> Path:
        """The network."""
        return self.directory / GRAPH

    def table(self) -> TokenTable:
        """The embeddings. Raises PackError when they are not those of the manifest's network."""
        return TokenTable(self.directory / WEIGHTS, self.manifest)


def read_manifest(directory: Path) -> PunctuationManifest:
    """The manifest alone. Raises PackError."""
    text = manifest_text(directory)
    try:
        return PunctuationManifest.from_json(text)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PackError(
            f"{directory / MANIFEST} is not the manifest of a punctuation pack ({error})", fix=REMAKE
        ) from error


def key_of(token: str) -> int:
    """What a token is found by: 64 bits of its BLAKE2b. That a word outside the table has the key of one inside
    happens once in 10^13 words."""
    digest = hashlib.blake2b(token.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


class TokenTable:
    """Embeddings of tokens, read when asked for. Several threads may use it.

    Raises:
        PackError: the file has other tensors than the manifest says.
    """

    def __init__(self, path: Path, manifest: PunctuationManifest) -> None:
        count, self._width = manifest.shape.vocabulary_size, manifest.shape.feature_size
        self._unknown = manifest.unknown_row
        with TensorFile(path) as tensors:
            kinds = {name: (tensors[name].dtype, tensors[name].shape) for name in tensors}
        self._type, shape = kinds.get(ROWS, (np.dtype(np.float32), ()))
        wanted = np.dtype(ROW_TYPES[manifest.precision])
        halves = wanted == np.float32 and self._type == _HALF  # a checkpoint that was stored in half
        fits = (self._type == wanted or halves) and shape == (count, self._width)
        fits = fits and kinds.get(KEYS) == (np.dtype(np.int64), (count,)) and 0 <= self._unknown < count
        if not fits or (wanted == np.int8 and kinds.get(SCALES) != (np.dtype(np.float32), (count,))):
            raise PackError(f"{path} holds another table than the manifest's network has", fix=REMAKE)
        offsets = tensor_offsets(path)
        self._path, self._begin = path, {name: offsets[name][0] for name in (ROWS, SCALES) if name in offsets}
        self._keys = np.memmap(path, np.int64, "r", offsets[KEYS][0], (count,))
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def rows(self, tokens: Sequence[str]) -> NDArray[np.float32]:
        """The embeddings of tokens, (n, width). Raises PackError when the file cannot be read any more."""
        found = np.zeros((len(tokens), self._width), np.float32)
        for place, token in enumerate(tokens):
            row = self._row(token)
            found[place] = np.frombuffer(self._read(ROWS, row, self._width * self._type.itemsize), self._type)
            if self._type == np.int8:
                found[place] *= np.frombuffer(self._read(SCALES, row, 4), np.float32)
        return found

    def _row(self, token: str) -> int:
        key = key_of(token)
        place = int(np.searchsorted(self._keys, key))
        return place if place < len(self._keys) and self._keys[place] == key else self._unknown

    def _read(self, name: str, row: int, size: int) -> bytes:
        try:
            data = os.pread(self._file, size, self._begin[name] + row * size)
        except OSError as error:
            raise PackError(
                f"{self._path} cannot be read ({error.strerror})", fix="Check the disk."
            ) from error
        if len(data) != size:
            raise PackError(f"{self._path} has become shorter", fix=REMAKE)
        return data
