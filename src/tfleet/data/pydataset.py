"""`keras.utils.PyDataset`: an item is one whole batch. Recognised by its shape, so that Keras is not imported here."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from tfleet.data.source import Batch, Indices, Source
from tfleet.data.tree import PARTS, convert, join, numbers, rows
from tfleet.spec.errors import JobFailed, TfleetError, WrongInput


def is_pydataset(value: Any) -> bool:
    """Tells whether `value` is an instance of a subclass of PyDataset (or of Sequence, its name before Keras 3)."""
    names = {cls.__name__ for cls in type(value).__mro__}
    return bool(names & {"PyDataset", "Sequence"}) and hasattr(value, "__getitem__")


class PyDatasetSource(Source):
    """Batches of a PyDataset.

    tfleet shuffles the addresses itself and reads ahead in its own thread: the dataset's `workers`,
    `use_multiprocessing` and `max_queue_size` say how `fit` would read and change no result. Calls of `__getitem__`
    are serialised, so the dataset need not be thread-safe.

    Args:
        dataset: its `__getitem__(i)` gives (x,), (x, y) or (x, y, sample_weight).
        what: whose it is, for messages.

    Raises:
        WrongInput: when it has no finite length or no item, or changes at epoch ends.
    """

    items_are_batches = True

    def __init__(self, dataset: Any, what: str = "train") -> None:
        self._dataset = dataset
        self._what = f"{what} ({type(dataset).__name__})"
        self._lock = threading.Lock()
        for hook in ("on_epoch_begin", "on_epoch_end"):
            if _overridden(dataset, hook):
                raise WrongInput(
                    f"{self._what} has its own {hook}, but an item must stay the same in every epoch because several "
                    f"workers read it; remove {hook} (tfleet shuffles by itself)"
                )
        self._items = _length(dataset, self._what)

    def __len__(self) -> int:
        """Returns the number of batches."""
        return self._items

    def batch(self, indices: Indices) -> Batch:
        """Reads batches and concatenates them; see `Source.batch`.

        Raises:
            WrongInput: when an item fails or is unusable.
            JobFailed: when an item raises OSError, which may pass.
        """
        items = [self._item(int(i)) for i in indices]
        if len(items) == 1:
            return items[0]
        x, y, weight = (join([b[k] for b in items], np.concatenate, PARTS[k], self._what) for k in range(3))
        return Batch(x, y, weight, sum(b.size for b in items))

    def _item(self, index: int) -> Batch:
        what = f"item {index} of {self._what}"
        try:
            with self._lock:
                value = self._dataset[index]
        except TfleetError:
            raise
        except OSError as error:
            raise JobFailed(f"{what} cannot be read: {error}") from error
        except Exception as error:
            raise WrongInput(f"{what} failed with {type(error).__name__}: {error}; correct its __getitem__") from error
        if isinstance(value, np.ndarray | dict):
            value = (value,)
        x, y, weight = convert(tuple(value) if isinstance(value, list) else value, what, numbers)
        size = rows((x, y, weight), what)
        if not size:
            raise WrongInput(f"{what} is an empty batch; give at least one sample in each batch")
        return Batch(x, y, weight, size)


def _overridden(dataset: Any, method: str) -> bool:
    owner = next((cls for cls in type(dataset).__mro__ if method in vars(cls)), None)
    return owner is not None and owner.__name__ not in ("PyDataset", "Sequence")


def _length(dataset: Any, what: str) -> int:
    try:
        length = dataset.num_batches if hasattr(type(dataset), "num_batches") else len(dataset)
    except (NotImplementedError, TypeError, OverflowError):
        length = None
    if isinstance(length, bool) or not isinstance(length, int | np.integer):
        raise WrongInput(
            f"{what} has no finite length, but each epoch must count every batch exactly once; "
            "let its __len__ return the number of batches"
        )
    if length < 1:
        raise WrongInput(f"{what} has {length} batches; give at least one")
    return int(length)
