"""Probe and picker run on hosts with Python 3.8 and nothing installed: syntax, library, and no import of anything else.

The checks read the source; an interpreter of that age is asked where there is one.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
FILES = [
    ROOT / "scripts/probe_host.py",
    ROOT / "scripts/pick_variant.py",
    ROOT / "scripts/__init__.py",
    *sorted((ROOT / "scripts/picking").glob("*.py")),
]
# The standard library as far as it may be used; all of it is older than Python 3.8.
ALLOWED = set(
    "__future__ argparse dataclasses heapq json math os pathlib platform random re shutil signal statistics "
    "subprocess sys textwrap typing collections".split()
)
# Names that came after 3.8 and that one writes without thinking.
NEWER = {
    "removeprefix",
    "removesuffix",
    "is_relative_to",
    "with_stem",
    "readlink",
    "hardlink_to",
    "pairwise",
    "batched",
}
NEWER_KEYWORDS = {
    ("dataclass", "slots"),
    ("dataclass", "kw_only"),
    ("zip", "strict"),
    ("glob", "recurse_symlinks"),
}
BUILTIN_GENERICS = {"list", "dict", "tuple", "set", "frozenset", "type"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_source_is_of_python_38(file: Path) -> None:
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source, feature_version=(3, 8))
    assert not _newer(tree)
    names = {name for node in ast.walk(tree) for name in _imported(node)}
    assert names <= ALLOWED | {"scripts"}, names - ALLOWED


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    return [(node.module or "").partition(".")[0]] if isinstance(node, ast.ImportFrom) else []


def _newer(tree: ast.Module) -> list[str]:
    """What Python 3.8 would stumble over when it runs; annotations are never evaluated there."""
    has_future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
    found = [] if has_future or len(tree.body) <= 1 else ["no `from __future__ import annotations`"]
    for node in _evaluated(tree):
        if isinstance(node, ast.Attribute) and node.attr in NEWER:
            found.append(node.attr)
        elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name):
            found += [f"{node.value.id}[...]"] if node.value.id in BUILTIN_GENERICS else []
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
            # Sets may be joined so, types and dictionaries not; there is no need for either.
            found += [] if isinstance(node.left, (ast.SetComp, ast.Set, ast.Call)) else ["|"]
        elif isinstance(node, ast.Call):
            called = getattr(node.func, "attr", getattr(node.func, "id", ""))
            found += [f"{called}({one.arg}=)" for one in node.keywords if (called, one.arg) in NEWER_KEYWORDS]
    return found


def _evaluated(node: ast.AST) -> list[ast.AST]:
    """All nodes below, but for annotations."""
    found: list[ast.AST] = []
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns"}:
            continue
        for inner in value if isinstance(value, list) else [value]:
            if isinstance(inner, ast.AST):
                found += [inner, *_evaluated(inner)]
    return found


@pytest.mark.parametrize(
    "line",
    [
        "x = 'a'.removeprefix('b')",
        "x = list[int]",
        "x = int | None",
        "zip(a, b, strict=True)",
        "@dataclass(slots=True)\nclass A: ...",
        "from typing import cast\nx = cast(dict[str, int], 3)",
    ],
)
def test_what_is_newer_is_seen(line: str) -> None:
    assert _newer(ast.parse(f"from __future__ import annotations\n{line}\n"))


@pytest.mark.parametrize("line", ["match x:\n    case 1: ...", "with (open(a) as b, open(c) as d): ..."])
def test_newer_syntax_is_refused(line: str) -> None:
    with pytest.raises(SyntaxError):
        ast.parse(line, feature_version=(3, 8))


def test_the_oldest_python_at_hand_runs_both(tmp_path: Path) -> None:
    """On the oldest interpreter of this machine; where that is the one of the tests, this repeats another test."""
    for name in ("python3.8", "python3.9", "python3.10", "python3"):
        path = shutil.which(name)
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            break
    assert path is not None
    probe = subprocess.run([path, str(FILES[0])], cwd=tmp_path, capture_output=True, check=True)
    pick = subprocess.run(
        [path, str(FILES[1]), "--facts", "-", "--json"],
        cwd=tmp_path,
        input=probe.stdout,
        capture_output=True,
        check=False,
    )
    assert pick.returncode in {0, 3} and json.loads(pick.stdout)["verdict_version"] == 1, pick.stderr.decode()
