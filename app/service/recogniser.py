"""The engine of the service: one worker behind one scheduler, and every request a run of its own (file_run.py).

Here: the model's start and its words, runs that begin and end, and the state of the engine as the other modules see it.
The web process needs no model for this: the network is in the worker (worker.py). A punctuation model alone runs here,
in a thread: it takes little memory and milliseconds, and in the worker every text would wait behind batches of speech.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from app.asr.engine import (
    DEFAULT_JOIN_SECONDS,
    DEFAULT_SEGMENT_SECONDS,
    MIN_SEGMENT_SECONDS,
    EngineOptions,
)
from app.asr.errors import AsrError, InputError
from app.asr.hotwords import HotwordSet, parse_hotwords
from app.asr.marks import NamedMarker, described
from app.asr.tokens import Vocabulary
from app.asr.written_text import TextVocabulary
from app.service.file_run import FileRun, Place
from app.service.recognising import EngineStatus, RecognitionRequest, Run, StoredSegment
from app.service.scheduler import Scheduler
from app.service.worker import Worker, WorkerSettings


class Recogniser:
    """The engine of the service. `start` it in the event loop that uses it.

    Args:
        punctuation: puts marks behind the words; None leaves them out.
    """

    def __init__(
        self,
        options: EngineOptions,
        settings: WorkerSettings | None = None,
        punctuation: NamedMarker | None = None,
    ) -> None:
        self._options, self._punctuation = options, punctuation
        self._worker = Worker(options, settings)
        self._scheduler = Scheduler(self._worker)
        self._vocabulary: Vocabulary | None = None
        self._described: Mapping[str, Any] = {}
        self._describing = asyncio.Lock()
        self._runs: set[FileRun] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._requests = 0
        self._warming: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to load the model; returns at once. What has begun goes on: once more does nothing."""
        if self._warming is not None:
            return
        self._scheduler.start()
        self._warming = asyncio.create_task(self._warm_up(), name="warm-up")

    async def close(self, grace_seconds: float = 0.0) -> None:
        """Lets runs finish for so long, then ends everything."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._idle.wait(), grace_seconds)
        if self._warming is not None:
            self._warming.cancel()
        await self._scheduler.close()
        await self._worker.close()

    async def _warm_up(self) -> None:
        """Loads the model; and tries again, now and then, when it could not be opened: memory may come free, or a pack
        may have been put in its place. Requests are refused meanwhile, so none of them would try."""
        while True:
            with contextlib.suppress(AsrError):  # told by the status
                if self._worker.state not in ("ready", "asleep") or not self._described:
                    await self._ready()
            await asyncio.sleep(self._worker.settings.try_again_seconds)

    async def _ready(self) -> Vocabulary:
        """Waits until the model is loaded. Raises AsrError when it cannot be."""
        await self._worker.start()
        async with self._describing:  # who comes while the words are read waits for them
            description = self._worker.description
            if description is not self._described:
                self._scheduler.most_rows = int(description["most_rows"])
                tokens, pieces = description["tokens"], description["seg_dict"]
                self._vocabulary = (
                    await asyncio.to_thread(Vocabulary.load, Path(tokens), Path(pieces) if pieces else None)
                    if tokens is not None
                    else TextVocabulary()
                )
                self._described = description
        if self._vocabulary is None:
            raise InputError("the model has no vocabulary", fix="Make its pack again.")
        return self._vocabulary

    def status(self) -> EngineStatus:
        """The state of the engine now; cheap."""
        worker = self._worker
        counted = {k: v for k, v in worker.statistics.items() if k in ("device", "precision")}
        told = {**worker.description, **counted}
        return EngineStatus(
            state=worker.state,
            message=worker.message,
            model=str(told.get("model", self._options.model)),
            precision=str(told.get("precision", self._options.precision)),
            device=str(told.get("device", self._options.device)),
            reasons=tuple(told.get("reasons", ())),
            self_check=str(told.get("self_check", "")),
            has_hotwords=bool(told.get("has_hotwords", False)),
            waiting_seconds=sum(run.remaining_seconds for run in self._runs),
            rtf=self._scheduler.rtf,
            restarts=Counter(worker.restarts),
            statistics={"self_check_passed": told.get("self_check_passed"), **worker.statistics},
            punctuation=described(self._punctuation, self._vocabulary),
            resumes=worker.resumes,
            oldest_seconds=self._scheduler.oldest_seconds,
        )

    @property
    def device_gone(self) -> asyncio.Event:
        """Set when the device was lost too often for another try in this process."""
        return self._worker.device_gone

    @property
    def worker_pid(self) -> int | None:
        """The worker process now running."""
        return self._worker.pid

    @contextlib.asynccontextmanager
    async def recognise(
        self, request: RecognitionRequest, on_segment: Callable[[StoredSegment], None] | None = None
    ) -> AsyncIterator[Run]:
        """One request; leaving the context cancels what is not done.

        Args:
            on_segment: called in order with every segment, those of `request.resume` left out.

        Raises:
            AsrError: the model cannot be loaded; or, from the iteration, what is wrong with the file.
        """
        vocabulary = await self._ready()
        self._requests += 1
        run = FileRun(
            request,
            Place(
                self._scheduler, vocabulary, request.request_id or f"run-{self._requests}", self._punctuation
            ),
            self._cutting(request),
            self._hotwords(request, vocabulary),
            on_segment,
        )
        self._runs.add(run)
        self._idle.clear()
        try:
            yield run
        finally:
            await run.close()
            self._runs.discard(run)
            if not self._runs:
                self._idle.set()

    def _cutting(self, request: RecognitionRequest) -> tuple[float, float]:
        wished = request.segment_seconds or self._options.segment_seconds
        longest, join = wished or DEFAULT_SEGMENT_SECONDS, wished or DEFAULT_JOIN_SECONDS
        fits = self._described.get("longest_seconds")
        if fits is not None:
            longest = max(MIN_SEGMENT_SECONDS, min(longest, float(fits)))
        return longest, min(longest, join)

    def _hotwords(self, request: RecognitionRequest, vocabulary: Vocabulary) -> HotwordSet | None:
        if not request.hotwords or not request.hotwords.strip():
            return None
        found = parse_hotwords([request.hotwords], vocabulary, files=False)
        if found is not None and found.ids and not self._described["has_hotwords"]:
            raise InputError(
                f"The model {self._described['model']} has no hot words", fix="Leave the hot words out."
            )
        return found
