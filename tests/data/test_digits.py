from __future__ import annotations

import numpy as np

from tfleet.data import load_digits


def test_the_bundled_digits_are_9000_and_1000_stratified_different_real_ones():
    digits = load_digits()
    assert digits.x_train.shape == (9000, 28, 28)
    assert digits.x_test.shape == (1000, 28, 28)
    assert digits.x_train.dtype == digits.x_test.dtype == np.uint8
    assert digits.y_train.dtype == digits.y_test.dtype == np.int64
    whole = np.concatenate([digits.x_train, digits.x_test]).reshape(10000, -1)
    assert len(np.unique(whole, axis=0)) == 10000
    assert len(np.unique(whole)) == 256
    train, test = np.bincount(digits.y_train), np.bincount(digits.y_test)
    assert len(train) == len(test) == 10
    assert np.abs(test - (train + test) / 10).max() < 1


def test_both_parts_are_shuffled():
    digits = load_digits()
    for labels in (digits.y_train, digits.y_test):
        # In order of class, 9 neighbours would differ; shuffled, 9 of 10 do.
        assert (labels[1:] != labels[:-1]).mean() > 0.8


def test_inputs_are_floats_between_0_and_1():
    digits = load_digits()
    x, y = digits.as_inputs()["test"]
    assert x.shape == (1000, 28, 28, 1)
    assert x.dtype == np.float32
    np.testing.assert_array_equal(np.rint(x[..., 0] * 255), digits.x_test)
    assert (x.min(), x.max()) == (0, 1)
    assert y is digits.y_test
