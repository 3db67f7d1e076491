"""Prometheus on the configuration of monitoring/, with other ports and a faster clock, and questions to it."""

from __future__ import annotations

import json
import socket
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.monitoring import ALERTS, ROOT, program


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def get_json(url: str, **query: str) -> Any:
    """The answer to a GET."""
    if query:
        url += "?" + urllib.parse.urlencode(query)
    with urllib.request.urlopen(url, timeout=10) as answer:
        return json.load(answer)


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """An instant query's result."""
    found: list[dict[str, Any]] = get_json(prometheus + "/api/v1/query", query=expression)["data"]["result"]
    return found


def prometheus_command(
    folder: Path, address: str, exporters: Mapping[str, str], alertmanager: str | None, seconds: int
) -> list[str]:
    """What starts Prometheus; its configuration is written into the folder, its series are kept there.

    Args:
        address: its own, as http://HOST:PORT.
        exporters: name of a host -> its exporter's address.
        alertmanager: None leaves it out.
        seconds: between two scrapes, and between two looks at the rules.
    """
    targets = folder / "targets"
    targets.mkdir()
    listed = [{"targets": [_place(url)], "labels": {"instance": name}} for name, url in exporters.items()]
    (targets / "hosts.yml").write_text(yaml.safe_dump(listed))
    config = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = dict.fromkeys(config["global"], f"{seconds}s")
    config["rule_files"] = [str(ALERTS / "*.yml")]
    ours = {"prometheus": address, "alertmanager": alertmanager}
    config["scrape_configs"] = [
        job for job in config["scrape_configs"] if ours.get(job["job_name"], "") is not None
    ]
    for job in config["scrape_configs"]:
        if job["job_name"] in ours:
            job["static_configs"][0]["targets"] = [_place(str(ours[job["job_name"]]))]
        else:
            job["file_sd_configs"][0]["files"] = [str(targets / "*.yml")]
    if alertmanager is None:
        del config["alerting"]
    else:
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [_place(alertmanager)]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(config))
    return [
        *(program("prometheus"), f"--config.file={path}"),
        *(f"--web.listen-address={_place(address)}", f"--storage.tsdb.path={folder / 'series'}"),
    ]


def _place(url: str) -> str:
    return url.partition("//")[2]
