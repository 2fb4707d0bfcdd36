"""Between-graph training for TensorFlow's graph-mode runtime; who it is stands in PS_HOSTS and its companions.

The ps serves for ever. Each worker makes its own number of steps on variables that live on the ps; worker 0
initialises them. An argument gives the steps of each worker.
"""

import os
import sys

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
v1.disable_eager_execution()

role, index = os.environ["JOB_NAME"], int(os.environ["POD_NAME"].rpartition("-")[2])
hosts = {"ps": os.environ["PS_HOSTS"].split(","), "worker": os.environ["WORKER_HOSTS"].split(",")}
cluster = tf.train.ClusterSpec(hosts)
# A filter for each worker: without it a session waits for every other one, also for one that has finished.
only = v1.ConfigProto(device_filters=["/job:ps", f"/job:worker/task:{index}"])
server = v1.train.Server(cluster, job_name=role, task_index=index, config=only)
if role == "ps":
    server.join()

with v1.device(v1.train.replica_device_setter(cluster=cluster, worker_device=f"/job:worker/task:{index}")):
    x, y = v1.placeholder(tf.float32, [None, 2]), v1.placeholder(tf.float32, [None, 1])
    weights = v1.get_variable("weights", [2, 1], initializer=v1.zeros_initializer())
    loss = tf.reduce_mean(tf.square(tf.matmul(x, weights) - y))
    step = v1.train.get_or_create_global_step()
    train = v1.train.GradientDescentOptimizer(0.05).minimize(loss, global_step=step)

rng = np.random.default_rng(index)
first = last = None
# The default of 30 s between two looks at whether worker 0 has initialised is long for a test.
supervisor = v1.train.Supervisor(is_chief=index == 0, global_step=step, recovery_wait_secs=1)
with supervisor.managed_session(server.target, config=only) as session:
    for _ in range(int(sys.argv[1])):
        batch = rng.normal(size=(32, 2)).astype(np.float32)
        _, last = session.run([train, loss], {x: batch, y: batch @ np.array([[2.0], [-1.0]], np.float32)})
        first = first or last
print(f"worker {index} of {len(hosts['worker'])} ended with loss {last:.6f}", flush=True)
sys.exit(0 if last < 0.1 else f"worker {index} has not learned: loss {last}")
