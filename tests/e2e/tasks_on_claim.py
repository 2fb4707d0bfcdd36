"""Values for jobs that train the paced digits of `scripts/paced_digits.py`, given as a task file."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from releases import Release

SCRIPTS = Path(__file__).with_name("scripts")
PACED = (
    "job.task=paced_digits.py:task",
    "taskFile.name=paced_digits.py",
    f"--set-file=taskFile.content={SCRIPTS / 'paced_digits.py'}",
)
UNTIL_STOPPED = "job.steps=0"
EPOCHS, BATCHES = 12, 90
COUNTED = (*PACED, f"job.epochs={EPOCHS}", "--set-string=job.params.visits=/mnt/tfleet/visits")
"""A job of about a minute whose workers write down which batches they see."""


def ends_with_every_sample_counted_once(release: Release) -> None:
    """Waits for the end of a `COUNTED` job; checks its ledger, and what the workers wrote down themselves."""
    jobs = release.wait_over()
    assert all("Complete" in conditions for conditions in jobs.values()), jobs
    status = release.final_status()
    assert status["phase"] == "done"
    assert status["step"] == status["ledger"]["acknowledged"] == EPOCHS * BATCHES
    assert status["ledger"]["leased"] == status["ledger"]["returned"] == 0
    files = (release.volume / "visits").iterdir()
    visits = Counter(line for file in files for line in file.read_text().split())
    assert set(visits) == {str(index) for index in range(BATCHES)}
    assert min(visits.values()) >= EPOCHS
