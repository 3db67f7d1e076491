"""By which names a service without keys may be asked, and from whose pages its websocket may be opened.

A browser lets a page read what comes from the name that the page came from, and whoever owns a name can point it at
127.0.0.1 (DNS rebinding). Nobody can do that to an address, to localhost, or to this machine's own name.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

ANY = "*"
_NAME = re.compile(r"(?:[a-z0-9_-]{1,63}\.)*[a-z0-9_-]{1,63}")


def check_name(name: str) -> None:
    """Raises ValueError for what can be no name of a host in a list of them."""
    if name != ANY and _NAME.fullmatch(name) is None:
        raise ValueError("holds what is no name of a host: no scheme, no port, small letters or * for any")


class KnownHosts:
    """The names that are answered to.

    Args:
        names: those that the operator lists; `*` stands for any.
    """

    def __init__(self, names: Iterable[str]) -> None:
        own = socket.gethostname().casefold()
        first = own.partition(".")[0]
        self._names = frozenset({"localhost", own, first, f"{first}.local", *names})

    def know(self, host: str) -> bool:
        """Whether a Host header is one of ours; without one it was no browser."""
        return ANY in self._names or not host or _is_address(name_in(host)) or name_in(host) in self._names

    def may_come_from(self, origin: str, host: str) -> bool:
        """Whether the page that an Origin header tells of is of this service, whatever the port, or of a site that the
        operator lists. Only browsers send one."""
        if not origin or ANY in self._names:
            return True
        try:
            page = (urlsplit(origin).hostname or "").rstrip(".")
        except ValueError:
            return False
        # Not `know`: any site has an address.
        return bool(page) and (page == name_in(host) or page in self._names)


def name_in(host: str) -> str:
    """The name or address in a Host header, in small letters, without port, brackets, and the dot at its end."""
    host = host.strip().casefold()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
