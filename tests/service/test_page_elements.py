"""What passes between the page's handlers and its scripts: data, whatever it holds."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import pytest

from app.service.page.api import Sent
from app.service.page.elements import jobs_in, results


@pytest.mark.parametrize("text", ["", "null", "[]", "{", "[" * 100_000, '{"file": 3}'])
def test_what_a_browser_remembers_is_not_trusted(text: str) -> None:
    assert jobs_in(text) == {}


def test_only_jobs_are_taken_from_what_a_browser_remembers() -> None:
    told = {"file": ["job_0123456789", "../x", 7, "job_x' onclick='"], "batch": ["job_" + "a" * 32] * 200}
    found = jobs_in(json.dumps(told))
    assert found["file"] == ["job_0123456789"] and len(found["batch"]) == 100


def test_names_and_errors_are_data_in_the_document() -> None:
    evil = """'"><img src=x onerror=alert(1)>&"""
    shown = results(
        "file", [Sent(evil, job="job_1"), Sent(evil, code="other", message=evil)], Path("/a b/ü?#.wav")
    )
    found = re.fullmatch(r'<asr-results told="([^"<>]*)"></asr-results>', shown)
    assert found is not None
    first, second = json.loads(html.unescape(found[1]))["sent"]
    assert first == {"job": "job_1", "name": evil, "media": "gradio_api/file=/a%20b/%C3%BC%3F%23.wav"}
    assert second == {"name": evil, "code": "other", "message": evil}
