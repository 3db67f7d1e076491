"""The page's requests to the HTTP API, in memory: same checks, same limits, same errors as for any other client.

A request carries the key and the address of the browser it is made for, so that it counts for that client.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp

_JOBS = "/v1/jobs"


@dataclass(frozen=True)
class Caller:
    """For whom the page asks: the value of the Authorization header (empty: none), and the address."""

    authorization: str
    address: str


@dataclass(frozen=True)
class Sent:
    """What became of a file that was sent: a job, or why there is none, in the API's own words."""

    name: str
    job: str = ""
    code: str = ""
    message: str = ""


class ApiClient:
    """Asks the application that the page is a part of."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app, self._root_path = app, root_path

    async def send(self, caller: Caller, path: Path, hotwords: str) -> Sent:
        """Sends a file as a job."""
        data = {"hotwords": hotwords} if hotwords.strip() else {}
        async with self._client(caller) as client:
            with path.open("rb") as file:
                response = await client.post(_JOBS, files={"file": (path.name, file)}, data=data)
        body = _body_of(response)
        if response.is_success:
            return Sent(path.name, job=str(body["id"]))
        error = body.get("error") or {}
        message = error.get("message") or f"The service answered with {response.status_code}."
        return Sent(path.name, code=str(error.get("code") or ""), message=str(message))

    async def forget(self, caller: Caller, jobs: Sequence[str]) -> None:
        """Cancels jobs and deletes all that belongs to them; those that are not there any more are fine."""
        async with self._client(caller) as client:
            for job in jobs:
                await client.delete(f"{_JOBS}/{job}")

    async def result(self, caller: Caller, job: str, form: str) -> bytes | None:
        """The transcript of a job that is done, in one of the API's formats; None without one."""
        async with self._client(caller) as client:
            response = await client.get(f"{_JOBS}/{job}/result", params={"format": form})
        return response.content if response.is_success else None

    async def name(self, caller: Caller, job: str) -> str | None:
        """What the sender called the file of a job; None when there is no such job."""
        async with self._client(caller) as client:
            response = await client.get(f"{_JOBS}/{job}")
        return str(response.json()["file"]["name"]) if response.is_success else None

    @asynccontextmanager
    async def _client(self, caller: Caller) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(
            self._app, root_path=self._root_path, client=(caller.address or "127.0.0.1", 0)
        )
        headers = {"Authorization": caller.authorization} if caller.authorization else {}
        base = f"http://localhost{self._root_path}"
        async with httpx.AsyncClient(transport=transport, base_url=base, headers=headers) as client:
            yield client


def _body_of(response: httpx.Response) -> dict[str, Any]:
    try:
        body = response.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}
