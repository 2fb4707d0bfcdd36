"""The supervisor of a pod, whose replica is `light_replica.py`: everything else is what runs on Kubernetes."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from light_tfleet import command

from tfleet.backends import pod

if __name__ == "__main__":
    pod.replica_command = command
    sys.exit(pod.main())
