"""How long until training goes on: after a SIGKILL of a worker, of ps 0, of another ps; with TensorFlow workers.

- worker: from its death until the first of its batches counts again, and how much of that is not the start of its new
  process (from the start of the process to the first batch that counts).
- ps: from its death until the first batch of the next generation counts, and how long reading the commit takes.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measure import HERE, summary, write_result

sys.path.insert(0, str(HERE.parent / "tests" / "chaos"))

from chaos_events import read_events
from chaos_job import ChaosJob, replicas
from chaos_schedule import Action, Schedule, Shape

from tfleet.checkpoint.store import Store
from tfleet.server.control import request_end

PATIENCE = 120.0
SETTLE = 3.0
"""Seconds of training between two kills."""


def main() -> None:
    """Kills, waits, kills again; writes `benchmarks/results/chaos_recovery.json`."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=5, help="kills of each replica")
    parse.add_argument("--write", action="store_true", help="write the results of fewer than 5 kills too")
    options = parse.parse_args()
    rounds = [one_of_each() for _ in range(options.repeats)]
    figures = {"kind": "chaos_recovery", "repeats": options.repeats}
    for part in rounds[0]:
        rows = [kills[part] for kills in rounds]
        figures[part] = {key: summary([row[key] for row in rows]) for key in rows[0]}
    print(figures)
    if options.write or options.repeats >= 5:
        print(f"written: {write_result('chaos_recovery', ['benchmarks/recovery.py', *sys.argv[1:]], figures)}")


def one_of_each() -> dict[str, dict[str, float]]:
    """Kills one replica of each kind of a job of its own: whoever dies again soon is started after a pause."""
    shape = Shape(worker="tensorflow", epochs=0, commit_every=2000, restarts=3, peer_timeout=20.0)
    with tempfile.TemporaryDirectory(prefix="tfleet-recovery-") as folder:
        job = ChaosJob(Schedule(shape, (Action({"second": 1e9}, "end"),)), Path(folder) / "job")
        playing = threading.Thread(target=job.play)
        playing.start()
        try:
            wait(lambda: acks(job), PATIENCE)
            return {"worker": worker_killed(job), "ps_0": ps_killed(job, 0), "ps_1": ps_killed(job, 1)}
        finally:
            request_end(job.run, "interrupt", "")
            playing.join()


def acks(job: ChaosJob) -> list[list[Any]]:
    """Returns the acknowledgements so far."""
    return [event for event in read_events(job.events, 0) if event[0] == "ack"]


def wait(what: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Blocks until `what` returns something, and returns that.

    Raises:
        RuntimeError: when it does not.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise RuntimeError(f"waited longer than {seconds:g} s")


def pid_of(job: ChaosJob, role: str, index: int) -> int:
    """Returns the process of a replica, or 0."""
    return next((pid for pid, who in replicas(job.run) if who == (role, index)), 0)


def kill(job: ChaosJob, role: str, index: int) -> tuple[float, float]:
    """Kills a replica that trains; returns when, and when its successor was started, in Unix seconds."""
    time.sleep(SETTLE)
    pid = pid_of(job, role, index)
    os.kill(pid, signal.SIGKILL)
    died = time.time()
    new = wait(lambda: (found := pid_of(job, role, index)) != pid and found)
    return died, started_at(new)


def started_at(pid: int) -> float:
    """Returns when a process was started, in Unix seconds (to a hundredth)."""
    ticks = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text().split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def worker_killed(job: ChaosJob) -> dict[str, float]:
    """Kills worker 1; returns the seconds until it trains again."""
    died, started = kill(job, "worker", 1)

    def first_batch() -> float:
        events = read_events(job.events, 0)
        mine = [event for event in events if event[0] == "in" and event[1] > died and event[3:] == ["worker", 1]]
        return next(
            (e[1] for e in events if mine and e[0] == "ack" and e[2] == mine[-1][2] and e[1] > mine[-1][1]), 0.0
        )

    back = wait(first_batch)
    row = {"back_seconds": back - died, "start_seconds": back - started, "more_seconds": started - died}
    print("worker 1", row, file=sys.stderr, flush=True)
    return row


def ps_killed(job: ChaosJob, index: int) -> dict[str, float]:
    """Kills a ps; returns the seconds until the next generation trains, and those that reading its commit takes."""
    before = [event for event in read_events(job.events, 0) if event[0] == "begin"][-1][2]
    died, _ = kill(job, "ps", index)

    def first_batch() -> float:
        events = read_events(job.events, 0)
        begun = [event[1] for event in events if event[0] == "begin" and event[2] > before]
        return next((e[1] for e in events if begun and e[0] == "ack" and e[1] > begun[0]), 0.0)

    back = wait(first_batch)
    store, now = Store(job.run.checkpoints), time.perf_counter()
    manifest, _ = store.newest()
    assert manifest is not None
    store.read(manifest, 0, manifest.parameters)
    row = {"back_seconds": back - died, "load_seconds": time.perf_counter() - now}
    print(f"ps {index}", row, file=sys.stderr, flush=True)
    return row


if __name__ == "__main__":
    main()
