"""Fixtures of the tests on a real cluster; `../shared/cluster/README.md` tells what it is.

`TFLEET_CLUSTER` names the folder of its scripts, `TFLEET_E2E_IMAGES=ready` says that the nodes have the images.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cluster import SCRIPTS, Cluster
from namespaces import Namespace, recycle_volumes

LIVING: list[Namespace] = []
"""Namespaces that are there now: a test that fails shows what is in them."""
SHOWN: list[BaseException] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that kill nodes come last: what they leave must not disturb others."""
    items.sort(key=lambda item: "dead_node" in item.path.name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]):
    report = yield
    # A fixture that failed fails every test that wants it, with the same error: that is shown once.
    if report.failed and call.excinfo and call.excinfo.value not in SHOWN:
        SHOWN.append(call.excinfo.value)
        report.sections += [(f"namespace {found.name}", found.describe()) for found in LIVING]
    return report


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A cluster of two nodes: the one that runs, else a new one that is taken down at the end."""
    if not (SCRIPTS / "up").exists():
        pytest.skip(f"the scripts of the cluster are not in {SCRIPTS}: set TFLEET_CLUSTER to their folder")
    if os.geteuid() != 0:
        pytest.skip("a cluster of real nodes needs root")
    found = Cluster.find_or_start()
    yield found
    recycle_volumes(found)
    if found.started:
        found.take_down()


@pytest.fixture(scope="session")
def images(cluster: Cluster) -> None:
    """Both images of this repository on every node."""
    if os.environ.get("TFLEET_E2E_IMAGES") != "ready":
        cluster.build_images()
        cluster.load_images()


@pytest.fixture(scope="session")
def make_namespace(cluster: Cluster) -> Iterator[Callable[..., Namespace]]:
    """Makes namespaces that live until the session ends or `delete` is called."""

    def make(restricted: bool = True) -> Namespace:
        LIVING.append(Namespace(cluster, restricted))
        return LIVING[-1]

    yield make
    while LIVING:
        LIVING.pop().delete()


def removed(namespace: Namespace) -> Iterator[Namespace]:
    """Yields a namespace and deletes it afterwards."""
    yield namespace
    LIVING.remove(namespace)
    namespace.delete()


@pytest.fixture
def namespace(make_namespace: Callable[..., Namespace]) -> Iterator[Namespace]:
    """A fresh restricted namespace for one test."""
    yield from removed(make_namespace())


@pytest.fixture(scope="module")
def shared_namespace(make_namespace: Callable[..., Namespace]) -> Iterator[Namespace]:
    """A fresh restricted namespace for the tests of one file."""
    yield from removed(make_namespace())
