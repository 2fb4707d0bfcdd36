"""From what a task's data function returns to a `Source`."""

from __future__ import annotations

from typing import Any

from tfleet.data.arrays import ArraySource
from tfleet.data.pydataset import PyDatasetSource, is_pydataset
from tfleet.data.source import Source
from tfleet.spec.errors import WrongInput

_FORMS = (
    "give NumPy arrays as a tuple (x, y), a keras.utils.PyDataset, "
    "or TFRecord/CSV files with a parse function (tfleet.data.Records, tfleet.data.CsvRecords)"
)


def as_source(value: Any, what: str = "train") -> Source:
    """Returns `value` as index-addressable data.

    Args:
        value: a tuple of NumPy arrays (x,), (x, y) or (x, y, sample_weight), a PyDataset, or a Source.
        what: `train` or `test`, for messages.

    Raises:
        WrongInput: when it is anything else, such as a tf.data.Dataset or a generator, which have no addresses; or
            when its content cannot be used.
    """
    if isinstance(value, Source):
        if not len(value):
            raise WrongInput(f"{what} has no samples; give at least one")
        return value
    if isinstance(value, tuple):
        return ArraySource(value, what)
    if is_pydataset(value):
        return PyDatasetSource(value, what)
    kind = type(value)
    if kind.__module__.startswith("tensorflow") and "Dataset" in kind.__name__:
        raise WrongInput(f"{what} is a tf.data.Dataset, whose samples have no addresses; {_FORMS}")
    if hasattr(value, "__next__"):
        raise WrongInput(f"{what} is a {kind.__name__}, whose samples have no addresses; {_FORMS}")
    raise WrongInput(f"{what} is a {kind.__name__}, which cannot be trained on; {_FORMS}")
