"""Quantities, and the sum of all pods against quotas."""

from decimal import Decimal

import pytest
from kubernetes_objects import pod

from tfleet.backends.kubernetes.objects import PodSet
from tfleet.backends.kubernetes.quota import object_usage, quantity, quota_excess, usage, written


@pytest.mark.parametrize(
    ("text", "value"),
    [("600m", "0.6"), ("2Gi", 2 * 1024**3), ("1.5", "1.5"), (3, 3), ("1e3", 1000), ("100k", 100_000), ("5n", "5e-9")],
)
def test_quantity(text, value):
    assert quantity(text) == Decimal(value)


@pytest.mark.parametrize("text", ["", "Gi", "2GB", "1 Gi", None])
def test_what_is_no_quantity(text):
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity(text)


@pytest.mark.parametrize(
    ("name", "amount", "text"),
    [
        ("limits.memory", "2Gi", "2Gi"),
        ("limits.memory", "1536Mi", "1.5Gi"),
        ("requests.memory", "64Mi", "64Mi"),
        ("requests.cpu", "600m", "600m"),
        ("limits.cpu", "4", "4"),
        ("pods", "3", "3"),
    ],
)
def test_written(name, amount, text):
    assert written(name, quantity(amount)) == text


def pods(count=1, component="worker", **resources):
    made = pod(component)
    made["spec"]["containers"][0]["resources"] = resources
    return PodSet("Job", f"j-{component}", component, count, made)


def quota(hard, used=None, **spec):
    return {"metadata": {"name": "team"}, "spec": {"hard": hard, **spec}, "status": {"hard": hard, "used": used or {}}}


LARGE = {"limits": {"memory": "2Gi"}, "requests": {"memory": "1Gi", "cpu": "250m"}}


def test_a_limit_without_a_request_is_requested():
    assert usage(pods(limits={"cpu": "2"}).pod)["requests.cpu"] == 2


def test_the_largest_init_container_counts_where_it_is_larger_and_sidecars_add():
    made = pods(**LARGE).pod
    made["spec"]["initContainers"] = [
        {"name": "before", "resources": {"requests": {"memory": "3Gi", "cpu": "1m"}}},
        {"name": "beside", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
    ]
    found = usage(made)
    assert found["requests.memory"] == quantity("3Gi")
    assert found["requests.cpu"] == quantity("300m")


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (quota({"pods": "4"}, {"pods": "1"}), "the quota team leaves 3 of pods (of 4), but the job needs 4;"),
        (quota({"limits.memory": "7Gi"}), "leaves 7Gi of limits.memory (of 7Gi), but the job needs 8Gi;"),
        (
            quota({"requests.cpu": "1"}, {"requests.cpu": "500m"}),
            "leaves 500m of requests.cpu (of 1), but the job needs 1;",
        ),
        (quota({"pods": "2"}, {"pods": "5"}), "leaves 0 of pods (of 2)"),
        (quota({"requests.storage": "5Gi"}), "needs 10Gi; ask for less with storage.size, or use an existing claim"),
        (quota({"count/persistentvolumeclaims": "0"}), "of count/persistentvolumeclaims"),
        (quota({"pods": "4", "limits.memory": "8Gi", "services": "9"}), ""),
        (quota({"pods": "1"}, scopes=["BestEffort"]), ""),
        (quota({"pods": "1"}, scopes=["Terminating"]), ""),
        (quota({"pods": "1"}, scopes=["NotTerminating", "NotBestEffort"]), "of pods"),
        (
            quota(
                {"pods": "1"}, scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}
            ),
            "",
        ),
    ],
)
def test_excess(found, sentence):
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "j"},
        "spec": {"resources": {"requests": {"storage": "10Gi"}}},
    }
    said = quota_excess([pods(4, **LARGE)], [claim], [found])
    assert sentence in said
    assert bool(said) == bool(sentence)


def test_objects_count_by_their_plural_and_group():
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "j"}}
    assert object_usage(policy) == {"count/networkpolicies.networking.k8s.io": 1}
