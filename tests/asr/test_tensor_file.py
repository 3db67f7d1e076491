"""safetensors files: what the package writes is read back, damage is refused, pages are let go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from app.asr.errors import PackError
from app.asr.tensor_file import TensorFile, tensor_offsets


@pytest.fixture
def path(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    tensors: dict[str, NDArray[Any]] = {
        "a.weight": rng.standard_normal((300, 70)).astype(np.float32),
        "b": rng.standard_normal(5).astype(np.float16),
        "c": rng.integers(-128, 127, (3, 4, 5)).astype(np.int8),
        "large": rng.standard_normal((4 << 20,)).astype(np.float32),
    }
    save_file(tensors, str(tmp_path / "t.safetensors"))
    return tmp_path / "t.safetensors"


def test_tensors_come_back_as_the_package_wrote_them(path: Path) -> None:
    rng = np.random.default_rng(0)
    with TensorFile(path) as file:
        assert set(file) == {"a.weight", "b", "c", "large"}
        np.testing.assert_array_equal(file["a.weight"], rng.standard_normal((300, 70)).astype(np.float32))
        assert file["b"].dtype == np.float16 and file["c"].shape == (3, 4, 5)
    offset, length = tensor_offsets(path)["a.weight"]
    first = np.frombuffer(path.read_bytes()[offset : offset + length], np.float32)[0]
    assert first == np.float32(np.random.default_rng(0).standard_normal())


def _resident(path: Path) -> int:
    """Bytes of this file in the process's resident memory."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text(encoding="utf-8").splitlines():
        if "-" in line.split(" ", 1)[0]:
            ours = str(path) in line
        elif ours and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def test_pages_that_were_let_go_are_not_resident(path: Path) -> None:
    with TensorFile(path) as file:
        whole = float(file["large"].sum())
        held = _resident(path)
        assert held >= 16 << 20
        file.let_go("large")
        assert _resident(path) < held - (15 << 20)
        assert float(file["large"].sum()) == whole, "they come back when read"


def test_writing_to_an_array_leaves_the_file_alone(path: Path) -> None:
    before = path.read_bytes()
    with TensorFile(path) as file:
        file["b"][:] = 1
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "damage", ["truncated", "not json", "long header", "empty", "missing", "foreign type"]
)
def test_damage_is_refused_with_the_file_named(path: Path, damage: str) -> None:
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {
                "truncated": data[: len(data) - 1000],
                "not json": data[:8] + b"\xff" + data[9:],
                "long header": (1 << 40).to_bytes(8, "little") + data[8:],
                "empty": b"",
                "foreign type": data.replace(b'"F16"', b'"F8x"', 1),
            }[damage]
        )
    with pytest.raises(PackError, match=r"t\.safetensors"):
        TensorFile(path)
