"""TF2's ParameterServerStrategy: the chief coordinates, workers and ps are servers that never end by themselves."""

import os
import sys

import tensorflow as tf

resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
if resolver.task_type in ("worker", "ps"):
    server = tf.distribute.Server(
        resolver.cluster_spec(), job_name=resolver.task_type, task_index=resolver.task_id, protocol="grpc"
    )
    server.join()

assert os.environ["JOB_NAME"] == "chief"
strategy = tf.distribute.ParameterServerStrategy(resolver)
coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
with strategy.scope():
    total = tf.Variable(0.0, aggregation=tf.VariableAggregation.SUM)


@tf.function
def add():
    total.assign_add(1.0)


for _ in range(int(sys.argv[1])):
    coordinator.schedule(add)
coordinator.join()
print(f"the chief counted {int(total.numpy())}", flush=True)
