"""Asynchronous counting with TensorFlow's graph-mode runtime; who it is stands in TF_CONFIG alone."""

import json
import os
import sys

import tensorflow as tf

v1 = tf.compat.v1
v1.disable_eager_execution()
for name in ("PS_HOSTS", "WORKER_HOSTS", "JOB_NAME", "POD_NAME"):
    del os.environ[name]

resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
assert json.loads(os.environ["TF_CONFIG"])["cluster"] == resolver.cluster_spec().as_dict()
server = v1.train.Server(resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id)
if resolver.task_type == "ps":
    server.join()

workers = len(resolver.cluster_spec().as_dict()["worker"])
own, goal = int(sys.argv[1]), int(sys.argv[1]) * workers
with tf.device("/job:ps/task:1"):
    total = v1.get_variable("total", [], initializer=v1.zeros_initializer(), use_resource=True)
add, count = total.assign_add(1.0), total.read_value()
chief = resolver.task_id == 0
# The default of 30 s between two looks at whether worker 0 has initialised is long for a test.
manager = v1.train.SessionManager(ready_op=v1.report_uninitialized_variables(), recovery_wait_secs=1)
initialise = v1.global_variables_initializer()
ready = manager.prepare_session(server.target, initialise) if chief else manager.wait_for_session(server.target)
with ready as session:
    for _ in range(own):
        session.run(add)
    # Worker 0 waits for all: nobody's addition is lost.
    seen = session.run(count)
    while chief and seen < goal:
        seen = session.run(count)
print(f"worker {resolver.task_id} saw {int(seen)} of {goal}", flush=True)
