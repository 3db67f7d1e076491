"""docs/api.md: every example is run against the demo model, and its tables hold what the code has."""

from __future__ import annotations

import ast
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.service.schemas import FORMATS, TRANSCRIPTION_FORM
from tests.support.examples import Example, Shell, examples_of, fits
from tests.support.service import app_in
from tests.support.service_process import ServiceProcess

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
EXAMPLES = examples_of(PAGE)
KEY = "a-key-of-yours"
JOB = "job_…"
PATIENCE = 30.0  # seconds until a job that takes a blink must have ended


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """Two services with the demo model; the second wants a key."""
    folder = tmp_path_factory.mktemp("api")
    common = {"ASR_PAGE": "off"}
    with (
        ServiceProcess(folder / "open", common) as service,
        ServiceProcess(folder / "closed", {**common, "ASR_API_KEYS": KEY}) as closed,
    ):
        service.launch()
        closed.launch()
        service.wait_until_ready()
        closed.wait_until_ready()
        words = {"http://127.0.0.1:8000": service.address, "http://127.0.0.1:8001": closed.address}
        yield Shell(ROOT, words, sys.executable)


def answer_of(shell: Shell, example: Example) -> str:
    """What it answers; a job is asked for until it is as far as the page says."""
    give_up = time.monotonic() + PATIENCE
    while True:
        answer = shell.run(example)
        waits = JOB in example.command and " -X " not in example.command
        if not waits or fits(answer, example.answer) or time.monotonic() > give_up:
            return answer
        time.sleep(0.05)


def test_every_example_gives_the_answer_below_it(shell: Shell) -> None:
    """One after the other, as a reader would: some ask for the job that one before them has sent."""
    for example in EXAMPLES:
        answer = answer_of(shell, example)
        assert fits(answer, example.answer), f"{example.command}\ngave\n{answer}\nand not\n{example.answer}"
        job = re.match(r'{"id":"(job_\w+)"', answer)
        if job is not None:
            shell.learn(JOB, job[1])


def test_the_page_was_read() -> None:
    assert len(EXAMPLES) > 20
    page = "```console\n$ a \\\n  b\n1 …\n3\n$ c\n```\n```python\nprint(1)  # 1\n# 2\n```\n"
    assert examples_of(page) == [
        Example("a \\\n  b", "1 …\n3"),
        Example("c", ""),
        Example("print(1)  # 1\n# 2\n", "1\n2", is_python=True),
    ]
    assert fits('{"a":1,"b":[2,3]}', '{"a": 1, …3]}')
    assert not fits('{"a":1,"b":[2,3]}', '{"a": 1}') and not fits('{"a":1}', '{"a": 2}')


def first_cells(heading: str) -> list[str]:
    """The first column of the first table below a line, without its head."""
    table = PAGE.split(heading, 1)[1].split("\n| ", 1)[1].split("\n\n", 1)[0].splitlines()
    return [line.strip("| ").split(" | ")[0] for line in table[2:]]


def test_the_table_has_every_address(tmp_path: Path) -> None:
    paths = app_in(tmp_path).openapi()["paths"]
    known = {f"`{method.upper()} {path}`" for path, methods in paths.items() for method in methods}
    assert set(first_cells("# API\n")) == known


def test_the_table_has_every_field_of_a_transcription() -> None:
    properties = TRANSCRIPTION_FORM["content"]["multipart/form-data"]["schema"]["properties"]
    assert {cell.strip("`") for cell in first_cells("## A recording, its text\n")} == set(properties)
    assert "| `response_format` | " + ", ".join(f"`{form}`" for form in FORMATS) in PAGE


def codes_of_the_service() -> set[str]:
    """Words for programs that errors of the API carry: given as such, or in a table of errors.py."""
    found: set[str] = set()
    for path in (ROOT / "app" / "service").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                given = [keyword.value for keyword in node.keywords if keyword.arg == "code"]
                if isinstance(node.func, ast.Name) and node.func.id == "Failure":
                    given += node.args[4:5]
                found.update(str(part.value) for part in given if isinstance(part, ast.Constant))
    errors = (ROOT / "app" / "service" / "errors.py").read_text(encoding="utf-8")
    answers = errors.split("_ANSWERS: ", 1)[1].split("\n}", 1)[0]
    return found | set(re.findall(r', "([a-z_]+)", "\d*"\)', answers))


def test_the_table_has_every_code() -> None:
    table = PAGE.split("| status | `code` |", 1)[1].split("\n\n")[0]
    told = set(re.findall(r"`([a-z_]+)`", table)) | {"service_died"}
    codes = codes_of_the_service()
    assert {"file_too_large", "headers_too_large", "internal_error"} <= codes <= told
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "app" / "service").glob("*.py"))
    made = {"job_failed", "job_cancelled"}  # of the word job and a state
    assert not [code for code in told - made if f'"{code}"' not in source]
