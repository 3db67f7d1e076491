"""The swap module's tables and refusals; real swap on real file systems is tests/e2e/test_swap.py's."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.support.playbooks import module

swap_file = module("roles/swap/library/swap_file.py")
FSTAB = "# a comment\nUUID=1 / ext4 defaults 0 1\n/other none swap sw 0 0\n"


def test_fstab_gets_one_line_and_keeps_the_others() -> None:
    after = swap_file.fstab_with(FSTAB, "/swap file", wanted=True)
    assert after == FSTAB + "/swap\\040file none swap sw 0 0\n"
    assert swap_file.fstab_with(after, "/swap file", wanted=True) == after
    assert swap_file.fstab_with(after, "/swap file", wanted=False) == FSTAB


def test_doubled_lines_become_one_and_options_of_the_user_stay() -> None:
    mine = "/swap none swap sw,pri=5 0 0\n"
    assert swap_file.fstab_with(mine + FSTAB + mine, "/swap", wanted=True) == mine + FSTAB


def test_active_swaps_are_read_with_blanks_in_names() -> None:
    text = "Filename Type Size Used Priority\n/a\\040b file 40956 1024 -2\n"
    assert swap_file.active_swaps(text) == {"/a b": (40, 1)}


def test_swap_in_use_is_not_taken_away_when_memory_would_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = SimpleNamespace(params={"path": "/swap", "size_mib": 40, "fstab": "/nowhere"}, check_mode=False)
    texts = {
        "/proc/swaps": "Filename Type Size Used Priority\n/swap file 204796 153600 -2\n",
        "/proc/meminfo": "MemAvailable: 102400 kB\n",
    }
    monkeypatch.setattr(swap_file, "read", lambda path: texts.get(path, ""))
    with pytest.raises(swap_file.RefusedError, match=r"150 MiB are swapped out .* only 100 MiB"):
        swap_file.SwapFile(asked).stop(150)
