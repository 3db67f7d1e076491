"""HEALTHCHECK of the images: exit code 0 when the program in this container says that it can work, and its own words.

Asks HEALTH_PATH at HEALTH_PORT on the loopback address. What makes a service ready is its own business; a broken proxy
setting must not make it look ill, so none is used.
"""

from __future__ import annotations

import http.client
import os
import sys

_SECONDS = 8.0  # less than the time-out of HEALTHCHECK, so that the reason is told


def main() -> int:
    """Print the answer's first bytes; 0 for a 2xx, else 1."""
    port, path = int(os.environ.get("HEALTH_PORT", "8000")), os.environ.get("HEALTH_PATH", "/readyz")
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
        connection.request("GET", path)
        answer = connection.getresponse()
        print(answer.status, answer.read(300).decode("utf-8", "replace"))
    except (OSError, http.client.HTTPException) as error:
        print(f"127.0.0.1:{port}{path} does not answer ({error})")
        return 1
    return 0 if 200 <= answer.status < 300 else 1


if __name__ == "__main__":
    sys.exit(main())
