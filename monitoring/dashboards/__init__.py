"""The dashboards as code: what each one shows. `make dashboards` writes them to monitoring/grafana/dashboards.

A module a dashboard, made of the building blocks in panels.py. Nothing here runs where Grafana runs, which reads files.
"""
