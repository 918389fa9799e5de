"""Works off ``benchmarks/GPU.md``, what has not been shown on a GPU yet, in order of value; the same command goes on.

    python benchmarks/gpu.py --source DIR --out DIR --minutes 14
    python -m cards.update DIR/reports/*.json

Everything about lists, pieces and what is left in ``--out``: ``benchmarks/worklist.py``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from worklist import main

if __name__ == "__main__":
    sys.exit(main(Path(__file__).parent / "GPU.md", device="cuda"))
