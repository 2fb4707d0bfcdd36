"""Data made batch by batch in a `keras.utils.PyDataset`: digits, each moved by up to two pixels.

tfleet train examples/digits_pydataset.py:task --steps 500
"""

import keras
import numpy as np

from tfleet.data import load_digits
from tfleet.tasks import Task, load_task


class MovedDigits(keras.utils.PyDataset):
    """Batches of moved digits. Batch i is always the same, whichever worker asks for it."""

    def __init__(self, images, labels, size):
        super().__init__()
        self.images, self.labels, self.size = images, labels, size

    def __len__(self):
        return -(-len(self.images) // self.size)

    def __getitem__(self, index):
        rows = slice(index * self.size, (index + 1) * self.size)
        moves = np.random.default_rng(index).integers(-2, 3, (len(self.labels[rows]), 2))
        moved = [np.roll(image, move, (0, 1)) for image, move in zip(self.images[rows], moves, strict=True)]
        return np.stack(moved)[..., None].astype("float32") / 255, self.labels[rows]


def data(size: int = 50):
    digits = load_digits()
    train = MovedDigits(digits.x_train, digits.y_train, size)
    return {"train": train, "test": digits.as_inputs()["test"]}


task = Task(load_task("mnist").model, data, name="digits_pydataset")
