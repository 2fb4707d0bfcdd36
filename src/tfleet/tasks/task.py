"""Task: what is trained, a function that builds a compiled model and one that gives its data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tfleet.data import Source, as_source
from tfleet.spec.errors import WrongInput, nearest
from tfleet.spec.job import JobSpec
from tfleet.tasks.parameters import DATA_DIR, Parameter, Value, arguments, read_parameters
from tfleet.tasks.user_code import file_of, user_code

DEFAULT_STEPS = 1000
DEFAULT_BATCH_SIZE = 20

_ADVICE = "correct the function or its parameters"


class TaskData(NamedTuple):
    """The data of a task.

    Attributes:
        train: what is trained on.
        test: what is held out, or None.
    """

    train: Source
    test: Source | None


@dataclass(frozen=True)
class Task:
    """What is trained.

    Both functions take parameters by name, with a default or annotated as int, float, bool, str or a Literal of
    these; `--param name=value` sets them, in both functions when both have it. One named `data_dir` gets the job's
    data folder.

    Attributes:
        model: returns a compiled `keras.Model`.
        data: returns a mapping with `train` and, if there is any, the held-out `test`: each a tuple of NumPy arrays
            (x, y), a `keras.utils.PyDataset`, or `tfleet.data.Records` / `CsvRecords`.
        name: for messages; empty: the name it is loaded by.
        steps: global steps unless told otherwise; 0: until stopped, which has to be asked for.
        batch_size: samples in a batch of one worker unless told otherwise; means nothing for a PyDataset.
        class_weight: weight of each class, as in `Model.fit`; None: all 1.
        signatures: maps the trained model to the signatures of its export, `tf.function`s with an input signature;
            None: the model's own call.

    Raises:
        WrongInput: when an attribute is not of its kind.
    """

    model: Callable[..., Any]
    data: Callable[..., Mapping[str, Any]]
    name: str = ""
    steps: int = DEFAULT_STEPS
    batch_size: int = DEFAULT_BATCH_SIZE
    class_weight: Mapping[int, float] | None = None
    signatures: Callable[[Any], Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        for what, value in (("model", self.model), ("data", self.data)):
            if not callable(value) or (hasattr(value, "trainable_variables") and not isinstance(value, type)):
                raise WrongInput(
                    f"{what} of the task is a {type(value).__name__}, but a function that returns it is needed"
                )
        if self.signatures is not None and not callable(self.signatures):
            raise WrongInput("signatures of the task is no function; give one that takes the model, or None")
        if not _whole(self.steps, 0):
            raise WrongInput(f"steps of the task is {self.steps!r}; give an integer of at least 0 (0: until stopped)")
        if not _whole(self.batch_size, 1):
            raise WrongInput(f"batch_size of the task is {self.batch_size!r}; give an integer of at least 1")
        if self.class_weight is not None and not _weights(self.class_weight):
            raise WrongInput(
                f"class_weight of the task is {self.class_weight!r}; give integer classes with numbers of at least 0, "
                "such as {0: 1.0, 1: 2.5}"
            )

    def parameters(self) -> dict[str, Parameter]:
        """Returns what `--param` can set, in the order of the model's signature, then of the data's.

        Raises:
            WrongInput: when a parameter cannot be set, or the two functions disagree on one.
        """
        model, data = self._signatures()
        for name in model.keys() & data.keys() - {DATA_DIR}:
            if model[name] != data[name]:
                raise WrongInput(
                    f"parameter {name} has one type or default in the model function and another in the data function; "
                    "make them equal or rename one"
                )
        return {name: p for name, p in (model | data).items() if name != DATA_DIR}

    def check(self, spec: JobSpec) -> None:
        """Checks parameters and data folder of a job, building nothing.

        Raises:
            WrongInput: on an unknown or missing parameter, a value of the wrong type, or a data folder that the task
                cannot use or needs.
        """
        for function in self._signatures():
            self._arguments(function, spec)

    def build_model(self, spec: JobSpec) -> Any:
        """Calls the model function with the job's parameters; may take seconds. Imports nothing itself.

        Raises:
            WrongInput: when a parameter is wrong, the function fails, or what it returns is no compiled keras.Model.
        """
        values = self._arguments(self._signatures()[0], spec)
        what = f"the model function of task {self._called(spec)}"
        with user_code(what, _ADVICE, file_of(self.model)):
            model = self.model(**values)
        if not any(c.__name__ == "Model" and c.__module__.startswith("keras.") for c in type(model).__mro__):
            raise WrongInput(f"{what} returned {_kind(model)}; let it return a compiled keras.Model")
        if not getattr(model, "compiled", False):
            raise WrongInput(
                f"{what} returned a model that is not compiled; "
                "call model.compile(optimizer, loss, metrics) before returning it"
            )
        return model

    def build_data(self, spec: JobSpec) -> TaskData:
        """Calls the data function with the job's parameters, and makes its result index-addressable; may read disks.

        Raises:
            WrongInput: when a parameter is wrong, the function fails, or what it returns cannot be trained on.
        """
        values = self._arguments(self._signatures()[1], spec)
        what = f"the data function of task {self._called(spec)}"
        with user_code(what, _ADVICE, file_of(self.data)):
            given = self.data(**values)
        if not isinstance(given, Mapping):
            raise WrongInput(f"{what} returned {_kind(given)}; let it return {{'train': (x, y), ...}}")
        for name in given:
            if name not in TaskData._fields:
                hint = nearest(str(name), TaskData._fields)
                raise WrongInput(f"{what} returned {name!r}{hint}; allowed are 'train' and 'test'")
        if given.get("train") is None:
            raise WrongInput(f"{what} returned no 'train'; let it return {{'train': (x, y), ...}}")
        test = given.get("test")
        return TaskData(as_source(given["train"], "train"), None if test is None else as_source(test, "test"))

    def _called(self, spec: JobSpec) -> str:
        return spec.task or self.name or "given"

    def _signatures(self) -> tuple[dict[str, Parameter], dict[str, Parameter]]:
        return read_parameters(self.model, "the model function"), read_parameters(self.data, "the data function")

    def _arguments(self, function: Mapping[str, Parameter], spec: JobSpec) -> dict[str, Value]:
        values = arguments(self.parameters(), function, spec.params)
        folder = next((signature[DATA_DIR] for signature in self._signatures() if DATA_DIR in signature), None)
        if spec.data_dir and folder is None:
            given = f"--data-dir {spec.data_dir}"
            raise WrongInput(f"{given} is given, but task {self._called(spec)} reads no data folder; leave it out")
        if folder is not None and folder.required and not spec.data_dir:
            raise WrongInput(f"task {self._called(spec)} needs its data folder; give --data-dir")
        if spec.data_dir and DATA_DIR in function:
            values[DATA_DIR] = spec.data_dir
        return values


def _kind(value: Any) -> str:
    return "nothing (None)" if value is None else f"a {type(value).__name__}"


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _weights(value: Any) -> bool:
    return isinstance(value, Mapping) and all(
        _whole(k, 0) and isinstance(w, int | float) and not isinstance(w, bool) and w >= 0 for k, w in value.items()
    )
