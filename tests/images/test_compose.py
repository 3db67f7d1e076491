"""The compose files as data: what a container may do is limited everywhere, and settings reach the service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.service.settings import PREFIX, Settings

IMAGES = Path(__file__).resolve().parents[2] / "images"
# Settings that the image decides: its name, where it listens and keeps its data. Keys come by file, in an overlay.
OF_THE_IMAGE = {"variant", "host", "port", "data_dir", "api_keys", "api_keys_file"}


def services() -> list[tuple[str, dict[str, Any]]]:
    """Each service in the file that brings its image, not in those that only add to it."""
    found = []
    for name in ("compose.yaml", "compose.monitoring.yaml"):
        read = yaml.safe_load((IMAGES / name).read_text(encoding="utf-8"))
        found += [(f"{name}:{service}", body) for service, body in read["services"].items()]
    return found


@pytest.mark.parametrize(("name", "body"), services(), ids=[name for name, _ in services()])
def test_every_container_is_held_short(name: str, body: dict[str, Any]) -> None:
    assert body["read_only"] is True
    assert body["cap_drop"] == ["ALL"]
    assert "cap_add" not in body and "privileged" not in body
    assert body["security_opt"] == ["no-new-privileges:true"]
    assert body["init"] is True
    assert body["restart"] == "always"
    assert {"pids_limit", "mem_limit", "memswap_limit"} <= set(body)
    assert {"max-size", "max-file"} <= set(body["logging"]["options"])
    assert all("size=" in entry for entry in body["tmpfs"])
    assert all(port.startswith("${BIND_ADDRESS:-127.0.0.1}:") for port in body["ports"])


def handed_on() -> set[str]:
    """Names of the settings in compose.yaml's environment."""
    read = yaml.safe_load((IMAGES / "compose.yaml").read_text(encoding="utf-8"))
    lines = read["services"]["asr"]["environment"]
    return {match[1].lower() for line in lines if (match := re.search(rf"\b{PREFIX}([A-Z_]+)", line))}


def test_every_setting_can_be_given_and_none_is_invented() -> None:
    assert handed_on() == set(Settings.model_fields) - OF_THE_IMAGE


def test_other_containers_may_ask_by_the_name_that_compose_gives_it() -> None:
    (name,) = yaml.safe_load((IMAGES / "compose.yaml").read_text(encoding="utf-8"))["services"]
    read = yaml.safe_load((IMAGES / "compose.yaml").read_text(encoding="utf-8"))["services"][name]
    (line,) = [line for line in read["environment"] if line.startswith(f"{PREFIX}ALLOWED_HOSTS=")]
    filled = line.replace("${HOST_NAME:-}", "GPU-1").replace(f"${{{PREFIX}ALLOWED_HOSTS:-}}", "")
    given: dict[str, Any] = {"allowed_hosts": filled.partition("=")[2]}
    assert Settings(**given).allowed_hosts == (name, "gpu-1")


def test_what_the_image_sets_is_not_taken_away() -> None:
    """A name without a value removes the image's own; Docker was seen to do so."""
    dockerfile = (IMAGES / "Dockerfile").read_text(encoding="utf-8")
    of_images = set(re.findall(rf"\b({PREFIX}[A-Z_]+)=", dockerfile))
    read = yaml.safe_load((IMAGES / "compose.yaml").read_text(encoding="utf-8"))
    assert not of_images & set(read["services"]["asr"]["environment"])


def test_no_file_says_a_secret() -> None:
    for file in IMAGES.glob("compose*.yaml"):
        text = file.read_text(encoding="utf-8")
        assert f"{PREFIX}API_KEYS:" not in text and f"{PREFIX}API_KEYS=" not in text


def test_nobody_is_given_the_socket_of_docker() -> None:
    """Who may talk to it is root on the host."""
    for file in IMAGES.glob("compose*.yaml"):
        for body in yaml.safe_load(file.read_text(encoding="utf-8")).get("services", {}).values():
            sources = [str(mount).partition(":")[0] for mount in body.get("volumes", [])]
            assert not [source for source in sources if source.endswith(".sock")], file.name
            assert not [source for source in sources if source in {"/", "/run", "/var", "/var/run"}], (
                file.name
            )
