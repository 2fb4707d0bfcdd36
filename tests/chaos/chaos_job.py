"""Runs the job of a schedule, and does to it what the schedule says; what came of it is judged in `chaos_verdict`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from chaos_events import Tail
from chaos_proxy import Proxy
from chaos_schedule import RESTARTS, Action, Schedule, Shape

from tfleet.server.control import request_end, request_scale
from tfleet.spec.environment import EVENTS
from tfleet.spec.errors import TfleetError
from tfleet.spec.rundir import RunDir

HERE = Path(__file__).parent
QUIET = 120.0
"""Seconds without any event after which a job counts as hanging: TensorFlow may take half of it where all are busy."""
LIMIT = 600.0
"""Seconds after which it does whatever happens."""
LOOK = 0.005
DISK = 24 << 20
"""Bytes of the small file system of a job whose disk is to be filled."""
MARGIN = 20.0
"""Seconds that everything of a job has to vanish after its launcher."""
DUTY = (0.08, 0.02)
"""Seconds asleep and awake of a replica that is slowed down."""


@dataclass
class Played:
    """What happened.

    Attributes:
        codes: exit codes of the launcher, one for each start of the job.
        expected: what each should have been.
        done: actions, as text, with the second at which they were done.
        missed: actions whose moment did not come, or whose replica was not there.
        problems: what is wrong beyond what the job told: a hang, or something that was left.
        seconds: from the first start to the last end.
        output: of all launchers.
    """

    codes: list[int] = field(default_factory=list)
    expected: list[int] = field(default_factory=list)
    done: list[str] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    output: str = ""


class ChaosJob:
    """One job under one schedule.

    Args:
        schedule: what to do.
        folder: empty or missing; everything is below it: `run/`, `events/`, `launcher.log`.

    Attributes:
        run: its run directory.
        events: folder of what the ps tell.
        played: what has happened so far.
        step: that it has come to, in any generation.
    """

    def __init__(self, schedule: Schedule, folder: Path) -> None:
        self.schedule = schedule
        self.folder = folder
        self.events = folder / "events"
        self.events.mkdir(parents=True)
        self._small = any(action.do == "fill disk" for action in schedule.actions)
        self.run = RunDir.at(folder / "disk" / "run" if self._small else folder / "run")
        self.played = Played()
        self._limit = LIMIT + max((action.at.get("second", 0.0) for action in schedule.actions), default=0.0)
        self._pending = list(schedule.actions)
        self._undo: list[tuple[float, Callable[[], None]]] = []
        self._slowed: list[Slowed] = []
        self._tails = [Tail(self.events / f"ps-{index}.jsonl") for index in range(schedule.job.ps)]
        self.step, self._first = 0, 0.0
        self._phases: set[tuple[int, str]] = set()
        self._proxy: Proxy | None = None
        self._interrupted = 0
        self._began = self._looked = self._quiet = self._awake = 0.0

    def play(self) -> Played:
        """Blocks until the job is done, has ended wrongly, or hangs."""
        self._began = self._looked = time.monotonic()
        with contextlib.ExitStack() as after:
            after.callback(self._end_all)
            if self._small:
                mount(self.folder / "disk")
                after.callback(unmount, self.folder / "disk")
            if self.schedule.job.tcp:
                self._proxy = after.enter_context(Proxy())
            log = after.enter_context((self.folder / "launcher.log").open("w+"))
            try:
                self._play(log)
            finally:
                log.seek(0)
                self.played.output = log.read()
                self.played.seconds = time.monotonic() - self._began
                self.played.missed += [str(action) for action in self._pending]
                self._heal()
            self._look_for_leftovers()
            if self._small:
                shutil.copytree(self.run.path, self.folder / "run")
                self.run = RunDir.at(self.folder / "run")
        return self.played

    def _play(self, log: IO[str]) -> None:
        first = True
        while first or self._goes_on():
            self._interrupted = 0
            launcher = self._start(log, resume=not first)
            first = False
            while launcher.poll() is None:
                self._look()
                self._act(launcher)
                if self._hangs():
                    return
                time.sleep(LOOK)
            self.played.codes.append(launcher.returncode)
            ends = self.schedule.ends if len(self.played.codes) == 1 else 0
            self.played.expected.append(self._interrupted or ends)
            if not self._all_gone():
                self.played.problems.append(f"left behind: {', '.join(self._living())}")
                return

    def _goes_on(self) -> bool:
        """Whether the job is to be resumed: it was interrupted, or failed as it should."""
        as_it_should = self.played.codes[-1] == self.played.expected[-1]
        if self.played.codes[-1] == 130 and self._interrupted == -signal.SIGINT:
            return True
        return as_it_should and self.played.codes[-1] != 0

    def _start(self, log: IO[str], resume: bool) -> subprocess.Popen[str]:
        job, env = self.schedule.job, {**os.environ, EVENTS: str(self.events), "OPENBLAS_NUM_THREADS": "1"}
        if job.worker == "light":
            env["CHAOS_LIGHT"] = "1"
        if self._proxy:
            env["CHAOS_PROXY"] = self._proxy.address
        command = [sys.executable, str(HERE / "light_tfleet.py"), "train"]
        # Only the first start is to fail where there are no restarts.
        resumed = ["--resume", "--restarts", str(max(RESTARTS, job.restarts))]
        what = resumed if resume and self.run.job_file.exists() else ["mnist", *job.flags()]
        command += [*what, "--run-dir", str(self.run.path)]
        return subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)

    # What the job does.

    def _look(self) -> None:
        """Reads the events; notes steps and phases of commits."""
        for index, tail in enumerate(self._tails):
            for kind, when, *values in tail.read():
                self._quiet = 0.0
                if kind == "ack":
                    self.step, self._first = max(self.step, values[-1]), self._first or when
                elif kind in ("cut", "part"):
                    self._phases.add((values[0], kind))
                elif kind == "hold" and index == 0:
                    self._phases.add((1 + max((number for number, p in self._phases if p == "cut"), default=-1), kind))
        if any(action.at.get("phase") == "manifest" for action in self._pending):
            for path in self.run.checkpoints.glob("commit-*.manifest.json"):
                self._phases.add((int(path.name[7:17]), "manifest"))

    def _is_now(self, action: Action) -> bool:
        if "step" in action.at:
            return self.step >= action.at["step"]
        if "second" in action.at:
            return self._first > 0 and time.time() >= self._first + action.at["second"]
        return (action.at["commit"], action.at["phase"]) in self._phases

    # What is done to it.

    def _act(self, launcher: subprocess.Popen[str]) -> None:
        now = time.monotonic()
        for action in [a for a in self._pending if self._is_now(a)]:
            if self._do(action, launcher):
                self._pending.remove(action)
                self.played.done.append(f"{now - self._began:.2f} s: {action}")
        due = [entry for entry in self._undo if entry[0] <= now]
        self._undo = [entry for entry in self._undo if entry[0] > now]
        for _, undo in due:
            undo()
        self._slowed = [slowed for slowed in self._slowed if slowed.look(now)]

    def _do(self, action: Action, launcher: subprocess.Popen[str]) -> bool:
        """Does it; False: its replica is not there now, so later again."""
        role, index = action.to
        end = time.monotonic() + action.seconds if action.seconds else float("inf")
        if action.do == "end":
            request_end(self.run, "stop", "")
        elif action.do == "scale":
            with contextlib.suppress(TfleetError, OSError):
                request_scale(self.run, action.workers)
        elif action.do == "fill disk":
            filler = fill(self.folder / "disk")
            self._undo.append((end, lambda: filler.unlink(missing_ok=True)))
        elif action.do == "cut off":
            assert self._proxy is not None
            ends = [f"{role}-{index}", *self._addresses(role, index)]
            self._proxy.cut(*ends)
            self._undo.append((end, lambda: self._proxy and self._proxy.heal(*ends)))
        elif role == "launcher":
            return self._do_to_launcher(action, launcher, end)
        elif action.do == "slow":
            pid = self._find(role, index)
            if pid:
                self._slowed.append(Slowed(pid, end))
            return bool(pid)
        else:
            number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "continue": signal.SIGCONT}[action.do]
            pid = self._find(role, index)
            if action.do == "stop" and pid:
                self._undo.append((end, lambda: send(pid, signal.SIGCONT) and None))
            return bool(pid) and send(pid, number)
        return True

    def _do_to_launcher(self, action: Action, launcher: subprocess.Popen[str], end: float) -> bool:
        number = {
            "kill": signal.SIGKILL,
            "stop": signal.SIGSTOP,
            "continue": signal.SIGCONT,
            "interrupt": signal.SIGINT,
        }[action.do]
        if action.do == "kill":
            self._interrupted = -signal.SIGKILL
        elif action.do == "interrupt" and not self._interrupted:
            self._interrupted = -signal.SIGINT
        launcher.send_signal(number)
        if action.do == "stop":
            self._undo.append((end, lambda: launcher.send_signal(signal.SIGCONT)))
        return True

    def _find(self, role: str, index: int) -> int:
        return next((pid for pid, who in replicas(self.run) if who == (role, index)), 0)

    def _addresses(self, role: str, index: int) -> list[str]:
        """Where a ps listens: whoever calls it is cut off from it too."""
        if role != "ps":
            return []
        for pid, who in replicas(self.run):
            with contextlib.suppress(OSError, KeyError):
                if who[0] == "ps":
                    words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
                    hosts = dict(word.partition("=")[::2] for word in words)["PS_HOSTS"].split(",")
                    return [hosts[index]]
        return []

    def _heal(self) -> None:
        """Undoes at the end what would keep the rest from ending."""
        for _, undo in self._undo:
            with contextlib.suppress(OSError):
                undo()
        for pid, _ in replicas(self.run):
            send(pid, signal.SIGCONT)
        self._undo, self._slowed = [], []

    # The end.

    def _hangs(self) -> bool:
        now = time.monotonic()
        if now - self._looked < 1.0:
            return False
        # Time that this harness did not get either, or in which somebody is stopped, is not counted.
        passed, self._looked = min(now - self._looked, 2.0), now
        if not any(state_of(pid) == "T" for pid, _ in replicas(self.run, launchers=True)):
            self._quiet, self._awake = self._quiet + passed, self._awake + passed
        quiet, all_in_all = self._quiet > QUIET, self._awake > self._limit
        if quiet or all_in_all:
            status = self.run.status()
            told = {key: status.get(key) for key in ("phase", "step", "generation", "members", "ps", "notes")}
            limit = f"no event for {QUIET:g} s" if quiet else f"not over after {self._limit:g} s"
            said = (self.folder / "launcher.log").read_text().strip().splitlines()[-3:]
            alive = [f"{role} {index}: {state_of(pid)}" for pid, (role, index) in replicas(self.run, launchers=True)]
            self.played.problems.append(
                f"hangs: {limit}; alive {', '.join(alive)}; status {json.dumps(told)}; the launcher said {said}"
            )
        return quiet or all_in_all

    def _all_gone(self) -> bool:
        """Waits until nothing of the job lives; what is stopped must go on to end."""
        end = time.monotonic() + MARGIN + 20.0 * bool(self._undo or self._slowed)
        while self._living() and time.monotonic() < end:
            for when, undo in self._undo:
                if when <= time.monotonic():
                    undo()
            self._undo = [entry for entry in self._undo if entry[0] > time.monotonic()]
            self._slowed = [slowed for slowed in self._slowed if slowed.look(time.monotonic())]
            time.sleep(0.02)
        return not self._living()

    def _living(self) -> list[str]:
        return [f"{role} {index}" for _, (role, index) in replicas(self.run)]

    def _look_for_leftovers(self) -> None:
        if self.played.problems:
            return
        with contextlib.suppress(OSError):
            address = self.run.endpoint_file.read_text().strip()
            if address.startswith("unix:@"):
                name = address.removeprefix("unix:@").rsplit("-ps-", 1)[0]
                end = time.monotonic() + 2
                while name in Path("/proc/net/unix").read_text() and time.monotonic() < end:
                    time.sleep(0.02)
                if name in Path("/proc/net/unix").read_text():
                    self.played.problems.append(f"a socket of the job is left: {name}")
        if left := [path.name for path in Path("/dev/shm").glob("*tfleet*")]:
            self.played.problems.append(f"shared memory is left: {left}")

    def _end_all(self) -> None:
        for pid, _ in replicas(self.run, launchers=True):
            send(pid, signal.SIGCONT)
            send(pid, signal.SIGKILL)


@dataclass
class Slowed:
    """A process that gets a share of the time only.

    Attributes:
        pid: of it.
        end: when it is over.
        asleep: whether it is stopped now.
    """

    pid: int
    end: float
    asleep: bool = False

    def look(self, now: float) -> bool:
        """Stops it or lets it go on; returns False once it is over."""
        asleep = now % sum(DUTY) < DUTY[0] and now < self.end
        if asleep != self.asleep:
            self.asleep = asleep
            send(self.pid, signal.SIGSTOP if asleep else signal.SIGCONT)
        return now < self.end


def replicas(run: RunDir, launchers: bool = False) -> Iterator[tuple[int, tuple[str, int]]]:
    """Yields process number, role and index of every living process of a job."""
    wanted = os.fsencode(run.path)
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if wanted not in words or state_of(int(folder.name)) == "Z":
                continue
            if b"--index" in words:
                role = "ps" if b"tfleet.server" in words else "evaluator" if b"--evaluator" in words else "worker"
                yield int(folder.name), (role, int(words[words.index(b"--index") + 1]))
            elif launchers and b"--run-dir" in words:
                yield int(folder.name), ("launcher", 0)


def state_of(pid: int) -> str:
    """Returns the state of a process as one letter: T stopped, Z ended and not waited for; empty: there is none."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""


def send(pid: int, number: int) -> bool:
    """Sends a signal; returns whether the process was there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def can_mount() -> bool:
    """Whether a small file system can be made here."""
    return os.getuid() == 0 and shutil.which("mount") is not None


def mount(folder: Path) -> None:
    """Makes a small file system."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tfleet-chaos", str(folder)], check=True)


def unmount(folder: Path) -> None:
    """Removes it with all that is on it."""
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leaves no byte free; returns the file that has taken them."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


def undisturbed(job: Shape) -> Schedule:
    """Returns the schedule of a job to which nothing happens."""
    return Schedule(job)
