"""Every command in a code block of the documents is run here, run (or done) by another test, needs a GPU and says so,
or was tried by hand as its page says.

What is run here works in a folder that looks like the clone with recordings of a reader beside it.
"""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.asr.catalogue import DEMO_PACKS
from app.service.job_store import JobStore
from tests.service.test_job_store import accepted
from tests.support.service_process import ServiceProcess

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "ansible" / "README.md"]
COMMAND = re.compile(
    r"(?:[A-Z_]+=\S+ )*(?:alias|asr|cat|cd|cp|curl|docker|git|make|pip-audit|prometheus\S*|python3?|rm|\.venv\S*"
    r"|scripts/\S+|sqlite3|tar|umask)\b"
)
RECORDINGS = DEMO_PACKS.parent / "recordings"
# These run here.
RUN = (
    "asr transcribe",
    "asr doctor",
    "asr models",
    "cp ansible/inventory.example.yml",
    "curl -F model=whisper-1",
    "make probe",
    "make pick",
    "python3 scripts/pick_variant.py",
    "python3 scripts/probe_host.py",
)
_DAMAGED = "docs/test_commands.py::test_what_can_be_saved_of_a_damaged_database"
_BACKUP = "e2e/test_operate_page.py::test_a_backup_brings_jobs_back_and_later_ones_go"
_UPGRADE = "e2e/test_operate_page.py::test_an_upgrade_replaces_the_container_and_there_is_a_way_back"
# Too long or too large for here, or not for this machine: the beginning of the command -> who runs it.
TESTED = {
    "alias asr": "test_commands.py is the alias",
    "asr doctor --capacity": "test_capacity.py::test_the_real_model_answers",
    "python -m app doctor --capacity": "test_capacity.py::test_the_real_model_answers",
    "asr bench --matrix": "test_bench_command.py::test_a_table_of_the_demo_model",
    "make test": "it is this run",
    "make demo": "e2e/test_set_up.py::test_the_demo_runs_and_hears_right",
    "make run": "e2e/test_set_up.py::test_a_model_that_is_not_here_is_fetched_first_and_offline_it_says_what_to_do",
    "make model": "e2e/test_images.py::test_the_toolbox_makes_a_pack_that_the_service_opens",
    "make up": "e2e/test_images.py::test_it_hears_the_golden_clip",
    "make down": "scripts/test_up.py::test_down_ends_what_up_started_and_nothing_else",
    "make image": "e2e/test_images.py::test_labels_tell_the_needs",
    "make scan-image": "e2e/test_images.py::test_a_scan_finds_what_was_planted",
    "make bundle": "e2e/test_images.py::test_a_bundle_installs_without_a_registry",
    "tar xzf seaco-speech": "e2e/test_images.py::test_a_bundle_installs_without_a_registry",
    "cat /sys/fs/cgroup": "e2e/test_images.py::test_limits_reached_the_kernel",
    "scripts/make_venv.sh exporter": "e2e/test_set_up.py::test_an_environment_is_made_once_and_repaired_when_broken",
    ".venv-exporter/bin/python -m monitoring.exporter": "e2e/test_exporter_service.py::test_a_host_with_its_service",
    "python funasr_wss_client.py": "service/test_funasr_socket.py::test_a_recording_as_the_protocol_has_it",
    "umask": _BACKUP,
    "docker stop": _BACKUP,
    "docker run --rm": _BACKUP,
    "docker start": _BACKUP,
    "docker tag": _UPGRADE,
    "git pull": _UPGRADE,
    "docker restart": "e2e/test_operate_page.py::test_a_restart_for_other_keys_keeps_the_jobs",
    "prometheus": "e2e/test_monitoring.py::test_every_target_is_up",
    "ASR_METRICS=key": "service/test_settings.py::test_the_environment_sets_and_the_command_line_wins",
    "make plan": "e2e/test_provision.py::test_a_host_that_does_not_fit_is_told_everything_and_not_touched",
    "make provision": "e2e/test_provision.py::test_bare_hosts_become_a_fleet_by_one_command",
    "make report": "e2e/test_provision.py::test_the_report_names_every_host",
    "make rollback": "e2e/test_provision.py::test_rollback_goes_to_the_release_before",
    "cd data/jobs/damaged-": _DAMAGED,
    "sqlite3": _DAMAGED,
    "curl -F file=@uploads/job_": _DAMAGED,
    "rm -r ../damaged-": _DAMAGED,
}
# Pages that say at their end what was tried by hand, and on what.
BY_HAND = {
    "exporter.md": "Tried by hand with Docker 28",
    "security.md": "pip-audit 2.10.1 asks could be reached",
}


def commands_of(text: str) -> list[str]:
    """Commands in code blocks, continued lines as one; `console` blocks of api.md are another test's."""
    blocks = re.findall(r"^```(?:sh)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in re.sub(r"\\\n\s*", "", block).splitlines()]
    return [line.strip() for line in lines if COMMAND.match(line.strip())]


ALL = [(page, command) for page in PAGES for command in commands_of(page.read_text(encoding="utf-8"))]


def bare(command: str) -> str:
    """Without what a comment says of it."""
    return re.sub(r"\s+#.*$", "", command)


def runner_of(command: str) -> str:
    longest = max((known for known in TESTED if command.startswith(known)), key=len, default="")
    return TESTED.get(longest, "")


HERE = [bare(command) for _, command in ALL if command.startswith(RUN) and not runner_of(command)]


@pytest.mark.parametrize(
    ("page", "command"), ALL, ids=lambda part: part.name if isinstance(part, Path) else part[:50]
)
def test_every_command_is_run_somewhere_or_says_why_not(page: Path, command: str) -> None:
    is_run = command.startswith(RUN) or runner_of(command)
    needs_a_card = "needs a GPU" in command
    by_hand = BY_HAND.get(page.name, "\0") in page.read_text(encoding="utf-8")
    assert is_run or needs_a_card or by_hand


@pytest.mark.parametrize("known", [*RUN, *TESTED])
def test_what_is_known_of_commands_is_still_in_a_page(known: str) -> None:
    assert [command for _, command in ALL if command.startswith(known)]


@pytest.mark.parametrize("test", sorted({test for test in TESTED.values() if "::" in test}))
def test_who_runs_a_command_exists(test: str) -> None:
    file, name = test.split("::")
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    assert name in names


def test_verbs_of_make_in_sentences_exist() -> None:
    verbs = set(
        re.findall(r"^([a-z0-9-]+): ?.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    for page in PAGES:
        named = set(re.findall(r"`(?:[A-Z_]+=\S+ )*make ([a-z][a-z0-9-]*)", page.read_text(encoding="utf-8")))
        assert named <= verbs, page.name


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clone, with a model and what a reader would have beside it."""
    folder = tmp_path_factory.mktemp("desk")
    for name in ("Makefile", "ansible", "app", "images", "scripts", "tests"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "models").mkdir()
    (folder / "models" / "seaco").symlink_to(DEMO_PACKS / "int8")
    (folder / "recordings").mkdir()
    for name in ("command-1.flac", "command-2.flac"):
        shutil.copy(RECORDINGS / name, folder / "recordings")
    shutil.copy(RECORDINGS / "command-1.flac", folder / "talk.mp3")  # formats are told by content
    shutil.copy(RECORDINGS / "command-2.flac", folder / "call.m4a")
    (folder / "names.txt").write_text("张筱雨\n俞智钧\n", encoding="utf-8")
    for name in ("office", "lab"):
        shutil.copy(ROOT / "tests" / "captures" / "epyc-2-cores-in-a-container.json", folder / f"{name}.json")
    page = (ROOT / "docs" / "picking.md").read_text(encoding="utf-8")
    (fleet,) = re.findall(r"^```\n({.*?)^```", page, re.MULTILINE | re.DOTALL)
    (folder / "fleet.json").write_text(fleet, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with ServiceProcess(tmp_path_factory.mktemp("service") / "data", {"ASR_PAGE": "off"}) as service:
        service.start()
        yield service.address


@pytest.mark.parametrize("command", sorted(set(HERE)))
def test_what_is_typed_does_what_the_page_says(
    desk: Path, request: pytest.FixtureRequest, command: str
) -> None:
    typed = command
    if command.startswith("curl"):
        typed = re.sub(r"http://(127\.0\.0\.1|HOST):8000", request.getfixturevalue("address"), command)
        typed += " --silent --show-error --fail"
    script = f"shopt -s expand_aliases\nset -o pipefail\nalias asr='{sys.executable} -m app'\n{typed}\n"
    done = subprocess.run(
        ["bash", "-c", script], cwd=desk, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() or "--output" in command or command.startswith("cp ")


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="Debian's package sqlite3 is not here")
def test_what_can_be_saved_of_a_damaged_database(tmp_path: Path, address: str) -> None:
    """The recipe of jobs.md, on a database whose end is cut off."""
    store = JobStore(tmp_path / "live")
    job = accepted(store, data=(RECORDINGS / "command-1.flac").read_bytes())
    store.close()
    aside = tmp_path / "data" / "jobs" / "damaged-2026"
    shutil.copytree(tmp_path / "live", aside)
    with (aside / "jobs.sqlite3").open("r+b") as file:
        file.truncate((aside / "jobs.sqlite3").stat().st_size - 4096)
    page = (ROOT / "docs" / "jobs.md").read_text(encoding="utf-8")
    (recipe,) = re.findall(r"^```sh\n(cd data/jobs/damaged.*?)^```", page, re.MULTILINE | re.DOTALL)
    for word, meaning in (
        ("http://localhost:8000", address),
        ("job_…", job.id),
        ("…", "张筱雨"),
        ("curl", "curl -s"),
    ):
        recipe = recipe.replace(word, meaning)
    done = subprocess.run(
        ["bash", "-c", recipe], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert f"{job.id}|" in done.stdout and '"object":"job"' in done.stdout
    assert not aside.exists()


def test_a_command_that_nobody_runs_is_noticed() -> None:
    assert commands_of("```\nmake demo     # all\ncurl -F a=b \\\n    http://x\n{}\n```\n") == [
        "make demo     # all",
        "curl -F a=b http://x",
    ]
    assert not runner_of("make world") and not "make world".startswith(RUN)
