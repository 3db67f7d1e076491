"""The small programs that go into the images: the check of torch, the slimming, the health check."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from images import check_torch, healthcheck, slim_packages

WHEELS: dict[str, object] = {"name": "cu126", "cuda": "12.6", "architectures": ["sm_50", "sm_86"]}


def test_the_right_torch_passes() -> None:
    assert check_torch.differences("2.13.0+cu126", "12.6", ["sm_86", "sm_50"], WHEELS) == []


@pytest.mark.parametrize(
    ("build", "cuda", "architectures", "told"),
    [
        ("2.13.0+cu130", "12.6", ["sm_50", "sm_86"], "build tag cu130"),
        ("2.13.0", "12.6", ["sm_50", "sm_86"], "build tag none"),
        ("2.13.0+cu126", "13.0", ["sm_50", "sm_86"], "CUDA 13.0"),
        ("2.13.0+cu126", None, ["sm_50", "sm_86"], "CUDA None"),
        ("2.13.0+cu126", "12.6", ["sm_86"], "sm_50 sm_86"),
        ("2.13.0+cu126", "12.6", ["sm_50", "sm_86", "compute_86"], "compute_86"),
    ],
)
def test_every_difference_is_told(build: str, cuda: str | None, architectures: list[str], told: str) -> None:
    (sentence,) = check_torch.differences(build, cuda, architectures, WHEELS)
    assert told in sentence


def test_slimming_takes_tests_and_headers_and_leaves_what_is_imported(tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    gone = ["numpy/core/tests/test_a.py", "triton/a.py", "av/a.pxd", "numpy/include/a.h"]
    kept = ["numpy/testing/a.py", "pandas/_testing.py", "app_tests/tests/a.py", "av/a.so"]
    for name in gone + kept:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("", encoding="utf-8")
    assert slim_packages.main([str(tmp_path)]) == 0
    assert [name for name in gone if (site / name).exists()] == []
    assert [name for name in kept if not (site / name).exists()] == []
    assert list((site / "numpy" / "testing").glob("__pycache__/a.*.pyc"))


class Answer(http.server.BaseHTTPRequestHandler):
    """Ready at /readyz, not ready at /notyet."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(b'{"status":"x"}')

    def log_message(self, *arguments: object) -> None:
        """Tests are quiet."""


@pytest.fixture
def port() -> Iterator[int]:
    server = http.server.HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(("path", "code"), [("/readyz", 0), ("/notyet", 1)])
def test_health_is_what_the_service_says(
    port: int, path: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEALTH_PORT", str(port))
    monkeypatch.setenv("HEALTH_PATH", path)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert healthcheck.main() == code
    assert '{"status":"x"}' in capsys.readouterr().out


def test_nobody_there_is_ill(
    port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEALTH_PORT", "1")
    assert healthcheck.main() == 1
    assert "does not answer" in capsys.readouterr().out
