"""The command line of the exporter: every option, its default, and what is refused at the start.

Files that hold secrets are read here, once; nothing else touches the host.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from monitoring.exporter.canary import Clip, load_clip
from monitoring.exporter.errors import ConfigurationError
from monitoring.exporter.fetching import checked_url

DEFAULT_PORT = 9835
_LONGEST_SECRET = 4096
_SHORTEST_SECRET = 8


@dataclass(frozen=True)
class CanaryPlan:
    """Where the canary sings, what, and every how many seconds."""

    url: str
    clip: Clip
    interval_seconds: float


@dataclass(frozen=True)
class Options:
    """What the command line says; secrets are their text, not their files."""

    listen: tuple[str, int]
    token: str | None
    once: bool
    root: Path
    state: Path | None
    gpu: str
    kernel_log: str
    docker: Path | None
    disks: tuple[str, ...]
    variant_file: Path | None
    each_process: bool
    relays: tuple[str, ...]
    api_key: str | None
    canary: CanaryPlan | None
    log_level: str


def parser() -> argparse.ArgumentParser:
    """All options, in the words of --help."""
    made = argparse.ArgumentParser(
        prog="python -m monitoring.exporter",
        description="Metrics of this host for Prometheus: VRAM, OOM kills, memory, and the service's own.",
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--listen", default=f"127.0.0.1:{DEFAULT_PORT}", metavar="ADDRESS:PORT", help="default: %(default)s")
    add("--token-file", type=Path, metavar="FILE", help="file with a token that scrapers must send (Bearer)")
    add("--once", action="store_true", help="print the metrics once and end")
    add(
        "--root",
        type=Path,
        default=Path("/"),
        metavar="DIR",
        help="where the host's /proc, /sys and /dev are",
    )
    add(
        "--state",
        type=Path,
        metavar="FILE",
        help="keep counts of kills here; without it they begin anew with each start",
    )
    add("--gpu", choices=("auto", "on", "off"), default="auto", help="auto: where there is an NVIDIA card")
    add("--kernel-log", choices=("auto", "on", "off"), default="auto", help="auto: where it may be read")
    add(
        "--docker",
        default="auto",
        metavar="SOCKET",
        help="socket of Docker or Podman, or off; auto: where there is one",
    )
    add(
        "--disk",
        action="append",
        default=[],
        metavar="PATH",
        help="measure the disk that holds this path (repeatable)",
    )
    add(
        "--variant-file",
        type=Path,
        metavar="FILE",
        help="JSON that scripts/pick_variant.py wrote on this host",
    )
    add("--processes", action="store_true", help="GPU memory by process, too: a series for each pid")
    add("--relay", action="append", default=[], metavar="URL", help="pass on these metrics, too (repeatable)")
    add(
        "--api-key-file",
        type=Path,
        metavar="FILE",
        help="file with the service's API key, for --relay and --canary",
    )
    add("--canary", metavar="URL", help="send a known clip to the service there, now and then")
    add("--canary-clip", type=Path, metavar="PATH", help="a model pack's directory, or a WAV file")
    add("--canary-text", metavar="TEXT", help="the words of the clip; not needed for a pack")
    add("--canary-interval", type=float, default=300.0, metavar="SECONDS", help="default: %(default)g")
    add(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="default: %(default)s",
    )
    return made


def parse(arguments: Sequence[str]) -> Options:
    """The options.

    Raises:
        ConfigurationError: one of them cannot be honoured.
    """
    told = parser().parse_args(arguments)
    if not told.root.is_dir():
        raise ConfigurationError(
            f"--root {told.root} is not a directory", fix="Name one that holds the host's /proc"
        )
    return Options(
        listen=_address(told.listen),
        token=_secret(told.token_file, "--token-file"),
        once=told.once,
        root=told.root,
        state=_state(told.state),
        gpu=told.gpu,
        kernel_log=told.kernel_log,
        docker=_docker(told.docker, told.root),
        disks=tuple(dict.fromkeys(told.disk)),
        variant_file=told.variant_file,
        each_process=told.processes,
        relays=tuple(dict.fromkeys(checked_url(url, "--relay") for url in told.relay)),
        api_key=_secret(told.api_key_file, "--api-key-file"),
        canary=_canary(told),
        log_level=told.log_level,
    )


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigurationError(
            f"--listen {text!r} is not an address and a port",
            fix="Say 127.0.0.1:9835, 0.0.0.0:9835 or [::]:9835",
        )
    return host.strip("[]"), int(port)


def _secret(path: Path | None, option: str) -> str | None:
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")[: _LONGEST_SECRET + 1].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{option} {path} cannot be read ({error})", fix="Name a readable file"
        ) from None
    if not _SHORTEST_SECRET <= len(text) <= _LONGEST_SECRET or not text.isascii() or len(text.split()) != 1:
        raise ConfigurationError(
            f"{option} {path} does not hold one secret of {_SHORTEST_SECRET} to {_LONGEST_SECRET} ASCII characters",
            fix="Make one: openssl rand -hex 32",
        )
    return text


def _state(path: Path | None) -> Path | None:
    if path is not None and not path.parent.is_dir():
        raise ConfigurationError(
            f"The folder of --state {path} is not there", fix=f"Make it: mkdir -p {path.parent}"
        )
    return path


def _docker(text: str, root: Path) -> Path | None:
    if text == "off":
        return None
    if text != "auto":
        return Path(text)
    for candidate in ("run/docker.sock", "var/run/docker.sock", "run/podman/podman.sock"):
        if (root / candidate).is_socket():
            return root / candidate
    return None


def _canary(told: argparse.Namespace) -> CanaryPlan | None:
    if told.canary is None:
        if told.canary_clip is not None or told.canary_text is not None:
            raise ConfigurationError(
                "--canary-clip is given, but no service", fix="Add --canary http://127.0.0.1:8000"
            )
        return None
    if told.canary_clip is None:
        raise ConfigurationError(
            "--canary needs a clip", fix="Add --canary-clip with the model pack's directory"
        )
    if not (math.isfinite(told.canary_interval) and 10 <= told.canary_interval <= 86_400):
        raise ConfigurationError(
            f"--canary-interval {told.canary_interval:g} is not between 10 and 86400 seconds",
            fix="300 is a good start",
        )
    url = checked_url(told.canary, "--canary")
    return CanaryPlan(url, load_clip(told.canary_clip, told.canary_text), told.canary_interval)
