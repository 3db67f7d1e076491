#!/usr/bin/env python3
"""`make scan-image`: looks into a built image for what should not be there, and says what to do about it.

scan_image.py VARIANT|IMAGE, a variant as in images/docker-bake.hcl. Set by environment: IMAGE_PREFIX, VERSION (as for
`make image`), UPDATES=off (asks no archive for newer Debian packages), BUILD_NETWORK (host: asks by the host's).
What counts as a finding is image_findings.py's part. Standard library only; the image is run only to ask apt.
Exit code: 0 nothing found, 1 something was, 2 it could not be looked at.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))

from scripts.image_findings import (  # noqa: E402
    Finding,
    Tree,
    look_at_packages,
    look_at_settings,
    look_at_tree,
    pins_of,
    updates_of,
)

FOUND, UNSEEN = 1, 2
_SERVICE = ("cpu", "service", "page")
LOCKS = {
    "cpu": _SERVICE,
    "cuda-fp16": _SERVICE,
    "cuda-fp32": _SERVICE,
    "toolbox": (*_SERVICE, "pack"),
    "exporter": ("exporter",),
}
# The lists go to memory, the image stays as it is.
_ASK_APT = (
    "command -v apt-get >/dev/null || exit 9; apt-get update -qq && apt-get -s -qq upgrade"
    " && apt-get indextargets --format '$(SITE) $(RELEASE)'"
)
_NO_APT = 9
_APT_SECONDS = 600


def stop(problem: str, fix: str) -> NoReturn:
    """Ends with a sentence."""
    print(f"{problem}\nWhat to do: {fix}", file=sys.stderr)
    raise SystemExit(UNSEEN)


def docker(*arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """`docker ...`, its output kept."""
    try:
        return subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, check=False, timeout=seconds
        )
    except FileNotFoundError:
        stop("Docker is not installed.", "install it; images cannot be looked into without it.")
    except subprocess.TimeoutExpired:
        stop(
            f"docker {arguments[0]} did not end within {seconds:.0f} seconds.",
            "look at the daemon, then try again.",
        )


def inspect(image: str) -> dict[str, Any]:
    """What Docker knows of an image."""
    asked = docker("image", "inspect", image)
    if asked.returncode:
        stop(
            f"There is no image {image} here ({asked.stderr.strip()}).",
            "make image VARIANT=..., or pull it first.",
        )
    found: list[dict[str, Any]] = json.loads(asked.stdout)
    return found[0]


def tree_of(image: str) -> Tree:
    """Its files, read from a container that never runs."""
    made = docker("create", image)
    if made.returncode:
        stop(
            f"No container can be made of {image} ({made.stderr.strip()}).", "free some disk, then try again."
        )
    container = made.stdout.strip()
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            if export.stdout is None:
                raise RuntimeError("a pipe was asked for")
            return look_at_tree(export.stdout)
    except tarfile.TarError as error:
        stop(f"The files of {image} could not be read ({error}).", "free some disk, then try again.")
    finally:
        docker("rm", "--force", container)


def pins_for(variant: str, tree: Tree) -> dict[str, str]:
    """What requirements/*.txt pin for an image of that name; torch of the toolbox is pinned by variants.json."""
    pins: dict[str, str] = {}
    for name in LOCKS[variant]:
        lines = (ROOT / "requirements" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        pins |= pins_of(lines, tree.python)
    if variant == "toolbox":
        baked = json.loads((ROOT / "images" / "variants.bake.json").read_text(encoding="utf-8"))
        pins |= pins_of([baked["target"]["toolbox"]["args"]["TORCH"]], tree.python)
    return pins


def updates(image: str, network: str) -> tuple[list[Finding], str]:
    """Debian packages that have a newer version, and which archives were asked."""
    command = [
        "run",
        "--rm",
        "--user",
        "0",
        "--network",
        network,
        "--entrypoint",
        "sh",
        image,
        "-c",
        _ASK_APT,
    ]
    asked = docker(*command, seconds=_APT_SECONDS)
    if asked.returncode == _NO_APT:
        return [], "not asked: the image has no apt-get"
    if asked.returncode:
        stop(
            f"Debian's archive could not be asked ({asked.stderr.strip()[-300:]}).",
            "BUILD_NETWORK=host where containers have no way out; UPDATES=off leaves this out.",
        )
    lines = asked.stdout.splitlines()
    archives = sorted({line for line in lines if not line.startswith(("Inst ", "Conf "))})
    return list(updates_of(asked.stdout)), f"asked: {', '.join(archives) or 'none, it names no archive'}"


def scan(name: str, given: Mapping[str, str]) -> int:
    """Looks, tells, gives the exit code."""
    prefix, version = given.get("IMAGE_PREFIX", "seaco-speech"), given.get("VERSION", "0.1.0")
    image = f"{prefix}:{version}-{name}" if name in LOCKS else name
    inspected = inspect(image)
    variant = str((inspected["Config"].get("Labels") or {}).get("seaco-speech.variant", "")) or name
    history = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}", image).stdout.splitlines()
    tree = tree_of(image)
    found = [*tree.findings, *look_at_settings(inspected, history)]
    if variant in LOCKS:
        found += look_at_packages(tree, pins_for(variant, tree))
        said = f"{len(tree.packages)} Python packages against requirements/"
    else:
        said = "Python packages not compared: the image is none of ours"
    asked = "not asked (UPDATES=off)"
    if given.get("UPDATES") != "off":
        newer, asked = updates(image, given.get("BUILD_NETWORK", "bridge").replace("default", "bridge"))
        found += newer
    print(f"{image}: files, settings and steps of the build; {said}; Debian's updates {asked}.")
    for finding in sorted(set(found)):
        print(f"{finding.kind}: {finding.what}\n    what to do: {finding.remedy}")
    print("Nothing found." if not found else f"{len(set(found))} found.")
    return FOUND if found else 0


def main(arguments: list[str]) -> int:
    """The command line."""
    if len(arguments) != 1 or arguments[0].startswith("-"):
        stop("scan_image.py wants one image.", f"name a variant ({', '.join(LOCKS)}) or an image.")
    return scan(arguments[0], {name: value for name, value in os.environ.items() if value})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
