"""What machines ask of the service: does it live, can it work, how much can it take, what did it count.

Every answer comes from memory: a health check must stay cheap while all processors are busy.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response
from starlette.responses import JSONResponse

from app.service.context import Service
from app.service.metrics import CONTENT_TYPE, running_variant
from app.service.schemas import FORMATS, error_responses

READY = frozenset({"ready", "asleep"})  # asleep: the next request wakes it


def router(service: Service) -> APIRouter:
    """/healthz, /readyz, /v1/capacity and /metrics."""
    made = APIRouter(tags=["Operation"])

    @made.get("/healthz", summary="Does the service live?")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @made.get(
        "/readyz", summary="Is work taken now?", responses={503: {"description": "not yet, or no more"}}
    )
    async def readyz() -> Response:
        status = service.recogniser.status()
        state = "draining" if service.admission.draining else status.state
        told = {"status": state, "message": status.message}
        # Work is taken while the worker starts again: a gateway that took the host out would cut off what waits for it.
        ready = state in READY or (state == "starting" and status.resumes)
        headers = {} if ready else {"Retry-After": "2"}
        return JSONResponse(told, 200 if ready else 503, headers=headers)

    @made.get("/v1/capacity", summary="What serves, and how much it can take", responses=error_responses(401))
    async def capacity() -> dict[str, Any]:
        return describe(service)

    if service.settings.metrics != "off":

        @made.get(
            "/metrics",
            summary="Prometheus metrics",
            response_class=Response,
            responses={200: {"content": {"text/plain": {}}}, **error_responses(401)},
        )
        async def metrics() -> Response:
            return Response(await service.metrics.answer(), headers={"Content-Type": CONTENT_TYPE})

    return made


def describe(service: Service) -> dict[str, Any]:
    """The engine, the queue and the limits, for people's pages and machines' decisions."""
    status, settings = service.recogniser.status(), service.settings
    return {
        "version": service.version,
        "state": "draining" if service.admission.draining else status.state,
        "message": status.message,
        "model": status.model,
        "variant": running_variant(status.device, status.precision),
        "device": status.device,
        "precision": status.precision,
        "reasons": list(status.reasons),
        "self_check": status.self_check,
        "device_peak_bytes": status.statistics.get("device_peak_bytes"),
        "hotwords": status.has_hotwords,
        "punctuation": status.punctuation,
        "waiting_seconds": round(status.waiting_seconds, 3),
        "accepted_seconds": round(service.admission.accepted_seconds, 3),
        "rtf": None if status.rtf is None else round(status.rtf, 6),
        "worker_restarts": dict(status.restarts),
        "limits": {
            "max_upload_bytes": settings.max_upload_bytes,
            "max_audio_seconds": settings.max_audio_seconds,
            "max_hotword_bytes": settings.max_hotword_bytes,
            "queue_seconds": settings.queue_seconds,
            "request_seconds": settings.request_seconds,
            "page_batch_files": settings.page_batch_files,
        },
        "formats": list(FORMATS),
    }
