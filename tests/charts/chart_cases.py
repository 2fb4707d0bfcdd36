"""The sets of values whose whole manifests are kept as golden files."""

from __future__ import annotations

from typing import Any

import chart_renders
from chart_renders import PRESETS, Object

SCRIPT = {"repository": "registry.example/digits", "tag": "1"}

VALUES: dict[str, dict[str, Any]] = {
    "default": {},
    # Everything beside training, and every setting of a role.
    "everything": {
        "job": {
            "task": "digits.py:task",
            "batch_size": 50,
            "params": {"hidden_units": 100},
            "evaluation": {"evaluator": True},
            "checkpoint": {"every_seconds": 30},
        },
        "taskFile": {"name": "digits.py", "content": "task = None\n"},
        "resume": True,
        "deadline": 3600,
        "storage": {"size": "5Gi", "className": "shared", "accessMode": "ReadWriteMany"},
        "scratch": {"enabled": True, "sizeLimit": "1Gi"},
        "worker": {
            "number": 3,
            "gpuCount": 1,
            "env": [{"name": "OMP_NUM_THREADS", "value": "1"}],
            "nodeSelector": {"pool": "gpu"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "priorityClassName": "batch",
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "worker"}},
                }
            ],
            "volumes": [{"name": "extra", "emptyDir": {}}],
            "volumeMounts": [{"name": "extra", "mountPath": "/extra"}],
        },
        "ps": {
            "number": 1,
            "affinity": {
                "podAntiAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 1,
                            "podAffinityTerm": {
                                "topologyKey": "kubernetes.io/hostname",
                                "labelSelector": {"matchLabels": {"app.kubernetes.io/component": "ps"}},
                            },
                        }
                    ]
                }
            },
        },
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data", "readOnly": True}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data", "readOnly": True}],
        "imagePullSecrets": [{"name": "registry"}],
        "tensorboard": {"enabled": True},
        "serving": {"enabled": True},
        "ttlSecondsAfterFinished": 86400,
    },
    "own-command": {
        "worker": {"image": SCRIPT, "command": ["python", "train.py"]},
        "ps": {"image": SCRIPT, "command": ["python", "train.py"]},
        "storage": {"kind": "emptyDir"},
    },
    "finisher": {
        "worker": {"image": SCRIPT, "command": ["python", "train.py"], "successIndex0": True},
        "ps": {"image": SCRIPT, "command": ["python", "train.py"]},
        "storage": {"kind": "claim", "claim": "results"},
        "finisher": {"enabled": True},
    },
    "nfs": {"storage": {"kind": "nfs", "nfs": {"server": "nas.example", "path": "/exports/runs"}}},
    "nfs-csi": {"storage": {"kind": "nfs", "nfs": {"server": "nas.example", "path": "/exports/runs", "csi": True}}},
    "host-path": {"storage": {"kind": "hostPath", "hostPath": {"path": "/srv/runs"}}},
    "azure-csi": {"storage": {"kind": "azureFile", "azureFile": {"share": "runs", "secretName": "files", "csi": True}}},
    # What the charts of 2018-2020 for Azure were given.
    "azure-original": {
        "worker": {"number": 2, "port": 5000},
        "ps": {"number": 1, "port": 5001},
        "storage": {
            "accountbase64": "dHJhaW5pbmdmaWxlcw==",
            "keybase64": "WVNCclpYa2dkR2hoZENCcGN5QnViMjVs",
            "sharename": "runs",
        },
        "traindir": "/azure/runs/train",
    },
    "hyperparams": {
        "hyperparams": {"batchsize": 50, "learningrate": 0.01, "trainsteps": 300, "hiddenunits": 20},
        "worker": {"number": 1},
        "ps": {"number": 1},
    },
    "workspace": {
        "workspace": {
            "limitRange": True,
            "quota": True,
            "most": {"pods": 12},
            "role": True,
            "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        }
    },
    # Without the dashboard, which is a file of the chart as it is.
    "monitoring": {
        "monitoring": {
            "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "interval": "30s"},
            "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}, "noProgressMinutes": 20},
        },
        "terminationGracePeriodSeconds": 120,
    },
    "tfjob": {"format": "tfjob"},
    # Beside what the user wants of the workers' nodes.
    "colocated": {
        "job": {"ps_placement": "colocated"},
        "worker": {
            "number": 3,
            "affinity": {
                "podAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": [
                        {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "data"}}}
                    ]
                },
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [{"key": "pool", "operator": "Exists"}]}]
                    }
                },
            },
        },
        "ps": {"number": 3},
    },
    "tls": {"tls": {"secretName": "certificates"}, "job": {"evaluation": {"evaluator": True}}},
    "cert-manager": {
        "tls": {
            "serverName": "training.example",
            "certManager": {"enabled": True, "issuerRef": {"name": "company", "kind": "ClusterIssuer"}},
        }
    },
    "eval-tool": {"tool": {"kind": "eval", "id": "eval-1", "arguments": ["--commit=40"]}},
    "user-left-out": {"user": {"uid": -1, "gid": -1}},
}

CASES = (*PRESETS, *VALUES)


def manifests(case: str) -> str:
    """Returns the manifests of a preset or of a set of values, the random token replaced."""
    return chart_renders.fixed(_call(chart_renders.template, case))


def objects(case: str) -> list[Object]:
    """Returns the objects of a preset or of a set of values."""
    return _call(chart_renders.objects, case)


def _call(render: Any, case: str) -> Any:
    return render({}, preset=case) if case in PRESETS else render(VALUES[case])
