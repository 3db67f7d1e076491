"""Jobs as clients see them, and the form they are sent with, for answers and for the OpenAPI document."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.asr.subtitles import FORMATS
from app.service.job_records import Job, links

MAX_FILES = 20  # in one request
FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "minItems": 1,
                            "maxItems": MAX_FILES,
                            "description": "One recording or several; each becomes a job.",
                        },
                        "hotwords": {
                            "type": "string",
                            "description": "Words to listen for, separated by commas or line breaks.",
                            "example": "阿里巴巴, 通义实验室",
                        },
                        "formats": {
                            "type": "string",
                            "description": "Forms of the result to link to, separated by commas; all without it.",
                            "example": "text,srt",
                        },
                    },
                }
            }
        },
    }
}


class JobFile(BaseModel):
    """The recording of a job, by the name its sender gave it."""

    name: str
    bytes: int


class JobProgress(BaseModel):
    """How far a job is. Seconds of audio; `eta_seconds` is the time left, null while it cannot be told."""

    seconds_done: float
    seconds_total: float | None
    fraction: float | None
    eta_seconds: float | None


class JobView(BaseModel):
    """A job as clients see it; times of day are seconds since 1970."""

    id: str = Field(examples=["job_0f9b"])
    object: Literal["job"] = "job"
    batch: str = Field(description="the same for all files of one request")
    state: Literal["queued", "running", "done", "failed", "cancelled"]
    cancel_requested: bool
    file: JobFile
    created_at: float
    started_at: float | None
    ended_at: float | None
    queue_position: int | None = Field(description="older jobs that wait too; null when it does not wait")
    progress: JobProgress
    error: dict[str, Any] | None = Field(description="of a failed job, in the shape of other errors")
    results: dict[str, str] = Field(description="where the result is, by format; empty until it is done")


class JobList(BaseModel):
    """Several jobs: the newest first in a list, in the order of the form after POST."""

    object: Literal["list"] = "list"
    data: list[JobView]
    has_more: bool = False


class DeletedJob(BaseModel):
    """What is left of a deleted job."""

    id: str
    object: Literal["job"] = "job"
    deleted: bool = True


def view_of(job: Job, place: int | None, progress: tuple[float, float | None, float | None]) -> JobView:
    """A job as it is shown; `place` is how many wait before it, `progress` that of JobRunner.progress."""
    done, total, left = progress
    fraction = min(done / total, 1.0) if total else None
    return JobView(
        id=job.id,
        batch=job.batch,
        state=job.state,  # type: ignore[arg-type]  # one of STATES
        cancel_requested=job.cancel,
        file=JobFile(name=job.name, bytes=job.bytes),
        created_at=round(job.created, 3),
        started_at=_rounded(job.started),
        ended_at=_rounded(job.ended),
        queue_position=place,
        progress=JobProgress(
            seconds_done=round(done, 3),
            seconds_total=_rounded(total),
            fraction=1.0 if job.state == "done" else _rounded(fraction),
            eta_seconds=_rounded(left),
        ),
        error=_error(job),
        results=links(job.id, job.formats or FORMATS) if job.state == "done" else {},
    )


def _error(job: Job) -> dict[str, Any] | None:
    """The error of a failed job, as OpenAI writes errors."""
    if job.state != "failed":
        return None
    ours = {"internal_error", "service_died", "insufficient_resources", "engine_unavailable"}
    kind = "server_error" if job.code in ours else "invalid_request_error"
    return {"message": f"{job.problem}. {job.fix}", "type": kind, "param": None, "code": job.code}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
