from __future__ import annotations

import numpy as np
import pytest

from tfleet.data import as_source
from tfleet.spec.errors import WrongInput

X = np.arange(12, dtype=np.float32).reshape(6, 2)
Y = np.arange(6)


def rows(*indices):
    return np.array(indices, np.int64)


def test_rows_come_in_the_order_asked_for():
    source = as_source((X, Y))
    batch = source.batch(rows(4, 0, 4))
    assert len(source) == 6
    assert not source.items_are_batches
    assert batch.size == 3
    np.testing.assert_array_equal(batch.x, [[8, 9], [0, 1], [8, 9]])
    np.testing.assert_array_equal(batch.y, [4, 0, 4])
    assert batch.sample_weight is None


def test_what_is_read_belongs_to_the_caller():
    source = as_source((X.copy(), Y))
    source.batch(rows(0)).x[:] = 99
    np.testing.assert_array_equal(source.batch(rows(0)).x, X[:1])


def test_inputs_targets_and_weights_may_be_nested():
    x = {"words": Y.astype(np.int32), "sizes": [X, X[:, :1]]}
    batch = as_source((x, (Y, X), [None, X[:, 0]])).batch(rows(5, 2))
    np.testing.assert_array_equal(batch.x["words"], [5, 2])
    assert batch.x["words"].dtype == np.int32
    np.testing.assert_array_equal(batch.x["sizes"][1], [[10], [4]])
    assert isinstance(batch.y, tuple)
    np.testing.assert_array_equal(batch.y[1], X[[5, 2]])
    assert batch.sample_weight[0] is None
    np.testing.assert_array_equal(batch.sample_weight[1], [10, 4])


def test_inputs_alone_are_enough():
    batch = as_source((X,)).batch(rows(1))
    assert batch.y is None
    np.testing.assert_array_equal(batch.x, X[1:2])


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ">f4"])
def test_floats_become_float32_and_the_users_array_stays(dtype):
    mine = X.astype(dtype)
    batch = as_source((mine, Y)).batch(rows(3, 1))
    assert batch.x.dtype == np.float32
    assert batch.x.dtype.isnative
    assert mine.dtype == dtype
    np.testing.assert_array_equal(batch.x, X[[3, 1]])


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64])
def test_other_numbers_keep_their_type(dtype):
    assert as_source((X.astype(dtype),)).batch(rows(0)).x.dtype == dtype


def test_arrays_in_any_memory_order_give_contiguous_batches():
    source = as_source((np.asfortranarray(X), X.T[0], X[::-1]))
    batch = source.batch(rows(5, 0))
    assert batch.x.flags.c_contiguous
    np.testing.assert_array_equal(batch.x, X[[5, 0]])
    np.testing.assert_array_equal(batch.sample_weight, X[::-1][[5, 0]])


def test_memory_mapped_floats_are_converted_only_when_read(tmp_path):
    np.save(tmp_path / "x.npy", X.astype(np.float64))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    source = as_source((mapped[1:], Y[1:]))
    assert source._x.dtype == np.float64
    batch = source.batch(rows(0, 4))
    assert type(batch.x) is np.ndarray
    assert batch.x.dtype == np.float32
    np.testing.assert_array_equal(batch.x, X[[1, 5]])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ((X, Y[:5]), "the arrays of test have different numbers of samples: x has 6, y has 5; make them equal"),
        (({"a": X, "b": X[:2]}, Y), "x['a'] has 6, x['b'] has 2, y has 6"),
        ((np.array([{}, None]), Y), "x of test has dtype object, but only bool, integers and floats"),
        ((X, np.array(list("abcdef"))), "y of test has dtype <U1"),
        ((X, Y, X.astype(complex)), "sample_weight of test has dtype complex128"),
        ((X, list(range(6))), "y[0] of test is a int, but a NumPy array is needed; convert it with np.asarray"),
        ((X, "labels"), "y of test is a str, but a NumPy array is needed"),
        ((X[:0], Y[:0]), "the arrays of test are empty; give at least one sample"),
        ((np.array(1.0),), "x of test is a single number"),
        ((), "test is a tuple of 0, but (x,), (x, y) or (x, y, sample_weight) is needed"),
        ((X, Y, Y, Y), "test is a tuple of 4"),
        ((None, Y), "test has no inputs"),
    ],
)
def test_unusable_arrays_are_refused_in_one_sentence(given, sentence):
    with pytest.raises(WrongInput) as caught:
        as_source(given, "test")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
