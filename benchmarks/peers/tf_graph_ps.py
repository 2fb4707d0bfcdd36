"""TensorFlow's own parameter server: graph mode, between-graph replication, asynchronous.

Starts parameter servers and workers as processes of this script (`tf.compat.v1.train.Server` over gRPC on loopback),
trains an MLP with Adam, and prints one JSON line: the samples (unix time, global step) of all workers and the rate.

It is tuned in its favour: device filters, no metrics, no monitored session, variables cut so that both parameter
servers carry the same, and the best of the variants that `--tune` measures as defaults.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from measure import peer_parser, rate
from replicas import Samples, addresses, end, read_samples, start
from tuning import tune

AXES = {"input": ("feed", "tfdata"), "intra": (0, 1), "xla": ("no", "yes"), "static_graph": ("no", "yes")}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parse = peer_parser(__doc__, steps=3000, warmup=300, roles=("ps", "worker"))
    parse.add_argument("--input", choices=["feed", "tfdata"], default="feed")
    parse.add_argument("--intra", type=int, default=1, help="threads within an operation; 0: TensorFlow's choice")
    parse.add_argument("--inter", type=int, default=0, help="threads between operations; 0: TensorFlow's choice")
    parse.add_argument("--xla", choices=["yes", "no"], default="no", help="compile the gradient with XLA")
    parse.add_argument("--static-graph", choices=["yes", "no"], default="yes", help="experimental session flags")
    parse.add_argument("--tune", type=int, default=0, metavar="REPEATS", help="measure all variants instead")
    parse.add_argument("--folder", default="", help=argparse.SUPPRESS)
    return parse


def main() -> None:
    """Runs one replica, all variants, or one job."""
    options = parser().parse_args()
    if options.role:
        replica(options)
    elif options.tune:
        common = [f"--steps={options.steps}", f"--hidden-units={options.hidden_units}"]
        about = {
            "name": f"tf_graph_ps_{options.hidden_units}_tuning",
            "program": "TensorFlow's parameter server in graph mode",
            "data": options.data,
            "settings": {"hidden_units": options.hidden_units, "ps": options.ps, "workers": options.workers},
        }
        tune(__file__, AXES, common, options.tune, about)
    else:
        print(json.dumps(job(options)))


# --- the job: starts and ends the processes -------------------------------------------------------------------------


def job(options: argparse.Namespace) -> dict[str, Any]:
    """Runs parameter servers and workers to the end; returns samples and rate."""
    with tempfile.TemporaryDirectory(prefix="tf-graph-ps-") as folder:
        cluster = {"ps": addresses(options.ps), "worker": addresses(options.workers)}
        own = [__file__, *sys.argv[1:], "--cluster", json.dumps(cluster), "--folder", folder]
        replicas: list[subprocess.Popen[bytes]] = []
        try:
            for role, hosts in cluster.items():
                replicas += [start([*own, "--role", role, "--index", str(index)]) for index in range(len(hosts))]
            codes = [worker.wait(timeout=1800) for worker in replicas[options.ps :]]
        finally:
            end(replicas)
        if any(codes):
            raise SystemExit(f"workers of TensorFlow's parameter server ended with {codes}")
        samples = [read_samples(Path(folder) / f"worker-{index}") for index in range(options.workers)]
    merged = sorted(itertools.chain.from_iterable(samples))
    together = max(own[0][0] for own in samples)  # from when on every worker has done a step
    warmup = max(options.warmup, next(step for moment, step in merged if moment >= together))
    return {"steps_per_second": rate(merged, warmup), "steps": merged[-1][1], "warmup": warmup, "samples": merged}


# --- a replica ------------------------------------------------------------------------------------------------------


def replica(options: argparse.Namespace) -> None:
    """Is a parameter server or a worker until the end."""
    import tensorflow as tf

    v1 = tf.compat.v1
    v1.disable_eager_execution()
    cluster = tf.train.ClusterSpec(json.loads(options.cluster))
    config = session_config(v1, options)
    server = v1.train.Server(cluster, job_name=options.role, task_index=options.index, config=config)
    if options.role == "ps":
        server.join()
    work(tf, server, cluster, config, options)
    os._exit(0)  # the server's threads would wait for its peers


def session_config(v1: Any, options: argparse.Namespace) -> Any:
    """Returns the settings of server and session."""
    config = v1.ConfigProto(intra_op_parallelism_threads=options.intra, inter_op_parallelism_threads=options.inter)
    if options.role == "worker":
        config.device_filters.extend(["/job:ps", f"/job:worker/task:{options.index}"])
    if options.static_graph == "yes":
        config.experimental.optimize_for_static_graph = True
        config.experimental.disable_output_partition_graphs = True
    return config


def work(tf: Any, server: Any, cluster: Any, config: Any, options: argparse.Namespace) -> None:
    """Trains until the global step is reached; leaves the samples in a file."""
    v1 = tf.compat.v1
    data = np.load(options.data)
    own = slice(options.index, None, options.workers)
    x, y = data["x"][own], data["y"][own]
    device = v1.train.replica_device_setter(worker_device=f"/job:worker/task:{options.index}", cluster=cluster)
    with v1.device(device):
        images, labels, feeds, initialize = inputs(tf, x, y, options)
        global_step = v1.train.get_or_create_global_step()
        variables = build_variables(v1, options)
        gradients = gradient(tf, variables, images, labels, options)
        optimizer = v1.train.AdamOptimizer(options.learning_rate)
        train = optimizer.apply_gradients(zip(gradients, variables, strict=True), global_step=global_step)
    ready = v1.report_uninitialized_variables()
    with v1.Session(server.target, config=config) as session:
        if options.index == 0:
            session.run(v1.global_variables_initializer())
        while session.run(ready).size:
            time.sleep(0.05)
        initialize(session)
        step, samples = 0, Samples()
        while step < options.steps:
            _, step = session.run([train, global_step], feed_dict=next(feeds))
            if samples.due() or step >= options.steps:
                samples.take(int(step))
        samples.write(Path(options.folder, f"worker-{options.index}"))


def inputs(tf: Any, x: Any, y: Any, options: argparse.Namespace) -> tuple[Any, Any, Any, Any]:
    """Returns image and label tensors, an iterator of feed dicts, and what to call once with the session."""
    v1 = tf.compat.v1
    with v1.device(f"/job:worker/task:{options.index}/cpu:0"):
        if options.input == "feed":
            images = v1.placeholder(tf.float32, [None, 784])
            labels = v1.placeholder(tf.int64, [None])
            return images, labels, feed_dicts(images, labels, x, y, options), lambda session: None
        all_x, all_y = v1.placeholder(tf.float32, x.shape), v1.placeholder(tf.int64, y.shape)
        data = tf.data.Dataset.from_tensor_slices((all_x, all_y)).shuffle(len(x), seed=options.index).repeat()
        data = data.batch(options.batch_size, drop_remainder=True).prefetch(8)
        iterator = v1.data.make_initializable_iterator(data)
        images, labels = iterator.get_next()
    return images, labels, itertools.repeat(None), lambda s: s.run(iterator.initializer, {all_x: x, all_y: y})


def feed_dicts(images: Any, labels: Any, x: Any, y: Any, options: argparse.Namespace) -> Any:
    """Yields feed dicts of shuffled batches for ever."""
    random = np.random.default_rng(options.index)
    while True:
        order = random.permutation(len(x))
        for low in range(0, len(x) - options.batch_size + 1, options.batch_size):
            rows = order[low : low + options.batch_size]
            yield {images: x[rows], labels: y[rows]}


def build_variables(v1: Any, options: argparse.Namespace) -> list[Any]:
    """Makes weights and biases; the large matrix is cut so that every parameter server holds the same share."""
    glorot = v1.glorot_uniform_initializer(seed=0)
    rows = 784 // options.ps
    sizes = [rows] * (options.ps - 1) + [784 - rows * (options.ps - 1)]
    limit = float(np.sqrt(6 / (784 + options.hidden_units)))
    parts = [
        v1.get_variable(
            f"hidden/kernel/part_{index}",
            [size, options.hidden_units],
            initializer=v1.random_uniform_initializer(-limit, limit, seed=index),
            use_resource=True,
        )
        for index, size in enumerate(sizes)
    ]
    return [
        *parts,
        v1.get_variable("hidden/bias", [options.hidden_units], initializer=v1.zeros_initializer(), use_resource=True),
        v1.get_variable("out/kernel", [options.hidden_units, 10], initializer=glorot, use_resource=True),
        v1.get_variable("out/bias", [10], initializer=v1.zeros_initializer(), use_resource=True),
    ]


def gradient(tf: Any, variables: list[Any], images: Any, labels: Any, options: argparse.Namespace) -> list[Any]:
    """Returns the gradients of the mean cross-entropy, in the order of `variables`."""

    def of(images: Any, labels: Any, *values: Any) -> list[Any]:
        *parts, bias, out, out_bias = values
        hidden = tf.nn.relu(tf.matmul(images, tf.concat(parts, 0)) + bias)
        logits = tf.matmul(hidden, out) + out_bias
        loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits))
        return tf.gradients(loss, list(values))

    if options.xla == "yes":
        of = tf.function(of, jit_compile=True)
    values = [tf.convert_to_tensor(variable) for variable in variables]
    with tf.compat.v1.device(f"/job:worker/task:{options.index}/cpu:0"):
        if options.input == "tfdata":
            images = tf.ensure_shape(images, [options.batch_size, 784])
            labels = tf.ensure_shape(labels, [options.batch_size])
        return list(of(images, labels, *values))


if __name__ == "__main__":
    main()
