"""Every template filled in by Ansible itself, where a variable that is not set is an error, and read back.

One playbook run fills all of them; the tests look at what came out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.playbooks import ANSIBLE, ROOT, play

PACK = "demo-int8-0123456789ab"
INSTANCES = [
    {
        "index": 0,
        "variant": "cuda-fp16",
        "precision": "fp16",
        "pack_id": PACK,
        "pack_source": "/packs/fp16",
        "device": "nvidia.com/gpu=0",
        "environment": {"ASR_DEVICE": "auto"},
        "memory_mib": 2048,
        "port": 8000,
    },
    {
        "index": 1,
        "variant": "cpu",
        "precision": "int8",
        "pack_id": PACK,
        "pack_source": "/packs/int8",
        "device": "",
        "environment": {"ASR_DEVICE": "cpu"},
        "memory_mib": 0,
        "port": 8001,
    },
]
HOSTS = {"one": "10.0.0.1", "two": "fd00::2"}
KEPT = json.dumps({"instances": INSTANCES, "override": "cpu"})
# What roles learn from a host while they run.
LEARNT: dict[str, Any] = {
    "asr_service_instances": INSTANCES,
    "asr_service_images": {"cuda-fp16": "seaco:1-cuda", "cpu": "seaco:1-cpu", "exporter": "seaco:1-exporter"},
    "asr_service_release": "0.1.0-abc",
    "exporter_instances": INSTANCES,
    "exporter_docker_socket": True,
    "exporter_docker_group": {"stdout": "104"},
    "gateway_instances": {"one": 2, "two": 1},
    "variant_verdict": {"reasons": [{"text": "a reason"}]},
    "variant_instances": INSTANCES,
    "nvidia_driver_plan": {"action": "install", "packages": ["a"], "reasons": ["why"], "obstacles": ["stop"]},
    "report_written": {
        "results": [{"stdout": json.dumps({"instances": INSTANCES, "override": "cpu"})}, {"stdout": "{}"}]
    },
    "report_release": {"stdout": "releases/0.1.0-abc"},
    "report_capacity": {"json": {"state": "ready", "rtf": 0.02}},
    "report_cards": {"rc": 0, "stdout_lines": ["NVIDIA T400, 3000, 4096"]},
}
TEMPLATES = sorted(ANSIBLE.rglob("*.j2"))


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Template's path below ansible/ -> what it became on host one."""
    return fill(tmp_path_factory.mktemp("filled"), TEMPLATES, "# ours\nkey-of-anna\n")


def fill(folder: Path, templates: Sequence[Path], keys: str) -> dict[str, str]:
    """What templates become where the file of keys holds this."""
    keys_file, inventory = folder / "keys", folder / "hosts.yml"
    keys_file.write_text(keys, encoding="utf-8")
    local = {"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"}
    known = {**local, **LEARNT, "fleet_api_keys_file": str(keys_file)}
    hosts = {name: {"ansible_host": address, **known} for name, address in HOSTS.items()}
    inventory.write_text(
        yaml.safe_dump(
            {"all": {"children": {group: {"hosts": hosts} for group in ("app", "gateway", "monitoring")}}}
        )
    )
    tasks = []
    for path in templates:
        name = path.relative_to(ANSIBLE).as_posix()
        role = path.parts[path.parts.index("roles") + 1] if "roles" in path.parts else None
        target = folder / name.replace("/", "__")
        task = {
            "ansible.builtin.template": {"src": str(path), "dest": str(target), "mode": "0600"},
            "name": name,
        }
        item = {"name": "prometheus", "arguments": "--a=b"}
        task["vars"] = {**role_variables(role), "item": item}
        tasks.append(task)
    facts = {"ansible_facts": {"hostname": "one", "memtotal_mb": 4096}}
    done = play(
        [{"hosts": "one:two", "gather_facts": False, "vars": facts, "tasks": tasks, "run_once": True}],
        "--inventory",
        str(inventory),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {name.name.replace("__", "/"): name.read_text() for name in folder.glob("*.j2")}


def role_variables(role: str | None) -> dict[str, Any]:
    """Defaults and variables of a role, but for those that the inventory of this test sets."""
    found: dict[str, Any] = {}
    for part in ("defaults", "vars") if role else ():
        path = ANSIBLE / "roles" / str(role) / part / "main.yml"
        if path.exists():
            found |= yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    return {name: value for name, value in found.items() if name not in LEARNT}


def test_all_templates_are_filled(filled: dict[str, str]) -> None:
    assert set(filled) == {path.relative_to(ANSIBLE).as_posix() for path in TEMPLATES}
    assert all(text.strip() for text in filled.values())


def test_the_service_gets_its_card_its_pack_and_its_key(filled: dict[str, str]) -> None:
    services = yaml.safe_load(filled["roles/asr_service/templates/compose.yaml.j2"])["services"]
    card, processor = services["asr-0"], services["asr-1"]
    reserved = card["deploy"]["resources"]["reservations"]["devices"][0]
    assert (reserved["driver"], reserved["device_ids"]) == ("cdi", ["nvidia.com/gpu=0"])
    assert "deploy" not in processor and "mem_limit" not in processor and card["mem_limit"] == "2048m"
    assert [card["ports"], processor["ports"]] == [["10.0.0.1:8000:8000"], ["10.0.0.1:8001:8000"]]
    assert card["volumes"][0].endswith(f"/packs/{PACK}:/pack:ro")
    for service in services.values():
        assert service["environment"]["ASR_API_KEYS_FILE"] == "/run/secrets/api_keys"
        assert service["environment"]["ASR_METRICS"] == "key"


def test_other_keys_are_another_container_and_are_not_told(tmp_path: Path) -> None:
    """Service and exporter read keys at the start: with the same container, a key taken back would still be good."""
    files = [path for path in TEMPLATES if path.name == "compose.yaml.j2"]
    contents = ("key-of-anna\n", "key-of-anna\nkey-of-bert\n", "key-of-bert\nkey-of-anna\n")
    texts = []
    for number, content in enumerate(contents):
        folder = tmp_path / str(number)
        folder.mkdir()
        texts.append(fill(folder, files, content))
    service, exporter = (f"roles/{role}/templates/compose.yaml.j2" for role in ("asr_service", "exporter"))
    assert len({text[service] for text in texts}) == 3
    assert texts[0][exporter] == texts[1][exporter] != texts[2][exporter]  # it has the first key alone
    assert not [text for found in texts for text in found.values() if "key-of" in text]


def test_settings_of_the_service_are_known_to_it(filled: dict[str, str]) -> None:
    from app.service.settings import PREFIX, Settings

    services = yaml.safe_load(filled["roles/asr_service/templates/compose.yaml.j2"])["services"]
    names = {name for service in services.values() for name in service["environment"]}
    assert names <= {PREFIX + name.upper() for name in Settings.model_fields}


def test_options_of_the_exporter_are_known_to_it(filled: dict[str, str]) -> None:
    from monitoring.exporter.arguments import parser

    service = yaml.safe_load(filled["roles/exporter/templates/compose.yaml.j2"])["services"]["exporter"]
    told = parser().parse_args(service["command"])
    assert told.relay == ["http://10.0.0.1:8000/metrics", "http://10.0.0.1:8001/metrics"]
    assert told.token_file and told.api_key_file and told.canary_clip


def test_a_release_says_what_is_in_it(filled: dict[str, str]) -> None:
    told = json.loads(filled["roles/asr_service/templates/release.json.j2"])
    assert told["release"] == "0.1.0-abc" and told["instances"] == INSTANCES


def test_the_gateway_knows_every_instance(filled: dict[str, str]) -> None:
    text = filled["roles/gateway/templates/haproxy.cfg.j2"]
    for backend in ("transcriptions", "jobs", "searched_jobs", "page"):
        part = text.split(f"\nbackend {backend}\n")[1].split("\nfrontend")[0].split("\nbackend")[0]
        rows = [line.split()[1:3] for line in part.splitlines() if line.strip().startswith("server ")]
        assert rows == [["one-0", "10.0.0.1:8000"], ["one-1", "10.0.0.1:8001"], ["two-0", "[fd00::2]:8000"]]
    assert "nbsrv(searched_jobs) ge 3" in text


def test_the_gateway_keeps_what_is_for_machines_from_clients(filled: dict[str, str]) -> None:
    text = filled["roles/gateway/templates/haproxy.cfg.j2"]
    clients = text.split("\nfrontend asr\n")[1].split("\nbackend")[0]
    assert "http-request deny deny_status 404 if { path /metrics }" in clients
    assert "stats socket /run/haproxy/admin.sock mode 600 level admin" in text
    assert "bind :" not in text and "bind *" not in text


def test_prometheus_is_told_every_host_by_its_name(filled: dict[str, str]) -> None:
    rows = yaml.safe_load(filled["roles/monitoring/templates/targets.yml.j2"])
    assert {row["labels"]["instance"]: row["targets"] for row in rows} == {
        "one": ["10.0.0.1:9835"],
        "two": ["[fd00::2]:9835"],
    }


def test_the_exporter_listens_where_prometheus_asks() -> None:
    from monitoring.exporter.arguments import DEFAULT_PORT

    settings = yaml.safe_load((ANSIBLE / "fleet.yml").read_text(encoding="utf-8"))["all"]["vars"]
    assert settings["fleet_exporter_port"] == DEFAULT_PORT


def test_the_report_shows_an_override_as_drift(filled: dict[str, str]) -> None:
    text = filled["templates/report.txt.j2"]
    assert "NVIDIA T400" in text and "3000/4096 MiB" in text and "0.0200" in text
    assert "drift: cpu by variant_override" in text


def test_the_plan_shows_what_stops_a_driver(filled: dict[str, str]) -> None:
    assert (
        "! stop" in filled["templates/plan.txt.j2"]
        and "driver: install, a" in filled["templates/plan.txt.j2"]
    )


def test_the_settings_are_found_from_the_root() -> None:
    settings = yaml.safe_load((ANSIBLE / "fleet.yml").read_text(encoding="utf-8"))["all"]["vars"]
    for folder in settings["fleet_packs"].values():
        assert (ROOT / folder / "manifest.json").is_file()
