"""A job that replays recorded statuses, and a backend that starts it: for the tests of api and cli only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfleet.backends.base import Backend, Ending, Job, Plan, Replica
from tfleet.spec.errors import ExitCode, WrongInput
from tfleet.spec.job import JobSpec
from tfleet.spec.rundir import RunDir


def member(role: str, index: int, state: str = "working", steps: int = 0, speed: float = 0.0) -> dict[str, Any]:
    return {"role": role, "index": index, "state": state, "steps": steps, "steps_per_second": speed}


def status(phase: str, step: int = 0, **changes: Any) -> dict[str, Any]:
    """A whole status as ps 0 writes it: 2,000 steps, two workers that work."""
    return {
        "phase": phase,
        "reason": "",
        "exit_code": None,
        "task": "mnist",
        "strategy": "async",
        "step": step,
        "steps": 2000,
        "epoch": 1,
        "steps_per_second": 172.4,
        "loss": 0.2311,
        "metrics": {"accuracy": 0.9312},
        "seconds_left": 4.6,
        "members": [member("worker", 0, steps=step // 2, speed=86.0), member("worker", 1, steps=step // 2, speed=86.4)],
        "ledger": {"epoch": 1, "acknowledged": 1204, "leased": 2, "returned": 0, "items": 9000, "duplicates": 0},
        "last_commit": None,
        "evaluation": None,
        "export": "",
        "notes": [],
        "elapsed": 12.0,
        "training_elapsed": 8.0,
        "started": 1_700_000_000.0,
        "updated": 1_700_000_012.0,
        **changes,
    }


def done(**changes: Any) -> dict[str, Any]:
    """The last status of a job that did all its steps."""
    evaluation = {"step": 2000, "metrics": {"loss": 0.2412, "accuracy": 0.931}}
    return status("done", 2000, exit_code=0, evaluation=evaluation, export="export/1", **changes)


class FakeJob(Job):
    """Gives one status a poll, then its result; remembers how it was asked to end."""

    def __init__(self, run_dir: Path, statuses: list[dict[str, Any]], code: ExitCode = ExitCode.DONE) -> None:
        self.handle = str(run_dir)
        self.left = list(statuses)
        self.code = code
        self.endings: list[tuple[str, str]] = []
        self.closed = False

    def status(self) -> dict[str, Any]:
        return self.left[0] if self.left else {}

    def poll(self) -> ExitCode | None:
        if len(self.left) <= 1:
            return self.code
        self.left.pop(0)
        return None

    def end(self, how: Ending, reason: str) -> None:
        self.endings.append((how, reason))

    def scale(self, workers: int) -> None:
        self.scaled = workers

    def logs(self, role: str = "", index: int = -1, follow: bool = False) -> Iterator[str]:
        return iter(())

    def close(self) -> None:
        self.closed = True


class FakeBackend(Backend):
    """Starts one FakeJob, leaving job.yaml and status.json as a real job would."""

    def __init__(self, statuses: list[dict[str, Any]], code: ExitCode = ExitCode.DONE) -> None:
        self.statuses, self.code = statuses, code
        self.started: Plan | None = None
        self.job: FakeJob | None = None

    def plan(self, spec: JobSpec, run_dir: Path, resume: bool = False) -> Plan:
        return Plan(spec, run_dir, resume, (Replica("ps", 0, ("true",)),))

    def start(self, plan: Plan) -> FakeJob:
        if self.started:
            raise WrongInput("the fake starts one job only; make another")
        self.started = plan
        run = RunDir.at(plan.run_dir)
        run.create()
        run.job_file.write_text(plan.spec.dump())
        if self.statuses:
            run.status_file.write_text(json.dumps(self.statuses[-1]))
        self.job = FakeJob(plan.run_dir, self.statuses, self.code)
        return self.job
