"""The exporter: VRAM, OOM kills, host memory and the service's own metrics, at one address of each host.

Standard library, prometheus_client and pynvml only. It never imports app: the two meet over HTTP and in files.
"""
