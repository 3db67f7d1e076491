#!/usr/bin/env python3
"""Put servers of HAProxy into a state, and wait until it holds: drained ones idle, ready ones found healthy.

    haproxy_state.py --state drain|ready [--wait SECONDS] SERVER ...

Prints `changed` when a state was another one before. Servers that HAProxy does not know are named and passed over: the
gateway may have been set up before them. Standard library only.
"""

from __future__ import annotations

import argparse
import csv
import io
import socket
import sys
import time
from typing import Collection

SOCKET = "/run/haproxy/admin.sock"
PAUSE_S = 0.5
HELD_BACK = 0x01 | 0x08  # srv_admin_state: put into maintenance, or drained, by command


def ask(command: str, path: str = SOCKET) -> str:
    """HAProxy's answer to one command."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(10)
        line.connect(path)
        line.sendall(command.encode() + b"\n")
        parts: list[bytes] = []
        while True:
            part = line.recv(65536)
            if not part:
                return b"".join(parts).decode("utf-8", "replace")
            parts.append(part)


def rows(names: Collection[str], path: str = SOCKET) -> list[tuple[str, str, str, int]]:
    """(backend, server, status, sessions under way) of each place where one of `names` stands."""
    table = csv.DictReader(io.StringIO(ask("show stat", path).lstrip("# ")))
    return [
        (row["pxname"], row["svname"], row["status"], int(row["scur"] or 0))
        for row in table
        if row["svname"] in names
    ]


def held_back(names: Collection[str], path: str = SOCKET) -> list[tuple[str, str, bool]]:
    """(backend, server, whether somebody took it out of work) of each place where one of `names` stands.

    The status in `show stat` does not tell this of a server that is down: it reads DOWN, drained or not.
    """
    lines = [line for line in ask("show servers state", path).splitlines() if line.strip()]
    columns = next((line[2:].split() for line in lines if line.startswith("# ")), [])
    table = [dict(zip(columns, line.split())) for line in lines if not line.startswith("#") and " " in line]
    return [
        (row["be_name"], row["srv_name"], bool(int(row["srv_admin_state"]) & HELD_BACK))
        for row in table
        if row["srv_name"] in names
    ]


def set_state(names: Collection[str], state: str, path: str = SOCKET) -> bool:
    """Whether anything was another way before."""
    changed = False
    for backend, server, held in held_back(names, path):
        if held != (state == "drain"):
            told = ask(f"set server {backend}/{server} state {state}", path).strip()
            if told:
                raise OSError(f"HAProxy refuses: {told}")
            changed = True
    return changed


def wait_idle(names: Collection[str], seconds: float, path: str = SOCKET) -> bool:
    """Waits until the servers have no session; whether they did in time."""
    give_up = time.monotonic() + seconds
    while any(sessions for _, _, _, sessions in rows(names, path)):
        if time.monotonic() >= give_up:
            return False
        time.sleep(PAUSE_S)
    return True


def wait_up(names: Collection[str], seconds: float, path: str = SOCKET) -> bool:
    """Waits until HAProxy itself has found the servers healthy: only then may the next host be drained."""
    give_up = time.monotonic() + seconds
    while not all(status.startswith("UP") for _, _, status, _ in rows(names, path)):
        if time.monotonic() >= give_up:
            return False
        time.sleep(PAUSE_S)
    return True


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--state", choices=("drain", "ready"), required=True)
    parser.add_argument("--wait", type=float, default=300)
    parser.add_argument("servers", nargs="+")
    arguments = parser.parse_args()
    try:
        unknown = set(arguments.servers) - {server for _, server, _, _ in rows(arguments.servers)}
        if unknown:
            print("HAProxy does not know {}".format(", ".join(sorted(unknown))))
        if set_state(arguments.servers, arguments.state):
            print("changed")
        if arguments.state == "drain" and not wait_idle(arguments.servers, arguments.wait):
            print(
                f"still at work after {arguments.wait:.0f} s; going on, the service itself finishes what it can"
            )
        if arguments.state == "ready" and not wait_up(arguments.servers, arguments.wait):
            print(
                f"HAProxy does not find {', '.join(arguments.servers)} healthy; does /readyz answer it?",
                file=sys.stderr,
            )
            return 1
    except FileNotFoundError:
        print("HAProxy does not run here")
    except OSError as error:
        print(f"HAProxy's socket {SOCKET} cannot be used: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
