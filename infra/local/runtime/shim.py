"""The small process behind each container: `python -I -S -B shim.py run LOCK_FD ID`, its plan on stdin.

Only the entry: a script is compiled anew at every start, which for `supervise` would take 5 ms.
"""

# No pathlib, no contextlib: each import lengthens the start of every container.
# ruff: noqa: PTH100, PTH120

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import supervise  # type: ignore[import-not-found]

if __name__ == "__main__":
    supervise.main()
