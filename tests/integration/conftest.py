"""Makes the helpers of these tests importable, and their fixtures known."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from jobs import live  # noqa: F401
