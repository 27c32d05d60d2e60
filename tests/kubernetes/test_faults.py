"""A run on a volume survives what a cluster does to it: pods and nodes that die, evictions, an API server that is away."""

from __future__ import annotations

import signal

from cluster import Cluster
from handed import wait_until
from support import Submitted, User, check

WORK = ("arrays", 12, 1.5)
"""Long enough to be hit in the middle. The arrays go with their pods, and are made again; small values are in the journal."""


def begin(user: User, claim: str, flavour: str = "volcano", nodes: int = 3, kind: str = "arrays") -> Submitted:
    user.cluster.volume(claim, user.namespace)
    run = user.submit(kind, *WORK[1:], on=["--nodes", nodes, "--volume", claim, "--flavor", flavour])
    run.wait_finished(3)
    return run


def resumed(run: Submitted, kind: str = "arrays") -> None:
    """It comes to its end in a later attempt, and what had finished did not run again."""
    run.user.check("watch", run.id, limit=280, out="finished")
    status = check(run, limit=280)
    assert status["attempt"] > 1, status
    if kind == "values":
        again = run.count("task-assigned") - status["tasks"]["finished"]
        assert again <= 6, f"{again} tasks ran again, more than were at work"


def pod_of(run: Submitted, rank: int) -> dict[str, str]:
    """The pod of a rank: the head's group comes before that of the others, if it is a group of its own."""
    pods = sorted(run.pods(), key=lambda pod: ("-head-" not in pod["metadata"]["name"], pod["metadata"]["name"]))
    return {"name": pods[rank]["metadata"]["name"], "node": pods[rank]["spec"]["nodeName"]}


def test_a_pod_that_is_killed_costs_what_ran(user: User, cluster: Cluster) -> None:
    run = begin(user, "pods", kind="values")
    name = pod_of(run, 2)["name"]
    cluster.kubectl("delete", "pod", name, "-n", "hpc", "--grace-period=0", "--force", "--wait=false")
    resumed(run, "values")


def test_without_a_volume_a_gang_that_starts_again_begins_anew(user: User, cluster: Cluster) -> None:
    run = user.submit(*WORK, on=["--nodes", 3, "--flavor", "volcano"])
    run.wait_finished(2)
    name = pod_of(run, 2)["name"]
    cluster.kubectl("delete", "pod", name, "-n", "hpc", "--grace-period=0", "--force", "--wait=false")
    wait_until(lambda: run.status()["tasks"]["finished"] < 2, "it began anew", state=lambda: run.told(""))
    user.check("watch", run.id, limit=280, out="finished")
    assert check(run)["attempt"] == 1, "of another run folder"


def test_a_head_that_is_evicted_goes_on_elsewhere(user: User, cluster: Cluster) -> None:
    run = begin(user, "evicted")
    pod = pod_of(run, 0)["name"]
    eviction = f'{{"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {{"name": "{pod}", "namespace": "hpc"}}}}'
    cluster.kubectl("create", "--raw", f"/api/v1/namespaces/hpc/pods/{pod}/eviction", "-f", "-", text=eviction)
    resumed(run)


def test_a_node_that_dies_does_not_end_the_run(user: User, cluster: Cluster) -> None:
    run = begin(user, "nodes", nodes=2)
    node = pod_of(run, 0)["node"]
    with cluster.fault("kill", node):
        wait_until(lambda: not cluster.ready(), "the node is missed", 60)
        # What an administrator says of a node that is certainly off; without it Volcano waits for the node.
        taint = f"{node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute".split()
        cluster.kubectl("taint", "node", *taint)
        try:
            resumed(run)
        finally:
            cluster.kubectl("taint", "node", node, "node.kubernetes.io/out-of-service-")


def test_a_lone_pod_of_an_indexed_job_is_replaced_and_joins_again(user: User, cluster: Cluster) -> None:
    run = begin(user, "indexed", "indexed-job")
    name = pod_of(run, 1)["name"]
    cluster.kubectl("delete", "pod", name, "-n", "hpc", "--wait=false")
    user.check("watch", run.id, limit=280, out="finished")
    assert check(run)["attempt"] == 1, "the head went on"


def test_the_other_pods_of_an_indexed_job_join_the_head_that_replaces_theirs(user: User, cluster: Cluster) -> None:
    run = begin(user, "replaced", "indexed-job", kind="values")
    others = {pod["metadata"]["name"] for pod in run.pods()} - {pod_of(run, 0)["name"]}
    cluster.kubectl("delete", "pod", pod_of(run, 0)["name"], "-n", "hpc", "--wait=false")
    resumed(run, "values")
    assert others <= {pod["metadata"]["name"] for pod in run.pods()}, "they stayed"


def test_an_api_server_that_is_away_costs_nothing(user: User, cluster: Cluster) -> None:
    run = begin(user, "away")
    watch = user.start("bridgehead", "watch", "--json", run.id)
    assert watch.stdout is not None and "running" in watch.stdout.readline(), "it follows"
    with cluster.without("kube-apiserver"):
        seen = user.json("status", run.id)
        assert "as far as its folder tells" in seen["message"], seen
    out, err = watch.communicate(timeout=200)
    assert (watch.returncode, err) == (0, "") and "finished" in out.splitlines()[-1], (out, err)
    check(run)


def test_a_client_that_is_killed_leaves_the_run_alone(user: User) -> None:
    run = begin(user, "client")
    watch = user.start("bridgehead", "watch", run.id)
    watch.send_signal(signal.SIGKILL)
    watch.communicate()
    user.check("watch", run.id, limit=200, out="finished")
    check(run)
