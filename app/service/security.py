"""Who may ask: API keys, what is public without one, and the headers that every answer carries.

Keys are compared in constant time, all of them each time. Nothing here logs; a key never leaves this module.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable, Sequence
from hashlib import sha256
from http.cookies import CookieError, SimpleCookie

from pydantic import SecretStr
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.service.errors import INVALID, Failure
from app.service.hosts import KnownHosts, name_in
from app.service.settings import Settings

ALWAYS_PUBLIC = frozenset({"/healthz", "/readyz"})
DOCS = frozenset({"/docs", "/openapi.json"})
METRICS = "/metrics"
# Of the page: the way to it, its form for the key, and the files that both need. None of them holds anything of users.
PAGE_DOOR = frozenset({"/", "/ui", "/ui/", "/ui/session", "/ui/session/end"})
PAGE_FILES = "/ui/own/"
COOKIE = "asr_key"
# Nothing that is served here runs scripts of others, is framed, or is guessed at; the page adds a policy of its own.
SAFE_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
)
MAX_HEADER_BYTES = 32 << 10
# What browsers say of who caused a request (Sec-Fetch-Site): nobody else than the person, or a page of ours.
_OF_OURS = frozenset({"", "none", "same-origin"})
_READING = frozenset({"GET", "HEAD", "OPTIONS"})
_ANONYMOUS = "anonymous"
_DENIAL = "websocket.http.response"  # the server can answer a handshake like any other request


class ApiKeys:
    """The keys that open the service; none at all leave it open."""

    def __init__(self, keys: Iterable[SecretStr]) -> None:
        # Digests have one length, so that comparing them tells nothing about the length of a key either.
        self._digests = tuple(sha256(key.get_secret_value().encode()).digest() for key in keys)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def accept(self, authorization: str) -> bool:
        """Whether the value of an Authorization header holds a key."""
        scheme, key = _parts_of(authorization)
        digest = sha256(key.encode("utf-8", "replace")).digest()
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        return scheme == "bearer" and any(found)


def _parts_of(authorization: str) -> tuple[str, str]:
    """The scheme in small letters, and the key, of an Authorization header; each may be empty."""
    scheme, _, key = authorization.strip().partition(" ")
    return scheme.casefold(), key.strip()


def failure_without_key(*, given: bool) -> Failure:
    """What is said to a client whose key is wrong or missing."""
    said = "The API key given is not known here." if given else "This service needs an API key."
    return Failure(
        401,
        f"{said} Send the header 'Authorization: Bearer KEY' with a key that its operator gave you.",
        INVALID,
        None,
        "invalid_api_key",
        (("WWW-Authenticate", "Bearer"),),
    )


_TOO_MUCH_HEAD = Failure(
    431,
    f"The headers and the address have more than {MAX_HEADER_BYTES} bytes. Send fewer or shorter headers.",
    code="headers_too_large",
)


_FOREIGN = Failure(
    403,
    "A page of another site caused this request. Send it from a program, or give this service API keys.",
    INVALID,
    None,
    "foreign_site",
)


def failure_by_name(host: str) -> Failure:
    """What is said to whom asks an open service by a name that anybody could have pointed at it."""
    return Failure(
        421,
        f"This service has no API keys, and does not know itself as '{name_in(host)[:80]}'. Ask it by its address or "
        "as localhost; or let its operator list that name in ASR_ALLOWED_HOSTS, or give it API keys.",
        INVALID,
        None,
        "unknown_host",
    )


def client_of(scope: Scope) -> str:
    """For whom a request counts when clients take turns: its key, or where it comes from. Never the key itself."""
    authorization = header_of(scope, b"authorization")
    if authorization:
        # In one spelling: blanks and capitals that a key may come with make no second client of it.
        scheme, key = _parts_of(authorization)
        named = f"{scheme.capitalize()} {key}"
        return "key-" + sha256(named.encode("utf-8", "replace")).hexdigest()[:16]
    client = scope.get("client")
    return str(client[0]) if client else _ANONYMOUS


def header_of(scope: Scope, name: bytes) -> str:
    """The first header of that (lower-case) name; empty when there is none."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value).decode("latin-1")
    return ""


def _head_size(scope: Scope) -> int:
    """Bytes of headers and address; the server bounds only what comes in several pieces."""
    size = len(scope.get("raw_path") or b"") + len(scope.get("query_string", b""))
    return size + sum(len(name) + len(value) for name, value in scope["headers"])


def session_cookie(scope: Scope, key: str) -> str:
    """The value of Set-Cookie with which a browser gives a key from now on; an empty key takes that back.

    The browser holds the key, no script can read it, and it is never sent along from other sites.
    """
    forwarded = header_of(scope, b"x-forwarded-proto").split(",")[0].strip()
    secure = "; Secure" if "https" in (forwarded, scope.get("scheme")) else ""
    value = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    ended = "" if key else "; Max-Age=0"
    path = str(scope.get("app_root_path", "")) or "/"
    return f"{COOKIE}={value}; Path={path}; HttpOnly; SameSite=Strict{secure}{ended}"


def authorization_of_cookie(scope: Scope) -> str:
    """The Authorization header that a cookie of `session_cookie` stands for; empty without one.

    A request that another site caused is not taken for one of the page's.
    """
    if header_of(scope, b"sec-fetch-site") not in _OF_OURS:
        return ""
    try:
        found = SimpleCookie(header_of(scope, b"cookie")).get(COOKIE)
        value = found.value if found is not None else ""
        key = base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).decode()
    except (CookieError, ValueError):
        return ""
    return f"Bearer {key}" if key else ""


class Guard:
    """ASGI middleware: no key, no entry, before a byte of the body is read; safe headers on every answer."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._keys = ApiKeys(settings.api_keys)
        public = set(ALWAYS_PUBLIC)
        public.update(DOCS if settings.docs == "public" else ())
        public.update((METRICS,) if settings.metrics == "public" else ())
        self._public = frozenset(public)
        self._hosts = KnownHosts((settings.host.casefold(), *settings.allowed_hosts))
        self._root_path = settings.root_path
        self._page = settings.page == "on"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        if _head_size(scope) > MAX_HEADER_BYTES:
            await self._refuse(scope, receive, _with_headers(send), _TOO_MUCH_HEAD)
            return
        authorization = header_of(scope, b"authorization")
        if self._keys and self._page and not authorization:
            authorization = authorization_of_cookie(scope)
            if authorization:
                scope["headers"] = [
                    *scope["headers"],
                    (b"authorization", authorization.encode("latin-1", "replace")),
                ]
        if self._keys and not self._is_public(scope) and not self._keys.accept(authorization):
            await self._refuse(
                scope, receive, _with_headers(send), failure_without_key(given=bool(authorization))
            )
            return
        failure = None if self._keys else self._fault_of_origin(scope)
        if failure is not None:
            await self._refuse(scope, receive, _with_headers(send), failure)
            return
        await self._app(scope, receive, _with_headers(send))

    def _fault_of_origin(self, scope: Scope) -> Failure | None:
        """What is wrong with a request that a page of another site may have caused. With keys such a request has none,
        and is refused for that. Machines ask for health and metrics by any name, and these hold nothing of users."""
        host = header_of(scope, b"host")
        path = str(scope["path"]).removeprefix(self._root_path)
        if path not in self._public - DOCS and not self._hosts.know(host):
            return failure_by_name(host)
        # Of websockets browsers do not tell the site, but where the page came from.
        if scope["type"] == "websocket":
            may_come = self._hosts.may_come_from(header_of(scope, b"origin"), host)
            return None if may_come else _FOREIGN
        is_work = scope["method"] not in _READING
        return _FOREIGN if is_work and header_of(scope, b"sec-fetch-site") not in _OF_OURS else None

    def _is_public(self, scope: Scope) -> bool:
        path = str(scope["path"]).removeprefix(self._root_path)
        if scope["type"] != "http":
            return False
        return path in self._public or (self._page and (path in PAGE_DOOR or path.startswith(PAGE_FILES)))

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, failure: Failure) -> None:
        if scope["type"] == "websocket" and _DENIAL not in scope.get("extensions", {}):
            await send({"type": "websocket.close", "code": 1008, "reason": failure.code or ""})
            return
        response = JSONResponse(failure.body, failure.status, headers=dict(failure.headers))
        await response(scope, receive, send)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] in {"http.response.start", f"{_DENIAL}.start"}:
            headers: Sequence[tuple[bytes, bytes]] = message.get("headers", ())
            there = {name.lower() for name, _ in headers}
            message["headers"] = [*headers, *(pair for pair in SAFE_HEADERS if pair[0] not in there)]
        await send(message)

    return sending
