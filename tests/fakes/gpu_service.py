"""`python -m tests.fakes.gpu_service PORT DATA`: the real web application around a recogniser that claims to use a GPU.

It answers every file with the words of the demo's golden clip, at an RTF of 0.1, fails those that
come with the hot word 拒绝, and its figures of GPU memory move with time as those of a card that fills up.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from app.asr.catalogue import DEMO_PACKS
from app.asr.errors import ResourceError
from app.serve_command import listen, make_server
from app.service.main import create_app
from app.service.recognising import EngineStatus, RecognitionRequest
from app.service.settings import load_settings
from tests.fakes.recogniser import READY, FakeRecogniser, Step, spoken

MIB = 1 << 20
REFUSED = "拒绝"
_STORY_SECONDS = 60.0
GOLDEN = str(
    json.loads((DEMO_PACKS / "int8" / "manifest.json").read_text(encoding="utf-8"))["golden"]["text"]
)


class GpuRecogniser(FakeRecogniser):
    """A fake whose state moves with time."""

    def __init__(self) -> None:
        super().__init__(script=_script)
        self._started = time.monotonic()

    def status(self) -> EngineStatus:
        seconds = time.monotonic() - self._started
        part = min(1.0, seconds / _STORY_SECONDS)
        self.becomes(
            device="cuda:0",
            precision="fp16",
            model="demo",
            waiting_seconds=40.0 * part * (1.0 - part),
            oldest_seconds=6.0 * part * (1.0 - part),
            restarts={"killed": 1} if part > 0.7 else {},
            statistics={
                "self_check_passed": True,
                "frames": 9000 + int(90 * seconds),
                "padded_frames": 9600 + int(99 * seconds),
                "out_of_memory": int(4 * max(0.0, part - 0.5)),
                "device_peak_bytes": int((540 + 110 * part) * MIB),
                "device_predicted_bytes": int((560 + 120 * part) * MIB),
                "device_budget_bytes": int((120 - 60 * part) * MIB),
            },
        )
        return self.state


def _script(request: RecognitionRequest) -> Sequence[Step]:
    if request.hotwords == REFUSED:
        return [ResourceError("no room for this file", fix="This is a test.")]
    return [0.05, spoken(0.0, *GOLDEN)]


def main(port: int, data: Path) -> None:
    """Serves until it is ended."""
    settings = load_settings({"port": port, "data_dir": data, "log_level": "error"})
    recogniser = GpuRecogniser()
    recogniser.state = READY
    app = create_app(settings, recogniser)
    listener = listen(settings)

    async def live() -> None:
        async with app.router.lifespan_context(app):
            await make_server(app, settings).serve(sockets=[listener])

    asyncio.run(live())


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
