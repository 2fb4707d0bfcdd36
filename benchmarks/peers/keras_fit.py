"""`keras.Model.fit` in one process: the same MLP, batches and optimizer, without parameter servers.

Prints one JSON line: the samples (unix time, global step) and the rate. A first call of `fit` warms up and compiles;
the second one is measured, in one epoch, so that nothing but steps lies between its samples.

With `--export` it is a whole run instead: one call of `fit`, evaluation on the held-out samples, and export.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from measure import peer_parser, rate


def main() -> None:
    """Trains and prints the result."""
    parse = peer_parser(__doc__, steps=10000, warmup=500)
    parse.add_argument("--steps-per-execution", type=int, default=1)
    parse.add_argument("--threads", type=int, default=0, help="threads within an operation; 0: TensorFlow's choice")
    parse.add_argument("--seed", type=int, default=0)
    parse.add_argument("--export", default="", help="a whole run: no warm-up; evaluates, and exports to this folder")
    options = parse.parse_args()
    print(json.dumps(fit(options)))


def fit(options: argparse.Namespace) -> dict[str, Any]:
    """Trains; returns rate, samples, and how well the model does: a whole run on the held-out data, without rate."""
    import keras
    import tensorflow as tf

    if options.threads:
        tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    keras.utils.set_random_seed(options.seed)
    data = np.load(options.data)
    x, y = data["x"], data["y"]
    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=options.seed)
    batches = batches.batch(options.batch_size, drop_remainder=True).repeat().prefetch(tf.data.AUTOTUNE)
    model = build(keras, options)
    clock = Clock.of(keras)
    if not options.export:
        model.fit(batches, steps_per_epoch=whole(options.warmup, options), epochs=1, verbose=0)
    steps = whole(options.steps, options)
    model.fit(batches, steps_per_epoch=steps, epochs=1, verbose=0, callbacks=[clock])
    samples = [(clock.began, 0), (clock.ended, steps)]
    if options.export:
        loss, accuracy = model.evaluate(data["x_test"], data["y_test"], batch_size=500, verbose=0)
        model.export(options.export, verbose=False)
        return {"steps": steps, "loss": loss, "accuracy": accuracy}
    loss, accuracy = model.evaluate(x, y, batch_size=500, verbose=0)
    return {
        "steps_per_second": rate(samples, 0),
        "steps": steps,
        "warmup": options.warmup,
        "samples": samples,
        "train_loss": loss,
        "train_accuracy": accuracy,
    }


def whole(steps: int, options: argparse.Namespace) -> int:
    """Rounds up to a multiple of the steps of one execution, so that no shorter one is compiled."""
    return -(-steps // options.steps_per_execution) * options.steps_per_execution


def build(keras: Any, options: argparse.Namespace) -> Any:
    """Returns the compiled model."""
    model = keras.Sequential(
        [
            keras.Input([784]),
            keras.layers.Dense(options.hidden_units, activation="relu"),
            keras.layers.Dense(10),
        ]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(options.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        steps_per_execution=options.steps_per_execution,
    )
    return model


class Clock:
    """Notes when the epoch begins and ends; costs nothing a step."""

    began = 0.0
    ended = 0.0

    @classmethod
    def of(cls, keras: Any) -> Any:
        """Returns an instance that is a Keras callback too."""

        class Callback(cls, keras.callbacks.Callback):  # type: ignore[misc, valid-type]
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self.began = time.time()

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                self.ended = time.time()

        return Callback()


if __name__ == "__main__":
    main()
