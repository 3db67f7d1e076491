"""Files that Gradio keeps for a player or a form, and who still needs them; what nobody needs is removed.

Gradio names an upload by its content, so two people may hold one file. Clearing a form or closing a tab lets go of what
that tab holds. What is left over, since a browser may vanish without a word, goes when it is old, or at the next start.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path

KEEP_SECONDS = 4 * 3600.0  # an upload that nobody has touched for so long has been left behind
SWEEP_SECONDS = 600.0


class Holdings:
    """Who holds which files of `folder`; methods may be called from any thread.

    Args:
        folder: Gradio's, and nobody else's; made empty here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._held: dict[tuple[str, str], set[Path]] = {}
        self._mutex = threading.Lock()
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def hold(self, session: str, form: str, paths: Iterable[Path]) -> None:
        """From now on, a form of a session holds these files and lets go of the ones before."""
        wanted = {path.resolve() for path in paths}
        with self._mutex:
            before = self._held.pop((session, form), set())
            if wanted:
                self._held[session, form] = wanted
            self._remove_unheld(before)

    def release(self, session: str) -> None:
        """A session holds nothing any more."""
        with self._mutex:
            keys = [key for key in self._held if key[0] == session]
            before = set[Path]().union(*(self._held.pop(key) for key in keys))
            self._remove_unheld(before)

    def remove_unfinished(self) -> None:
        """Removes what uploads have left that were cut off; none may be under way. Whole ones are in folders."""
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if path.is_file():
                    path.unlink()

    def sweep(self, keep_seconds: float = KEEP_SECONDS) -> None:
        """Removes what is older, held or not, and folders that are empty."""
        oldest = time.time() - keep_seconds
        with self._mutex:
            for path in sorted(self.folder.rglob("*"), reverse=True):
                with contextlib.suppress(OSError):
                    if path.is_file() and path.stat().st_mtime < oldest:
                        path.unlink()
                    elif path.is_dir() and path.stat().st_mtime < oldest:
                        path.rmdir()

    def _remove_unheld(self, paths: set[Path]) -> None:
        for path in paths - set[Path]().union(*self._held.values()):
            if not path.is_relative_to(self.folder) or path == self.folder:
                continue  # whatever a browser names, nothing outside is touched
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
                path.parent.rmdir()
