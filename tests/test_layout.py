"""The shape of the code, as tests: who may import what, how long a module is, and that each one says what it is.

The rules are those of docs/architecture.md. Imports are read from the syntax tree, so one inside a function counts.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST_MODULE = 420
# Heavy or web libraries, and the only modules of the product that may use them.
ALLOWED = {
    "torch": {
        "app/asr/model.py",
        "app/asr/predictor.py",
        "app/asr/half.py",
        "app/asr/torch_backend.py",
        "app/asr/funasr_backend.py",  # devices and the classes of torch's failures; FunASR itself runs on it
        "app/asr/packing.py",
        "app/asr/onnx_export.py",
        "app/asr/checkpoints.py",
        "app/asr/punctuation_network.py",
        "app/asr/punctuation_packing.py",
    },
    "onnx": {"app/asr/packing.py", "app/asr/onnx_export.py"},
    "onnxruntime": {"app/asr/onnx_backend.py", "app/asr/packing.py", "app/asr/onnx_export.py"},
    "funasr": {"app/asr/packing.py", "app/asr/funasr_backend.py"},
    "funasr_onnx": set[str](),
    "gradio": {
        "app/service/page/blocks.py"
    },  # takes seconds to import, and memory; the page loads it by itself
    "librosa": set[str](),
    "pickle": {
        "app/asr/checkpoints.py"
    },  # names the error of torch.load(weights_only=True), and loads nothing
}
# How a person or a program meets the product; the engine below knows none of them.
ABOVE_THE_ENGINE = (
    "app.service",
    "app.cli",
    "app.demo",
    "app.doctor",
    "app.console",
    "app.output",
    "app.progress",
    "app.serve_command",
)


def modules(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


PRODUCT = modules("app")
OWN = modules("app", "images", "monitoring", "scripts")
EVERYTHING = modules("app", "images", "monitoring", "scripts", "tests")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports_of(path: Path) -> set[str]:
    """Full dotted names of everything a module imports, wherever the import stands."""
    return imports_in(tree_of(path), path)


def imports_in(tree: ast.Module, path: Path) -> set[str]:
    found: set[str] = set()
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package[: len(package) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in {"import_module", "__import__"}:
                found.add(str(node.args[0].value))
    return found


def uses(path: Path, module: str) -> bool:
    return any(name == module or name.startswith(f"{module}.") for name in imports_of(path))


@pytest.mark.parametrize("library", ALLOWED)
def test_heavy_libraries_stay_where_they_belong(library: str) -> None:
    strays = {name_of(path) for path in PRODUCT if uses(path, library)} - ALLOWED[library]
    assert not strays, (
        f"{library} may be imported only in {sorted(ALLOWED[library])}, not in {sorted(strays)}"
    )


@pytest.mark.parametrize("upper", ABOVE_THE_ENGINE)
def test_the_engine_knows_nothing_above_it(upper: str) -> None:
    strays = [name_of(path) for path in modules("app/asr") if uses(path, upper)]
    assert not strays, f"app.asr must not import {upper}: {strays}"


@pytest.mark.parametrize("folder", ["scripts", "monitoring", "ansible", "images"])
def test_other_folders_meet_the_product_only_through_data_and_processes(folder: str) -> None:
    strays = [name_of(path) for path in modules(folder) if uses(path, "app") or uses(path, "tests")]
    assert not strays, f"{folder} must not import app or tests: {strays}"


def test_the_product_imports_neither_scripts_nor_tests() -> None:
    assert not [name_of(path) for path in PRODUCT if uses(path, "scripts") or uses(path, "tests")]


def test_the_exporter_needs_little() -> None:
    allowed = {*sys.stdlib_module_names, "monitoring", "prometheus_client", "pynvml"}
    found = {(name_of(path), name) for path in modules("monitoring/exporter") for name in imports_of(path)}
    assert not {(path, name) for path, name in found if name.partition(".")[0] not in allowed}


def test_imports_are_absolute() -> None:
    relative = [
        name_of(path)
        for path in modules("app", "monitoring", "tests")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert not relative


def test_every_module_says_what_lives_in_it() -> None:
    silent = [
        name_of(path) for path in EVERYTHING if path.stat().st_size and not ast.get_docstring(tree_of(path))
    ]
    assert not silent


def test_modules_are_short() -> None:
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in EVERYTHING}
    assert not {name: length for name, length in lengths.items() if length > LONGEST_MODULE}


def test_no_assert_outside_tests() -> None:
    found = [
        f"{name_of(path)}:{node.lineno}"
        for path in OWN
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Assert)
    ]
    assert not found, f"python -O drops assert; raise an error instead: {found}"


def test_no_unfinished_marks() -> None:
    marks = ("TO" + "DO", "FIX" + "ME", "XX" + "X:")
    found = [
        name_of(path)
        for path in EVERYTHING
        if any(mark in path.read_text(encoding="utf-8") for mark in marks)
    ]
    assert not found


def test_transcription_on_a_cpu_loads_no_torch() -> None:
    """The rule above is about our own imports; this one is about what they bring along."""
    code = (
        "import sys; import app.cli, app.asr.transcribe, app.asr.onnx_backend; "
        "print([name for name in ('torch', 'funasr', 'onnx', 'scipy', 'librosa') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_web_process_loads_no_network() -> None:
    """The model is in a process of its own; what takes requests must stay small."""
    code = (
        "import sys; import app.cli, app.service.main, app.service.recogniser; "
        "heavy = ('torch', 'onnxruntime', 'funasr', 'onnx', 'scipy', 'librosa', 'gradio', 'pandas'); "
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_command_line_loads_the_web_framework_only_to_serve() -> None:
    code = "import sys; import app.cli; print([n for n in ('fastapi', 'uvicorn', 'pydantic') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_reader_of_imports_sees_those_inside_functions() -> None:
    source = "def f():\n    import torch.nn\n    from app.asr import model\n    __import__('funasr')\n"
    found = imports_in(ast.parse(source), ROOT / "app" / "x.py")
    assert {"torch.nn", "app.asr", "app.asr.model", "funasr"} <= found
