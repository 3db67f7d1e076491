"""`make up` from verdict to a ready service, with a fake Docker: what is started, and what each failure says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from scripts import up

ROOT = Path(__file__).resolve().parents[2]
HEALTHY = json.dumps(
    {"Status": "running", "ExitCode": 0, "OOMKilled": False, "Health": {"Status": "healthy"}}
)
Answers = list[tuple[str, int, str, str]]
READY: Answers = [("inspect --format {{json", 0, HEALTHY, ""), ("inspect --format {{.Restart", 0, "0", "")]


class FakeDocker:
    """The fake command on a PATH of its own, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        fake = (ROOT / "tests" / "fakes" / "docker.py").read_text(encoding="utf-8")
        (folder / "docker").write_text(f"#!{sys.executable}\n{fake}", encoding="utf-8")
        (folder / "docker").chmod(0o755)
        self.answer([])

    def answer(self, answers: Answers) -> None:
        (self.folder / "answers.json").write_text(json.dumps(answers), encoding="utf-8")

    def asked(self, words: str) -> list[str]:
        lines = (self.folder / "asked.txt").read_text(encoding="utf-8").splitlines()
        return [line for line in lines if words in line]


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeDocker:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    for name in (
        "PORT",
        "VARIANT",
        "PROJECT",
        "IMAGE_PREFIX",
        "MODEL",
        "MEMORY_LIMIT",
        "BIND_ADDRESS",
        "MODELS_DIR",
    ):
        monkeypatch.delenv(name, raising=False)
    return FakeDocker(tmp_path)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def verdict(*instances: dict[str, Any]) -> dict[str, Any]:
    return {"verdict": "gpu", "instances": list(instances)}


def gpu_instance(number: int, **more: Any) -> dict[str, Any]:
    return {
        "name": f"gpu{number}",
        "variant": "cuda-fp16",
        "device": {"index": number, "uuid": f"GPU-{number}", "cdi": f"nvidia.com/gpu={number}"},
        "environment": {"ASR_DEVICE": "auto", "ASR_PRECISION": "auto"},
        "memory_limit_mib": 2048,
        **more,
    }


def run(monkeypatch: pytest.MonkeyPatch, *picked: dict[str, Any], cdi: bool = True) -> int:
    """`up` for a verdict that is given, not probed."""
    monkeypatch.setattr(up, "look", lambda given: ({"containers": {"cdi": cdi}}, verdict(*picked)))
    return up.main(["up"])


def test_one_instance_a_card_each_with_its_port_and_project(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.answer(READY)
    monkeypatch.setenv("PORT", str(free_port))
    monkeypatch.setattr(up, "check_port", lambda *_: None)
    assert run(monkeypatch, gpu_instance(0), gpu_instance(1, variant="cuda-fp32")) == 0
    first, second = docker.asked(" up --detach")
    assert "compose.gpu.yaml" in first and "--project-name seaco-speech " in first
    assert f"PORT={free_port}" in first and "GPU=0 MEMORY_LIMIT=2048m MEMORY_SWAP_LIMIT=2560m" in first
    assert "--project-name seaco-speech-gpu1 " in second and f"PORT={free_port + 1}" in second
    assert "ASR_IMAGE=seaco-speech:0.1.0-cuda-fp32" in second
    assert f"http://127.0.0.1:{free_port + 1}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "told"), [("gpu-1", "gpu-1"), ("gpu1.lan", "gpu1.lan"), ("(none)", ""), ("", "")]
)
def test_the_service_is_told_the_name_of_its_host(
    monkeypatch: pytest.MonkeyPatch, name: str, told: str
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: name)
    picked = up.instances_of(verdict(gpu_instance(0)), {"containers": {"cdi": True}}, {})
    assert [instance.variables["HOST_NAME"] for instance in picked] == [told]


def test_without_cdi_a_card_is_named_by_its_unique_id(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    docker.answer(READY)
    monkeypatch.setenv("PORT", str(free_port))
    assert run(monkeypatch, gpu_instance(0), cdi=False) == 0
    (line,) = docker.asked(" up --detach")
    assert "compose.gpu-legacy.yaml" in line and "GPU=GPU-0" in line


def test_one_exporter_watches_the_host(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    docker.answer(READY)
    monkeypatch.setenv("PORT", str(free_port))
    monkeypatch.setenv("MONITORING", "yes")
    monkeypatch.setattr(up, "check_port", lambda *_: None)
    assert run(monkeypatch, gpu_instance(0), gpu_instance(1)) == 0
    first, second = docker.asked(" up --detach")
    assert "compose.monitoring.yaml" in first and "compose.monitoring.yaml" not in second
    assert docker.asked("image inspect seaco-speech:0.1.0-exporter")


def test_what_the_user_says_goes_before_the_verdict(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, free_port: int, tmp_path: Path
) -> None:
    docker.answer(READY)
    (tmp_path / "packs" / "mine").mkdir(parents=True)
    given = {
        "PORT": str(free_port),
        "MODEL": str(tmp_path / "packs" / "mine"),
        "ASR_PRECISION": "fp32",
        "MEMORY_LIMIT": "900m",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert run(monkeypatch, gpu_instance(0)) == 0
    (line,) = docker.asked(" up --detach")
    assert "ASR_MODEL=mine ASR_PRECISION=fp32 GPU=0 MEMORY_LIMIT=900m" in line
    assert f"MODELS_DIR={tmp_path / 'packs'}" in line


@pytest.mark.parametrize(
    ("answers", "code", "told"),
    [
        ([("info", 1, "", "Cannot connect to the Docker daemon")], 2, "systemctl start docker"),
        ([("compose version", 1, "", "")], 2, "Docker has no compose plugin"),
        ([("*up --detach", 1, "", 'could not select device driver "nvidia"')], 2, "NVIDIA Container Toolkit"),
        (
            [("*up --detach", 1, "", "CDI device injection failed: unresolvable CDI devices")],
            2,
            "VARIANT=cpu",
        ),
        ([("*up --detach", 1, "", "port is already allocated")], 2, "PORT=8001"),
        ([("*up --detach", 1, "", "write /x: no space left on device")], 2, "disk is full"),
        ([("*up --detach", 1, "", "something new")], 2, "something new"),
        (
            [
                (
                    "inspect --format {{json",
                    0,
                    json.dumps({"Status": "exited", "ExitCode": 137, "OOMKilled": True}),
                    "",
                ),
                ("logs", 0, "the last words", ""),
            ],
            1,
            "killed for want of memory",
        ),
        (
            [
                (
                    "inspect --format {{json",
                    0,
                    json.dumps(
                        {
                            "Status": "running",
                            "Health": {
                                "Status": "starting",
                                "Log": [{"Output": '503 {"status":"failed","message":"no"}'}],
                            },
                        }
                    ),
                    "",
                ),
                ("inspect --format {{.Restart", 0, "0", ""),
            ],
            1,
            "cannot work with these settings",
        ),
    ],
)
def test_each_failure_says_what_to_do(
    docker: FakeDocker,
    monkeypatch: pytest.MonkeyPatch,
    free_port: int,
    capsys: pytest.CaptureFixture[str],
    answers: Answers,
    code: int,
    told: str,
) -> None:
    docker.answer(answers + READY)
    monkeypatch.setenv("PORT", str(free_port))
    assert run(monkeypatch, gpu_instance(0)) == code
    errors = capsys.readouterr().err
    assert told in errors and "what to do:" in errors


def test_a_port_that_is_taken_is_told_before_anything_is_built(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        assert run(monkeypatch, gpu_instance(0)) == 2
    assert f"up PORT={port + 1}" in capsys.readouterr().err
    assert not docker.asked("up --detach")


def test_a_service_that_is_never_ready_is_given_up(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    state = json.dumps({"Status": "running", "Health": {"Status": "starting", "Log": []}})
    docker.answer([("inspect --format {{json", 0, state, ""), *READY])
    monkeypatch.setenv("PORT", str(free_port))
    monkeypatch.setenv("WAIT", "0.01")
    assert run(monkeypatch, gpu_instance(0)) == 1
    assert "WAIT=0.02" in capsys.readouterr().err


def test_a_service_that_starts_again_and_again_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, docker: FakeDocker
) -> None:
    """What counts is a restart while waiting, not one of last week."""
    counts = iter((3, 3, 4))
    monkeypatch.setattr(up, "_restarts", lambda name: next(counts))
    state = json.dumps(
        {"Status": "running", "ExitCode": 2, "OOMKilled": False, "Health": {"Status": "starting"}}
    )
    docker.answer([("inspect", 0, state, ""), ("logs", 0, "the last words", "")])
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    instance = up.Instance("p", "cpu", "image", 1, ("compose.yaml",))
    with pytest.raises(up.StopError, match="ended with exit code 2"):
        up.wait(instance, 60)


def test_without_docker_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(monkeypatch, gpu_instance(0)) == 2
    assert "make run" in capsys.readouterr().err


def test_a_host_that_can_run_nothing_is_told_so_and_nothing_is_started(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch) == 3
    assert not (docker.folder / "asked.txt").exists()


def test_a_variant_that_is_asked_for_takes_the_verdicts_place(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    docker.answer(READY)
    monkeypatch.setenv("PORT", str(free_port))
    monkeypatch.setenv("VARIANT", "cpu")
    assert run(monkeypatch, gpu_instance(0)) == 0
    (line,) = docker.asked(" up --detach")
    assert "compose.gpu" not in line and "ASR_IMAGE=seaco-speech:0.1.0-cpu" in line
    monkeypatch.setenv("VARIANT", "cuda-fp32")
    assert run(monkeypatch, gpu_instance(0)) == 0
    line = docker.asked(" up --detach")[-1]
    assert "compose.gpu.yaml" in line and "ASR_PRECISION=fp32" in line and "cuda-fp32" in line


@pytest.mark.parametrize(
    ("name", "value"), [("VARIANT", "rocm"), ("MODEL", "nowhere/at-all"), ("API_KEYS_FILE", "nowhere")]
)
def test_what_is_not_known_is_refused(
    docker: FakeDocker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    assert run(monkeypatch, gpu_instance(0)) == 2
    assert value in capsys.readouterr().err


def test_this_host_is_probed_explained_and_started(docker: FakeDocker, free_port: int) -> None:
    """The whole command, with the real probe and picker."""
    docker.answer(READY)
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "up.py", "up"],
        env={**os.environ, "PORT": str(free_port), "VARIANT": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Verdict" in done.stdout and f"ready: http://127.0.0.1:{free_port}" in done.stdout


@pytest.mark.parametrize(
    ("prefix", "answers", "told"),
    [
        ("seaco-speech", [], "cannot be built"),
        ("registry.example/asr", [("pull", 1, "", "manifest unknown")], "Check IMAGE_PREFIX and VERSION"),
        ("registry.example/asr", [("pull", 1, "", "i/o timeout")], "i/o timeout"),
    ],
)
def test_an_image_that_cannot_be_had_is_told_before_anything_starts(
    docker: FakeDocker,
    monkeypatch: pytest.MonkeyPatch,
    free_port: int,
    capsys: pytest.CaptureFixture[str],
    prefix: str,
    answers: Answers,
    told: str,
) -> None:
    """One of ours in a bundle, which holds no recipe, and two that a registry does not give."""
    docker.answer([("image inspect", 1, "", ""), *answers, *READY])
    monkeypatch.setenv("PORT", str(free_port))
    monkeypatch.setenv("IMAGE_PREFIX", prefix)
    monkeypatch.setattr(up, "BUILD", "scripts/not-in-a-bundle.sh")
    assert run(monkeypatch, gpu_instance(0)) == 2
    assert told in capsys.readouterr().err
    assert not docker.asked("up --detach")


def test_an_image_of_a_registry_is_fetched(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, free_port: int
) -> None:
    docker.answer([("image inspect", 1, "", ""), *READY])
    monkeypatch.setenv("PORT", str(free_port))
    monkeypatch.setenv("IMAGE_PREFIX", "registry.example/asr")
    assert run(monkeypatch, gpu_instance(0)) == 0
    assert docker.asked("pull registry.example/asr:0.1.0-cuda-fp16")


@pytest.mark.parametrize(("status", "code"), [(0, 0), (1, 2)])
def test_an_image_of_our_own_that_is_not_here_is_built(
    docker: FakeDocker,
    monkeypatch: pytest.MonkeyPatch,
    free_port: int,
    capsys: pytest.CaptureFixture[str],
    status: int,
    code: int,
) -> None:
    docker.answer([("image inspect", 1, "", ""), *READY])
    recipe = docker.folder / "build"
    recipe.write_text(f'#!/bin/sh\necho "$@" >"$0.asked"\nexit {status}\n', encoding="ascii")
    recipe.chmod(0o755)
    monkeypatch.setattr(up, "BUILD", str(recipe))
    monkeypatch.setenv("PORT", str(free_port))
    assert run(monkeypatch, gpu_instance(0)) == code
    assert (docker.folder / "build.asked").read_text(encoding="ascii") == "cuda-fp16\n"
    assert ("The image could not be built" in capsys.readouterr().err) == bool(code)


def test_facts_that_nobody_recorded_so_are_refused(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "facts.json").write_text('{"not": "facts"}', encoding="utf-8")
    monkeypatch.setenv("FACTS", str(tmp_path / "facts.json"))
    assert up.main(["up"]) == 2
    assert "No variant could be picked" in capsys.readouterr().err


def test_a_docker_that_fails_half_way_is_told_with_what_it_said(
    docker: FakeDocker, monkeypatch: pytest.MonkeyPatch, free_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    docker.answer([("inspect --format {{.Restart", 1, "", "Error: No such object")])
    monkeypatch.setenv("PORT", str(free_port))
    assert run(monkeypatch, gpu_instance(0)) == 1
    assert "docker inspect --format failed: Error: No such object" in capsys.readouterr().err


def test_another_word_than_up_and_down_shows_both(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        up.main(["restart"])
    assert stopped.value.code == 2 and "up|down" in capsys.readouterr().err


def test_down_ends_what_up_started_and_nothing_else(docker: FakeDocker) -> None:
    projects = [{"Name": name} for name in ("seaco-speech", "seaco-speech-gpu1", "seaco-speech-of-others")]
    docker.answer([("compose ls", 0, json.dumps(projects), "")])
    assert up.main(["down"]) == 0
    assert [line.split()[2] for line in docker.asked(" down ")] == ["seaco-speech", "seaco-speech-gpu1"]
