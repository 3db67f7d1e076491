"""The file in which counts of kills outlive the exporter: read once at the start, replaced whole at every change.

A file that cannot be understood is left as it is, so that a person can look at it: counting goes on in memory, and the
collector `state` says so until the file is moved away.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from monitoring.exporter.errors import ReadingError
from monitoring.exporter.ledger import Ledger

_LARGEST = 4 << 20


class StateFile:
    """Where a ledger is kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._damage: str | None = None
        self._failure: str | None = None

    def load(self, boot: str) -> Ledger:
        """The ledger of this boot; an empty one when there is no file or none that can be used."""
        try:
            with self._path.open("rb") as file:
                data = file.read(_LARGEST + 1)
            if len(data) > _LARGEST:
                raise ValueError("it is too large")
            return Ledger.from_data(json.loads(data), boot)
        except FileNotFoundError:
            pass
        except OSError as error:
            self._damage = error.strerror or str(error)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            self._damage = f"its content is not ours: {str(error)[:200] or type(error).__name__}"
        return Ledger(boot, changed=True)

    def save(self, ledger: Ledger) -> None:
        """Replaces the file; a failure is kept for `check`, and the next save tries again."""
        if self._damage is not None and self._path.exists():
            return
        self._damage = None
        draft = self._path.with_name(f"{self._path.name}.{os.getpid()}.tmp")
        try:
            with draft.open("w", encoding="utf-8") as file:
                json.dump(ledger.as_data(), file, separators=(",", ":"))
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            self._failure = error.strerror or str(error)
            with contextlib.suppress(OSError):
                draft.unlink()
            return
        self._failure = None
        ledger.changed = False

    def check(self) -> Path:
        """The file's path.

        Raises:
            ReadingError: counts are not safe in it.
        """
        if self._damage is not None:
            raise ReadingError(
                f"The state file {self._path} cannot be used ({self._damage}); kills are counted in memory only",
                fix="Look at the file and move it away; a new one is written at once",
            )
        if self._failure is not None:
            raise ReadingError(
                f"The state file {self._path} cannot be written ({self._failure}); kills are counted in memory only",
                fix="Give the exporter's user a folder that it may write, with room on its disk",
            )
        return self._path
