"""Counting together with TensorFlow's graph-mode runtime; who it is stands in TF_CONFIG alone.

Each worker adds its own to a variable on the last ps; worker 0 waits until all have, so that no addition is lost.
"""

import os
import sys
import time

import tensorflow as tf

for name in ("PS_HOSTS", "WORKER_HOSTS", "JOB_NAME", "POD_NAME"):
    del os.environ[name]

v1 = tf.compat.v1
v1.disable_eager_execution()
resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
cluster = resolver.cluster_spec()
index = resolver.task_id
server = tf.distribute.Server(cluster, job_name=resolver.task_type, task_index=index)
if resolver.task_type == "ps":
    server.join()

own, hosts = int(sys.argv[1]), cluster.as_dict()
goal = own * len(hosts["worker"])
with tf.device(f"/job:ps/task:{len(hosts['ps']) - 1}"):
    total = v1.get_variable("total", [], initializer=v1.zeros_initializer(), use_resource=True)
add, count = total.assign_add(1.0), total.read_value()
manager = v1.train.SessionManager(ready_op=v1.report_uninitialized_variables(), recovery_wait_secs=1)
prepared = (
    manager.wait_for_session(server.target)
    if index
    else manager.prepare_session(server.target, v1.global_variables_initializer())
)
with prepared as session:
    for _ in range(own):
        session.run(add)
    while index == 0 and session.run(count) < goal:
        time.sleep(0.1)
    print(f"worker {index} saw {int(session.run(count))} of {goal}", flush=True)
