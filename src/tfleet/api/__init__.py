"""The Python interface: `train`, `Run`, and what the command line shares with them.

The command line is a thin layer over this package: the same names, the same resolution of a job, the same progress.
Nothing here imports TensorFlow.
"""

from __future__ import annotations

from tfleet.api.run import Run, train

__all__ = ["Run", "train"]
