"""Puts the exporter together: options -> sources -> collector -> page -> server. Whoever reads anything is elsewhere.

Exit code 0: ended as asked; 1: the command line, or a file that it names, cannot be used. A host on which nothing can
be read is no reason to end: the health series say so.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Sequence

from monitoring.exporter.arguments import Options, parse
from monitoring.exporter.canary import Canary
from monitoring.exporter.collector import Collector, Source
from monitoring.exporter.docker import DockerWatch
from monitoring.exporter.errors import ConfigurationError
from monitoring.exporter.gpu import GpuWatch
from monitoring.exporter.heap import give_back
from monitoring.exporter.host import read_disks, read_host, read_variant
from monitoring.exporter.nvml_client import NvmlClient
from monitoring.exporter.oom import OomWatch
from monitoring.exporter.relay import Relay
from monitoring.exporter.render import render
from monitoring.exporter.server import MetricsServer
from monitoring.exporter.state import StateFile

LOG = logging.getLogger(__name__)
_GPU_START_SECONDS = 5.0  # a driver without persistence mode takes seconds to wake


class Exporter:
    """Everything that reads, ready to be asked for a page."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._docker: DockerWatch | None = None
        self._state = StateFile(options.state) if options.state is not None else None
        self._oom = OomWatch(
            options.root, name_of=self._name_of, kernel_log=options.kernel_log, state=self._state
        )
        if options.docker is not None:
            self._docker = DockerWatch(options.docker, self._oom.docker_event, self._oom.docker_since)
        self._nvml = NvmlClient()
        self._gpu = GpuWatch(options.root, self._nvml, self._name_of, options.gpu)
        self._canary: Canary | None = None
        if options.canary is not None:
            plan = options.canary
            self._canary = Canary(
                plan.url, plan.clip, interval_seconds=plan.interval_seconds, key=options.api_key
            )
        self._collector = Collector(self._sources())

    def _name_of(self, container: str) -> str | None:
        return self._docker.name_of(container) if self._docker is not None else None

    def _sources(self) -> list[Source]:
        options, state, variant = self._options, self._state, self._options.variant_file
        sources = [
            Source("gpu", self._gpu.read, self._gpu.offered),
            Source("gpu_processes", self._gpu.read_processes, self._gpu.offered),
            Source("host", lambda: read_host(options.root)),
            Source("oom", self._oom.read),
            Source("kernel_log", self._oom.check_kernel_log, lambda: self._oom.has_kernel_log),
        ]
        if options.disks:
            sources.append(Source("disk", lambda: read_disks(options.root, options.disks)))
        if self._docker is not None:
            sources.append(Source("docker", self._docker.check))
        if state is not None:
            sources.append(Source("state", state.check))
        if variant is not None:
            sources.append(Source("variant", lambda: read_variant(variant)))
        relays = [Relay(url, options.api_key) for url in options.relays]
        return [*sources, *(Source(relay.name, relay.read) for relay in relays)]

    def start(self) -> None:
        """Begins to watch; what can be known at once is known when this returns."""
        if self._docker is not None:
            self._docker.start()
        self._oom.start()
        if self._gpu.offered():
            self._nvml.start(_GPU_START_SECONDS)
        if self._canary is not None and not self._options.once:
            self._canary.start()

    def page(self) -> bytes:
        """The metrics now, in Prometheus's text format."""
        last = self._canary.last() if self._canary is not None else None
        options = self._options
        return render(
            self._collector.collect(), last, relays=options.relays, each_process=options.each_process
        )

    def close(self) -> None:
        """Ends all threads and processes; counts are saved."""
        if self._canary is not None:
            self._canary.close()
        if self._docker is not None:
            self._docker.close()
        self._oom.close()
        self._nvml.close()


def serve(exporter: Exporter, options: Options) -> None:
    """Answers scrapes until SIGTERM or Ctrl-C.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    server = MetricsServer(options.listen, exporter.page, options.token)
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    thread = threading.Thread(target=server.serve_forever, name="server", daemon=True)
    thread.start()
    LOG.info("Metrics are at http://%s:%d/metrics", *server.server_address[:2])
    asked.wait()
    server.shutdown()
    server.server_close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives its exit code."""
    try:
        options = parse(sys.argv[1:] if arguments is None else arguments)
        logging.basicConfig(
            level=options.log_level.upper(), stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s"
        )
        exporter = Exporter(options)
        exporter.start()
        give_back()
        try:
            if options.once:
                sys.stdout.buffer.write(exporter.page())
                sys.stdout.flush()
            else:
                serve(exporter, options)
        finally:
            exporter.close()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0
