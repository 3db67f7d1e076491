"""One recognition for one waiting client: it ends when it is done, takes too long, or the client goes away.

Lives here: utterances of a run, as they come, with those three ends. What is made of them is the handlers' part.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from app.asr.transcript import Utterance
from app.service.admission import Ticket
from app.service.errors import TimedOut, TooLong
from app.service.recognising import Recognising, RecognitionRequest, Run

_AHEAD = 64  # utterances that wait for a slow client before recognition does
_Item = Utterance | BaseException | None


@dataclass(frozen=True)
class Attendance:
    """How long one client may be worked for, and how one hears that it has gone."""

    receive: Receive
    request_seconds: float
    max_audio_seconds: float


class AttendedRun:
    """Iterate once for the utterances; `run` has the figures when that has ended."""

    def __init__(
        self, recogniser: Recognising, request: RecognitionRequest, ticket: Ticket, attendance: Attendance
    ) -> None:
        self._recogniser, self._request, self._ticket = recogniser, request, ticket
        self._attendance = attendance
        self._items: asyncio.Queue[_Item] = asyncio.Queue(_AHEAD)
        self._ended: BaseException | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._timer: asyncio.TimerHandle | None = None
        self.run: Run | None = None

    async def __aenter__(self) -> AttendedRun:
        self._tasks = (asyncio.create_task(self._work()), asyncio.create_task(self._watch()))
        limit = self._attendance.request_seconds
        late = TimedOut(
            f"The recognition did not end within {limit:g} seconds",
            fix="Send a shorter recording, or try again when less is waiting.",
            client=False,
        )
        self._timer = asyncio.get_running_loop().call_later(limit, self._end, late)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def __aiter__(self) -> AsyncIterator[Utterance]:
        """Utterances in order.

        Raises:
            AsrError: of the engine; TimedOut, TooLong.
            ClientDisconnect: nobody waits for the rest.
        """
        while True:
            item = await self._items.get()
            if self._ended is not None:
                raise self._ended
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    async def _work(self) -> None:
        last: BaseException | None = None
        try:
            async with self._recogniser.recognise(self._request) as run:
                self.run = run
                self._ticket.done = lambda: run.progress[0]
                async for utterance in run:
                    self._check_length(run)
                    await self._items.put(utterance)
                self._check_length(run)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to who reads the utterances
            last = error
        await self._items.put(last)

    def _check_length(self, run: Run) -> None:
        """For files that did not say how long they are, or lied."""
        if run.audio_seconds > self._attendance.max_audio_seconds:
            raise TooLong(self._attendance.max_audio_seconds)

    async def _watch(self) -> None:
        while (await self._attendance.receive())["type"] != "http.disconnect":
            pass
        self._end(ClientDisconnect())

    def _end(self, error: BaseException) -> None:
        if self._ended is None:
            self._ended = error
        self._tasks[0].cancel()
        with contextlib.suppress(
            asyncio.QueueFull
        ):  # then the reader is not waiting, and looks before it goes on
            self._items.put_nowait(None)
