"""Keeps up the processes of a local job: starts again who died, and has as many workers as the job wants."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfleet.backends.hanging import HANGS, Hanging
from tfleet.backends.logtail import last_line
from tfleet.backends.processes import Child, Children
from tfleet.backends.replicas import Replicas
from tfleet.backends.restarts import Restarts
from tfleet.spec.errors import ExitCode

MEANT = (ExitCode.DONE, ExitCode.WRONG_INPUT, ExitCode.INTERRUPTED)
"""Exit codes of replicas that ended because they meant to: they are not started again."""


def guests_in(status: Mapping[str, Any]) -> int:
    """Returns how many workers that joined by hand are here, by a status."""
    return sum(bool(m.get("host")) and m["state"] in ("joined", "working") for m in status.get("members", []))


class Upkeep:
    """Looks after the processes of one job, whenever `tend` is called; nothing here waits.

    Args:
        children: the processes.
        replicas: makes those that are started later.

    Attributes:
        news: what the status is to tell, oldest first; whoever has told it takes it out.
    """

    def __init__(self, children: Children, replicas: Replicas) -> None:
        self._children = children
        self._replicas = replicas
        self._restarts = Restarts(replicas.spec.restarts)
        self._seen: set[Child] = set()
        self._drained: set[Child] = set()
        self._hanging = Hanging(replicas.spec.peer_timeout)
        self._guests = 0
        self.news: list[str] = []
        self._asked = 0

    @property
    def pending(self) -> bool:
        """Whether a replica that is down now will be started again."""
        return self._restarts.pending

    def tend(self, status: Mapping[str, Any], now: float) -> None:
        """Does what is due.

        Args:
            status: the job's last one; it is not over.
            now: seconds, monotonic.
        """
        asked, self._asked = self._asked, int(status.get("workers_asked", 0))
        self._scale(int(status.get("workers_wanted", self._replicas.spec.workers)), again=self._asked > asked)
        self._guests = guests_in(status)
        self._end_hanging(status, now)
        for child in list(self._children.all):
            if child.code is not None and child not in self._seen:
                self._seen.add(child)
                self._ended(child, now)
        for name in self._restarts.due(now):
            role, _, index = name.rpartition(" ")
            self._start(role, int(index))

    def trouble(self) -> str:
        """Says in a sentence why the job cannot go on, or returns the empty string while it can."""
        dead = [child for child in self._children.of("ps") if self._is_lost(child)]
        if dead:
            return f"{self._epitaph(dead[0])}; the last commit is kept, go on with --resume"
        workers = self._children.of("worker")
        lost = [child for child in workers if self._is_lost(child)]
        least = self._replicas.spec.elastic.min
        living = len(workers) - len(lost) + self._guests
        if lost and living < least:
            worst = max(lost, key=lambda child: child.code != 0)
            left = f"fewer than {least} workers are left" if living else "no worker is left"
            return f"{left}: {self._epitaph(worst)}; the last commit is kept, go on with --resume"
        return ""

    def _is_lost(self, child: Child) -> bool:
        return child.code is not None and not self._restarts.planned(str(child))

    def _ended(self, child: Child, now: float) -> None:
        if child in self._drained or child.code in MEANT:
            return
        if not self._restarts.died(str(child), now):
            self.news.append(f"{child} is given up: {self._epitaph(child)}")
            return
        times = f"{self._restarts.count(str(child))} of {self._replicas.spec.restarts}"
        child.tell(f"{child} {child.outcome()} and is started again (restart {times})")

    def _start(self, role: str, index: int) -> None:
        # A ps that died before the first commit begins anew, whatever it is told.
        replica = self._replicas.one(role, index, resume=True, restarts=self._restarts.count(f"{role} {index}"))
        log = self._replicas.run.log(role, index)
        if role == "ps":
            self._hanging.forget(index)
        self._children.start(role, index, replica.command, replica.env, log)

    def _scale(self, wanted: int, *, again: bool) -> None:
        """Starts workers that are wanted, and drains others, the highest index first.

        Args:
            wanted: number of workers.
            again: whether somebody has asked for it just now: workers that have left by themselves come back then.
        """
        present = {child.index: child for child in self._children.of("worker")}
        for index in sorted(set(range(wanted)) - set(present)):
            self._start("worker", index)
        for index, child in present.items():
            if index < wanted:
                left = child in self._drained or (again and child.code == ExitCode.INTERRUPTED)
                if left and child.code is not None:
                    self._start("worker", index)
            elif child not in self._drained:
                self._drained.add(child)
                self._restarts.cancel(str(child))
                child.terminate()

    def _end_hanging(self, status: Mapping[str, Any], now: float) -> None:
        """Kills a ps that lives but hangs: it is started again like one that died."""
        for child in self._children.of("ps"):
            if child.code is None and self._hanging.look(child.index, status, now):
                child.tell(f"{child} lives but does not answer, and is killed")
                child.kill(HANGS)

    def _epitaph(self, child: Child) -> str:
        # A process that a signal ended had no last word: what its log ends with says nothing.
        last = last_line(child.log) if (child.code or 0) > 0 else ""
        told = f" ({last})" if last else ""
        times = self._restarts.count(str(child))
        again = f" after {times} restart{'s' * (times > 1)}" if times else ""
        return f"{child} {child.outcome()}{told}{again}, its log is {child.log}"
