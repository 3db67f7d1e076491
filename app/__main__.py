"""`python -m app`."""

from __future__ import annotations

import os
import sys

# Before numpy is imported: speech detection multiplies matrices so small that a second BLAS thread only costs
# time (2.3 times, measured), and the processors are wanted by the network.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from app.asr.host import keep_heap_small
from app.cli import main

if __name__ == "__main__":
    keep_heap_small()
    sys.exit(main())
