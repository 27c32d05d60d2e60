"""The cluster, its image and its users, for all tests of this folder; and the law that nothing is left in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from calls import Audit
from cluster import KINDS, Cluster
from handed import wait_until
from prepare import give_roles, load_image
from support import User


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    state = os.environ.get("TESTKUBE_STATE")
    if not state or not Path(state, "run/up").exists():
        pytest.skip("no cluster is up: make test-kubernetes brings one up")
    cluster = Cluster(Path(state))
    wait_until(cluster.ready, "every node is ready")
    load_image(cluster, tmp_path_factory.mktemp("image"))
    give_roles(cluster, ("hpc", "hpc-restricted"), ("submitter", "second", "counted"))
    cluster.apply(*_queues())
    return cluster


def _queues() -> list[dict[str, object]]:
    """Kueue's queues of the users, with all that the nodes have; and a queue of Volcano with two cores."""
    flavor = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": "default"}}
    resources = [{"name": "cpu", "nominalQuota": "4"}, {"name": "memory", "nominalQuota": "60Gi"}]
    group = {"coveredResources": ["cpu", "memory"], "flavors": [{"name": "default", "resources": resources}]}
    cluster_queue = {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "ClusterQueue",
        "metadata": {"name": "team"},
        "spec": {"namespaceSelector": {}, "resourceGroups": [group]},
    }
    local = {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "LocalQueue",
        "metadata": {"name": "team", "namespace": "hpc"},
        "spec": {"clusterQueue": "team"},
    }
    volcano = {
        "apiVersion": "scheduling.volcano.sh/v1beta1",
        "kind": "Queue",
        "metadata": {"name": "team"},
        "spec": {"weight": 1, "reclaimable": True},
    }
    return [flavor, cluster_queue, local, volcano]


@pytest.fixture(scope="session")
def user(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> User:
    return User(cluster, tmp_path_factory.mktemp("user"), cluster.state / "user.kubeconfig")


@pytest.fixture(scope="session")
def other(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> User:
    """A second user of the same namespace."""
    return _account(cluster, tmp_path_factory.mktemp("other"), "second")


def _account(cluster: Cluster, home: Path, name: str) -> User:
    """A user with a service account of his own."""
    cluster.kubectl("create", "serviceaccount", name, "-n", "hpc", ok=False)
    token = cluster.kubectl("create", "token", name, "-n", "hpc", "--duration=24h").strip()
    kubeconfig = home / "kubeconfig"
    kubeconfig.write_text((cluster.state / "user.kubeconfig").read_text())
    kubeconfig.chmod(0o600)
    words = ["--kubeconfig", kubeconfig, "config"]
    cluster.kubectl(*words, "set-credentials", name, f"--token={token}")
    cluster.kubectl(*words, "set-context", "--current", f"--user={name}")
    return User(cluster, home, kubeconfig)


@pytest.fixture
def counted(cluster: Cluster, tmp_path: Path) -> tuple[User, Audit]:
    """A user whom nobody else is, and what he asks of the API server."""
    audit = Audit(cluster.state, "system:serviceaccount:hpc:counted")
    if not audit:
        pytest.skip("the cluster does not log requests: it was brought up without --audit")
    return _account(cluster, tmp_path, "counted"), audit


@pytest.fixture(scope="session")
def restricted(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> User:
    """The user in a namespace that enforces the restricted profile."""
    return User(cluster, tmp_path_factory.mktemp("restricted"), cluster.state / "user.kubeconfig", "hpc-restricted")


@pytest.fixture(autouse=True)
def tidy(cluster: Cluster) -> Iterator[None]:
    """What a test left in the cluster is removed, so that the next one finds its nodes free."""
    yield
    for namespace in ("hpc", "hpc-restricted"):
        words = ["-n", namespace, "-l", "app.kubernetes.io/managed-by=bridgehead", "--wait=true", "--timeout=60s"]
        cluster.kubectl("delete", KINDS, *words, "--ignore-not-found", ok=False)
