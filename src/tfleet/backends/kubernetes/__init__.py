"""The Kubernetes backend: every replica is a pod of the chart `charts/tfleet`.

`backend.py` plans and starts, `job.py` watches and ends; what they decide is in modules of functions over plain
objects (`waiting`, `result`, `quota`, `objects`), which need no cluster. Only `cluster.py` talks to the API server,
only `helm.py` runs helm.
"""
