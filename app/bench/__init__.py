"""Parts of `python -m app bench`: settings, one measured process, the rows, the page, the chart, the machine."""
