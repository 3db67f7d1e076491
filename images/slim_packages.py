"""Build-time: makes a directory of Python packages as small as it may be, and writes the byte code that it lacks.

Left out is what nothing of ours can reach: tests, static libraries, headers, type stubs, and Triton, which only
torch.compile would use. Byte code is not checked against dates, so that two builds of the same files are the same.
"""

from __future__ import annotations

import compileall
import py_compile
import shutil
import sys
from pathlib import Path

# Directories that hold a package's own tests. Some packages import theirs ("testing"); those are not named here.
TESTS = (
    "numpy",
    "pandas",
    "scipy",
    "sympy",
    "networkx",
    "mpmath",
    "sklearn",
    "numba",
    "matplotlib",
    "joblib",
)
UNUSED = (
    "triton",
    "torch/test",
    "torch/include",
    "torch/share",
    "torchgen/packaged",
    "sympy/benchmarks",
    "Crypto/SelfTest",
)
UNUSED_FILES = ("*.a", "*.pyi", "*.h", "*.hpp", "*.cuh", "*.c", "*.pyx", "*.pxd")


def slim(root: Path) -> None:
    """Removes the files."""
    for package in TESTS:
        for folder in _packages(root, package):
            for tests in sorted(folder.rglob("tests")):
                shutil.rmtree(tests, ignore_errors=True)
    for unused in UNUSED:
        for folder in _packages(root, unused):
            shutil.rmtree(folder)
    for pattern in UNUSED_FILES:
        for file in root.rglob(pattern):
            file.unlink()


def _packages(root: Path, name: str) -> list[Path]:
    found = [*root.glob(f"lib/python3*/site-packages/{name}"), root / name]
    return [path for path in found if path.is_dir()]


def main(arguments: list[str]) -> int:
    """`slim_packages.py DIRECTORY ...`"""
    for root in map(Path, arguments):
        slim(root)
        # Templates inside packages are no valid Python; they are not imported either.
        compileall.compile_dir(
            root, quiet=2, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH, maxlevels=30
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
