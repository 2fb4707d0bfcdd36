"""Values for jobs that train the paced digits of `scripts/paced_digits.py`, given as a task file."""

from __future__ import annotations

from pathlib import Path

SCRIPTS = Path(__file__).with_name("scripts")
PACED = (
    "job.task=paced_digits.py:task",
    "taskFile.name=paced_digits.py",
    f"--set-file=taskFile.content={SCRIPTS / 'paced_digits.py'}",
)
UNTIL_STOPPED = "job.steps=0"
