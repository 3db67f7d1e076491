"""The speech engine: bytes in, timed words out. Knows no web, no containers, no fleet."""
