"""Passes on a service's own metrics, names untouched: one open port and one scrape target a host.

What cannot be read as Prometheus's text format is not passed on at all, since one bad line would cost the whole scrape;
names that belong to the exporter are left out. A service that is broken or slow costs its own series only.
"""

from __future__ import annotations

import http.client
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from monitoring.exporter.errors import ReadingError
from monitoring.exporter.fetching import fetch
from monitoring.exporter.names import METRICS

_SECONDS = 2.0
_LARGEST = 512 << 10
RELAY_LABEL = "relay"
_OWN = {name.removesuffix("_total") for name in METRICS}


@dataclass(frozen=True)
class Relay:
    """One service's /metrics; `key` is sent as a bearer token where the service asks for one."""

    url: str
    key: str | None = None

    @property
    def name(self) -> str:
        """Of the source in the collector."""
        return f"relay {self.url}"

    def read(self) -> list[Metric]:
        """The service's metrics.

        Raises:
            ReadingError: it does not answer, or not with metrics.
        """
        headers = {"Accept": "text/plain;version=0.0.4"}
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        status, body = fetch(self.url, seconds=_SECONDS, largest=_LARGEST, headers=headers)
        if status != http.client.OK:
            raise ReadingError(
                f"{self.url} answered {status} instead of its metrics",
                fix="Check the address; the path is /metrics",
            )
        try:
            return parse(body.decode("utf-8"))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise ReadingError(
                f"{self.url} answered with something that is not Prometheus's text format ({str(error)[:100]})",
                fix="Check the address; the path is /metrics",
            ) from None


def parse(text: str) -> list[Metric]:
    """The families in a text, without those whose names are ours.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is not such a text (the parser raises all of these).
    """
    if text and not text.endswith("\n"):
        raise ValueError("the last line is cut off")
    return [family for family in text_string_to_metric_families(text) if family.name not in _OWN]


def join(relayed: Mapping[str, Sequence[Metric]], *, several: bool) -> Iterable[Metric]:
    """URL -> its metrics, as families that each appear once. Of several services, each sample says which it is from."""
    if not several:
        for families in relayed.values():
            yield from families
        return
    joined: dict[str, Metric] = {}
    for url, families in relayed.items():
        where = urlsplit(url).netloc
        for family in families:
            known = joined.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            for sample in family.samples:
                labels = {**sample.labels, RELAY_LABEL: where}
                known.samples.append(
                    Sample(sample.name, labels, sample.value, sample.timestamp, sample.exemplar)
                )
    yield from joined.values()
