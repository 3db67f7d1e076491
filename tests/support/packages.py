"""Debian packages that tests need: installed where they are missing and we may, told where not."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping

import pytest


def apt(*arguments: str) -> None:
    """`apt-get ...` that asks nothing and waits for others that install."""
    subprocess.run(
        ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *arguments],
        env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )


def need(packages: Mapping[str, str]) -> None:
    """Makes sure that programs are there; fails with what to type where they cannot be installed.

    Args:
        packages: program -> the packages it is in, with a blank between several.
    """
    missing = [names for program, names in packages.items() if shutil.which(program) is None]
    if not missing:
        return
    wanted = [name for names in missing for name in names.split()]
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        pytest.fail(f"these tests need programs that are missing here: apt-get install {' '.join(wanted)}")
    apt("update")
    apt("install", "--yes", "--no-install-recommends", *wanted)
