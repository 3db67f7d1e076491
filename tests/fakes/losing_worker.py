"""A worker process without a model, which loses its device: `python -m tests.fakes.losing_worker FD OPTIONS`.

The option `model` names a file with a letter for each batch to come: w for one that works, l for one over which the
device is lost. The file is eaten from its beginning, so that the next process goes on where this one ended.
"""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import numpy as np

from app.asr.joining import Recognition
from app.service.frames import DEVICE_LOST, STOPPED, Channel, ChannelClosed, Frame, results_frame

NOTHING = Recognition(np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros(0, np.float32))


def main() -> int:
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    plan = Path(json.loads(sys.argv[2])["model"])
    channel.send(Frame({"kind": "ready", "device": "cuda:0", "precision": "fp16"}))
    while True:
        try:
            frame = channel.receive()
        except ChannelClosed:
            return STOPPED
        if frame.kind == "stop":
            return STOPPED
        steps = plan.read_text(encoding="ascii")
        plan.write_text(steps[1:], encoding="ascii")
        number = int(frame.header["id"])
        if steps[:1] == "l":
            told = {"error": "DeviceLostError", "problem": "the device is lost", "fix": "none"}
            channel.send(Frame({"kind": "failed", "id": number, "lost": True, **told}))
            return DEVICE_LOST
        results = [NOTHING] * len(frame.header["lengths"])
        channel.send(results_frame(number, results, {"seconds": 0.0, "statistics": {}}))


if __name__ == "__main__":
    sys.exit(main())
