"""Reading a safetensors file without holding it: tensors are mapped, used one by one, and let go again.

Here: the header, and the mapping. The format is that of https://github.com/huggingface/safetensors (8 bytes of
header length, a JSON header, raw little-endian data). The package's own reader keeps every page it has touched in the
process's resident memory; loading a gigabyte onto a GPU then costs a gigabyte of host memory beside it.
"""

from __future__ import annotations

import json
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.asr.errors import PackError

_TYPES = {
    "F32": np.float32,
    "F16": np.float16,
    "I8": np.int8,
    "U8": np.uint8,
    "I32": np.int32,
    "I64": np.int64,
}
_MAX_HEADER_BYTES = 16 << 20


def tensor_offsets(path: Path) -> dict[str, tuple[int, int]]:
    """Offset and length in bytes of each tensor of a safetensors file, from the start of the file."""
    header, base = _read_header(path)
    return {name: (base + data["data_offsets"][0], _length(data)) for name, data in header.items()}


class TensorFile:
    """A mapped safetensors file.

    Arrays are views of the mapping and are valid while it is open. They may be written to: the mapping is private,
    so the file never changes.

    Raises:
        PackError: the file is not such a file, or is shorter than its header says.
    """

    def __init__(self, path: Path) -> None:
        self._header, self._base = _read_header(path)
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        for name, data in self._header.items():
            if data["dtype"] not in _TYPES or self._base + data["data_offsets"][1] > len(self._map):
                raise PackError(f"{path} is damaged at tensor {name}", fix="Make or fetch the pack again.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._header)

    def __getitem__(self, name: str) -> NDArray[Any]:
        data = self._header[name]
        dtype = np.dtype(_TYPES[data["dtype"]])
        offset = self._base + data["data_offsets"][0]
        flat: NDArray[Any] = np.frombuffer(self._map, dtype, _length(data) // dtype.itemsize, offset)
        shaped: NDArray[Any] = flat.reshape(data["shape"])
        return shaped

    def let_go(self, name: str) -> None:
        """Drops the tensor's pages from this process; they stay in the page cache, and come back when read."""
        begin, end = self._header[name]["data_offsets"]
        first = (
            -(-(self._base + begin) // mmap.PAGESIZE) * mmap.PAGESIZE
        )  # pages shared with a neighbour stay
        last = (self._base + end) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first and hasattr(self._map, "madvise"):
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)

    def __enter__(self) -> TensorFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        """Nothing to close: the mapping goes with the last view of it."""


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER_BYTES:
                raise ValueError("its header is too long")
            header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        for data in header.values():
            _length(data)
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError) as error:
        raise PackError(
            f"{path} is not a safetensors file ({error})", fix="Make or fetch the pack again."
        ) from error
    return header, 8 + length


def _length(data: dict[str, Any]) -> int:
    begin, end = data["data_offsets"]
    return int(end) - int(begin)
