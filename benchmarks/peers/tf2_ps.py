"""TensorFlow 2's parameter server: `ParameterServerStrategy`, whose coordinator schedules the steps of all workers.

Starts parameter servers and workers as processes of this script (`tf.distribute.Server` over gRPC on loopback), is the
coordinator itself, trains an MLP with Adam, and prints one JSON line: the samples (unix time, global step) and the
rate. The weights are `tf.Variable`s and the update is TensorFlow's own Adam kernel beside each of them, because Keras 3
refuses this strategy.

It is tuned in its favour: no metrics, nothing is fetched, input by `tf.data` on each worker, the large matrix cut so
that every parameter server carries the same, and the best of the variants that `--tune` measures.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from measure import peer_parser, rate
from replicas import Samples, addresses, end, start
from tuning import tune

AXES = {"intra": (0, 1), "xla": ("no", "yes")}
BETAS = (0.9, 0.999)
EPSILON = 1e-7


def main() -> None:
    """Runs one replica, all variants, or one job."""
    parse = peer_parser(__doc__, steps=3000, warmup=300, roles=("ps", "worker"))
    parse.add_argument("--steps-a-call", type=int, default=1, help="steps of a worker in one scheduled call")
    parse.add_argument("--intra", type=int, default=1, help="threads within an operation; 0: TensorFlow's choice")
    parse.add_argument("--xla", choices=["yes", "no"], default="no", help="compile the gradient with XLA")
    parse.add_argument("--tune", type=int, default=0, metavar="REPEATS", help="measure all variants instead")
    options = parse.parse_args()
    if options.role:
        serve(options)
    elif options.tune:
        common = [f"--{name}={getattr(options, name.replace('-', '_'))}" for name in ("steps", "hidden-units")]
        about = {
            "name": f"tf2_ps_{options.steps_a_call}_a_call_{options.hidden_units}_tuning",
            "program": f"TensorFlow's ParameterServerStrategy, steps a call: {options.steps_a_call}",
            "data": options.data,
            "settings": {"hidden_units": options.hidden_units, "ps": options.ps, "workers": options.workers},
        }
        tune(__file__, AXES, [*common, f"--steps-a-call={options.steps_a_call}"], options.tune, about)
    else:
        print(json.dumps(job(options)))


def job(options: argparse.Namespace) -> dict[str, Any]:
    """Starts the replicas and coordinates them to the end; returns samples and rate."""
    cluster = {"ps": addresses(options.ps), "worker": addresses(options.workers), "chief": addresses(1)}
    own = [__file__, *sys.argv[1:], "--cluster", json.dumps(cluster)]
    replicas: list[subprocess.Popen[bytes]] = []
    try:
        for role in ("ps", "worker"):
            replicas += [start([*own, "--role", role, "--index", str(index)]) for index in range(len(cluster[role]))]
        result = coordinate(cluster, options)
    finally:
        end(replicas)
    return {**result, "steps_per_second": rate(result["samples"], options.warmup), "warmup": options.warmup}


def serve(options: argparse.Namespace) -> None:
    """Is a parameter server or a worker until it is ended."""
    import tensorflow as tf

    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=options.intra)
    cluster = tf.train.ClusterSpec(json.loads(options.cluster))
    tf.distribute.Server(cluster, job_name=options.role, task_index=options.index, config=config).join()


def coordinate(cluster: dict[str, list[str]], options: argparse.Namespace) -> dict[str, Any]:
    """Trains; returns samples, the last step, and how well the model does on the training data."""
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(cluster), task_type="chief", task_id=0, rpc_layer="grpc"
    )
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    data = np.load(options.data)
    x, y = data["x"], data["y"].astype(np.int64)
    with strategy.scope():
        weights = Weights(tf, strategy, options)

    @tf.function
    def steps(batches: Any) -> None:
        for _ in tf.range(options.steps_a_call):
            weights.train(*next(batches))

    def batches() -> Any:
        shuffled = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x)).repeat()
        return shuffled.batch(options.batch_size, drop_remainder=True).prefetch(8)

    inputs = iter(coordinator.create_per_worker_dataset(batches))
    samples, scheduled = Samples(), 0
    while scheduled < options.steps:
        coordinator.schedule(steps, args=(inputs,))  # blocks while too many wait
        scheduled += options.steps_a_call
        if samples.due():
            samples.take(int(weights.step.numpy()))
    # The workers still have what was scheduled ahead: that belongs to the measured part.
    while not coordinator.done():
        if samples.due():
            samples.take(int(weights.step.numpy()))
        time.sleep(0.01)
    coordinator.join()
    samples.take(int(weights.step.numpy()))
    accuracy = float(np.mean(np.argmax(weights.logits(x, [v.numpy() for v in weights.values]), 1) == y))
    return {"samples": samples.taken, "steps": samples.taken[-1][1], "train_accuracy": accuracy}


class Weights:
    """Weights, biases and what Adam remembers of them, spread over the parameter servers, and their training.

    Attributes:
        values: variables: the parts of the large matrix, its bias, the second matrix, its bias.
        step: variable, the number of updates.
    """

    def __init__(self, tf: Any, strategy: Any, options: argparse.Namespace) -> None:
        self._tf = tf
        self._rate = options.learning_rate
        self._batch = options.batch_size
        units, rows = options.hidden_units, 784 // options.ps
        sizes = [rows] * (options.ps - 1) + [784 - rows * (options.ps - 1)]
        first, second = float(np.sqrt(6 / (784 + units))), float(np.sqrt(6 / (units + 10)))
        starts = [
            *(tf.random.uniform([size, units], -first, first, seed=number) for number, size in enumerate(sizes)),
            tf.zeros([units]),
            tf.random.uniform([units, 10], -second, second, seed=0),
            tf.zeros([10]),
        ]
        self.values = [tf.Variable(start) for start in starts]
        self._slots = []
        for value in self.values:
            with strategy.extended.colocate_vars_with(value):
                self._slots.append((tf.Variable(tf.zeros_like(value)), tf.Variable(tf.zeros_like(value))))
        self.step = tf.Variable(0, dtype=tf.int64)
        self._gradient = tf.function(self._gradient_of, jit_compile=options.xla == "yes")

    def train(self, images: Any, labels: Any) -> None:
        """Computes one batch and applies it."""
        tf = self._tf
        images = tf.ensure_shape(images, [self._batch, 784])
        labels = tf.ensure_shape(labels, [self._batch])
        gradients = self._gradient(images, labels, [tf.convert_to_tensor(value) for value in self.values])
        done = tf.cast(self.step.assign_add(1, read_value=True), tf.float32)
        powers = [beta**done for beta in BETAS]
        for value, (first, second), gradient in zip(self.values, self._slots, gradients, strict=True):
            with tf.device(value.device):
                tf.raw_ops.ResourceApplyAdam(
                    var=value.handle,
                    m=first.handle,
                    v=second.handle,
                    beta1_power=powers[0],
                    beta2_power=powers[1],
                    lr=self._rate,
                    beta1=BETAS[0],
                    beta2=BETAS[1],
                    epsilon=EPSILON,
                    grad=gradient,
                )

    def logits(self, images: Any, values: list[Any]) -> Any:
        """Returns the logits [N, 10] of images [N, 784]."""
        tf = self._tf
        *parts, bias, out, out_bias = values
        return tf.matmul(tf.nn.relu(tf.matmul(images, tf.concat(parts, 0)) + bias), out) + out_bias

    def _gradient_of(self, images: Any, labels: Any, values: list[Any]) -> list[Any]:
        tf = self._tf
        logits = self.logits(images, values)
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        return list(tf.gradients(loss, values))


if __name__ == "__main__":
    main()
