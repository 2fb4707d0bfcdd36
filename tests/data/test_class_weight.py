from __future__ import annotations

import numpy as np
import pytest

from tfleet.data import Batch, class_weights
from tfleet.spec.errors import WrongInput

WEIGHTS = {0: 0.5, 2: 3.0}
CLASSES = np.array([2, 0, 1, 2])


def batch(y, weight=None):
    return Batch(np.zeros((4, 1)), y, weight, 4)


@pytest.mark.parametrize(
    "y",
    [
        CLASSES,
        CLASSES.astype(np.uint8)[:, None],
        CLASSES.astype(np.float32),
        np.eye(3, dtype=np.float32)[CLASSES],
        np.eye(3)[CLASSES] * 0.8 + 0.05,
    ],
)
def test_each_sample_gets_the_weight_of_its_class_and_1_where_none_is_given(y):
    before = batch(y)
    after = class_weights(before, WEIGHTS)
    assert after.sample_weight.dtype == np.float32
    np.testing.assert_array_equal(after.sample_weight, np.float32([3, 0.5, 1, 3]))
    assert before.sample_weight is None
    assert after.y is y


def test_weights_of_classes_and_samples_exclude_each_other_as_in_keras():
    with pytest.raises(WrongInput, match="class_weight and sample weights are both given"):
        class_weights(batch(CLASSES, np.ones(4)), WEIGHTS)


@pytest.mark.parametrize(
    ("y", "told"),
    [((CLASSES, CLASSES), "a tuple"), (None, "a NoneType"), (np.zeros((4, 2, 3)), "an array of shape [4, 2, 3]")],
)
def test_other_targets_than_one_array_of_classes_are_refused(y, told):
    with pytest.raises(WrongInput) as caught:
        class_weights(batch(y), WEIGHTS)
    assert f"but y is {told}; use sample weights instead" in str(caught.value)
