"""How a job ended, from the conditions of its Jobs and what its pods said last; pure functions over plain objects."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfleet.backends.kubernetes.objects import COMPONENT, Object, labels, name_of
from tfleet.backends.kubernetes.waiting import index_of, replica_name
from tfleet.spec.errors import ExitCode

# While a node is dead no Job becomes Complete or Failed: what it will be stands there already.
WELL = ("Complete", "SuccessCriteriaMet")
BADLY = ("Failed", "FailureTarget")


@dataclass(frozen=True)
class Result:
    """How a job ended.

    Attributes:
        code: its exit code.
        reason: one sentence; empty when it ended well.
        told: what the pods said at their end: phase, step, evaluation, export, and so on.
    """

    code: ExitCode
    reason: str = ""
    told: Mapping[str, Any] = field(default_factory=dict)

    def status(self) -> dict[str, Any]:
        """Returns the result as fields of a status."""
        phase = {ExitCode.DONE: "done", ExitCode.INTERRUPTED: "interrupted"}.get(self.code, "failed")
        told = {key: value for key, value in self.told.items() if value is not None}
        if told.get("phase") not in ("done", "stopped", "failed", "interrupted"):
            told["phase"] = phase
        return {**told, "exit_code": int(self.code), "reason": self.reason or str(told.get("reason", ""))}


def result(jobs: Sequence[Object], pods: Sequence[Object]) -> Result | None:
    """Returns how the job ended, or None while it has not.

    The Job of the workers carries the result; without the ps no worker can go on, so that its failure counts too.

    Args:
        jobs: the Jobs of the release.
        pods: its pods, as far as they are still there.
    """
    by_role = {labels(job).get(COMPONENT, ""): job for job in jobs}
    workers, ps = by_role.get("worker"), by_role.get("ps")
    told = last_words(pods)
    if workers is None:
        return None
    if condition(workers, WELL):
        return Result(ExitCode.DONE, told=told)
    for job in (workers, ps):
        failed = condition(job, BADLY) if job is not None else None
        if job is not None and failed is not None:
            return _failure(name_of(job), failed, told, pods)
    if ps is not None and condition(ps, WELL) and told and not _alive(pods):
        # The coordinator has ended the job while no worker ran who could carry its result.
        return Result(_code(told, ExitCode.DONE), str(told.get("reason") or ""), told)
    return None


def condition(job: Object, types: Iterable[str]) -> Mapping[str, Any] | None:
    """Returns the first condition of one of these types that is true."""
    for found in job.get("status", {}).get("conditions") or []:
        if found.get("type") in types and found.get("status") == "True":
            return dict(found)
    return None


def last_words(pods: Iterable[Object]) -> dict[str, Any]:
    """Returns what pods wrote as termination message: that of ps 0, else of a worker, of a bad end first.

    The first pod of an index may have ended before the job did, so that the newest of equals counts.
    """
    found: list[tuple[tuple[bool, bool, int], dict[str, Any]]] = []
    for pod in sorted(pods, key=lambda p: str(p.get("metadata", {}).get("creationTimestamp", "")), reverse=True):
        role = labels(pod).get(COMPONENT, "")
        for message in _messages(pod):
            over = message.get("phase") in ("done", "stopped", "failed", "interrupted")
            if role in ("ps", "worker") and over:
                code = message.get("exit_code")
                found.append(((role == "ps", code not in (0, 130, None), -index_of(pod)), message))
    return max(found, key=lambda pair: pair[0], default=((), {}))[1]


def _code(told: Mapping[str, Any], otherwise: ExitCode) -> ExitCode:
    with contextlib.suppress(ValueError, TypeError):
        return ExitCode(int(told.get("exit_code") or otherwise))
    return otherwise


def _alive(pods: Iterable[Object]) -> bool:
    """Tells whether a worker runs."""
    workers = (p for p in pods if labels(p).get(COMPONENT) == "worker")
    return any(p.get("status", {}).get("phase") == "Running" for p in workers)


def _failure(job: str, failed: Mapping[str, Any], told: Mapping[str, Any], pods: Iterable[Object]) -> Result:
    code = _code(told, ExitCode.FAILED)
    reason = str(told.get("reason") or "")
    if not reason:
        reason = _without_words(job, failed, pods)
    return Result(code, reason, told)


def _without_words(job: str, failed: Mapping[str, Any], pods: Iterable[Object]) -> str:
    """Says why a Job failed whose pods could not say it: killed for memory, never started, out of time."""
    for pod in pods:
        for ended in _terminated(pod):
            if ended.get("reason") == "OOMKilled":
                return f"{replica_name(pod)} was killed: it needed more memory than its limit; raise limit.memory"
            if ended.get("reason") == "StartError":
                words = " ".join(str(ended.get("message", "")).split())
                return f"the command of {replica_name(pod)} could not be started: {words}"
    if failed.get("reason") == "DeadlineExceeded":
        return f"the Job {job} took longer than the deadline; raise it with --deadline, or go on with --resume"
    codes = [(replica_name(p), t.get("exitCode")) for p in pods for t in _terminated(p) if t.get("exitCode")]
    ended_with = f" ({codes[0][0]} ended with exit code {codes[0][1]})" if codes else ""
    return (
        f"the Job {job} failed: {' '.join(str(failed.get('message', '')).split()) or failed.get('reason')}{ended_with}"
    )


def _messages(pod: Object) -> list[dict[str, Any]]:
    found = []
    for ended in _terminated(pod):
        with contextlib.suppress(ValueError):
            message = json.loads(str(ended.get("message", "")))
            if isinstance(message, dict):
                found.append(message)
    return found


def _terminated(pod: Object) -> list[Mapping[str, Any]]:
    found = []
    for container in pod.get("status", {}).get("containerStatuses") or []:
        for state in (container.get("lastState") or {}, container.get("state") or {}):
            if state.get("terminated"):
                found.append(state["terminated"])
    return found
