"""Every role has the same shape: what can be set is documented, what is documented can be set, nothing else is read."""

from __future__ import annotations

import re
from pathlib import Path

import jinja2
import pytest

from tests.support.playbooks import ANSIBLE, ROLES, data

NAMES = [role.name for role in ROLES]
PLAYBOOKS = ("site.yml", "rollback.yml", "report.yml", "plan.yml")


def specs(role: Path) -> dict[str, object]:
    return data(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]


def defaults(role: Path) -> dict[str, object]:
    return data(role / "defaults" / "main.yml") or {}


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_what_can_be_set_is_what_is_documented(role: Path) -> None:
    assert set(defaults(role)) == set(specs(role))


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_documented_defaults_are_the_true_ones(role: Path) -> None:
    """A default that is worked out has no documented value, but words about it."""
    for name, option in specs(role).items():
        assert isinstance(option, dict)
        value = defaults(role)[name]
        if isinstance(value, str) and "{{" in value:
            assert "default" not in option and "default" in option["description"], name
        else:
            assert option["default"] == value, name


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_variables_carry_the_name_of_their_role(role: Path) -> None:
    assert not [name for name in defaults(role) if not name.startswith(f"{role.name}_")]


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_readme_points_to_the_variables(role: Path) -> None:
    text = (role / "README.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {role.name}\n") and "(meta/argument_specs.yml)" in text
    used = set(re.findall(rf"\b{role.name}_[a-z_]+", text))
    assert used <= set(defaults(role)), "a variable that the README names is gone"


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_every_variable_is_read(role: Path) -> None:
    text = "".join(
        path.read_text(encoding="utf-8")
        for path in role.rglob("*")
        if path.is_file() and path.parent.name not in {"meta", "files", "library"} and path.suffix != ".md"
    )
    unread = [name for name in defaults(role) if len(re.findall(rf"\b{name}\b", text)) < 2]
    assert not unread


def test_roles_are_all_played() -> None:
    played = "".join((ANSIBLE / name).read_text(encoding="utf-8") for name in PLAYBOOKS)
    assert not [name for name in NAMES if not re.search(rf"(role|name): {name}\b", played)]


def test_settings_of_the_fleet_are_all_read() -> None:
    names = data(ANSIBLE / "fleet.yml")["all"]["vars"]
    text = "".join(path.read_text(encoding="utf-8") for path in (ANSIBLE / "roles").rglob("*.y*ml"))
    text += "".join(path.read_text(encoding="utf-8") for path in (ANSIBLE / "roles").rglob("*.j2"))
    assert not [name for name in names if not re.search(rf"\b{name}\b", text)]


def test_the_settings_have_three_zones() -> None:
    text = (ANSIBLE / "fleet.yml").read_text(encoding="utf-8")
    assert re.findall(r"# ---- Zone (\d)", text) == ["1", "2", "3"]


def test_the_user_of_the_images_is_the_user_of_their_files() -> None:
    dockerfile = (ANSIBLE.parent / "images" / "Dockerfile").read_text(encoding="utf-8")
    uid = data(ANSIBLE / "roles" / "asr_service" / "vars" / "main.yml")["asr_service_uid"]
    assert f"USER {uid}:{uid}" in dockerfile
    assert f'owner: "{uid}"' in (ANSIBLE / "roles" / "exporter" / "tasks" / "main.yml").read_text(
        encoding="utf-8"
    )


def test_containers_are_hardened_as_by_compose() -> None:
    """images/compose.yaml is what one host runs; a fleet must not run with less."""
    wanted = data(ANSIBLE.parent / "images" / "compose.yaml")["services"]["asr"]
    template = (ANSIBLE / "roles" / "asr_service" / "templates" / "compose.yaml.j2").read_text(
        encoding="utf-8"
    )
    for line in ("init: true", "read_only: true", "cap_drop: [ALL]", "restart: unless-stopped"):
        name, _, _ = line.partition(": ")
        assert name in wanted and line in template, line
    assert wanted["security_opt"][0] in template


def test_the_socket_of_docker_is_given_to_nobody_who_was_not_meant_to_have_it() -> None:
    """Who may talk to it is root on the host."""
    roles = ANSIBLE / "roles"
    assert data(roles / "exporter" / "defaults" / "main.yml")["exporter_docker_socket"] is False
    asking = {
        path.parents[1].name for path in roles.rglob("*.j2") if "docker.sock" in path.read_text("utf-8")
    }
    assert asking == {"exporter"}
    template = (roles / "exporter" / "templates" / "compose.yaml.j2").read_text(encoding="utf-8")
    assert "{% if exporter_docker_socket %}\n      - /run/docker.sock" in template


@pytest.mark.parametrize(
    ("keys", "address", "wrong"),
    [("", "10.0.0.1", True), ("", "127.0.0.1", False), ("keys", "10.0.0.1", False)],
)
def test_a_service_open_to_others_needs_a_key(keys: str, address: str, wrong: bool) -> None:
    checks = data(ANSIBLE / "roles" / "preflight" / "vars" / "main.yml")["preflight_inventory_checks"]
    (check,) = [check for check in checks if "without a key" in check["problem"]]
    told = jinja2.Template(check["wrong"]).render(fleet_api_keys_file=keys, fleet_address=address)
    assert told == str(wrong)


def test_whoever_takes_the_first_key_skips_comments_as_the_service_does() -> None:
    texts = [path.read_text(encoding="utf-8") for path in ANSIBLE.rglob("*.yml")]
    taking = [line for text in texts for line in text.splitlines() if "keys_file).splitlines()" in line]
    assert taking and all("| reject('match', '#') | first" in line for line in taking)
