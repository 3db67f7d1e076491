"""What the parts of one running service share. Made by main.py, given to every router; there are no globals."""

from __future__ import annotations

from dataclasses import dataclass

from app.service.admission import Admission
from app.service.metrics import Metrics
from app.service.recognising import Recognising
from app.service.settings import Settings


@dataclass(frozen=True)
class Service:
    """One service."""

    settings: Settings
    recogniser: Recognising
    metrics: Metrics
    admission: Admission
    version: str
    started: float  # seconds since the epoch
