"""A program that the GPU tests start: what must have a process, and with it a device, of its own. Prints one JSON line.

    python tests/gpu/child.py load DEVICE PACK PRECISION
    python tests/gpu/child.py pressed DEVICE PACK PRECISION AUDIO SHARE[,SHARE...]
    python tests/gpu/child.py eat DEVICE LEAVE_BYTES

`load` tells what loading takes of the host. `pressed` transcribes twice: freely, then with torch's allocator held to
shares of what batches took beside the weights, a new share every few words. `eat` takes the device's memory bit by bit
until so many bytes are left, tells so, and holds it until its standard input ends.
"""

from __future__ import annotations

import json
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

BITE = 64 << 20
WORDS_A_SHARE = 40


def load(device: str, directory: str, precision: str) -> dict[str, Any]:
    import torch

    from app.asr.host import peak_rss_during, rss_bytes
    from app.asr.pack import Pack
    from app.asr.torch_backend import TorchBackend, cuda_report

    cuda_report()
    torch.zeros(1, device=device)  # CUDA's own libraries are no part of loading a model
    pack = Pack.open(Path(directory))
    before = rss_bytes()
    made: list[TorchBackend] = []
    peak = peak_rss_during(lambda: made.append(TorchBackend(pack, device=device, precision=precision)))
    settings: dict[str, Any] = {}
    if device.startswith("cuda"):
        settings = torch.cuda.memory._snapshot().get("allocator_settings", {})
    return {
        "peak_rss_above": peak - before,
        "weight_bytes": made[0].weight_bytes,
        "expandable_segments": settings.get("expandable_segments"),
    }


def pressed(device: str, directory: str, precision: str, audio: str, shares: str) -> dict[str, Any]:
    import torch

    from app.asr.engine import EngineOptions
    from app.asr.transcribe import Transcriber

    # A generous limit: batches are as large as their number of rows allows, so that a cap is felt.
    options = EngineOptions(model=directory, device=device, precision=precision, vram_limit=1 << 36)
    with Transcriber.open(options) as transcriber:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
        held = torch.cuda.memory_allocated(device)
        free = [word.text for said in transcriber.transcribe(Path(audio)) for word in said.words]
        taken = torch.cuda.max_memory_allocated(device) - held
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(device).total_memory
        turns = cycle(float(share) for share in shares.split(","))
        base = torch.cuda.memory_reserved(device)

        def cap(share: float) -> None:
            torch.cuda.set_per_process_memory_fraction(min(1.0, (base + share * taken) / total), device)

        cap(next(turns))
        found: list[str] = []
        for said in transcriber.transcribe(Path(audio)):
            before = len(found) // WORDS_A_SHARE
            found += [word.text for word in said.words]
            if len(found) // WORDS_A_SHARE != before:
                cap(next(turns))
        told = transcriber.statistics
        return {
            "free": free,
            "pressed": found,
            "taken_bytes": taken,
            "out_of_memory": told.out_of_memory,
            "cut_segments": told.cut_segments,
            "fallbacks": told.fallbacks,
            "device": transcriber.device,
        }


def eat(device: str, leave: str) -> dict[str, Any]:
    import torch

    held = []
    while (free := torch.cuda.mem_get_info(device)[0]) > int(leave):
        bite = free - (4 << 30) if free > (8 << 30) else min(BITE, free - int(leave))
        try:
            held.append(torch.empty(max(bite, 2 << 20), dtype=torch.uint8, device=device))
        except torch.OutOfMemoryError:
            break
    print(json.dumps({"left": torch.cuda.mem_get_info(device)[0]}), flush=True)
    sys.stdin.read()
    return {"bites": len(held)}


if __name__ == "__main__":
    work: Any = {"load": load, "pressed": pressed, "eat": eat}[sys.argv[1]]
    print(json.dumps(work(*sys.argv[2:])), flush=True)
