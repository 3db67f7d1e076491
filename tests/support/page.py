"""A page of metrics as a dictionary: `name{label="value",...}` with the labels in order -> value."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from monitoring.exporter.names import METRICS


def samples(page: bytes | str) -> dict[str, float]:
    """All samples; labels of the exporter's own metrics in the order of names.py."""
    text = page.decode() if isinstance(page, bytes) else page
    return {
        _key(sample.name, sample.labels): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _key(name: str, labels: dict[str, str]) -> str:
    order = METRICS[name].labels if name in METRICS else tuple(labels)
    inner = ",".join(f'{label}="{labels[label]}"' for label in order)
    return f"{name}{{{inner}}}" if inner else name
