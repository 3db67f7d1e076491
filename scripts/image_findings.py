"""What is wrong with an image, from the files it holds and the settings it carries; no Docker here.

The tree comes as a tar stream (`docker export`), so that nothing of the image need run, and no tool need be in it.
Getting it, and asking for newer Debian packages, is scan_image.py's part. Standard library only.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import IO, Any

from scripts.secret_rules import KNOWN_TOKENS, NEAR, PRIVATE_KEY

READ_BYTES = 1 << 20  # larger files are programs and models
# A key itself, not a program that knows what one begins with.
_KEY = re.compile(PRIVATE_KEY.pattern + r"\s+(?:[\w-]+: .*\s+)*[A-Za-z0-9+/]{20}")
# End of a path -> why what looks like a secret there is none.
HARMLESS = {
    "/site-packages/transformers/testing_utils.py": "a token that the package publishes for its own tests"
}
_NAMES_OF_SECRETS = frozenset(
    {".netrc", ".pypirc", ".git-credentials", "id_rsa", "id_ed25519", "id_ecdsa", ".env"}
)
_IN_ADDRESS = re.compile(r"://[^/\s:@]+:[^/\s@]+@")
_LEFT = (
    (re.compile(r"var/lib/apt/lists/[^/]+$"), "lists of packages", "rm -rf /var/lib/apt/lists/*"),
    (re.compile(r"var/cache/apt/.+\.(deb|bin)$"), "packages of Debian", "apt-get clean"),
    (re.compile(r"(.*/)?\.cache/(pip|uv)/.+"), "pip's cache", "--mount=type=cache for it"),
    (re.compile(r"(tools|wheels|requirements|pip)/.+"), "files of the build", "copying only what runs"),
    (re.compile(r"usr/bin/(gcc|cc|g\+\+|make|ld)(-\d+)?$"), "a compiler or linker", "building in a stage of its own"),
)  # fmt: skip
# torch of the CUDA images lies elsewhere, with libraries that its own metadata pins.
_INSTALLED = re.compile(r"opt/asr/lib/python(3\.\d+)/site-packages/([^/]+)-([^/-]+)\.dist-info/METADATA$")
_PIN = re.compile(r"^([\w.-]+)==([^\s;]+)(?:\s*;\s*(.+))?$")


@dataclass(frozen=True, order=True)
class Finding:
    """One thing that should not be so.

    Attributes:
        kind: setuid, writable, secret, user, left-over, package or update.
        what: path or name, and what is wrong with it.
        remedy: what to do.
    """

    kind: str
    what: str
    remedy: str


@dataclass(frozen=True)
class Tree:
    """What was seen in the files: findings, and installed Python packages by name in small letters -> version."""

    findings: list[Finding]
    packages: dict[str, str]
    python: str


def look_at_tree(stream: IO[bytes]) -> Tree:
    """Reads a tar stream to its end. Raises tarfile.TarError when it is none."""
    findings: list[Finding] = []
    packages: dict[str, str] = {}
    python = ""
    with tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            findings += _of_mode(name, member)
            findings += _of_name(name, member)
            if member.isreg() and member.size <= READ_BYTES:
                content = archive.extractfile(member)
                findings += _of_text(name, content.read() if content is not None else b"")
            found = _INSTALLED.search(name)
            if found is not None:
                python = found[1]
                packages[_plain(found[2])] = found[3]
    return Tree(findings, packages, python)


def _of_mode(name: str, member: tarfile.TarInfo) -> Iterator[Finding]:
    if member.isreg() and member.mode & 0o6000:
        yield Finding(
            "setuid",
            f"/{name} runs with the rights of its owner or group (mode {member.mode & 0o7777:o})",
            f"take the bits away in the Dockerfile: chmod ug-s /{name}",
        )
    if (member.isreg() or (member.isdir() and not member.mode & 0o1000)) and member.mode & 0o002:
        yield Finding(
            "writable", f"/{name} can be written by everybody", f"chmod o-w /{name} in the Dockerfile"
        )


def _of_name(name: str, member: tarfile.TarInfo) -> Iterator[Finding]:
    if not member.isreg():
        return
    if PurePosixPath(name).name in _NAMES_OF_SECRETS or name.endswith(".docker/config.json"):
        yield Finding(
            "secret", f"/{name} is a file for keys or passwords", "leave it out of the build (.dockerignore)"
        )
    for pattern, what, remedy in _LEFT:
        if pattern.fullmatch(name):
            yield Finding("left-over", f"/{name}: {what}", f"keep them out of the image: {remedy}")


def _of_text(name: str, content: bytes) -> Iterator[Finding]:
    """Random words beside "key" are looked for in the clone (tests/test_secrets.py); others' code is full of them."""
    if name.endswith((".pyc", *HARMLESS)):  # byte code says what its source does
        return
    text = content.decode("utf-8", "replace")
    for word in (
        found[0].splitlines()[0] for pattern in (_KEY, KNOWN_TOKENS) for found in pattern.finditer(text)
    ):
        yield Finding(
            "secret",
            f"/{name} holds what looks like a secret ({word[:6]}...)",
            "make a new one, leave the file out of the build, and do not publish this image",
        )


def look_at_settings(inspected: Mapping[str, Any], history: Iterable[str]) -> Iterator[Finding]:
    """What `docker inspect` and `docker history` tell: user, environment, commands of the build."""
    config = inspected["Config"]
    user = str(config.get("User") or "").partition(":")[0]
    if user in {"", "0", "root"}:
        yield Finding("user", "it runs as root", "end its stage in the Dockerfile with USER 10001:10001")
    for entry in config.get("Env") or ():
        name, _, value = entry.partition("=")
        if (NEAR.search(name) and value and not name.endswith("_FILE")) or _holds_secret(entry):
            yield Finding(
                "secret", f"the environment has a value for {name}", "give it when it runs, as a file"
            )
    for line in history:
        if _holds_secret(line):
            yield Finding(
                "secret",
                f"a step of the build holds a password or a token: {line[:30]}...",
                "hand it over with --mount=type=secret, and make a new one",
            )


def _holds_secret(text: str) -> bool:
    return any(pattern.search(text) for pattern in (PRIVATE_KEY, KNOWN_TOKENS, _IN_ADDRESS))


def look_at_packages(tree: Tree, pins: Mapping[str, str]) -> Iterator[Finding]:
    """Python packages against those that requirements/*.txt pin for this image."""
    again = "build the image again: make image"
    for name, version in sorted(tree.packages.items()):
        if name not in pins:
            yield Finding("package", f"{name} {version} is in no list of requirements", again)
        elif version != pins[name]:
            yield Finding("package", f"{name} is {version}, and {pins[name]} is pinned", again)
    for name in sorted(set(pins) - set(tree.packages)):
        yield Finding("package", f"{name} is missing, {pins[name]} is pinned", again)


def pins_of(lines: Iterable[str], python: str) -> dict[str, str]:
    """Name -> version of what a lock file pins for that version of Python."""
    pins: dict[str, str] = {}
    for line in lines:
        found = _PIN.match(line.strip())
        if found is None:
            continue
        name, version, condition = found.groups()
        if condition is None or python in re.findall(r'python_version == "([\d.]+)"', condition):
            pins[_plain(name)] = version
    return pins


def _plain(name: str) -> str:
    """One spelling for a package's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def updates_of(simulated: str) -> Iterator[Finding]:
    """What `apt-get -s upgrade` would install."""
    for line in simulated.splitlines():
        found = re.match(r"Inst (\S+) (?:\[(\S+)\] )?\((\S+) ([^)]*)\)", line)
        if found is not None:
            name, old, new, origin = found.groups()
            kind = "a security update" if "security" in origin.lower() else "an update"
            yield Finding(
                "update",
                f"{name} {old or ''} has {kind}: {new} ({origin.strip()})",
                "build on a newer base image: BASE_IMAGE in images/variants.json, or make image BASE_IMAGE=...",
            )
