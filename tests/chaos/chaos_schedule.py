"""A schedule is data: what kind of job, and at which moment to do what to whom. JSON in, JSON out, or made by chance.

```json
{"job": {"workers": 2, "ps": 2, "strategy": "async", ...},
 "actions": [{"at": {"step": 400}, "do": "kill", "to": ["worker", 1]},
             {"at": {"commit": 2, "phase": "cut"}, "do": "stop", "to": ["ps", 1], "seconds": 5}]}
```
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any

PHASES = ("hold", "cut", "part", "manifest")
"""Of a commit: before its cut, when one partition has its copy, when a part is on disk, when the commit exists."""
DOES = ("kill", "stop", "continue", "cut off", "slow", "fill disk", "scale", "interrupt", "end")
EPOCHS = 4
BATCHES = 450
STEP_MS = 4.0
RESTARTS = 8
"""More than a random schedule kills one replica: so the job has to end well."""


@dataclass(frozen=True)
class Shape:
    """The job of a schedule.

    Attributes:
        worker: `light` (NumPy, see `light_model`) or `tensorflow`.
        workers: at the start.
        ps: parameter servers.
        strategy: of the job; under sync a step aggregates two batches, whatever the number of workers.
        tcp: whether every connection is TCP, by way of the harness's proxy.
        evaluator: whether there is one.
        epochs: passes over the digits; 0: until an action ends the job.
        step_ms: how long a light batch takes at least.
        commit_every: batches between commits; 0: not by batches.
        commit_seconds: seconds between commits; 0: not by time.
        peer_timeout: seconds.
        restarts: of each replica.
        seed: of the order of the samples.
    """

    worker: str = "light"
    workers: int = 2
    ps: int = 2
    strategy: str = "async"
    tcp: bool = False
    evaluator: bool = False
    epochs: int = EPOCHS
    step_ms: float = STEP_MS
    commit_every: int = 300
    commit_seconds: float = 0.0
    peer_timeout: float = 2.0
    restarts: int = RESTARTS
    seed: int = 0

    @property
    def aggregate(self) -> int:
        """Batches of a step."""
        return 2 if self.strategy == "sync" else 1

    @property
    def batches(self) -> int:
        """Batches of the whole job."""
        return self.epochs * BATCHES

    @property
    def steps(self) -> int:
        """Global steps of the whole job."""
        return self.epochs * (BATCHES // self.aggregate)

    def flags(self) -> list[str]:
        """Returns what `tfleet train` is called with."""
        given: dict[str, object] = {
            "workers": self.workers,
            "ps": self.ps,
            "strategy": self.strategy,
            **({"epochs": self.epochs} if self.epochs else {"steps": 0}),
            "seed": self.seed,
            "peer-timeout": self.peer_timeout,
            "restarts": self.restarts,
            "checkpoint-every-steps": self.commit_every // self.aggregate,
            "checkpoint-every-seconds": self.commit_seconds,
            "summary-every": 0,
            "param": f"step_ms={self.step_ms}" if self.worker == "light" else "hidden_units=32",
        }
        if self.strategy == "sync":
            given["replicas-to-aggregate"] = self.aggregate
        flags = [part for name, value in given.items() for part in (f"--{name}", str(value))]
        return [*flags, *["--tcp"] * self.tcp, *["--evaluator"] * self.evaluator]


@dataclass(frozen=True)
class Action:
    """One thing that is done to a job.

    Attributes:
        at: {"step": n}: once the global step has come so far; {"second": n}: so long after the first step; {"commit":
            n, "phase": one of `PHASES`}: as soon as the harness sees this of commit n (it looks each few milliseconds,
            so the moment differs from run to run).
        do: one of `DOES`.
        to: role and index: ps, worker, evaluator or launcher.
        seconds: after which a stop, a cut, a slow-down or a full disk is over; 0: never, but by `continue`.
        workers: of a scale.
    """

    at: dict[str, Any]
    do: str
    to: tuple[str, int] = ("worker", 0)
    seconds: float = 0.0
    workers: int = 0

    def __post_init__(self) -> None:
        if self.do not in DOES:
            raise ValueError(f"an action {self.do!r}; allowed: {', '.join(DOES)}")
        moments = ({"step"}, {"second"}, {"commit", "phase"})
        if set(self.at) not in moments or self.at.get("phase", "cut") not in PHASES:
            raise ValueError(
                f"at {self.at}; allowed: a step, a second, or a commit and one of its phases {', '.join(PHASES)}"
            )

    def __str__(self) -> str:
        when = " ".join(f"{name} {value}" for name, value in self.at.items())
        whom = {"scale": f"to {self.workers}", "fill disk": "", "end": ""}.get(self.do, f"{self.to[0]} {self.to[1]}")
        return f"at {when}: {self.do} {whom}{f' for {self.seconds:g} s' if self.seconds else ''}".replace("  ", " ")


@dataclass(frozen=True)
class Schedule:
    """A job and what happens to it.

    Attributes:
        job: its shape.
        actions: in any order.
        ends: exit code that the first start of the job is to end with when no action interrupts it. Whatever it is, the
            harness goes on with --resume until the job is done.
        why: for kept schedules: what it once found.
    """

    job: Shape = field(default_factory=Shape)
    actions: tuple[Action, ...] = ()
    ends: int = 0
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Returns plain values; what is as by default is left out."""
        plain = asdict(self)
        for name, default in asdict(Shape()).items():
            if plain["job"][name] == default:
                del plain["job"][name]
        for action in plain["actions"]:
            for name in ("seconds", "workers"):
                if not action[name]:
                    del action[name]
            if action["do"] in ("scale", "fill disk", "end"):
                del action["to"]
        return {name: value for name, value in plain.items() if value or name != "why"}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Schedule:
        """Reads what `to_json` returned."""
        actions = tuple(Action(**{**a, "to": tuple(a.get("to", ("worker", 0)))}) for a in values["actions"])
        return cls(Shape(**values["job"]), actions, int(values.get("ends", 0)), str(values.get("why", "")))

    def dumps(self) -> str:
        """Returns a text that people can read and edit."""
        plain = self.to_json()
        actions = ",\n  ".join(json.dumps(action) for action in plain.pop("actions"))
        rest = [f'"{name}": {json.dumps(value)}' for name, value in plain.items()]
        return ",\n ".join(["{" + rest[0], f'"actions": [\n  {actions}\n ]', *rest[1:]]) + "\n}\n"

    def without(self, index: int) -> Schedule:
        """Returns the schedule without one of its actions."""
        return replace(self, actions=self.actions[:index] + self.actions[index + 1 :])

    def simpler(self) -> Iterator[Schedule]:
        """Yields schedules that are a little simpler, the simplest first."""
        half = len(self.actions) // 2
        if half > 1:
            yield replace(self, actions=self.actions[half:])
            yield replace(self, actions=self.actions[:half])
        for index in reversed(range(len(self.actions))):
            yield self.without(index)
        for plainer in ({"tcp": False}, {"evaluator": False}, {"strategy": "async"}, {"ps": 1}):
            job = replace(self.job, **plainer)  # type: ignore[arg-type]
            if job != self.job and not (plainer.get("tcp") is False and any(a.do == "cut off" for a in self.actions)):
                yield replace(self, job=job)


def random_schedule(seed: int, number: int, *, worker: str = "light", disk: bool = True) -> Schedule:
    """Makes the schedule `number` of a seed; always the same.

    Args:
        seed: printed by whoever runs schedules.
        number: of the schedule.
        worker: see `Shape`.
        disk: whether disks can be filled here (it takes a small file system, so root).
    """
    rng = random.Random(f"{seed}/{number}/{worker}")
    strategy = rng.choices(["async", "bounded", "sync"], [6, 2, 2])[0]
    job = Shape(
        worker=worker,
        workers=rng.choice([1, 2, 2, 3]),
        ps=rng.choice([1, 2, 2, 3]),
        strategy=strategy,
        tcp=rng.random() < 0.35,
        evaluator=rng.random() < 0.2,
        commit_every=rng.choice([150, 300, 600]),
        seed=rng.randrange(1000),
    )
    if worker == "tensorflow":
        # Quicker steps, and a worker that takes seconds to come back.
        job = replace(job, workers=2, epochs=60, commit_every=3000, evaluator=False)
    actions = tuple(_action(rng, job, disk) for _ in range(rng.choice([1, 2, 3, 3, 4, 5])))
    return Schedule(job, tuple(sorted(actions, key=lambda action: action.at.get("step", 0))))


def _action(rng: random.Random, job: Shape, disk: bool) -> Action:
    kinds = {"kill": 8, "stop": 4, "slow": 2, "scale": 2, "interrupt": 1, "cut off": 4 * job.tcp, "fill disk": disk}
    do = rng.choices(list(kinds), [float(weight) for weight in kinds.values()])[0]
    at: dict[str, Any] = {"step": rng.randrange(1, int(0.85 * job.steps))}
    if do in ("kill", "stop") and rng.random() < 0.3:
        commits = job.batches // job.commit_every
        at = {"commit": rng.randrange(0, max(1, commits)), "phase": rng.choice(PHASES)}
    if do == "scale":
        return Action(at, do, workers=rng.randint(1, 4))
    if do == "fill disk":
        return Action(at, do, seconds=rng.choice([0.5, 2.0, 4.0]))
    if do == "interrupt":
        return Action(at, do, ("launcher", 0))
    roles = {"worker": 5, "ps": 4, "launcher": 1 if do in ("kill", "stop") else 0, "evaluator": int(job.evaluator)}
    if do == "cut off":
        roles = {"worker": 4, "ps": 2}
    role = rng.choices(list(roles), list(roles.values()))[0]
    index = rng.randrange({"worker": job.workers, "ps": job.ps}.get(role, 1))
    if role == "ps" and do == "cut off" and job.ps > 1:
        index = rng.randrange(job.ps)
    seconds = {"stop": rng.choice([0.3, 3.0, 3.0, 6.0]), "slow": 3.0, "cut off": rng.choice([0.5, 3.0, 6.0])}
    return Action(at, do, (role, index), seconds.get(do, 0.0))
