"""Digits that come at a given pace: a job that lasts, without load on the machine, while pods and nodes die.

Each batch that is made is written down, so that a test can count visits without asking the job.
"""

import os
import time
from pathlib import Path

import keras

from tfleet.data import load_digits
from tfleet.tasks import Task, load_task


class PacedDigits(keras.utils.PyDataset):
    """Batches of digits, each after a pause."""

    def __init__(self, images, labels, size, pace, visits):
        super().__init__()
        self.images, self.labels, self.size, self.pace = images, labels, size, pace
        self.visits = Path(visits) / f"{os.environ['POD_NAME']}-{time.time_ns()}" if visits else None

    def __len__(self):
        return -(-len(self.images) // self.size)

    def __getitem__(self, index):
        time.sleep(self.pace)
        if self.visits:
            self.visits.parent.mkdir(parents=True, exist_ok=True)
            with self.visits.open("a") as file:
                file.write(f"{index}\n")
        rows = slice(index * self.size, (index + 1) * self.size)
        return self.images[rows, ..., None].astype("float32") / 255, self.labels[rows]


def data(pace: float = 0.1, size: int = 100, visits: str = ""):
    digits = load_digits()
    train = PacedDigits(digits.x_train, digits.y_train, size, pace, visits)
    return {"train": train, "test": digits.as_inputs()["test"]}


task = Task(load_task("mnist").model, data, name="paced_digits")
