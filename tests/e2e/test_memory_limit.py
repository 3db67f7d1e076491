"""A real memory limit on the process: with planning it is never even reached, without it the kernel kills.

Needs root and a control group that may be made; skipped with the reason elsewhere.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from app.asr.catalogue import DEMO_PACKS
from tests.support.cgroup import Group, limited
from tests.support.heldout import read_samples
from tests.support.tight import without_silence

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 130 << 20  # the demo model needs 100 MB of it, 120 s of speech in one piece another 90
KILLED = (-9, 137)


@pytest.fixture
def group() -> Iterator[Group]:
    with limited(LIMIT) as made:
        yield made


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two minutes without a pause."""
    path = tmp_path_factory.mktemp("audio") / "speech.wav"
    samples = without_silence(read_samples(DEMO_PACKS.parent / "recordings" / "meeting.ogg"))
    wavfile.write(path, 16_000, (samples * 32767).astype(np.int16))
    # Files that a group is the first to read are counted as its memory: they are read here, outside of any.
    assert _transcribe(None, path, path.parent) == 0
    return path


def _transcribe(group: Group | None, speech: Path, cache: Path, preparation: str = "") -> int:
    """Runs the command inside the group; `preparation` is code that runs before it."""
    enter = f"open({str(group.folder / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))" if group else ""
    code = (
        "import os, sys\n"
        f"{enter}\n"
        "from app.asr.host import keep_heap_small\n"
        "keep_heap_small()\n"
        f"{preparation}\n"
        "from app.cli import main\n"
        f"sys.exit(main(['transcribe', {str(speech)!r}, '--segment-seconds', '120', '--threads', '1']))\n"
    )
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "ASR_CACHE_DIR": str(cache)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=False, timeout=300
    )
    return done.returncode


def test_a_limit_that_is_planned_for_is_never_reached(group: Group, speech: Path, tmp_path: Path) -> None:
    assert _transcribe(group, speech, tmp_path) == 0
    assert not group.reached_its_limit()


def test_without_the_plan_the_same_work_is_killed(group: Group, speech: Path, tmp_path: Path) -> None:
    unplanned = (
        "from app.asr.running import BatchRunner\n"
        "BatchRunner.longest_seconds = lambda *_: None\n"
        "BatchRunner._next = lambda *_: [0]\n"
    )
    assert _transcribe(group, speech, tmp_path, unplanned) in KILLED
    assert group.reached_its_limit()
