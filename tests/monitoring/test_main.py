"""The exporter as a process: --once, serving, ending, and command lines that cannot be honoured."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from monitoring.exporter.arguments import Options, parse
from monitoring.exporter.errors import ConfigurationError
from monitoring.exporter.main import main
from monitoring.exporter.names import METRICS
from tests.fakes.kernel import FakeKernel, container_id
from tests.monitoring.conftest import FakeService
from tests.monitoring.test_canary import PACK, TEXT, says
from tests.monitoring.test_relay import service_page
from tests.support.nvml import capture
from tests.support.page import samples
from tests.support.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]
EXPORTER = (sys.executable, "-m", "monitoring.exporter")


@pytest.fixture
def kernel(tmp_path: Path) -> FakeKernel:
    made = FakeKernel(tmp_path / "root")
    made.vmstat(oom_kill=3, pswpin=1, pswpout=2)
    made.kills("asr", 2)
    made.write("proc/pressure/memory", "some avg10=0.00 avg60=1.00 avg300=0.50 total=2500000\n")
    return made


def once(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, float]:
    assert main(["--once", "--docker", "off", *map(str, arguments)]) == 0
    return samples(capsys.readouterr().out)


def test_once(kernel: FakeKernel, capsys: pytest.CaptureFixture[str]) -> None:
    page = once(capsys, "--root", kernel.root)
    assert page["asr_host_oom_kills_total"] == 3
    assert page["asr_host_oom_kills_unattributed_total"] == 1
    assert page[f'asr_container_oom_kills_total{{container="{container_id("asr")[:12]}"}}'] == 2
    assert page["asr_host_memory_total_bytes"] == 2 << 30
    assert page['asr_exporter_collector_success{collector="oom"}'] == 1
    assert not [name for name in page if "gpu" in name or 'collector="docker"' in name]


def test_a_host_on_which_nothing_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = once(
        capsys, "--root", tmp_path, "--disk", "/no", "--variant-file", tmp_path / "no", "--kernel-log", "on"
    )
    health = {name: value for name, value in page.items() if "collector_success" in name}
    assert set(health.values()) == {0}
    assert len(health) == 5
    assert not [name for name in page if "host" in name and "exporter" not in name]


def test_everything_at_once(
    kernel: FakeKernel,
    nvml_library: Path,
    service: FakeService,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every metric of names.py is told by a running exporter, except the error that excludes GPUs."""
    text = capture("tesla-t4").replace("driver ", "xid 0 79\ndriver ")
    (tmp_path / "capture.txt").write_text(f"{text}compute_process 4711 1048576\n")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml_library))
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "capture.txt"))
    kernel.process(4711, "python3", "asr")
    (tmp_path / "verdict.json").write_text('{"instances": [{"variant": "cpu", "device": null}]}')
    (tmp_path / "key").write_text("secret-key\n")
    service.answer = lambda: (200, service_page() if service.asked[-1][0] == "/metrics" else says(TEXT))
    options = ["--root", kernel.root, "--docker", "off", "--gpu", "on", "--processes", "--disk", "/"]
    options += ["--variant-file", tmp_path / "verdict.json", "--state", tmp_path / "state.json"]
    options += ["--relay", f"{service.url}/metrics", "--canary", service.url, "--canary-clip", PACK]
    options += [
        "--api-key-file",
        tmp_path / "key",
        "--token-file",
        tmp_path / "key",
        "--listen",
        "127.0.0.1:0",
    ]
    with Running([*map(str, options)]) as running:
        # Xids are queued by the driver from the moment of the first question.
        seen: set[str] = set()
        while not seen >= set(METRICS) - {"asr_gpu_nvml_error"}:
            page = running.page("secret-key")
            seen = {re.split(r"[{ ]", name)[0] for name in page}
        assert page["asr_canary_text_correct"] == 1
        assert page["asr_wait_seconds_count"] == 1
        assert {key for _, key, _ in service.asked} == {"Bearer secret-key"}
        assert running.page(None) == {}


class Running:
    """An exporter that serves."""

    def __init__(self, arguments: list[str]) -> None:
        self._process = subprocess.Popen(
            [*EXPORTER, *arguments], cwd=ROOT, stderr=subprocess.PIPE, text=True, env={**os.environ}
        )
        self._port = 0
        self.code: int | None = None

    def __enter__(self) -> Running:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            found = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", line)
            if found and "main" in line:
                self._port = int(found[1])
                return self
        raise AssertionError("the exporter ended before it served")

    def page(self, token: str | None) -> dict[str, float]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            connection.request("GET", "/metrics", headers=headers)
            with connection.getresponse() as answer:
                return samples(answer.read()) if answer.status == 200 else {}
        finally:
            connection.close()

    def children(self) -> list[int]:
        tasks = Path(f"/proc/{self._process.pid}/task").iterdir()
        return [int(word) for task in tasks for word in (task / "children").read_text().split()]

    def end(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)
        self.code = self._process.wait(60)

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.end()
        assert self._process.stderr is not None
        self._process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_and_counts_are_safe(kernel: FakeKernel, tmp_path: Path, number: int) -> None:
    state = tmp_path / "state.json"
    arguments = [
        "--root",
        str(kernel.root),
        "--docker",
        "off",
        "--listen",
        "127.0.0.1:0",
        "--state",
        str(state),
    ]
    with Running(arguments) as running:
        before = running.page(None)
        running.end(number)
        assert running.code == 0
    kernel.remove("asr")
    with Running(arguments) as running:
        after = running.page(None)
    kills = {name: value for name, value in before.items() if "oom_kills" in name}
    assert len(kills) == 3
    assert kills.items() <= after.items()


def test_the_process_that_asks_nvml_does_not_outlive_a_killed_exporter(
    kernel: FakeKernel, nvml_library: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "capture.txt").write_text(capture("gtx-1050"))
    monkeypatch.setenv("LD_LIBRARY_PATH", str(nvml_library))
    monkeypatch.setenv("FAKE_NVML", str(tmp_path / "capture.txt"))
    arguments = ["--root", str(kernel.root), "--docker", "off", "--gpu", "on", "--listen", "127.0.0.1:0"]
    with Running(arguments) as running:
        assert running.page(None)["asr_gpus"] == 1
        (child,) = running.children()
        running.end(signal.SIGKILL)
        wait_for(lambda: has_ended(child), "the end of the process that asks NVML")


def has_ended(pid: int) -> bool:
    """Gone, or only waiting for somebody to take note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--listen nonsense", "--listen"),
        ("--listen 127.0.0.1:99999", "--listen"),
        ("--listen 127.0.0.1", "--listen"),
        ("--root /not/there", "--root"),
        ("--token-file /not/there", "--token-file"),
        ("--api-key-file /dev/null", "one secret"),
        ("--state /not/there/state.json", "--state"),
        ("--relay 127.0.0.1:8000", "--relay"),
        ("--relay http://user:pass@127.0.0.1/metrics", "without a user or password"),
        ("--relay ftp://127.0.0.1/metrics", "--relay"),
        ("--relay http://127.0.0.1:x/metrics", "--relay"),
        ("--canary http://127.0.0.1:8000", "--canary-clip"),
        ("--canary-clip /tmp", "--canary "),
        (f"--canary http://127.0.0.1 --canary-clip {PACK} --canary-interval 1", "between 10 and 86400"),
        (f"--canary http://127.0.0.1 --canary-clip {PACK} --canary-interval nan", "between 10 and 86400"),
        ("--canary http://127.0.0.1 --canary-clip /not/there", "cannot be used"),
    ],
)
def test_command_lines_that_cannot_be_honoured(
    arguments: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 1
    told = capsys.readouterr()
    assert words in told.err
    assert not told.out


def test_an_option_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--nonsense"])
    assert "--nonsense" in capsys.readouterr().err


def options(*arguments: str) -> Options:
    return parse(arguments)


def test_defaults_are_careful() -> None:
    made = options()
    assert made.listen == ("127.0.0.1", 9835)
    assert made.canary is None
    assert not made.each_process
    assert not made.relays


def test_addresses() -> None:
    assert options("--listen", "[::]:80").listen == ("::", 80)
    assert options("--listen", ":9835").listen == ("", 9835)


def test_a_secret_that_was_cut_in_two(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("two words\n")
    with pytest.raises(ConfigurationError, match="openssl rand"):
        options("--token-file", str(tmp_path / "token"))
    (tmp_path / "token").write_text("0123456789abcdef\n")
    assert options("--token-file", str(tmp_path / "token")).token == "0123456789abcdef"


def test_the_docker_socket_is_found_below_the_root(tmp_path: Path) -> None:
    import socket

    assert options("--root", str(tmp_path)).docker is None
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "run" / "docker.sock"))
        assert options("--root", str(tmp_path)).docker == tmp_path / "run" / "docker.sock"
    assert options("--root", str(tmp_path), "--docker", "off").docker is None
    assert options("--docker", "/x.sock").docker == Path("/x.sock")
