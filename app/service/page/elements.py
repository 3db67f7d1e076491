"""What passes between the page's handlers and its scripts: the element that they fill, and what a browser remembers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from app.service.page.api import Sent

_JOB = re.compile(r"job_[0-9a-f]{8,64}")
_MOST_JOBS = 100


def results(kind: str, sent: Sequence[Sent], media: Path | None = None) -> str:
    """The element that our scripts fill. `media` is the file that a player may play, as long as it is held."""
    source = f"gradio_api/file={quote(str(media))}" if media is not None else ""
    rows = [
        {"job": one.job, "name": one.name, "media": source}
        if one.job
        else {"name": one.name, "code": one.code, "message": one.message}
        for one in sent
    ]
    told = json.dumps({"kind": kind, "sent": rows}, ensure_ascii=False)
    return f'<asr-results told="{escape(told)}"></asr-results>'


def jobs_in(text: str) -> dict[str, list[str]]:
    """The jobs that a browser says it showed, by form; whatever else it says is left out."""
    try:
        told = json.loads(text)
    except (ValueError, TypeError, RecursionError):
        return {}
    if not isinstance(told, dict):
        return {}
    return {
        str(kind): [job for job in jobs if isinstance(job, str) and _JOB.fullmatch(job)][:_MOST_JOBS]
        for kind, jobs in told.items()
        if isinstance(jobs, list)
    }
