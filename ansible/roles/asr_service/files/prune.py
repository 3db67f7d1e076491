"""Remove packs, releases and names of images that neither the release in use nor the one before it needs.

Runs on a host of the fleet: standard library only, Python 3.8. What cannot be read is left alone.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys


def needed(root: str) -> tuple[set[str], set[str], set[str]] | None:
    """Names of the releases, packs and images that must stay; None where that cannot be told."""
    releases: set[str] = set()
    packs: set[str] = set()
    images: set[str] = set()
    for link in ("current", "previous"):
        folder = os.path.join(root, link)
        if not os.path.islink(folder):
            continue
        try:
            with open(os.path.join(folder, "release.json"), encoding="utf-8") as file:
                told = json.load(file)
            packs.update(instance["pack_id"] for instance in told["instances"])
            images.update(told["images"].values())
        except (OSError, ValueError, KeyError, TypeError):
            return None
        releases.add(os.path.basename(os.path.realpath(folder)))
    return releases, packs, images


def main(root: str) -> None:
    kept = needed(root)
    if kept is None or not kept[0]:
        return
    releases, packs, images = kept
    for folder, names in (("releases", releases), ("packs", packs)):
        place = os.path.join(root, folder)
        for name in sorted(os.listdir(place) if os.path.isdir(place) else ()):
            if name not in names:
                shutil.rmtree(os.path.join(place, name), ignore_errors=True)
    listing = ["docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", "seaco-release"]
    done = subprocess.run(listing, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    for name in done.stdout.decode().split():
        if name not in images:
            subprocess.run(["docker", "image", "rm", name], stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    main(sys.argv[1])
