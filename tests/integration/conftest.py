"""Makes the helpers of these tests importable, and their fixtures known."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent.parent / "wire"))  # certificates

from jobs import live  # noqa: F401
