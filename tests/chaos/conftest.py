"""Makes the helpers of this folder, the simulated fleet and the fuzzed ps importable."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent
for folder in (TESTS / "wire", TESTS / "server", TESTS.parent / "benchmarks", HERE):
    sys.path.insert(0, str(folder))
