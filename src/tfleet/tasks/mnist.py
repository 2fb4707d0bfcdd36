"""The built-in task `mnist`: handwritten digits, with a multilayer perceptron or a convolutional network.

Without `--data-dir` it trains on the bundled 9,000 digits and holds out 1,000; with it, on the whole of MNIST or
Fashion-MNIST in that folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import keras
import tensorflow as tf

from tfleet.data import load_digits, load_mnist
from tfleet.spec.errors import WrongInput
from tfleet.tasks.names import BUILTINS
from tfleet.tasks.task import Task


def build_model(model: Literal["mlp", "cnn"] = "mlp", hidden_units: int = 100, hidden_layers: int = 1) -> keras.Model:
    """Builds and compiles a classifier of images: input `image` float32 [N, 28, 28, 1] in 0..1, output logits [N, 10].

    Args:
        model: `mlp`: dense layers only; `cnn`: two convolutions with pooling before them.
        hidden_units: width of each hidden dense layer.
        hidden_layers: number of hidden dense layers; 0: softmax regression (mlp), or none after the convolutions.

    Raises:
        WrongInput: when a number is too small.
    """
    if hidden_units < 1 or hidden_layers < 0:
        raise WrongInput(
            f"hidden_units={hidden_units} and hidden_layers={hidden_layers} are given; "
            "give at least 1 unit and at least 0 layers"
        )
    image = keras.Input((28, 28, 1), name="image")
    values = image
    if model == "cnn":
        # As wide as LeNet-5 looks (LeCun et al. 1998, Gradient-Based Learning Applied to Document Recognition): 5 x 5.
        for filters in (16, 32):
            values = keras.layers.Conv2D(filters, 5, activation="relu")(values)
            values = keras.layers.MaxPooling2D()(values)
    values = keras.layers.Flatten()(values)
    for _ in range(hidden_layers):
        values = keras.layers.Dense(hidden_units, activation="relu")(values)
    built = keras.Model(image, keras.layers.Dense(10, name="logits")(values), name=f"mnist_{model}")
    # The loss is computed from logits, which is exact where a softmax saturates; the export adds the softmax.
    built.compile(
        optimizer=keras.optimizers.Adam(0.001),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return built


def load_data(data_dir: str = "") -> Mapping[str, Any]:
    """Returns `train` and `test`: (x float32 [N, 28, 28, 1] in 0..1, y int64 [N]).

    Args:
        data_dir: folder of MNIST or Fashion-MNIST files; empty: the bundled digits.
    """
    # Floats cost four times the memory of bytes, but 1 us a batch instead of 4 in the training loop.
    return (load_mnist(data_dir) if data_dir else load_digits()).as_inputs()


def signatures(model: keras.Model) -> Mapping[str, Any]:
    """Returns the signatures of the export.

    `serving_default` and `predict` take `image` float32 [N, 28, 28, 1] in 0..1, `predict_uint8` takes it as uint8 in
    0..255; each gives `classes` int64 [N] and `probabilities` float32 [N, 10].
    """

    def answers(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = model(image, training=False)
        return {"classes": tf.argmax(logits, axis=-1), "probabilities": tf.nn.softmax(logits)}

    def answers_uint8(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return answers(tf.cast(image, tf.float32) / 255.0)

    def taking(function: Callable[[Any], Any], dtype: tf.DType) -> Any:
        spec = tf.TensorSpec([None, 28, 28, 1], dtype, name="image")
        return tf.function(function, input_signature=[spec], autograph=False)  # autograph takes a third of the export

    predict = taking(answers, tf.float32)
    return {"serving_default": predict, "predict": predict, "predict_uint8": taking(answers_uint8, tf.uint8)}


task = Task(
    model=build_model,
    data=load_data,
    name="mnist",
    steps=BUILTINS["mnist"].steps,
    batch_size=BUILTINS["mnist"].batch_size,
    signatures=signatures,
)
