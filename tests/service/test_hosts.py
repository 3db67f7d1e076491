"""Names by which a service may be asked."""

from __future__ import annotations

import pytest

from app.service.hosts import KnownHosts, name_in


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> KnownHosts:
    monkeypatch.setattr("socket.gethostname", lambda: "GPU1.example.org")
    return KnownHosts(["speech.example.org"])


@pytest.mark.parametrize("name", ["gpu1", "gpu1.example.org:8000", "GPU1.local", "speech.example.org", ""])
def test_its_own_names_and_those_listed_are_known(hosts: KnownHosts, name: str) -> None:
    assert hosts.know(name)


@pytest.mark.parametrize(
    "name",
    [
        "gpu2",
        "gpu1.example.com",
        "x.speech.example.org",
        "example.org",
        "2130706433",
        "[rebound.example]",
        ":",
    ],
)
def test_others_are_not(hosts: KnownHosts, name: str) -> None:
    assert not hosts.know(name)


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("127.0.0.1:8000", "127.0.0.1"),
        ("[::1]:8000", "::1"),
        ("[::1]", "::1"),
        ("Name.Example.:80", "name.example"),
        (" name ", "name"),
        ("", ""),
    ],
)
def test_a_header_holds_a_name(header: str, name: str) -> None:
    assert name_in(header) == name
