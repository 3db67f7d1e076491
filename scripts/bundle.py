#!/usr/bin/env python3
"""`make bundle`: one archive that installs a host without internet: images, packs, playbooks, checksums of all.

Lives here: what goes in, and the check of it. Does not live here: building images (image.sh), making packs (model.sh),
and starting (up.py, which goes in). Standard library only.

Set by environment: VARIANT (images to put in, "cpu exporter"), PACK (a pack, or a directory with one per precision),
OUTPUT (build), IMAGE_PREFIX, VERSION. Exit code: 0 written, 2 something is missing.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# What a host needs of the clone: no program, that is in the images.
TAKEN = (
    "images/compose.yaml",
    "images/compose.gpu.yaml",
    "images/compose.gpu-legacy.yaml",
    "images/compose.keys.yaml",
    "images/compose.monitoring.yaml",
    "images/variants.json",
    "scripts/__init__.py",
    "scripts/up.py",
    "scripts/probe_host.py",
    "scripts/pick_variant.py",
    "scripts/picking",
    "ansible",
    "monitoring",
)
DEFAULT_PREFIX, DEFAULT_VERSION = "seaco-speech", "0.1.0"
IMAGES, SUMS = "images.tar", "SHA256SUMS"
MANIFEST = "manifest.json"
INSTALL = """#!/bin/sh
# Installs what this archive holds: checks it, loads the images, starts the variant that fits this host.
# Needs Docker with compose and python3 (3.8 or newer); no network. Settings as for `make up`: PORT=8001 ./install.sh
set -eu
cd "$(dirname "$0")"
sha256sum --check --quiet SHA256SUMS || {{
    echo "The archive is damaged; copy it again." >&2
    exit 2
}}
docker load --quiet --input images.tar || {{
    echo "Docker could not load the images; is it installed and started, and is there room on the disk?" >&2
    exit 2
}}
export IMAGE_PREFIX="{prefix}" VERSION="{version}" MODELS_DIR="$PWD/models" MODEL="${{MODEL:-{model}}}"
exec python3 scripts/up.py up
"""


class MissingError(Exception):
    """Something that was to go in is not there: what, and what to do."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.problem, self.fix = problem, fix


def images_wanted(given: Mapping[str, str]) -> list[str]:
    """Names of the images; all of them must be here."""
    prefix, version = given.get("IMAGE_PREFIX", DEFAULT_PREFIX), given.get("VERSION", DEFAULT_VERSION)
    names = [f"{prefix}:{version}-{variant}" for variant in given.get("VARIANT", "cpu exporter").split()]
    for name in names:
        if subprocess.run(["docker", "image", "inspect", name], capture_output=True, check=False).returncode:
            variant = name.rpartition(f"{version}-")[2]
            raise MissingError(f"There is no image {name} here.", f"Build it: make image VARIANT={variant}")
    return names


def pack_files(pack: Path) -> list[Path]:
    """The files of a pack, or of the packs in a directory, relative to it; each as large and as summed as it says.

    Raises:
        MissingError: there is no pack, or one is not whole.
    """
    manifests = sorted({*pack.glob(MANIFEST), *pack.glob(f"*/{MANIFEST}")})
    if not manifests:
        raise MissingError(f"There is no model pack at {pack}.", "Make one (make model), or leave PACK away.")
    found = []
    for manifest in manifests:
        for name, stated in json.loads(manifest.read_text(encoding="utf-8"))["files"].items():
            file = manifest.parent / name
            if not file.is_file() or checksum(file) != stated["sha256"]:
                raise MissingError(
                    f"The pack's file {file} is missing or damaged.", "Make the pack again: make model"
                )
            found.append(file.relative_to(pack))
        found.append(manifest.relative_to(pack))
    return sorted(found)


def checksum(path: Path) -> str:
    """SHA-256 as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def lay_out(folder: Path, given: Mapping[str, str]) -> None:
    """Everything of the archive, in a directory."""
    names = images_wanted(given)
    for taken in TAKEN:
        source, target = ROOT / taken, folder / taken
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        elif source.exists():
            shutil.copy2(source, target)
    (folder / "models").mkdir()
    model = "demo"
    if given.get("PACK"):
        pack = Path(given["PACK"])
        model = pack.resolve().name
        for file in pack_files(pack):
            target = folder / "models" / model / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(pack / file, target)
    print(f"saving {' '.join(names)} ...", flush=True)
    subprocess.run(["docker", "save", "--output", str(folder / IMAGES), *names], check=True)
    prefix, version = given.get("IMAGE_PREFIX", DEFAULT_PREFIX), given.get("VERSION", DEFAULT_VERSION)
    install = folder / "install.sh"
    install.write_text(INSTALL.format(prefix=prefix, version=version, model=model), encoding="utf-8")
    install.chmod(0o755)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = [f"{checksum(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(sums), encoding="utf-8")


def main() -> int:
    """Write the archive under its name only when it is whole."""
    given = {name: value for name, value in os.environ.items() if value}
    output = Path(given.get("OUTPUT", str(ROOT / "build")))
    output.mkdir(parents=True, exist_ok=True)
    name = f"{DEFAULT_PREFIX}-{given.get('VERSION', DEFAULT_VERSION)}"
    target = output / f"{name}.tar.gz"
    try:
        with tempfile.TemporaryDirectory(dir=output) as scratch:
            folder = Path(scratch) / name
            folder.mkdir(mode=0o755)
            lay_out(folder, given)
            part = Path(scratch) / "part"
            with tarfile.open(part, "w:gz", compresslevel=1) as archive:
                archive.add(folder, name)
            part.replace(target)
    except MissingError as missing:
        print(f"{missing.problem}\n  what to do: {missing.fix}", file=sys.stderr)
        return 2
    except (OSError, subprocess.CalledProcessError) as error:
        print(
            f"The archive could not be written: {error}\n  what to do: see above; is the disk full?",
            file=sys.stderr,
        )
        return 2
    print(
        f"{target} ({target.stat().st_size / 1e6:.0f} MB). On the host: tar xzf {target.name} && {name}/install.sh"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
