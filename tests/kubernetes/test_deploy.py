"""What an administrator gets in `deploy/kubernetes` is taken by a real API server, and runs need no more than a strict cluster gives:
the rules that OpenShift has for ordinary users, which are put in force by an admission policy here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster
from handed import ROOT, wait_until
from support import User, check, gone

DEPLOY = ROOT / "deploy/kubernetes"
NAMESPACE = "hpc-openshift"
UIDS = 1000730000
"""The first of the 10,000 user ids of the namespace, as OpenShift deals them."""
RULES = [
    (
        f"object.spec.securityContext.runAsUser >= {UIDS} && object.spec.securityContext.runAsUser < {UIDS + 10000}",
        "runAsUser: must be of the namespace's range",
    ),
    (
        f"!has(object.spec.securityContext.fsGroup) || object.spec.securityContext.fsGroup == {UIDS}",
        "fsGroup: must be the namespace's",
    ),
    (
        "object.spec.volumes.all(v, !has(v.hostPath)) && !object.spec.?hostNetwork.orValue(false)",
        "nothing of the host",
    ),
    (
        "object.spec.containers.all(c, !c.?securityContext.privileged.orValue(false)"
        " && c.?securityContext.allowPrivilegeEscalation.orValue(true) == false"
        " && c.securityContext.capabilities.drop == ['ALL'] && !has(c.securityContext.capabilities.add))",
        "no privileges",
    ),
]


@pytest.mark.parametrize("file", sorted(DEPLOY.glob("*.yaml")), ids=lambda file: file.name)
def test_the_api_server_takes_the_file(cluster: Cluster, file: Path) -> None:
    words = [] if file.name == "namespace.yaml" else ["-n", "default"]
    said = cluster.kubectl("apply", "--dry-run=server", *words, "-f", file)
    assert "(server dry run)" in said


def test_the_readme_names_every_file() -> None:
    readme = (DEPLOY / "README.md").read_text()
    assert [file.name for file in DEPLOY.glob("*.yaml") if file.name not in readme] == []


@pytest.fixture
def openshift(cluster: Cluster, tmp_path: Path) -> Iterator[User]:
    """The user in a namespace where pods need an id of its range, as under the constraint `restricted-v2`."""
    rules = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    kind, api = "ValidatingAdmissionPolicy", {"apiVersion": "admissionregistration.k8s.io/v1"}
    policy = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rules]},
        "validations": [{"expression": expression, "message": message} for expression, message in RULES],
    }
    bound = {"matchLabels": {"kubernetes.io/metadata.name": NAMESPACE}}
    binding = {"policyName": NAMESPACE, "validationActions": ["Deny"], "matchResources": {"namespaceSelector": bound}}
    named = {"metadata": {"name": NAMESPACE}}
    profile = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": profile}},
        {**api, "kind": kind, **named, "spec": policy},
        {**api, "kind": f"{kind}Binding", **named, "spec": binding},
    )
    try:
        cluster.kubectl("apply", "-n", NAMESPACE, "-f", DEPLOY / "role.yaml")
        words = ["submitters", "-n", NAMESPACE, "--role=bridgehead-submitter", "--serviceaccount=hpc:submitter"]
        cluster.kubectl("create", "rolebinding", *words)
        # A policy is in force some time after it was made.
        wait_until(lambda: "range" in refusal(cluster, 65532), "a wrong user is refused")
        yield User(cluster, tmp_path, cluster.state / "user.kubeconfig", NAMESPACE)
    finally:
        cluster.kubectl("delete", f"{kind}Binding", NAMESPACE)
        cluster.kubectl("delete", kind, NAMESPACE)
        cluster.kubectl("delete", "namespace", NAMESPACE, "--timeout=80s")


def refusal(cluster: Cluster, user: int) -> str:
    """What the API server says to a strict pod of this user; empty if it takes it."""
    own = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    context = {"runAsNonRoot": True, "runAsUser": user, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [{"name": "a", "image": "a:1", "securityContext": own}], "securityContext": context}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "probe"}, "spec": {**spec, "volumes": []}}
    return cluster.refused("create", "--dry-run=server", "-n", NAMESPACE, "-f", "-", text=json.dumps(pod))


def test_a_run_needs_no_more_than_openshift_gives(openshift: User) -> None:
    assert refusal(openshift.cluster, UIDS + 1) == ""
    # The pods that are written for OpenShift name no ids, and its admission puts these in.
    ids = {"runAsUser": UIDS + 1, "runAsGroup": None, "fsGroup": UIDS}
    pod = f"pod={json.dumps({'securityContext': ids})}"
    where = ["--nodes", 1, "--namespace", NAMESPACE, "--kubernetes", pod]
    run = openshift.submit("around", on=where)
    openshift.check("watch", run.id, out="finished")
    check(run)
    read = "import sys, json, bridgehead as bh\nprint(json.dumps(list(bh.connect(sys.argv[1]).results().values())[0]))"
    done = openshift.run("python", "-c", read, run.id)
    assert done.code == 0, done
    seen = json.loads(done.out)
    assert (seen["uid"], seen["gid"]) == (UIDS + 1, 0)
    assert seen["home"] and seen["named"] == "bridgehead", "a user without an entry in passwd has a home and a name"
    assert seen["beside"] == "carried" and not seen["token"]


@pytest.mark.parametrize("flavour", ["volcano", "indexed-job"])
def test_what_a_strict_namespace_does_not_allow_is_said_by_why(restricted: User, flavour: str) -> None:
    where = ["--namespace", restricted.namespace, "--flavor", flavour, "--kubernetes", "rdma=true"]
    run = restricted.submit("values", 1, 0.1, on=where)
    wait_until(lambda: "PodSecurity" in run.why(), "why names the profile", 60, state=run.why)
    restricted.check("cancel", run.id, out="cancelled")
    gone(run)
