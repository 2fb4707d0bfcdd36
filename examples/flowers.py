"""Your own task: Fisher's iris flowers. Run it with `tfleet train examples/flowers.py:task`."""

from pathlib import Path

import keras
import numpy as np

from tfleet.tasks import Task

SPECIES = ["setosa", "versicolor", "virginica"]


def model(units: int = 16):
    layers = [keras.Input((4,)), keras.layers.Dense(units, activation="relu"), keras.layers.Dense(3)]
    built = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    built.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return built


def data():
    rows = np.loadtxt(Path(__file__).with_name("iris.csv"), delimiter=",", skiprows=1, dtype=str)
    rows = rows[np.random.default_rng(0).permutation(len(rows))]
    x, y = rows[:, :4].astype(np.float32), np.array([SPECIES.index(name) for name in rows[:, 4]])
    return {"train": (x[:120], y[:120]), "test": (x[120:], y[120:])}


task = Task(model, data, name="flowers")
