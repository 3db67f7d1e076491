"""No secret is in the tree: private keys, tokens of known services, random words beside key, secret, token, password.

Reads every tracked text file by the rules of scripts/secret_rules.py. What looks like a secret and is none stands in
`HARMLESS`, with the reason.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from scripts.secret_rules import secrets_in

ROOT = Path(__file__).resolve().parent.parent
# Path below the root -> the beginning of what looks like a secret there -> why it is none.
HARMLESS = {
    "monitoring/grafana/dashboards/runbook.json": {
        "8000/v1/audio": "an address, in one long line with all else"
    },
    "tests/service/test_page_gate.py": {"YS1rZXktZm9y": "the cookie of a key that only this test has"},
    "tests/support/fleet.py": {
        "fleet-test-key-": "the key of hosts that live as long as a test",
        "/etc/ssh/ssh_host": "the path of a public key",
    },
}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    return [ROOT / name for name in listed.decode().split("\0") if name]


def text_of(path: Path) -> str:
    """Empty for what is gone or no text."""
    try:
        return path.read_text(encoding="utf-8")
    except (UnicodeDecodeError, OSError):
        return ""


def test_no_tracked_file_holds_a_secret() -> None:
    found = [
        f"{name}:{line}: {word[:6]}..."
        for path in tracked()
        for name in [path.relative_to(ROOT).as_posix()]
        for line, word in secrets_in(text_of(path))
        if not word.startswith(tuple(HARMLESS.get(name, ())))
    ]
    assert not found, f"Take it out, make a new one, or say in HARMLESS why it is none: {found}"


def test_what_is_harmless_is_still_there() -> None:
    """An exception that nobody needs any more would hide the next secret."""
    for name, beginnings in HARMLESS.items():
        found = [word for _, word in secrets_in(text_of(ROOT / name))]
        for beginning in beginnings:
            assert [word for word in found if word.startswith(beginning)], (name, beginning)


@pytest.mark.parametrize(
    "planted",
    [
        "-----BEGIN " + "PRIVATE KEY-----",
        "-----BEGIN " + "RSA PRIVATE KEY-----",
        "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
        "see AKIA" + "Q7ZJ4XW2M5N8B1VC",
        "GH = ghp_" + "q8Jx2LmN5vTz0RbW4cYk7PdH3sFg9AeU1iOo",
        "api_key: " + "9f2c7b1e4a8d0356" + "c1b7e9f20a4d8356",
        'ASR_API_KEYS="' + "3Kd9xQz7LmP2" + 'vB8nRt5Yw1Hs"',
        "Authorization: Bearer " + "b7e9f20a4d83569f" + "2c7b1e4a8d0356c1",
        "password = '" + "Zk4/9wQx+7Lm2Pv8" + "RtB5nYc1=='",
    ],
)
def test_a_planted_secret_is_found(planted: str) -> None:
    text = f"a line before\n{planted}\n"
    assert [line for line, _ in secrets_in(text)] == [2]


@pytest.mark.parametrize(
    "harmless",
    [
        "def test_a_key_is_one_client_however_it_is_written() -> None:",
        "api_keys_file: /run/secrets/api_keys",
        'KEY, OTHER = "key-of-anna", "key-of-bert"',
        "sha256 = 9f2c7b1e4a8d0356" + "c1b7e9f20a4d8356",
    ],
)
def test_names_and_digests_are_none(harmless: str) -> None:
    assert not list(secrets_in(harmless))
