"""The bundled sample: 10,000 real MNIST digits, 9,000 to train with and 1,000 held out (see NOTICE).

The split is stratified and fixed, and both parts are shuffled; `tools/make_digits.py` made the file.
"""

from __future__ import annotations

from importlib import resources

import numpy as np

from tfleet.data.images import LabelledImages


def load_digits() -> LabelledImages:
    """Reads the bundled digits; takes about 0.1 s."""
    with resources.files("tfleet.data").joinpath("digits.npz").open("rb") as file, np.load(file) as stored:
        x_train, y_train, x_test, y_test = (stored[name] for name in LabelledImages._fields)
    return LabelledImages(x_train, y_train.astype(np.int64), x_test, y_test.astype(np.int64))
