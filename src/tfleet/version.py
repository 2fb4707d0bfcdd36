"""The version of tfleet, in a module of its own: the package's top imports the API, and all layers may import this."""

from __future__ import annotations

__version__ = "0.1.0"
