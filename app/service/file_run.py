"""One file on its way through the service: decoded and cut in a thread of its own, a few segments ahead; segments to
the scheduler; results joined to words in order.

Not here: whose segment runs next (scheduler.py), and the engine that is asked (recogniser.py).
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from app.asr.audio import SAMPLE_RATE, AudioReader
from app.asr.hotwords import HotwordSet
from app.asr.joining import Joiner, Recognition, TimedTokens
from app.asr.marks import Marker
from app.asr.segments import Segment, cut
from app.asr.tokens import Vocabulary
from app.asr.transcript import Utterance
from app.asr.utterances import UtteranceBuilder
from app.asr.written_text import TextVocabulary
from app.service.recognising import RecognitionRequest, StoredSegment
from app.service.scheduler import Hotwords, Recognised, Scheduler

# Segments that wait between the cutting thread and the scheduler, and how often that thread looks whether to stop.
_SEGMENTS_AHEAD, _LOOK_SECONDS = 2, 0.2


@dataclass(frozen=True)
class Place:
    """Where a run sends its segments, and how it reads the answers."""

    scheduler: Scheduler
    vocabulary: Vocabulary
    name: str
    punctuation: Marker | None


class FileRun:
    """See `recognising.Run`. Iterate once, then `close`."""

    def __init__(
        self,
        request: RecognitionRequest,
        place: Place,
        cutting: tuple[float, float],
        hotwords: HotwordSet | None,
        on_segment: Callable[[StoredSegment], None] | None,
    ) -> None:
        self._request, self._place, self._cutting = request, place, cutting
        self._on_segment = on_segment
        self._words: Hotwords = tuple(tuple(ids) for ids in hotwords.ids) if hotwords is not None else ()
        self._known = {stored.index: stored for stored in request.resume}
        # The thread that cuts may be so many segments ahead; it waits for room, the loop for segments.
        self._room = threading.Semaphore(_SEGMENTS_AHEAD)
        self._cut_out: asyncio.Queue[Segment | BaseException | None] = asyncio.Queue()
        self._pending: set[asyncio.Task[Recognised]] = set()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._feeding: asyncio.Task[None] | None = None
        self._reader: AudioReader | None = None
        self._started = time.monotonic()
        self._done_seconds = 0.0
        self._first = True
        self.hotwords = hotwords
        self.audio_seconds = self.elapsed_seconds = self.queue_seconds = 0.0

    @property
    def progress(self) -> tuple[float, float | None]:
        """Seconds recognised, and in all (None while unknown)."""
        total = self._reader.info.duration_seconds if self._reader is not None else None
        return self._done_seconds, total

    @property
    def remaining_seconds(self) -> float:
        """Of audio, as far as it is known."""
        done, total = self.progress
        return max(0.0, (total if total is not None else self.audio_seconds) - done)

    @property
    def notes(self) -> Sequence[str]:
        """Damage in the file that was worked around."""
        return self._reader.notes if self._reader is not None else ()

    async def __aiter__(self) -> AsyncIterator[Utterance]:
        # Opening looks at a file's beginning only, but on a slow disk even that may take its time.
        self._reader = await asyncio.to_thread(AudioReader, self._request.source)
        ahead = self._place.scheduler.most_rows + 2  # a batch is at work, and of the next one these are there
        ordered: asyncio.Queue[tuple[Segment, asyncio.Task[Recognised]] | BaseException | None]
        ordered = asyncio.Queue(maxsize=ahead)
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._cut, args=(loop,), name="cut", daemon=True)
        self._thread.start()
        self._feeding = asyncio.create_task(self._feed(ordered))
        joiner = Joiner()
        builder = UtteranceBuilder(self._place.vocabulary, self._place.punctuation)
        while (item := await ordered.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            segment, task = item
            found = await task
            for utterance in await self._said(builder.add(self._settle(joiner, segment, found))):
                yield utterance
        for utterance in await self._said(builder.add(joiner.flush())):
            yield utterance
        for utterance in await self._said(builder.flush()):
            yield utterance
        self.elapsed_seconds = time.monotonic() - self._started

    async def _said(self, utterances: Iterator[Utterance]) -> list[Utterance]:
        """All of them; made beside the event loop where a network has a part in it."""
        if self._place.punctuation is None:
            return list(utterances)
        return await asyncio.to_thread(list, utterances)

    def _settle(self, joiner: Joiner, segment: Segment, found: Recognised) -> TimedTokens:
        start, overlap = segment.start / SAMPLE_RATE, segment.overlap / SAMPLE_RATE
        duration = len(segment.samples) / SAMPLE_RATE
        result = found.result
        if found.tokens is not None and isinstance(self._place.vocabulary, TextVocabulary):
            result = Recognition(self._place.vocabulary.ids(found.tokens), result.starts, result.ends)
        if self._first:
            self._first, self.queue_seconds = False, found.waited_seconds
        stored = self._known.get(segment.index)
        if self._on_segment is not None and (stored is None or not _same(stored, segment)):
            tokens = tuple(found.tokens) if found.tokens is not None else None
            self._on_segment(
                StoredSegment(
                    segment.index, start, overlap, duration, result.ids, result.starts, result.ends, tokens
                )
            )
        self._done_seconds = start + duration
        return joiner.add(start, overlap, duration, result)

    async def _feed(
        self, ordered: asyncio.Queue[tuple[Segment, asyncio.Task[Recognised]] | BaseException | None]
    ) -> None:
        """Sends segments to the scheduler as they come, and keeps their order."""
        while True:
            segment = await self._cut_out.get()
            if not isinstance(segment, Segment):
                await ordered.put(segment)
                return
            task = asyncio.create_task(self._one(segment))
            self._pending.add(task)
            task.add_done_callback(self._pending.discard)
            await ordered.put((segment, task))
            self._room.release()

    async def _one(self, segment: Segment) -> Recognised:
        stored = self._known.get(segment.index)
        if stored is not None and _same(stored, segment):
            tokens = list(stored.tokens) if stored.tokens is not None else None
            return Recognised(Recognition(stored.ids, stored.starts, stored.ends), tokens, 0.0)
        return await self._place.scheduler.submit(
            self._request.client, self._place.name, segment.samples, self._words
        )

    def _cut(self, loop: asyncio.AbstractEventLoop) -> None:
        """Runs in a thread of its own: everything before the worker."""
        last: BaseException | None = None
        try:
            longest, join = self._cutting
            for segment in cut(self._blocks(), max_seconds=longest, join_seconds=join):
                if not self._has_room():
                    return
                loop.call_soon_threadsafe(self._cut_out.put_nowait, segment)
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to who reads the utterances
            last = error
        if not self._stop.is_set():
            loop.call_soon_threadsafe(self._cut_out.put_nowait, last)

    def _blocks(self) -> Iterator[NDArray[np.float32]]:
        if self._reader is None:
            return
        samples = 0
        for block in self._reader.blocks():
            samples += len(block)
            self.audio_seconds = samples / SAMPLE_RATE
            yield block

    def _has_room(self) -> bool:
        """Waits until a segment may be given out; False when the run is over."""
        while not self._stop.is_set():
            if self._room.acquire(timeout=_LOOK_SECONDS):
                return True
        return False

    async def close(self) -> None:
        """Ends the run; what is not recognised yet is taken out of the queue."""
        self._stop.set()
        tasks = [*self._pending, *([self._feeding] if self._feeding is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._thread is not None:
            self._room.release()
            await asyncio.to_thread(self._thread.join)
        if self._reader is not None:
            await asyncio.to_thread(self._reader.close)


def _same(stored: StoredSegment, segment: Segment) -> bool:
    """Whether a stored segment is this one: the file could have been cut with other settings."""
    near = abs(stored.start_seconds - segment.start / SAMPLE_RATE) < 1e-3
    return near and abs(stored.duration_seconds - len(segment.samples) / SAMPLE_RATE) < 1e-3
