"""The command line of tfleet, whose local replicas are `light_replica.py`: everything else is the real launcher."""

from __future__ import annotations

import sys
from pathlib import Path

from tfleet.backends.local import LocalBackend
from tfleet.backends.replicas import replica_command
from tfleet.cli import train
from tfleet.cli.main import main

REPLICA = str(Path(__file__).with_name("light_replica.py"))


def command(role: str, index: int, run_dir: Path, resume: bool) -> tuple[str, ...]:
    """Returns what a replica runs: as ever, but by way of `light_replica.py`."""
    python, _, module, *rest = replica_command(role, index, run_dir, resume)
    return (python, REPLICA, module, *rest)


if __name__ == "__main__":
    train.local_backend = lambda: LocalBackend(command)
    sys.exit(main())
