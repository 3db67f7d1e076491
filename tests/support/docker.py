"""A real Docker for end-to-end tests: installed and started if it is missing, with a base image made here.

Needs root, Debian 12 and its package archive. Nothing is pulled from a registry of images: the base is laid out with
debootstrap and imported. Images that take long to make keep their names, so that the next run finds them.
What the images of the product hold is images/Dockerfile's business.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.packages import apt

Completed = subprocess.CompletedProcess[str]

SUITE = "bookworm"
PYTHON_PACKAGES = ("ca-certificates", "python3", "python3-venv")
_DOCKER_PACKAGES = ("docker.io", "debootstrap", "iptables")
# bookworm's Compose is version 1, and it has no buildx at all; these two, and nothing else, come from the next release.
_NEWER_SUITE, _NEWER_PACKAGES = "trixie", ("docker-buildx", "docker-compose")
_LOCKS = Path("/var/lock")
_CONTAINERD_PID = Path("/var/run/docker/containerd/containerd.pid")
_DAEMON_LOG = Path("/var/log/seaco-test-dockerd.log")
_CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# What is done to every base; part of its name, so that a change makes a new one.
_HISTORY = (
    f"ENV PIP_CERT={_CA_BUNDLE} SSL_CERT_FILE={_CA_BUNDLE} REQUESTS_CA_BUNDLE={_CA_BUNDLE}",
    'CMD ["python3"]',
)
_PATIENCE = 60.0  # seconds until the daemon answers


def docker(*arguments: str | Path, check: bool = True, timeout: float = 600, **more: Any) -> Completed:
    """`docker ...` with its output kept as text; a failure carries what Docker said."""
    done = subprocess.run(
        ["docker", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
        **more,
    )
    if check and done.returncode:
        raise AssertionError(f"docker {' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}")
    return done


def inspect(thing: str) -> dict[str, Any]:
    """What Docker knows about a container, image, network or volume."""
    found: list[dict[str, Any]] = json.loads(docker("inspect", thing).stdout)
    return found[0]


class Daemon:
    """A dockerd of this test run, or somebody else's (`own` is false), which must not be harmed."""

    def __init__(self, process: subprocess.Popen[bytes] | None) -> None:
        self._process = process

    @property
    def own(self) -> bool:
        return self._process is not None

    def kill(self) -> None:
        """kill -9. containerd ends with it: one that came back before that would wait for the old one's socket."""
        assert self._process is not None, "somebody else's Docker is not killed"
        containerd = Path("/proc", _CONTAINERD_PID.read_text(encoding="ascii").strip(), "stat")
        self._process.kill()
        self._process.wait()
        give_up = time.monotonic() + _PATIENCE
        while containerd.exists() and ") Z " not in containerd.read_text(encoding="ascii"):
            assert time.monotonic() < give_up, "containerd outlives dockerd"
            time.sleep(0.1)
        # Where nobody buries the dead, the next dockerd would take it for alive.
        _CONTAINERD_PID.unlink(missing_ok=True)

    def start_again(self, *options: str) -> None:
        """After `kill`; returns when it answers."""
        self._process = _start(*options)

    def end(self) -> None:
        """In good order, if it is ours."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)


@contextmanager
def daemon() -> Iterator[Daemon]:
    """Docker with buildx and Compose, answering. A daemon that was started here ends here."""
    with _one_at_a_time("daemon"):
        _install()
        made = Daemon(None if _answers() else _start())
    try:
        yield made
    finally:
        made.end()


@functools.cache
def archive() -> str:
    """Where this machine has Debian from, and where its test images take it from."""
    asked = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    which = ["Created-By: Packages", "Label: Debian", f"Codename: {SUITE}", "Component: main"]
    found = subprocess.run([*asked, *which], capture_output=True, text=True, check=True).stdout.split()
    assert found, f"these tests need a machine whose apt sources name the archive of {SUITE}"
    return found[0]


def base_image(packages: Sequence[str] = PYTHON_PACKAGES) -> str:
    """The name of a minimal Debian with Python and this host's certificates, made unless it is there already.

    Its python3 is /usr/bin/python3, which is what PYTHON of images/Dockerfile is to be with it.
    """
    recipe = json.dumps([archive(), SUITE, list(packages), _CA_BUNDLE.stat().st_size, _HISTORY])
    name = f"seaco-test-base:{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with _one_at_a_time(name):
        if docker("image", "inspect", name, check=False).returncode:
            _make_base(name, packages)
    return name


def remove_all(prefix: str) -> None:
    """Containers, networks and volumes whose names begin with `prefix`; images stay, they are the cache."""
    for listing, removal in (
        (("ps", "--all", "--format", "{{.Names}}"), ("rm", "--force", "--volumes")),
        (("network", "ls", "--format", "{{.Name}}"), ("network", "rm")),
        (("volume", "ls", "--format", "{{.Name}}"), ("volume", "rm", "--force")),
    ):
        names = [name for name in docker(*listing).stdout.split() if name.startswith(prefix)]
        if names:
            docker(*removal, *names)


def memory_files(container: str) -> dict[str, int]:
    """The limits that reached the container's control group, version 1 or 2: memory and memory with swap, in bytes."""
    pid = inspect(container)["State"]["Pid"]
    for line in Path(f"/proc/{pid}/cgroup").read_text(encoding="ascii").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            group = Path("/sys/fs/cgroup/memory") / path.lstrip("/")
            memory = int((group / "memory.limit_in_bytes").read_text())
            return {"memory": memory, "memswap": int((group / "memory.memsw.limit_in_bytes").read_text())}
    group = Path("/sys/fs/cgroup") / path.lstrip("/")
    memory = int((group / "memory.max").read_text())
    return {"memory": memory, "memswap": memory + int((group / "memory.swap.max").read_text())}


@contextmanager
def _one_at_a_time(work: str) -> Iterator[None]:
    """Two test runs on one machine must not install or build the same thing at once."""
    with (_LOCKS / f"seaco-test-{work.replace(':', '-')}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _answers() -> bool:
    return docker("info", check=False).returncode == 0


def _install() -> None:
    plugins = ("buildx", "compose")
    missing = shutil.which("dockerd") is None or shutil.which("debootstrap") is None
    if not missing and not any(docker(plugin, "version", check=False).returncode for plugin in plugins):
        return
    if os.getuid() != 0:
        raise AssertionError("Docker is missing here, and only root can install it: run these tests as root.")
    sources = Path("/etc/apt/sources.list.d/seaco-test-docker.list")
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources.write_text(f"deb [signed-by={keyring}] {archive()} {_NEWER_SUITE} main\n", encoding="ascii")
    Path("/etc/apt/preferences.d/seaco-test-docker").write_text(
        f"Package: *\nPin: release n={_NEWER_SUITE}\nPin-Priority: 50\n\n"
        f"Package: {' '.join(_NEWER_PACKAGES)}\nPin: release n={_NEWER_SUITE}\nPin-Priority: 600\n",
        encoding="ascii",
    )
    apt("update")
    apt("install", "--yes", "--no-install-recommends", *_DOCKER_PACKAGES, *_NEWER_PACKAGES)


def _start(*options: str) -> subprocess.Popen[bytes]:
    with _DAEMON_LOG.open("wb") as log:
        started = subprocess.Popen(
            ["dockerd", *options], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    give_up = time.monotonic() + _PATIENCE
    while not _answers():
        if started.poll() is not None or time.monotonic() > give_up:
            started.kill()
            told = _DAEMON_LOG.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise AssertionError(f"dockerd does not start here; the end of {_DAEMON_LOG}:\n{told}")
        time.sleep(0.5)
    return started


def _make_base(name: str, packages: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        included = ",".join(packages)
        subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={included}", SUITE, str(root), archive()],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        for waste in (
            "var/cache/apt",
            "var/lib/apt/lists",
            "usr/share/doc",
            "usr/share/locale",
            "usr/share/man",
        ):
            shutil.rmtree(root / waste, ignore_errors=True)
        (root / "var/cache/apt/archives/partial").mkdir(parents=True)
        (root / "var/lib/apt/lists/partial").mkdir(parents=True)
        shutil.copy(_CA_BUNDLE, root / str(_CA_BUNDLE).lstrip("/"))
        changes = [part for change in _HISTORY for part in ("--change", change)]
        with subprocess.Popen(["tar", "-C", str(root), "-c", "."], stdout=subprocess.PIPE) as packed:
            subprocess.run(
                ["docker", "import", *changes, "-", name],
                stdin=packed.stdout,
                stdout=subprocess.DEVNULL,
                check=True,
            )
        if packed.returncode:
            raise AssertionError(f"the base image {name} could not be packed")
