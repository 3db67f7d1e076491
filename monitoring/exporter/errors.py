"""What can go wrong in the exporter: a command that cannot be honoured, and a reading that is not to be had.

ExporterError
├── ConfigurationError   stops the start, exit code 1
└── ReadingError         one collector has no value now; the others go on
    └── NvmlError      NVML has none; `code` is a key of names.NVML_ERRORS
"""

from __future__ import annotations


class ExporterError(Exception):
    """Base: `problem` is what was seen, `fix` what to do next, each a sentence without its full stop."""

    def __init__(self, problem: str, *, fix: str) -> None:
        super().__init__(problem, fix)
        self.problem = problem
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.problem}. {self.fix}."


class ConfigurationError(ExporterError):
    """An argument, or a file that an argument names, cannot be used."""


class ReadingError(ExporterError):
    """A collector could not read what it reads."""


class NvmlError(ReadingError):
    """NVML gave no reading; `code` is a key of names.NVML_ERRORS."""

    def __init__(self, problem: str, *, code: str, fix: str) -> None:
        super().__init__(problem, fix=fix)
        self.code = code
