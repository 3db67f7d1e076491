"""Is a model pack whole? Compares size and SHA-256 of every file with the manifest; prints what differs.

The manifest itself is known by the end of the pack's name, which is its own SHA-256: check_pack.py DIRECTORY NAME.
Runs on the host that got the pack: standard library only, Python 3.8. Exit code 0: whole, 1: not.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys


def digest(path: str) -> str:
    made = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            made.update(block)
    return made.hexdigest()


def faults(folder: str, name: str) -> list[str]:
    """What is wrong with the pack `name` in `folder`, one sentence each."""
    manifest = os.path.join(folder, "manifest.json")
    try:
        with open(manifest, encoding="utf-8") as file:
            files = json.load(file)["files"]
        own = digest(manifest)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return [f"manifest.json cannot be used: {error}"]
    found = [] if name.endswith(f"-{own[:12]}") else ["manifest.json is not the one of this pack"]
    for file_name, record in sorted(files.items()):
        path = os.path.join(folder, file_name)
        if not os.path.isfile(path):
            found.append(f"{file_name} is missing")
        elif os.path.getsize(path) != record["bytes"]:
            found.append(
                "{} has {} bytes instead of {}".format(file_name, os.path.getsize(path), record["bytes"])
            )
        elif digest(path) != record["sha256"]:
            found.append(f"{file_name} is damaged: its SHA-256 is not that of the manifest")
    return found


if __name__ == "__main__":
    wrong = faults(sys.argv[1], sys.argv[2])
    print("\n".join(wrong))
    sys.exit(1 if wrong else 0)
