"""Everything that can go wrong in the engine, and what to do about it.

    AsrError
    ├── InputError         the caller's file or directory cannot be used
    │   ├── AudioError     it is there, but it is not audio we can decode
    │   └── HotwordError   a hot-word list that cannot be read or is over its cap
    ├── PackError          a model pack is damaged, foreign, unsafe or missing
    ├── SourceError        a FunASR model directory or hub id that cannot be packed
    ├── ResourceError      memory, disk or processors do not suffice
    │   └── MemoryShortageError   there is no room at this moment; later the same work may succeed
    │       └── DeviceMemoryError   one batch was too large for the device; a smaller one may fit
    ├── DeviceError        a device that was asked for cannot be used
    │   ├── DeviceLostError     it failed in the middle; this process cannot use it any more
    │   └── NumericError        it computed NaN or Inf
    └── OutputError        the result could not be written

Every error says what happened (`problem`) and what to do next (`fix`); `str()` gives both.
Nothing here prints, logs or exits.
"""

from __future__ import annotations


class AsrError(Exception):
    """Base of all expected failures.

    Args:
        problem: what was seen, with the value and the limit, as one sentence without a full stop.
        fix: what the reader can do next, as one sentence.
    """

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}. {self.fix}"


class InputError(AsrError):
    """A file, directory or option value given by the caller cannot be used."""


class AudioError(InputError):
    """The input exists but holds no audio that can be decoded."""


class HotwordError(InputError):
    """The hot-word list cannot be read, or breaks a limit."""


class PackError(AsrError):
    """A model pack is missing, damaged, truncated, of a foreign format, or not safe to load."""


class SourceError(AsrError):
    """A model source (FunASR directory or hub id) cannot be turned into a pack."""


class ResourceError(AsrError):
    """The host has not enough memory, disk space or processors for what was asked."""


class MemoryShortageError(ResourceError):
    """Other programs leave too little memory at this moment; the same work may succeed when they hold less."""


class DeviceMemoryError(MemoryShortageError):
    """One batch did not fit into the device's memory; the backend can go on with a smaller one."""


class DeviceError(AsrError):
    """A device or precision that was asked for is not there or cannot be used."""


class DeviceLostError(DeviceError):
    """A device failed in the middle of its work (CUDA errors are final for a process)."""


class NumericError(DeviceError):
    """A device computed NaN or Inf."""


class OutputError(AsrError):
    """A result could not be written where it was asked for."""
