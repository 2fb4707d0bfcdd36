"""Between-graph training for TensorFlow's graph-mode runtime; who it is stands in PS_HOSTS and its companions.

The ps joins its server for ever; each worker trains a linear model of its own copy of the graph with the variables
on the ps, until the shared global step has been reached; worker 0 initialises.
"""

import os
import sys

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
v1.disable_eager_execution()

cluster = {"ps": os.environ["PS_HOSTS"].split(","), "worker": os.environ["WORKER_HOSTS"].split(",")}
role = os.environ["JOB_NAME"]
index = int(os.environ["POD_NAME"].rpartition("-")[2])
steps = int(sys.argv[1])

server = v1.train.Server(tf.train.ClusterSpec(cluster), job_name=role, task_index=index)
if role == "ps":
    print("serving", flush=True)
    server.join()

setter = v1.train.replica_device_setter(
    cluster=tf.train.ClusterSpec(cluster), worker_device=f"/job:worker/task:{index}"
)
with v1.device(setter):
    x = v1.placeholder(tf.float32, [None, 3])
    y = v1.placeholder(tf.float32, [None, 1])
    w = v1.get_variable("w", [3, 1], initializer=v1.zeros_initializer())
    b = v1.get_variable("b", [1], initializer=v1.zeros_initializer())
    loss = tf.reduce_mean(tf.square(tf.matmul(x, w) + b - y))
    step = v1.train.get_or_create_global_step()
    train = v1.train.GradientDescentOptimizer(0.1).minimize(loss, global_step=step)

rng = np.random.default_rng(index)
truth = np.array([[1.0], [-2.0], [0.5]], np.float32)
# Without a filter a session waits for every worker of the cluster, also for one that has finished and is gone.
filters = v1.ConfigProto(device_filters=["/job:ps", f"/job:worker/task:{index}"])
# The default of 30 s between two looks at whether worker 0 has initialised is long for a test.
supervisor = v1.train.Supervisor(is_chief=index == 0, global_step=step, recovery_wait_secs=1)
mine, done, last = 0, 0, float("nan")
with supervisor.managed_session(server.target, config=filters) as session:
    while done < steps:
        batch = rng.normal(size=(16, 3)).astype(np.float32)
        _, last, done = session.run([train, loss, step], {x: batch, y: batch @ truth + 1.0})
        mine += 1
print(f"worker {index} trained {mine} steps, loss {last:.6f}", flush=True)
if not last < 0.5:
    sys.exit(f"worker {index} has not learned: loss {last}")
