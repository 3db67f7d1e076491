#!/usr/bin/env python3
"""`make up` and `make down`: picks what this host can hold, says why, starts it, waits until it is ready.

Lives here: the way from a verdict to running containers, and what can go wrong on it. Does not live here: the verdict
(pick_variant.py), what a container may do (images/compose*.yaml) and what the service does. Standard library only.

Set by environment: VARIANT (takes the place of the verdict's), FACTS (recorded facts in place of a probe), MODEL, PORT,
BIND_ADDRESS, API_KEYS_FILE, MONITORING (yes: with the exporter), MEMORY_LIMIT, MEMORY_SWAP_LIMIT, WAIT (seconds),
PROJECT, IMAGE_PREFIX, VERSION, and ASR_* for the service.
Exit code: 0 ready, 1 it did not become ready, 2 something is missing, 3 nothing can run here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
BUILD = "scripts/image.sh"
DEFAULT_PREFIX, DEFAULT_VERSION, DEFAULT_PROJECT, DEFAULT_PORT = "seaco-speech", "0.1.0", "seaco-speech", 8000
WAIT_SECONDS = 900.0
MISSING, NOT_READY, NOTHING = 2, 1, 3
# Memory with swap above memory alone: room for a peak to be swapped rather than killed.
SWAP_MIB = 512
# What Docker says, and what it means here.
KNOWN_FAILURES = (
    (
        (
            "could not select device driver",
            "unresolvable CDI devices",
            "unknown or invalid runtime",
            "libnvidia-ml",
        ),
        "Docker cannot give a container the GPU.",
        "Install the NVIDIA Container Toolkit (docs/images.md), or start on the processor: make up VARIANT=cpu",
    ),
    (
        ("port is already allocated", "address already in use"),
        "The port is taken.",
        "Name another: make up PORT=8001",
    ),
    (
        ("no space left on device",),
        "The disk is full.",
        "Free some room where Docker keeps its files (docker system df tells what takes it), then try again.",
    ),
    (
        ("pull access denied", "manifest unknown", "not found: manifest"),
        "The registry has no such image.",
        "Check IMAGE_PREFIX and VERSION, or build it here: make image VARIANT=...",
    ),
)


class StopError(Exception):
    """Ends the command: what happened, what to do, and the exit code."""

    def __init__(self, problem: str, fix: str, code: int = MISSING) -> None:
        super().__init__(problem)
        self.problem, self.fix, self.code = problem, fix, code


@dataclass(frozen=True)
class Instance:
    """One container to start: a compose project of its own, its files and its variables."""

    project: str
    variant: str
    image: str
    port: int
    files: tuple[str, ...]
    exporter: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)

    def compose(self, *arguments: str) -> list[str]:
        """The command line of `docker compose ...` for it."""
        files = [part for name in self.files for part in ("--file", str(ROOT / "images" / name))]
        return ["docker", "compose", "--project-name", self.project, *files, *arguments]

    @property
    def environment(self) -> dict[str, str]:
        """What compose fills its variables from."""
        return {**os.environ, **self.variables}


def instances_of(
    verdict: Mapping[str, Any], facts: Mapping[str, Any], given: Mapping[str, str]
) -> list[Instance]:
    """The verdict's instances as compose projects; what the user gave goes before what was picked."""
    prefix, version = given.get("IMAGE_PREFIX", DEFAULT_PREFIX), given.get("VERSION", DEFAULT_VERSION)
    made = []
    for number, picked in enumerate(verdict["instances"]):
        device = picked["device"]
        files = ["compose.yaml"]
        variables = model_variables(given.get("MODEL", ""))
        variables |= {name: given.get(name, value) for name, value in picked["environment"].items()}
        limit = picked["memory_limit_mib"]
        variables["MEMORY_LIMIT"] = given.get("MEMORY_LIMIT", f"{limit}m")
        variables["MEMORY_SWAP_LIMIT"] = given.get("MEMORY_SWAP_LIMIT", f"{limit + SWAP_MIB}m")
        if device is not None:
            by_cdi = bool(facts["containers"]["cdi"])
            files.append("compose.gpu.yaml" if by_cdi else "compose.gpu-legacy.yaml")
            variables["GPU"] = (
                device["cdi"].partition("=")[2] if by_cdi else str(device["uuid"] or device["index"])
            )
        if given.get("API_KEYS_FILE"):
            files.append("compose.keys.yaml")
            variables["API_KEYS_FILE"] = key_file(given["API_KEYS_FILE"])
        # One exporter tells of the whole host, and passes on the metrics of the first instance.
        exporter = f"{prefix}:{version}-exporter" if given.get("MONITORING") == "yes" and number == 0 else ""
        if exporter:
            files.append("compose.monitoring.yaml")
            variables["EXPORTER_IMAGE"] = exporter
        port = int(given.get("PORT", DEFAULT_PORT)) + number
        image = f"{prefix}:{version}-{picked['variant']}"
        project = given.get("PROJECT", DEFAULT_PROJECT) + (f"-{picked['name']}" if number else "")
        variables |= {"ASR_IMAGE": image, "PORT": str(port), "PROJECT": project, "HOST_NAME": host_name()}
        made.append(Instance(project, picked["variant"], image, port, tuple(files), exporter, variables))
    return made


def host_name() -> str:
    """The name by which others ask this host; empty for one that the service would not take."""
    name = socket.gethostname()
    return name if re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", name) else ""


def model_variables(model: str) -> dict[str, str]:
    """The variables for a model: a name as it is, a directory as what is mounted and its name below that."""
    if "/" not in model:
        return {"ASR_MODEL": model} if model else {}
    directory = Path(model).resolve()
    if not directory.is_dir():
        raise StopError(
            f"There is no directory {model}.", "Make a pack (make model), or leave MODEL away for the demo."
        )
    return {"MODELS_DIR": str(directory.parent), "ASR_MODEL": directory.name}


def key_file(name: str) -> str:
    """The file of keys, as a path that holds from everywhere; compose would make a directory of one that is missing."""
    path = Path(name).resolve()
    if not path.is_file():
        raise StopError(
            f"There is no file of keys {name}.", "Write one key a line into it: openssl rand -hex 24"
        )
    return str(path)


def forced(variant: str, verdict: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict with another variant in place of the picked one; its cards and limits stay where they fit."""
    table = json.loads((ROOT / "images" / "variants.json").read_text(encoding="utf-8"))
    known = {entry["name"]: entry for entry in table["variants"]}
    if variant not in known:
        raise StopError(f"There is no variant {variant}.", f"Use one of {', '.join(known)}.")
    entry = known[variant]
    on_cpu = entry["device"] == "cpu"
    picked = next((one for one in verdict["instances"] if (one["device"] is None) == on_cpu), None)
    instance = {
        "name": variant,
        "device": picked["device"] if picked else None,
        "memory_limit_mib": picked["memory_limit_mib"] if picked else entry["needs"]["ram_mib"] * 5 // 4,
        "variant": variant,
        "environment": entry["environment"],
    }
    return {**verdict, "instances": [instance]}


def look(given: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Facts of this host and the verdict on it; the explanation goes to standard output."""
    recorded = given.get("FACTS")
    probe = [sys.executable, str(ROOT / "scripts" / "probe_host.py")]
    if recorded:
        facts = Path(recorded).read_text(encoding="utf-8")
    else:
        facts = subprocess.run(probe, capture_output=True, text=True, check=True).stdout
    pick = [sys.executable, str(ROOT / "scripts" / "pick_variant.py"), "--facts", "-"]
    print(subprocess.run(pick, input=facts, stdout=subprocess.PIPE, text=True, check=False).stdout)
    done = subprocess.run([*pick, "--json"], input=facts, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in {0, NOTHING}:
        raise StopError("No variant could be picked.", "See above.")
    return json.loads(facts), json.loads(done.stdout)


def check_docker() -> None:
    """Docker answers and has compose; the first thing that is missing is told."""
    if shutil.which("docker") is None:
        raise StopError(
            "Docker is not installed.",
            "Debian, Ubuntu: sudo apt-get install docker.io docker-compose-v2 (Debian: docker-compose). "
            "Or without containers: make run",
        )
    told = subprocess.run(["docker", "info"], capture_output=True, text=True, check=False)
    if told.returncode:
        last = told.stderr.strip().splitlines()[-1:] or ["it says nothing"]
        raise StopError(
            f"Docker does not answer: {last[0]}",
            "Start it (sudo systemctl start docker); if it is not permitted, join the group docker or use sudo.",
        )
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode:
        raise StopError(
            "Docker has no compose plugin.",
            "Install it: docker-compose-v2 (Ubuntu), docker-compose (Debian 13), docker-compose-plugin (docker.com).",
        )


def check_port(instance: Instance, address: str) -> None:
    """The port is free, or this instance has it already."""
    listed = subprocess.run(
        instance.compose("ps", "--quiet"),
        env=instance.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.stdout.strip():
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, instance.port))
        except OSError as error:
            raise StopError(
                f"Port {instance.port} at {address} cannot be had ({error.strerror}).",
                f"Stop what listens there, or name another: make up PORT={instance.port + 1}",
            ) from error


def provide(image: str, target: str) -> None:
    """The image is here: built if it is ours alone, fetched if its name names a registry."""
    found = subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False)
    if found.returncode == 0:
        return
    if "/" in image:
        print(f"Fetching {image} ...", flush=True)
        told = subprocess.run(["docker", "pull", image], capture_output=True, text=True, check=False)
        if told.returncode:
            raise _failure(image, told.stderr)
        return
    if not (ROOT / BUILD).exists():
        raise StopError(
            f"There is no image {image} here, and this is a bundle: it cannot be built.",
            "Make a bundle with it (make bundle VARIANT=...), or use one that is in: VARIANT=cpu ./install.sh",
        )
    print(f"There is no image {image} here yet; building it ...", flush=True)
    if subprocess.run([str(ROOT / BUILD), target], check=False).returncode:
        raise StopError(
            "The image could not be built.", "See above; docs/images.md tells how to build behind mirrors."
        )


def start(instance: Instance) -> None:
    """The container runs, not yet ready."""
    told = subprocess.run(
        instance.compose("up", "--detach", "--remove-orphans"),
        env=instance.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if told.returncode:
        raise _failure(instance.image, told.stderr)


def wait(instance: Instance, seconds: float) -> None:
    """Until the container is healthy; a container that ends is not waited for."""
    name = f"{instance.project}-asr-1"
    give_up = time.monotonic() + seconds
    before = _restarts(name)
    while time.monotonic() < give_up:
        state = json.loads(_output("docker", "inspect", "--format", "{{json .State}}", name))
        if _restarts(name) > before or state["Status"] in {"exited", "dead"}:
            raise StopError(
                f"The service ended with exit code {state['ExitCode']}"
                f"{', killed for want of memory' if state['OOMKilled'] else ''}. The end of its log:\n{_log(name)}",
                "Mend what it names, then `make up` again; `make down` takes it away.",
                NOT_READY,
            )
        health = state.get("Health", {})
        if health.get("Status") == "healthy":
            return
        said = [check["Output"] for check in health.get("Log") or []][-1:]
        if any('"status":"failed"' in output for output in said):
            raise StopError(
                f"The service cannot work with these settings: {said[0].strip()}",
                "Mend what it names, then `make up` again; `make down` takes it away.",
                NOT_READY,
            )
        time.sleep(1)
    raise StopError(
        f"The service was not ready after {seconds:g} seconds. The end of its log:\n{_log(name)}",
        f"Wait longer (make up WAIT={seconds * 2:g}), or look on: docker logs -f {name}",
        NOT_READY,
    )


def up(given: Mapping[str, str]) -> int:
    """The whole way; returns the exit code."""
    facts, verdict = look(given)
    if given.get("VARIANT"):
        verdict = forced(given["VARIANT"], verdict)
        print(f"VARIANT={given['VARIANT']} was asked for, and takes the place of the verdict.\n")
    if not verdict["instances"]:
        return NOTHING
    check_docker()
    # Docker would make it as root, and a pack could not be written there.
    (ROOT / "models").mkdir(exist_ok=True)
    address = given.get("BIND_ADDRESS", "127.0.0.1")
    for instance in instances_of(verdict, facts, given):
        check_port(instance, address)
        provide(instance.image, instance.variant)
        if instance.exporter:
            provide(instance.exporter, "exporter")
        start(instance)
        wait(instance, float(given.get("WAIT", WAIT_SECONDS)))
        print(f"ready: http://{address}:{instance.port} ({instance.image}; API at /docs)", flush=True)
    return 0


def down(given: Mapping[str, str]) -> int:
    """Ends the containers; jobs and uploads stay in their volume."""
    check_docker()
    project = given.get("PROJECT", DEFAULT_PROJECT)
    listed = json.loads(_output("docker", "compose", "ls", "--all", "--format", "json") or "[]")
    names = [one["Name"] for one in listed]
    for name in (one for one in names if one == project or one.startswith(f"{project}-gpu")):
        subprocess.run(["docker", "compose", "--project-name", name, "down"], check=True)
        print(f"ended: {name}")
    return 0


def _failure(image: str, told: str) -> StopError:
    for words, problem, fix in KNOWN_FAILURES:
        if any(word in told for word in words):
            return StopError(f"{problem}\n{told.strip()}", fix)
    return StopError(
        f"{image} could not be started:\n{told.strip()}", "Mend what Docker names, then try again."
    )


def _restarts(name: str) -> int:
    return int(_output("docker", "inspect", "--format", "{{.RestartCount}}", name))


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _log(name: str) -> str:
    told = subprocess.run(
        ["docker", "logs", "--tail", "15", name], capture_output=True, text=True, check=False
    )
    return (told.stdout + told.stderr).strip()


def main(arguments: list[str]) -> int:
    """`up.py up|down`"""
    given = {name: value for name, value in os.environ.items() if value}
    try:
        if arguments == ["up"]:
            return up(given)
        if arguments == ["down"]:
            return down(given)
        _usage()
    except StopError as stop:
        print(f"{stop.problem}\n  what to do: {stop.fix}", file=sys.stderr)
        return stop.code
    except subprocess.CalledProcessError as error:
        told = str(error.stderr or "").strip()
        print(
            f"{' '.join(map(str, error.cmd[:3]))} failed: {told}\n  what to do: try again.", file=sys.stderr
        )
        return NOT_READY


def _usage() -> NoReturn:
    print("usage: up.py up|down", file=sys.stderr)
    raise SystemExit(MISSING)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
