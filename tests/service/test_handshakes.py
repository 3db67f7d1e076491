"""Who may open the websocket: handshakes with a real web server, written by hand."""

from __future__ import annotations

import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from tests.support.service import PATIENCE, app_in, served

KEY = "key-of-anna"


def handshake(app: FastAPI, **headers: str) -> str:
    """Status line, headers and body of the answer; `headers` go before those that a client would send."""
    with served(app) as address:
        place = urlsplit(address)
        given = {
            "Host": place.netloc,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            "Sec-WebSocket-Version": "13",
            **headers,
        }
        lines = ["GET / HTTP/1.1", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        with socket.create_connection((str(place.hostname), int(place.port or 0)), PATIENCE) as connection:
            connection.sendall("\r\n".join(lines).encode())
            said = ""
            while "\r\n\r\n" not in said or ("101" not in said[:20] and not said.endswith("}}")):
                piece = connection.recv(65536).decode()
                assert piece, f"it ends after {said!r}"
                said += piece
            return said


@pytest.mark.parametrize("origin", ["https://foreign.example", "http://192.0.2.7", "null", "http://["])
def test_without_keys_a_page_of_another_site_gets_no_websocket(tmp_path: Path, origin: str) -> None:
    said = handshake(app_in(tmp_path, allowed_hosts="pages.example"), Origin=origin)
    assert said.startswith("HTTP/1.1 403 ") and '"foreign_site"' in said


@pytest.mark.parametrize("origin", ["http://127.0.0.1:1337", "http://localhost:80", "https://pages.example"])
def test_a_page_of_this_service_or_of_a_known_site_gets_one(tmp_path: Path, origin: str) -> None:
    said = handshake(app_in(tmp_path, allowed_hosts="pages.example"), Origin=origin)
    assert said.startswith("HTTP/1.1 101 ")


def test_every_page_gets_one_where_the_operator_says_so_or_a_key_is_sent(tmp_path: Path) -> None:
    assert handshake(app_in(tmp_path, allowed_hosts="*"), Origin="null").startswith("HTTP/1.1 101 ")
    closed = app_in(tmp_path, api_keys=KEY)
    key = {"Authorization": f"Bearer {KEY}"}
    assert handshake(closed, Origin="https://foreign.example", **key).startswith("HTTP/1.1 101 ")


@pytest.mark.parametrize("origin", ["http://rebound.example", ""])
def test_without_keys_a_name_that_was_pointed_at_it_gets_no_websocket(tmp_path: Path, origin: str) -> None:
    headers = {"Origin": origin} if origin else {}
    said = handshake(app_in(tmp_path), Host="rebound.example", **headers)
    assert said.startswith("HTTP/1.1 421 ") and "does not know itself as 'rebound.example'" in said
    assert "x-content-type-options: nosniff" in said


def test_a_client_without_a_key_is_told_what_is_missing(tmp_path: Path) -> None:
    said = handshake(app_in(tmp_path, api_keys=KEY))
    assert said.startswith("HTTP/1.1 401 ") and "This service needs an API key" in said
