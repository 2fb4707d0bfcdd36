from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tfleet.data import as_source
from tfleet.spec.errors import JobFailed, WrongInput

X = np.arange(10, dtype=np.float64).reshape(5, 2)


class PyDataset:
    """Has what keras.utils.PyDataset has; tests/tasks uses the real one."""

    @property
    def num_batches(self):
        return len(self)

    def on_epoch_begin(self): ...

    def on_epoch_end(self): ...


class Pairs(PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, i):
        return X[2 * i : 2 * i + 2], np.arange(5)[2 * i : 2 * i + 2]


def with_item(item):
    class One(PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, i):
            if isinstance(item, Exception):
                raise item
            return item

    return as_source(One())


def item(i):
    return np.array([i], np.int64)


def test_an_item_is_a_batch_of_the_datasets_own_size():
    source = as_source(Pairs())
    assert source.items_are_batches
    assert len(source) == 3
    batch = source.batch(item(2))
    assert batch.size == 1
    assert batch.x.dtype == np.float32
    np.testing.assert_array_equal(batch.x, X[4:])
    np.testing.assert_array_equal(batch.y, [4])


def test_several_items_are_joined():
    batch = as_source(Pairs()).batch(np.array([2, 0], np.int64))
    assert batch.size == 3
    np.testing.assert_array_equal(batch.x, X[[4, 0, 1]])
    assert batch.sample_weight is None


@pytest.mark.parametrize("given", [X, [X], (X,), {"a": X}])
def test_items_take_the_forms_that_keras_takes(given):
    batch = with_item(given).batch(item(0))
    np.testing.assert_array_equal(batch.x["a"] if isinstance(given, dict) else batch.x, X)
    assert batch.y is None


def test_a_sequence_of_older_keras_is_one_too():
    class Sequence:
        pass

    class Old(Sequence):
        def __len__(self):
            return 1

        def __getitem__(self, i):
            return X, X

    assert as_source(Old()).items_are_batches


def test_calls_of_the_dataset_never_overlap():
    inside = threading.Lock()

    class Exclusive(Pairs):
        def __getitem__(self, i):
            assert inside.acquire(blocking=False)
            try:
                return super().__getitem__(i)
            finally:
                inside.release()

    source = as_source(Exclusive())
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda i: source.batch(item(i % 3)).size, range(300)))
    assert sizes == [2, 2, 1] * 100


@pytest.mark.parametrize("length", [None, float("inf"), NotImplementedError(), True])
def test_a_dataset_without_finite_length_is_refused(length):
    class Endless(Pairs):
        @property
        def num_batches(self):
            if isinstance(length, Exception):
                raise length
            return length

    with pytest.raises(WrongInput, match=r"train \(Endless\) has no finite length.*let its __len__ return"):
        as_source(Endless())


def test_an_empty_dataset_is_refused():
    class Empty(Pairs):
        def __len__(self):
            return 0

    with pytest.raises(WrongInput, match="has 0 batches; give at least one"):
        as_source(Empty())


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
def test_a_dataset_that_changes_between_epochs_is_refused(hook):
    changing = type("Changing", (Pairs,), {hook: lambda self: None})
    with pytest.raises(WrongInput, match=f"has its own {hook}.*remove {hook}"):
        as_source(changing())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((X, X, X, X), "item 0 of train (One) is a tuple of 4"),
        (7, "item 0 of train (One) is a int"),
        ((X, X[:2]), "the arrays of item 0 of train (One) have different numbers of samples: x has 5, y has 2"),
        ((X[:0],), "item 0 of train (One) is an empty batch"),
        ((X, np.array(["a"] * 5)), "y of item 0 of train (One) has dtype <U1"),
        ((X, [[1], [2, 3]]), "of item 0 of train (One) is a single number"),
        (KeyError("label"), "item 0 of train (One) failed with KeyError: 'label'; correct its __getitem__"),
    ],
)
def test_unusable_items_are_refused_when_read(given, sentence):
    source = with_item(given)
    with pytest.raises(WrongInput) as caught:
        source.batch(item(0))
    assert sentence in str(caught.value)


def test_a_disk_that_fails_may_be_retried():
    with pytest.raises(JobFailed, match="cannot be read: gone"):
        with_item(OSError("gone")).batch(item(0))


def test_items_of_different_shapes_do_not_join():
    class Growing(Pairs):
        def __getitem__(self, i):
            return (np.ones((1, i + 1)),)

    with pytest.raises(WrongInput, match=r"gives x of different shapes: \[1, 1\], \[1, 2\]"):
        as_source(Growing()).batch(np.array([0, 1]))
