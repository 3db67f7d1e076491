"""What watches hosts and services: exporter, rules, dashboards. Nothing here is needed to transcribe."""
