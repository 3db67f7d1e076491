"""What docs/operate.md says to type, typed: backup, restore, upgrade, roll back, restart of a service in a container.

Names of container and images are those of the test; for `git pull` and a build stands an image that was made before.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from app.asr.catalogue import DEMO_PACKS
from tests.support import docker
from tests.support.images import (
    IMAGES,
    ROOT,
    VERSION,
    Project,
    build,
    clean_clone,
    environment,
    until_healthy,
)

PATIENCE = 180.0
PAGE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
PREFIX = "seaco-operate"
IMAGE = f"{PREFIX}:{VERSION}-cpu"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A service in a container, with no jobs yet."""
    with clean_clone(tmp_path_factory.mktemp("clone") / "here", PREFIX) as clone:
        build(clone, docker.base_image(), "cpu")
        docker.docker("tag", f"{IMAGES}:{VERSION}-cpu", IMAGE)
        made = Project(clone, PREFIX, IMAGE_PREFIX=PREFIX)
        made.up()
        yield made
        docker.remove_all(PREFIX)
        docker.docker("rmi", IMAGE, f"{PREFIX}:before", check=False)


def type_block(project: Project, heading: str, folder: Path) -> None:
    """Types the code block below a heading of the page."""
    (block,) = re.findall(
        r"^```\n(.*?)^```$", PAGE.split(f"## {heading}\n")[1].split("\n## ")[0], re.MULTILINE | re.DOTALL
    )
    for word, meaning in (
        ("seaco-speech-asr-1", project.container),
        ("seaco-speech:", f"{PREFIX}:"),
        ("make up MODEL=models/seaco", f"make -C {project.clone} up PORT={project.port}"),
        ("make image VARIANT=cpu", f"docker tag {PREFIX}:newer {IMAGE}"),
        ("git pull", "true"),
    ):
        block = block.replace(word, meaning)
    done = subprocess.run(
        ["bash", "-euc", block],
        cwd=folder,
        env=environment(**project.settings),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    until_healthy(project.container)


def send_job(project: Project) -> str:
    """A job that is done."""
    with (DEMO_PACKS / "int8" / "golden.wav").open("rb") as file:
        answer = httpx.post(f"{project.url}/v1/jobs", files={"file": file}, timeout=60)
    job = f"{project.url}/v1/jobs/{answer.json()['id']}"
    give_up = time.monotonic() + PATIENCE
    while httpx.get(job).json()["state"] != "done":
        assert time.monotonic() < give_up, httpx.get(job).text
        time.sleep(0.5)
    return job


def test_a_backup_brings_jobs_back_and_later_ones_go(project: Project, tmp_path: Path) -> None:
    kept = send_job(project)
    type_block(project, "Backup", tmp_path)
    archive = tmp_path / "asr-data.tar.gz"
    assert archive.stat().st_mode & 0o777 == 0o600
    later = send_job(project)
    httpx.delete(kept)
    type_block(project, "Restore", tmp_path)
    assert httpx.get(f"{kept}/result?format=text").text.strip()
    assert httpx.get(later).status_code == 404


def test_an_upgrade_replaces_the_container_and_there_is_a_way_back(project: Project, tmp_path: Path) -> None:
    job, before = send_job(project), docker.inspect(project.container)["Image"]
    (tmp_path / "Dockerfile").write_text(f"FROM {IMAGE}\nENV NEWER=yes\n", encoding="utf-8")
    docker.docker("build", "--tag", f"{PREFIX}:newer", tmp_path)
    type_block(project, "Upgrade", tmp_path)
    assert docker.inspect(project.container)["Image"] != before
    assert httpx.get(job).json()["state"] == "done"
    type_block(project, "Roll back", tmp_path)
    assert docker.inspect(project.container)["Image"] == before
    assert httpx.get(job).json()["state"] == "done"
    docker.docker("rmi", f"{PREFIX}:newer")


def test_a_restart_for_other_keys_keeps_the_jobs(project: Project, tmp_path: Path) -> None:
    job, started = send_job(project), docker.inspect(project.container)["State"]["StartedAt"]
    type_block(project, "Keys", tmp_path)
    assert docker.inspect(project.container)["State"]["StartedAt"] != started
    assert httpx.get(job).json()["state"] == "done"
