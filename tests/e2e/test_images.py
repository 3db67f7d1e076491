"""The images with a real Docker: built by bake from a clean clone, started as `make up` does, held to their limits."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from scipy.io import wavfile

from app.asr.catalogue import DEMO_PACKS
from tests.support import docker
from tests.support.heldout import read_samples
from tests.support.images import IMAGES, VERSION, Project, build, clean_clone, environment, until_healthy

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20
# Above the base image, in bytes.
LARGEST = {"cpu": 550e6, "exporter": 40e6}
PATIENCE = 180.0


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with clean_clone(tmp_path_factory.mktemp("clone") / "here", IMAGES) as folder:
        yield folder


@pytest.fixture(scope="module")
def base() -> str:
    return docker.base_image()


@pytest.fixture(scope="module")
def images(clone: Path, base: str) -> str:
    """The CPU and exporter images; the base they stand on."""
    build(clone, base, "cpu", "exporter")
    return base


@pytest.fixture(scope="module")
def service(clone: Path, images: str) -> Iterator[Project]:
    """The CPU image with the shipped model, all limits on."""
    project = Project(clone, f"{IMAGES}-service", MEMORY_LIMIT="700m", MEMORY_SWAP_LIMIT="800m")
    told = project.up()
    assert "Verdict" in told and f"ready: {project.url}" in told
    yield project
    assert project.run("down").returncode == 0


def size_of(image: str) -> int:
    return int(docker.inspect(image)["Size"])


@pytest.mark.parametrize("variant", LARGEST)
def test_an_image_is_small(images: str, variant: str) -> None:
    above = size_of(f"{IMAGES}:{VERSION}-{variant}") - size_of(images)
    print(f"{variant}: {above / 1e6:.0f} MB above the base image")
    assert above <= LARGEST[variant]


def test_the_cpu_image_holds_no_torch_and_nothing_that_builds(images: str) -> None:
    image = f"{IMAGES}:{VERSION}-cpu"
    script = "command -v gcc cc make pip; python -c 'import torch' 2>&1; python -c 'import pip' 2>&1"
    told = docker.docker("run", "--rm", "--entrypoint", "sh", image, "-c", script, check=False).stdout
    assert re.findall(r"No module named '(\w+)'", told) == ["torch", "pip"]
    assert not [line for line in told.splitlines() if line.startswith("/")]


def scan(clone: Path, image: str) -> docker.Completed:
    """Debian's archive is asked through the host's network, as in builds."""
    return subprocess.run(
        [str(clone / "scripts" / "scan_image.py"), image],
        env=environment(IMAGE_PREFIX=IMAGES, BUILD_NETWORK="host"),
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


@pytest.mark.parametrize("variant", ["cpu", "exporter"])
def test_a_scan_finds_nothing(clone: Path, images: str, variant: str) -> None:
    told = scan(clone, variant)
    assert "bookworm" in told.stdout, told.stderr
    # The base was made some time ago; what Debian has renewed since is no fault of the image's.
    ours = [line for line in told.stdout.splitlines() if re.match(r"(?!update)[a-z-]+: ", line)]
    assert ours == [] and told.returncode in {0, 1}, told.stdout


def test_a_scan_finds_what_was_planted(clone: Path, images: str, tmp_path: Path) -> None:
    name = f"{IMAGES}:planted"
    (tmp_path / "Dockerfile").write_text(
        f"FROM {IMAGES}:{VERSION}-cpu\nUSER 0\nCOPY tls.key /srv/\n"
        "RUN cp /bin/sh /usr/bin/planted && chmod 4755 /usr/bin/planted\n",
        encoding="utf-8",
    )
    (tmp_path / "tls.key").write_text("-----BEGIN " + "PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEF\n")
    docker.docker("build", "--tag", name, tmp_path)
    told = scan(clone, name)
    docker.docker("rmi", name)
    assert told.returncode == 1, told.stderr
    assert "setuid: /usr/bin/planted" in told.stdout
    assert "secret: /srv/tls.key" in told.stdout
    assert "user: it runs as root" in told.stdout


def test_labels_tell_the_needs(images: str) -> None:
    labels = docker.inspect(f"{IMAGES}:{VERSION}-cpu")["Config"]["Labels"]
    table = json.loads((ROOT / "images" / "variants.json").read_text(encoding="utf-8"))
    (needs,) = (variant["needs"] for variant in table["variants"] if variant["name"] == "cpu")
    assert labels["seaco-speech.needs.ram-mib"] == str(needs["ram_mib"])
    assert labels["org.opencontainers.image.version"] == VERSION
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert labels["org.opencontainers.image.revision"] == head.stdout.strip()


@pytest.mark.parametrize(
    "overlays",
    [(), ("gpu",), ("gpu-legacy",), ("monitoring",), ("keys",), ("gpu", "monitoring", "keys")],
    ids="-".join,
)
def test_compose_accepts_every_overlay(clone: Path, overlays: tuple[str, ...]) -> None:
    names = ["compose.yaml", *(f"compose.{overlay}.yaml" for overlay in overlays)]
    files = [part for name in names for part in ("--file", str(clone / "images" / name))]
    settings = environment(API_KEYS_FILE="/dev/null")
    docker.docker("compose", *files, "config", "--quiet", env=settings)


def test_it_hears_the_golden_clip(service: Project) -> None:
    manifest = json.loads((DEMO_PACKS / "int8" / "manifest.json").read_text(encoding="utf-8"))
    assert service.transcribe(DEMO_PACKS / "int8" / "golden.wav") == manifest["golden"]["text"]


def test_limits_reached_the_kernel(service: Project) -> None:
    assert docker.memory_files(service.container) == {"memory": 700 * MIB, "memswap": 800 * MIB}
    state = docker.inspect(service.container)
    assert state["HostConfig"]["PidsLimit"] == 256
    assert state["HostConfig"]["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert state["HostConfig"]["RestartPolicy"]["Name"] == "always"


def test_the_process_may_nothing_that_it_need_not(service: Project) -> None:
    status = service.inside("cat /proc/1/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines())
    assert fields["Uid"].split() == ["10001"] * 4
    assert fields["CapEff"].strip("0") == fields["CapBnd"].strip("0") == ""
    assert fields["NoNewPrivs"] == "1"


def test_the_root_is_read_only(service: Project) -> None:
    for place in ("/", "/srv", "/opt/asr", "/etc", "/models", "/pack"):
        told = service.inside(f"touch {place}/x")
        assert told.returncode != 0 and "Read-only file system" in told.stderr, place
    for place in ("/data", "/tmp"):
        assert service.inside(f"touch {place}/x && rm {place}/x").returncode == 0, place
    assert service.inside("cp /bin/true /tmp/x && /tmp/x").returncode != 0, "/tmp must not run programs"


def test_one_hour_fits_into_the_limit(service: Project, tmp_path: Path) -> None:
    minutes = read_samples(DEMO_PACKS.parent / "recordings" / "meeting.ogg")
    hour = np.resize((minutes * 32767).astype(np.int16), 3600 * 16_000)
    recording = tmp_path / "hour.wav"
    wavfile.write(recording, 16_000, hour)
    words = service.transcribe(recording, 900)
    once = service.transcribe(DEMO_PACKS.parent / "recordings" / "meeting.ogg")
    assert len(words) > 19 * len(once)
    state = docker.inspect(service.container)
    assert (state["RestartCount"], state["State"]["OOMKilled"]) == (0, False)
    assert httpx.get(f"{service.url}/v1/capacity").json()["worker_restarts"] == {}


def kills_by_the_kernel() -> int:
    """Processes killed on this machine for want of memory, since it started."""
    lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    return int(dict(line.split() for line in lines)["oom_kill"])


def test_killed_for_want_of_memory_it_comes_back(clone: Path, images: str) -> None:
    """Files in /tmp are memory: once they fill the limit, the kernel kills until there is room, the web process too."""
    project = Project(clone, f"{IMAGES}-oom", MEMORY_LIMIT="300m", MEMORY_SWAP_LIMIT="300m", TMP_SIZE="2g")
    project.up()
    began, kills = int(time.time()), kills_by_the_kernel()
    before = docker.inspect(project.container)["State"]["StartedAt"]
    project.inside("cat /dev/zero >/tmp/fill")
    give_up = time.monotonic() + PATIENCE
    while docker.inspect(project.container)["RestartCount"] == 0:
        assert time.monotonic() < give_up, "it was not started again"
        time.sleep(1)
    until_healthy(project.container)
    died = docker.docker(
        "events",
        "--since",
        str(began),
        "--until",
        str(int(time.time()) + 1),
        "--filter",
        f"container={project.container}",
        "--filter",
        "event=die",
        "--format",
        "{{.Actor.Attributes.exitCode}}",
    ).stdout.split()
    assert died == ["137"]
    assert kills_by_the_kernel() >= kills + 2, "the worker, then the web process"
    assert docker.inspect(project.container)["State"]["StartedAt"] != before
    manifest = json.loads((DEMO_PACKS / "int8" / "manifest.json").read_text(encoding="utf-8"))
    assert project.transcribe(DEMO_PACKS / "int8" / "golden.wav") == manifest["golden"]["text"]
    assert project.run("down").returncode == 0


def test_what_cannot_run_here_is_refused_with_the_reason(clone: Path, images: str) -> None:
    project = Project(clone, f"{IMAGES}-refused", ASR_DEVICE="cuda", ASR_PRECISION="auto")
    done = project.run("up")
    project.run("down")
    assert done.returncode == 1
    assert "torch is not installed" in done.stderr and "CUDA images" in done.stderr


def test_keys_come_by_file(clone: Path, images: str, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("a-long-enough-key\n", encoding="utf-8")
    os.chown(keys, 10001, 10001)
    keys.chmod(0o400)
    tmp_path.chmod(0o755)
    project = Project(clone, f"{IMAGES}-keys", API_KEYS_FILE=str(keys))
    project.up()
    closed = httpx.get(f"{project.url}/v1/models")
    opened = httpx.get(f"{project.url}/v1/models", headers={"Authorization": "Bearer a-long-enough-key"})
    assert (closed.status_code, opened.status_code) == (401, 200)
    assert "a-long-enough-key" not in json.dumps(docker.inspect(project.container))
    assert project.run("down").returncode == 0


def test_the_exporter_tells_of_the_service_beside_it(clone: Path, images: str) -> None:
    project = Project(clone, f"{IMAGES}-watched", MONITORING="yes", EXPORTER_PORT="0")
    project.up()
    exporter = f"{IMAGES}-watched-exporter-1"
    until_healthy(exporter)
    address = docker.docker("port", exporter, "9835").stdout.strip()
    page = httpx.get(f"http://{address}/metrics", timeout=30).text
    assert project.run("down").returncode == 0
    assert re.search(r"^asr_\w+", page, re.MULTILINE), "no metrics of the service"
    assert re.search(r"^\w*memory\w*", page, re.MULTILINE), "no metrics of the host"


def test_the_toolbox_makes_a_pack_that_the_service_opens(
    clone: Path, images: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    wheels = clone / "images" / "wheels"
    version = re.search(
        r'"TORCH": "(torch==[^"]+\+cpu)"', (clone / "images/variants.bake.json").read_text("utf-8")
    )
    assert version is not None
    fetch = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(wheels),
        version[1],
    ]
    index = ["--index-url", "https://download.pytorch.org/whl/cpu"]
    if subprocess.run(fetch, check=False).returncode:
        subprocess.run([*fetch, *index], check=True)
    build(clone, images, "toolbox")
    folder = tmp_path_factory.mktemp("models")
    source = folder / "source"
    make = [sys.executable, str(ROOT / "scripts" / "random_checkpoint.py"), str(source), "--size", "tiny"]
    subprocess.run(make, check=True, capture_output=True)
    command = [str(clone / "scripts" / "model.sh"), str(source), str(folder / "packs" / "random"), "int8"]
    settings = environment(IMAGE_PREFIX=IMAGES, VIA="toolbox")
    subprocess.run(command, env=settings, check=True, capture_output=True, cwd=clone)
    told = docker.docker(
        "run",
        "--rm",
        "--read-only",
        "--volume",
        f"{folder / 'packs'}:/models:ro",
        f"{IMAGES}:{VERSION}-cpu",
        "doctor",
        "--model",
        "random",
    )
    assert "tokens of the golden clip" in told.stdout


def test_a_bundle_installs_without_a_registry(clone: Path, images: str, tmp_path: Path) -> None:
    settings = environment(
        IMAGE_PREFIX=IMAGES, VARIANT="cpu", PACK=str(DEMO_PACKS), OUTPUT=str(tmp_path / "out")
    )
    command = [sys.executable, str(clone / "scripts" / "bundle.py")]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (archive,) = (tmp_path / "out").iterdir()
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "host", filter="data")
    archive.unlink()
    image = f"{IMAGES}:{VERSION}-cpu"
    docker.docker("tag", image, f"{IMAGES}:kept")
    docker.docker("rmi", image)
    project = Project(tmp_path / "host" / archive.name.removesuffix(".tar.gz"), f"{IMAGES}-bundle")
    # install.sh decides these itself.
    own = {name: value for name, value in project.settings.items() if name != "IMAGE_PREFIX"}
    installed = subprocess.run(
        [str(project.clone / "install.sh")],
        env=environment(**own),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert httpx.get(f"{project.url}/readyz").status_code == 200
    # The pack calls itself demo wherever it lies; that it came with the archive, only the setting tells.
    assert f"ASR_MODEL={DEMO_PACKS.name}" in docker.inspect(project.container)["Config"]["Env"]
    assert project.run("down").returncode == 0
    shutil.rmtree(project.clone)
