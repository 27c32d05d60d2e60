"""A run that cannot start says why in a sentence, and what would help; nothing of a gang starts that does not fit."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from cluster import Cluster
from handed import wait_until
from support import User, check, gone


def bound(pods: list[dict[str, object]]) -> list[object]:
    """Pods that have a node."""
    return [pod for pod in pods if pod["spec"].get("nodeName")]  # type: ignore[attr-defined]


def test_a_gang_that_does_not_fit_binds_no_pod_says_what_lacks_and_starts_when_there_is_room(
    user: User, cluster: Cluster
) -> None:
    first = user.submit("values", 1, 600, on=["--nodes", 3, "--cpus", 1])
    first.wait_phase("running")
    second = user.submit("values", 4, 0.1, on=["--nodes", 3, "--cpus", 2])
    second.wait_phase("queued")
    wait_until(lambda: "cpu" in second.why(), "why names cores", state=second.why)
    assert bound(second.pods()) == []
    first.user.check("cancel", first.id)
    user.check("watch", second.id, out="finished")
    check(second)


def test_a_gang_that_can_never_fit_says_so(user: User) -> None:
    run = user.submit("values", 1, 0.1, on=["--nodes", 2, "--gpus", 7])
    wait_until(lambda: "nvidia.com/gpu" in run.why(), "why names GPUs", state=run.why)
    assert bound(run.pods()) == []
    user.check("cancel", run.id)
    gone(run)


def test_an_image_that_is_not_there_is_named(user: User) -> None:
    run = user.submit("values", 1, 0.1, on=["--nodes", 1, "--image", "localhost/no-such:1"])
    wait_until(lambda: "localhost/no-such:1" in run.why(), "why names the image", state=run.why)
    user.check("cancel", run.id)
    gone(run)


@pytest.fixture
def quota(cluster: Cluster) -> Iterator[None]:
    """The namespace may have two cores."""
    cluster.kubectl("create", "quota", "small", "-n", "hpc", "--hard=limits.cpu=2,requests.cpu=2")
    yield
    cluster.kubectl("delete", "quota", "small", "-n", "hpc")


def test_a_quota_that_is_in_the_way_is_named(user: User, quota: None) -> None:
    run = user.submit("values", 1, 0.1, on=["--nodes", 3, "--cpus", 1, "--flavor", "indexed-job"])
    wait_until(lambda: "quota" in run.why(), "why names the quota", state=run.why)
    user.check("cancel", run.id)
    gone(run)


def test_a_queue_that_is_closed_or_not_there_is_refused_by_name(user: User, cluster: Cluster) -> None:
    queue = {"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "Queue", "metadata": {"name": "shut"}}
    cluster.apply({**queue, "spec": {"weight": 1}})
    command = {
        "apiVersion": "bus.volcano.sh/v1alpha1",
        "kind": "Command",
        "metadata": {"generateName": "shut-", "namespace": "default"},
        "action": "CloseQueue",
        "target": {
            "apiVersion": queue["apiVersion"],
            "kind": "Queue",
            "name": "shut",
            "uid": cluster.kubectl("get", "queue", "shut", "-o", "jsonpath={.metadata.uid}"),
        },
    }
    import json

    cluster.kubectl("create", "-f", "-", text=json.dumps(command))
    wait_until(
        lambda: cluster.kubectl("get", "queue", "shut", "-o", "jsonpath={.status.state}") in ("Closed", "Closing"),
        "the queue is closed",
    )
    for name in ("shut", "no-such"):
        before = user.runs()
        words = [
            "submit",
            "--on",
            "kubernetes",
            "--flavor",
            "volcano",
            "--queue",
            name,
            "pipelines.py",
            "values",
            1,
            0.1,
        ]
        user.check(*words, code=7, err=[name])
        assert user.runs() == before, "what was refused leaves nothing"


def test_what_the_cluster_lacks_is_refused_with_what_it_has(user: User) -> None:
    words = ["submit", "--on", "kubernetes", "--flavor", "code-engine", "pipelines.py", "values", 1, 0.1]
    user.check(*words, code=7, err=["code-engine", "volcano"])


def test_missing_rights_are_listed(user: User) -> None:
    words = ["submit", "--on", "kubernetes", "--namespace", "kube-system", "pipelines.py", "values", 1, 0.1]
    user.check(*words, code=9, err=["create", "jobs", "secrets"])


def test_an_interpreter_that_cannot_be_is_named(user: User) -> None:
    run = user.submit("values", 1, 0.1, on=["--nodes", 1, "--kubernetes", "python=/no/python"])
    run.wait_phase("lost", limit=100)
    assert "/no/python" in run.why(), run.why()
    user.check("cancel", run.id)
    gone(run)


def test_wrong_words_are_errors_with_the_way_out(user: User) -> None:
    submit = ["submit", "--on", "kubernetes", "pipelines.py", "values", 1, 0.1]
    user.check(*submit, code=7, err=["--image"], BRIDGEHEAD_IMAGE="")
    wrong = ["submit", "--on", "kubernetes", "--kubernetes", "colour=red", "pipelines.py", "values", 1, 0.1]
    user.check(*wrong, code=2, err=["colour", "nodes"])
    user.check(*submit, code=7, err=["kubeconfig"], KUBECONFIG="/nowhere", HOME="/nowhere")
