"""The task of benchmarks/sparse.py: a large embedding, of which each batch touches some rows chosen by chance."""

import keras
import numpy as np
from keras import layers

import tfleet

WIDTH = 64
BATCH = 100
"""Samples in a batch; each has `touched / BATCH` indices."""
SAMPLES = 20_000


def model(rows: int = 1_000_000, touched: int = 2000, optimizer: str = "sgd") -> keras.Model:
    """Returns the mean of the embeddings of a sample, and one dense layer."""
    words = keras.Input((touched // BATCH,), dtype="int32")
    meaning = layers.GlobalAveragePooling1D()(layers.Embedding(rows, WIDTH)(words))
    built = keras.Model(words, layers.Dense(1)(meaning))
    built.compile(optimizer, "mse")
    return built


def data(rows: int = 1_000_000, touched: int = 2000) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns indices that are equally likely, so that nearly all of a batch differ, and targets."""
    random = np.random.default_rng(0)
    x = random.integers(0, rows, (SAMPLES, touched // BATCH), dtype=np.int32)
    return {"train": (x, random.normal(size=(SAMPLES, 1)).astype(np.float32))}


task = tfleet.Task(model, data, batch_size=BATCH)
