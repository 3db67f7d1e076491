"""The one error of the picker: what is wrong with its input, and what to do about it."""

from __future__ import annotations


class InputError(Exception):
    """The table, the facts or the fleet file cannot be used.

    Attributes:
        problem: what was found, and where.
        fix: what to do next.
    """

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(f"{problem}. {fix}")
        self.problem = problem
        self.fix = fix
