"""What a scan finds in an image: trees laid out as tar streams, and Docker as a fake."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from scripts import scan_image
from scripts.image_findings import (
    Tree,
    look_at_packages,
    look_at_settings,
    look_at_tree,
    pins_of,
    updates_of,
)

CLEAN = {
    "Config": {"User": "10001:10001", "Env": ["PATH=/usr/bin", "ASR_API_KEYS_FILE=/run/secrets/api_keys"]}
}
# Put together here, so that this file holds no secret.
TOKEN = "ghp_" + "q8Jx2LmN5vTz0RbW4c" + "Yk7PdH3sFg9AeU1iOo"
KEY = "-----BEGIN " + "PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n"


def packed(*files: tuple[str, int, str], kind: bytes = tarfile.REGTYPE) -> io.BytesIO:
    """A tar stream of files as (name, mode, content)."""
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, mode, content in files:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size, entry.type = mode, len(content.encode()), kind
            archive.addfile(entry, io.BytesIO(content.encode()))
    held.seek(0)
    return held


def kinds(*files: tuple[str, int, str]) -> list[str]:
    return [finding.kind for finding in look_at_tree(packed(*files)).findings]


@pytest.mark.parametrize(
    ("name", "mode", "content", "kind"),
    [
        ("usr/bin/su", 0o4755, "", "setuid"),
        ("usr/bin/chage", 0o2755, "", "setuid"),
        ("srv/app/main.py", 0o666, "", "writable"),
        ("etc/ssl/private/server.key", 0o600, KEY, "secret"),
        ("opt/asr/lib/x.py", 0o644, f"TOKEN = '{TOKEN}'", "secret"),
        ("root/.netrc", 0o600, "", "secret"),
        ("root/.docker/config.json", 0o600, "{}", "secret"),
        ("var/lib/apt/lists/debian_InRelease", 0o644, "", "left-over"),
        ("var/cache/apt/archives/curl.deb", 0o644, "", "left-over"),
        ("root/.cache/pip/http/1", 0o644, "", "left-over"),
        ("tools/slim_packages.py", 0o644, "", "left-over"),
        ("usr/bin/gcc-12", 0o755, "", "left-over"),
    ],
)
def test_what_is_planted_is_found(name: str, mode: int, content: str, kind: str) -> None:
    assert kinds((name, mode, content)) == [kind]


@pytest.mark.parametrize(
    ("name", "mode", "content"),
    [
        ("usr/bin/env", 0o755, "#!/bin/sh"),
        ("opt/asr/lib/pem.py", 0o644, 'BEGIN = "-----BEGIN ' + 'PRIVATE KEY-----"'),
        ("opt/asr/lib/python3.11/site-packages/transformers/testing_utils.py", 0o644, TOKEN),
        ("opt/asr/lib/__pycache__/x.pyc", 0o644, TOKEN),
        ("opt/asr/lib/digests.py", 0o644, "api_key: " + "9f2c7b1e4a8d0356" + "c1b7e9f20a4d8356"),
        ("var/lib/apt/lists/partial/", 0o755, ""),
        ("etc/ssl/certs/ca.pem", 0o644, "-----BEGIN CERTIFICATE-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n"),
    ],
)
def test_what_belongs_there_is_not(name: str, mode: int, content: str) -> None:
    assert kinds((name, mode, content)) == []


def test_directories_for_everybody_need_the_sticky_bit() -> None:
    found = look_at_tree(packed(("tmp", 0o1777, ""), ("shared", 0o777, ""), kind=tarfile.DIRTYPE)).findings
    assert [finding.what.split()[0] for finding in found] == ["/shared"]
    links = look_at_tree(packed(("bin", 0o777, ""), kind=tarfile.SYMTYPE)).findings
    assert links == []


def test_settings_of_the_image() -> None:
    assert list(look_at_settings(CLEAN, ["RUN pip install numpy"])) == []
    config = {
        "Config": {
            "User": "0:0",
            "Env": ["API_KEY=hush-hush", "PIP_INDEX_URL=https://me:pass@index.example/"],
        }
    }
    found = list(look_at_settings(config, [f"RUN git clone https://x:{TOKEN}@host.example"]))
    assert [finding.kind for finding in found] == ["user", "secret", "secret", "secret"]
    assert not [finding for finding in found if "hush" in finding.what or TOKEN in finding.what]
    assert [finding.kind for finding in look_at_settings({"Config": {"User": ""}}, [])] == ["user"]


def test_packages_are_those_that_are_pinned() -> None:
    place = "opt/asr/lib/python3.11/site-packages"
    tree = look_at_tree(
        packed(
            *((f"{place}/{name}.dist-info/METADATA", 0o644, "") for name in ("Foo_Bar-1.0", "torch-2.1+cpu"))
        )
    )
    assert tree == Tree([], {"foo-bar": "1.0", "torch": "2.1+cpu"}, "3.11")
    lines = [
        "# a list",
        'foo.bar==1.0 ; python_version == "3.10" or python_version == "3.11"',
        "torch==2.1+cpu",
    ]
    pins = pins_of([*lines, 'foo-bar==9 ; python_version == "3.12"'], "3.11")
    assert pins == tree.packages and list(look_at_packages(tree, pins)) == []
    other = {"foo-bar": "1.1", "numpy": "2.0"}
    assert [finding.what for finding in look_at_packages(tree, other)] == [
        "foo-bar is 1.0, and 1.1 is pinned",
        "torch 2.1+cpu is in no list of requirements",
        "numpy is missing, 2.0 is pinned",
    ]


def test_updates_are_those_that_apt_would_install() -> None:
    said = (
        "Inst libssl3 [3.0.1-1] (3.0.2-1 Debian-Security:12/stable-security [amd64])\n"
        "Inst new (1.0 Debian:12.5/stable [amd64])\nConf libssl3 (3.0.2-1 Debian-Security:12/stable-security [amd64])\n"
    )
    first, second = updates_of(said)
    assert first.what.startswith("libssl3 3.0.1-1 has a security update: 3.0.2-1")
    assert second.what.startswith("new  has an update: 1.0")


def test_every_image_has_its_lists() -> None:
    for variant, names in scan_image.LOCKS.items():
        assert names and all(
            (scan_image.ROOT / "requirements" / f"{name}.txt").is_file() for name in names
        ), variant
    pins = scan_image.pins_for("toolbox", Tree([], {}, "3.11"))
    assert {"torch", "numpy", "uvicorn"} <= set(pins)


@pytest.fixture
def docker_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of PATH; what a test puts there as `docker` answers."""
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return tmp_path


def answering(folder: Path, answers: str) -> None:
    program = folder / "docker"
    program.write_text(f'#!/bin/sh\ncase "$1 $2" in\n{answers}\n*) exit 0;;\nesac\n', encoding="utf-8")
    program.chmod(0o755)


def test_a_scan_tells_what_it_found_and_what_to_do(
    docker_on_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = docker_on_path / "tree.tar"
    tar.write_bytes(packed(("usr/bin/su", 0o4755, "")).getvalue())
    answering(
        docker_on_path,
        f"""'image inspect') echo '[{{"Config": {{"User": "10001"}}}}]';;
'create mine:1') echo abc;;
'export abc') cat {tar};;
'run --rm') echo 'Inst tar [1] (2 Debian:12/stable [amd64])'; echo 'http://archive.example bookworm';;""",
    )
    assert scan_image.main(["mine:1"]) == 1
    told = capsys.readouterr().out
    assert "asked: http://archive.example bookworm" in told and "2 found." in told
    assert "setuid: /usr/bin/su" in told and "chmod ug-s /usr/bin/su" in told and "update: tar 1" in told
    tar.write_bytes(packed(("usr/bin/su", 0o755, "")).getvalue())
    assert scan_image.scan("mine:1", {"UPDATES": "off"}) == 0
    assert "Nothing found." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("'image inspect') echo no such image >&2; exit 1;;", "There is no image mine:1 here"),
        (
            "'image inspect') echo '[{\"Config\": {}}]';;\n'create mine:1') exit 1;;",
            "No container can be made",
        ),
        (
            "'image inspect') echo '[{\"Config\": {}}]';;\n'create mine:1') echo abc;;\n'export abc') echo broken;;",
            "could not be read",
        ),
    ],
)
def test_what_cannot_be_looked_at_is_no_clean_image(
    docker_on_path: Path, capsys: pytest.CaptureFixture[str], answers: str, said: str
) -> None:
    answering(docker_on_path, answers)
    with pytest.raises(SystemExit) as ended:
        scan_image.main(["mine:1"])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_an_archive_that_does_not_answer_is_no_update(
    docker_on_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answering(docker_on_path, "'run --rm') echo no network >&2; exit 100;;")
    with pytest.raises(SystemExit):
        scan_image.updates("mine:1", "bridge")
    assert "UPDATES=off" in capsys.readouterr().err
    answering(docker_on_path, "'run --rm') exit 9;;")
    assert scan_image.updates("mine:1", "bridge") == ([], "not asked: the image has no apt-get")


def test_without_an_image_it_says_what_to_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scan_image.main([])
    assert "cuda-fp16" in capsys.readouterr().err
