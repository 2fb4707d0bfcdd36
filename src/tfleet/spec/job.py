"""JobSpec: the one description of a job.

Command-line flags, `-f job.yaml`, `tfleet.train(...)`, the chart's schema and the operator's CRD are all made
from the fields below; nothing repeats them by hand. The JSON Schema has no unions (not even with null), so that
it is a structural schema for Kubernetes: a field that is "not given" has a value that says so (-1, 0 or "").
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tfleet.spec.environment import split_listen
from tfleet.spec.errors import WrongField, WrongInput, nearest

STALENESS = 4
UNTIL_STOPPED = 0
TASK_DEFAULT = -1
MOVING_ROWS = ("async", "bounded")
"""Strategies under which a partition applies a push by itself, so that it may hold some rows of a table only."""
TLS_FILES = ("tls_cert", "tls_key", "tls_ca")
"""Fields that name files for TLS: all of them are given, or none."""
OVERLAPPING = ("async", "bounded")
"""Strategies under which a worker need not wait for its own update. The same names as above,
for a reason of their own: there it is about when a partition applies, here about when a worker goes on."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class CheckpointSpec(_Section):
    """When commits are made, and how many are kept."""

    every_seconds: float = Field(60.0, ge=0, description="Seconds between commits; 0: not by time.")
    every_steps: int = Field(0, ge=0, description="Global steps between commits; 0: not by steps.")
    keep: int = Field(3, ge=1, description="How many of the newest commits are kept.")


class ElasticSpec(_Section):
    """How many workers the job may have while it runs."""

    min: int = Field(1, ge=1, description="The job goes on while so many workers live or are being started again.")
    max: int = Field(64, ge=1, le=1024, description="The most workers, those that joined by hand included.")


class EvaluationSpec(_Section):
    """When the model is evaluated on the held-out data, by whom, and what follows from it."""

    every_steps: int = Field(
        0, ge=0, description="Global steps between evaluations on the held-out data; 0: only at the end."
    )
    evaluator: bool = Field(
        False, description="Start one more replica that evaluates each commit and ends with the job."
    )
    keep_best: str = Field(
        "", description="Keep and export the commit that is best by this held-out metric; empty: export the last."
    )
    stop_metric: str = Field(
        "", description="Stop early when this held-out metric no longer gets better; empty: never stop early."
    )
    stop_patience: int = Field(3, ge=1, description="Evaluations without improvement after which training stops early.")
    stop_min_delta: float = Field(0.0, ge=0, description="The least change of the metric that counts as better.")


class SummarySpec(_Section):
    """What is written for TensorBoard."""

    every_steps: int = Field(
        100, ge=0, description="Global steps between TensorBoard scalars; 0: write no summaries at all."
    )
    histograms: bool = Field(
        True, description="Histograms and images too, as often as they cost at most 1.5 % of the time."
    )


class JobSpec(_Section):
    """One training run of a task.

    Every attribute is a job-file key and a flag or a part of one. Instances are immutable and valid.

    Raises:
        pydantic.ValidationError: when built directly from wrong values; `JobSpec.parse` turns it into `WrongInput`.
    """

    task: str = Field("", description="What is trained: mnist, a module:object, or a path/to/file.py:object.")
    params: dict[str, str] = Field(
        default_factory=dict, description="Parameters of the task, such as hidden_units=100."
    )
    workers: int = Field(2, ge=1, le=1024, description="Number of worker processes.")
    ps: int = Field(2, ge=1, le=256, description="Number of parameter servers.")
    strategy: Literal["async", "sync", "bounded", "average"] = Field(
        "async",
        description="How updates meet: async applies each as it comes, bounded too but lets no worker run far ahead, "
        "sync applies fixed sets, average lets workers train alone and averages.",
    )
    replicas_to_aggregate: int = Field(
        0, ge=0, description="sync: batches in a step; 0: as many as there are workers at the start."
    )
    staleness: int = Field(STALENESS, ge=0, description="bounded: steps that a worker may be ahead of the slowest one.")
    local_steps: int = Field(
        0, ge=0, description="average: steps of each worker between two averages; 0: its part of the epoch."
    )
    rounds: int = Field(1, ge=1, description="average: how often the workers train and are averaged.")
    overlap: Literal["auto", "always", "never"] = Field(
        "auto",
        description="Compute a batch while the gradient of the one before travels, on parameters one step of this "
        "worker older; auto: under async and bounded with two workers or more.",
    )
    ps_placement: Literal["own", "colocated"] = Field(
        "own",
        description="Where the ps run: own, or colocated, one beside each worker: as many ps as workers, and their "
        "number stays.",
    )
    shared_memory: Literal["auto", "never"] = Field(
        "auto",
        description="Local jobs: exchange through memory that replicas share, where the system lets us.",
    )
    wire_dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float32",
        description="How gradients travel between machines: float32, or in half the bytes, the error carried over to "
        "the next; bfloat16 is the faster to make.",
    )
    sparse: Literal["exact", "lazy", "never"] = Field(
        "exact",
        description="Embeddings fed by a model input move touched rows only: exact where the optimizer's result is the "
        "same; lazy under Adam too, where it is not; never.",
    )
    steps: int = Field(
        TASK_DEFAULT, ge=-1, description="Global steps to train; 0: until stopped; -1: what the task says."
    )
    epochs: int = Field(0, ge=0, description="Passes over the training data, instead of steps; 0: not given.")
    batch_size: int = Field(0, ge=0, description="Samples in a batch of one worker; 0: what the task says, else 20.")
    learning_rate: float = Field(
        0.0, ge=0, description="Replaces the learning rate the model was compiled with; 0: keep that."
    )
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of initialisation, order of samples, dropout.")
    data_dir: str = Field("", description="Folder of the data; empty: what the task brings along.")
    xla: Literal["auto", "always", "never"] = Field(
        "auto", description="Compile the gradient function with XLA; auto: by a fixed rule on model and batch."
    )
    threads: int = Field(1, ge=1, le=256, description="Threads within an operation, for each worker.")
    profile: bool = Field(
        False, description="Write a table of where each step's time went: profile.txt in the run directory."
    )
    tcp: bool = Field(False, description="Local jobs: TCP on loopback instead of Unix sockets.")
    tls_cert: str = Field(
        "", description="PEM file of the replicas' certificate, for TLS between replicas by TCP; empty: no TLS."
    )
    tls_key: str = Field("", description="PEM file of the private key of tls_cert, without a passphrase.")
    tls_ca: str = Field("", description="PEM file of the CA that has signed the certificates of all replicas.")
    tls_server_name: str = Field(
        "", description="Name in the certificate of every ps; empty: the host by which each is reached."
    )
    listen: str = Field(
        "",
        description="Local jobs: address of this machine, HOST or HOST:PORT, by which workers of other machines may "
        "join (tfleet join); empty: none can.",
    )
    status_port: int = Field(0, ge=0, lt=65536, description="Port of ps 0 for /status, /healthz and /metrics; 0: off.")
    join_timeout: float = Field(600.0, gt=0, description="Seconds without any worker after which the ps give up.")
    peer_timeout: float = Field(20.0, ge=1, description="Seconds of silence after which a replica counts as lost.")
    deadline: float = Field(0.0, ge=0, description="Seconds after its start in which the job must be done; 0: none.")
    restarts: int = Field(3, ge=0, description="How often each replica is started again in place after it died.")
    elastic: ElasticSpec = Field(default_factory=ElasticSpec, description="Workers that come and go.")
    checkpoint: CheckpointSpec = Field(default_factory=CheckpointSpec, description="Commits.")
    evaluation: EvaluationSpec = Field(default_factory=EvaluationSpec, description="Evaluation.")
    summary: SummarySpec = Field(default_factory=SummarySpec, description="TensorBoard summaries.")

    @field_validator("params", mode="before")
    @classmethod
    def _params_as_text(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {str(k): _text(v) for k, v in value.items()}

    @model_validator(mode="before")
    @classmethod
    def _a_ps_for_each_worker(cls, values: Any) -> Any:
        """Under `ps_placement` colocated the number of ps need not be given."""
        if not isinstance(values, dict) or values.get("ps_placement") != "colocated" or "ps" in values:
            return values
        return {**values, "ps": values.get("workers", cls.model_fields["workers"].default)}

    @field_validator("listen")
    @classmethod
    def _somewhere(cls, value: str) -> str:
        if value:
            split_listen(value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> JobSpec:
        if self.epochs and self.steps != TASK_DEFAULT:
            raise ValueError(f"steps={self.steps} and epochs={self.epochs} are both given: give only one of the two")
        needs_evaluations = self.evaluation.keep_best or self.evaluation.stop_metric
        if needs_evaluations and not (self.evaluation.every_steps or self.evaluation.evaluator):
            raise ValueError(
                "evaluation.keep_best and evaluation.stop_metric need evaluations while training: "
                "give evaluation.every_steps (--eval-every) or an evaluator too"
            )
        if self.elastic.min > self.workers:
            raise ValueError(
                f"workers={self.workers} is less than elastic.min={self.elastic.min}: "
                "start more workers, or lower elastic.min"
            )
        if self.ps_placement == "colocated" and self.ps != self.workers:
            raise ValueError(
                f"ps={self.ps} and workers={self.workers} differ, but ps_placement=colocated puts one ps beside each "
                "worker: give the same number of both"
            )
        self._check_tls()
        self._refuse_idle()
        return self

    def _check_tls(self) -> None:
        files = {name: getattr(self, name) for name in TLS_FILES}
        missing = [name for name, path in files.items() if not path]
        if missing and len(missing) < len(files):
            raise ValueError(
                f"tls_cert, tls_key and tls_ca go together: give {' and '.join(missing)} too, or none of them"
            )
        if missing and self.tls_server_name:
            raise ValueError(
                f"tls_server_name={self.tls_server_name} does nothing without tls_cert, tls_key and tls_ca: "
                "give them too, or leave it out"
            )

    def _refuse_idle(self) -> None:
        """Refuses what would do nothing with this strategy."""
        if self.strategy == "average" and (self.epochs or self.steps != TASK_DEFAULT):
            name = "epochs" if self.epochs else "steps"
            raise ValueError(
                f"{name}={getattr(self, name)} does nothing with strategy average, which trains rounds of local_steps: "
                f"leave {name} out and give rounds"
            )
        own = {"replicas_to_aggregate": "sync", "staleness": "bounded", "local_steps": "average", "rounds": "average"}
        for name, strategy in own.items():
            if self.strategy != strategy and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} does nothing with strategy {self.strategy}: leave it out or use {strategy}")
        if self.wire_dtype != "float32" and self.strategy == "average":
            raise ValueError(
                f"wire_dtype={self.wire_dtype} is for gradients, but under strategy average parameters travel: "
                "leave it out"
            )
        if self.overlap == "always" and self.strategy not in OVERLAPPING:
            raise ValueError(
                f"overlap=always does nothing with strategy {self.strategy}: leave it out or use async or bounded"
            )
        if self.sparse == "lazy" and not self.moves_rows:
            raise ValueError(
                f"sparse=lazy does nothing with strategy {self.strategy}, which moves whole tables: "
                "leave it out or use async or bounded"
            )

    @property
    def moves_rows(self) -> bool:
        """Whether rows of large embeddings may travel instead of whole tables, as `sparse` says."""
        return self.strategy in MOVING_ROWS

    @property
    def overlaps(self) -> bool:
        """Whether a worker computes a batch while the gradient of the one before travels."""
        if self.overlap == "auto":
            return self.strategy in OVERLAPPING and self.workers > 1
        return self.overlap == "always"

    @property
    def aggregate(self) -> int:
        """What meets in one step: `replicas_to_aggregate` batches under sync, a run of each worker under average."""
        if self.strategy == "average":
            return self.workers
        return (self.replicas_to_aggregate or self.workers) if self.strategy == "sync" else 1

    def pinned(self, before: JobSpec | None = None) -> JobSpec:
        """Returns the job with the batches of a sync step fixed, so that another number of workers changes no step.

        Args:
            before: the job that is gone on with, whose steps stay as they were; None: this one is new.
        """
        if self.strategy != "sync" or self.replicas_to_aggregate:
            return self
        first = before if before and before.strategy == "sync" else self
        return self.model_copy(update={"replicas_to_aggregate": first.aggregate})

    @classmethod
    def parse(cls, values: dict[str, Any]) -> JobSpec:
        """Builds a spec from plain values, as from YAML or flags.

        Args:
            values: field names to values; nested sections are dicts.

        Raises:
            WrongInput: one sentence on the first wrong value: what was given, what is allowed, what to change.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _wrong(error, cls) from None

    @classmethod
    def load(cls, path: Path | str) -> JobSpec:
        """Reads a spec from a YAML file.

        Raises:
            WrongInput: when the file cannot be read, is not a YAML mapping, or holds wrong values.
        """
        return cls.parse(read_yaml(path))

    def dump(self) -> str:
        """Returns the whole spec as YAML, defaults included, always the same bytes for the same spec."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Returns the JSON Schema of a job file: no references, no unions."""
        schema = cls.model_json_schema()
        resolved: dict[str, Any] = _inline(schema, schema.get("$defs", {}))
        resolved.pop("$defs", None)
        return resolved


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Reads a YAML mapping from `path`.

    Raises:
        WrongInput: when the file cannot be read or is not a mapping.
    """
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise WrongInput(f"the job file {path} cannot be read: {error.strerror}; give a readable file to -f") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        detail = " ".join(str(error).split())
        raise WrongInput(f"the job file {path} is not YAML: {detail}; correct the file") from None
    if not isinstance(values, dict):
        raise WrongInput(f"the job file {path} must hold a mapping of job fields, such as 'task: mnist'")
    return values


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else value


def _inline(node: Any, defs: dict[str, Any]) -> Any:
    if isinstance(node, list):
        return [_inline(item, defs) for item in node]
    if not isinstance(node, dict):
        return node
    if "$ref" in node:
        target = defs[node["$ref"].rsplit("/", 1)[1]]
        return _inline({**target, **{k: v for k, v in node.items() if k != "$ref"}}, defs)
    return {k: _inline(v, defs) for k, v in node.items() if k != "title" or not isinstance(v, str)}


def _wrong(error: ValidationError, model: type[BaseModel]) -> WrongInput:
    first = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        section = _section_of(model, first["loc"][:-1])
        hint = nearest(str(first["loc"][-1]), section.model_fields)
        return WrongInput(f"unknown job field {name}{hint}; allowed: {', '.join(section.model_fields)}")
    message = re.sub(r"^Value error, ", "", first["msg"])
    if not name:
        return WrongInput(message)
    return WrongField(name, f"given {first['input']!r}, but {message[0].lower()}{message[1:]}")


def _section_of(model: type[BaseModel], path: tuple[int | str, ...]) -> type[BaseModel]:
    for part in path:
        annotation = model.model_fields[str(part)].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return model
