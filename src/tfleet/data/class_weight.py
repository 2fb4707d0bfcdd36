"""Class weights, folded into sample weights as `Model.fit(class_weight=...)` does."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tfleet.data.source import Batch
from tfleet.spec.errors import WrongInput


def class_weights(batch: Batch, mapping: Mapping[int, float]) -> Batch:
    """Returns the batch with the weight of each sample's class as its sample weight.

    Args:
        batch: y is one array: integer classes [N] or [N, 1], or one-hot (or probabilities) [N, C].
        mapping: class to weight; a class that is not in it has weight 1.

    Returns:
        A new batch with sample_weight float32 [N]; the given one is unchanged.

    Raises:
        WrongInput: when the batch has sample weights already, or more or other targets than one array of classes.
    """
    if batch.sample_weight is not None:
        raise WrongInput("class_weight and sample weights are both given: give only one of the two, as in Keras")
    y = batch.y
    if not isinstance(y, np.ndarray) or y.ndim not in (1, 2):
        given = f"an array of shape {list(y.shape)}" if isinstance(y, np.ndarray) else f"a {type(y).__name__}"
        raise WrongInput(
            f"class_weight needs one target array of classes [N] or one-hot [N, C], but y is {given}; "
            "use sample weights instead"
        )
    if y.ndim == 2:
        y = y[:, 0] if y.shape[1] == 1 else y.argmax(axis=1)
    classes = y if y.dtype.kind in "iu" else np.round(y.astype(np.float32)).astype(np.int64)
    known, positions = np.unique(classes, return_inverse=True)
    table = np.array([mapping.get(int(c), 1.0) for c in known], np.float32)
    return batch._replace(sample_weight=table[positions.reshape(-1)])
