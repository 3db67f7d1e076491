"""`python -m monitoring.exporter`."""

import sys

from monitoring.exporter.main import main

if __name__ == "__main__":
    sys.exit(main())
