"""python -m prunecore_runtime, the same as prunecore-predict."""

from __future__ import annotations

import sys

from prunecore_runtime.cli import main

if __name__ == "__main__":
    sys.exit(main(program="python -m prunecore_runtime"))
