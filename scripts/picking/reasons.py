"""A sentence of a verdict, together with the limit that decided."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reason:
    """Why something is so. `limit` is the threshold or property that decided, as it stands in the text."""

    text: str
    limit: str

    def __post_init__(self) -> None:
        if not self.limit or self.limit not in self.text:
            raise ValueError(f"the reason {self.text!r} does not name its limit {self.limit!r}")
