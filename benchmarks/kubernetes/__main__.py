"""Bridgehead on a Kubernetes cluster against bare Volcano jobs of the same pods, in turn, in one run: `make bench-kubernetes`.

Owns the rows and the table. The cluster is `tests/clusters/kubernetes`, the user that of `tests/kubernetes`. All figures are of
virtual nodes that share the cores of one machine: only ratios of the same run mean anything."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parents[1] / "tests"
sys.path[:0] = [str(TESTS / "kubernetes"), str(TESTS / "clusters"), str(HERE.parent)]

from calls import Audit  # noqa: E402
from cluster import Cluster  # noqa: E402
from handed import wait_until  # noqa: E402
from pairs import Table  # noqa: E402
from prepare import give_roles, load_image  # noqa: E402
from support import IMAGE, Submitted, User  # noqa: E402
from watching import Api, Pods  # noqa: E402

NAMESPACE = "hpc"
PIPELINE = HERE / "pipelines.py"
ASKED = {"cpu": "1", "memory": "256Mi"}
"""What each pod asks for, ours and the bare ones."""
ON = ["--on", "kubernetes", "--flavor", "volcano", "--cpus", 1, "--memory", "256MiB"]
LOOKS = 3
"""How often the status of a run is asked for."""


def rows(nodes: int) -> tuple[str, str, str]:
    """The names of the rows for gangs of so many nodes: ours, its pods alone, the bare job."""
    number = f"{nodes} node{'s' * (nodes > 1)}, s"
    return (
        f"submit to all agents joined, {number}",
        f"submit to all pods running, {number}",
        f"bare Volcano job, POST to all pods running, {number}",
    )


class Bench:
    """What all rows share."""

    def __init__(self, table: Table, user: User) -> None:
        self.table, self.user = table, user
        self.api = Api(user.cluster.state, NAMESPACE)
        self.audit = Audit(user.cluster.state, f"system:serviceaccount:{NAMESPACE}:submitter")
        self.asked: dict[str, list[Counter[str]]] = {}

    @contextmanager
    def timed(self, command: str) -> Iterator[None]:
        """A row for a whole command, and what it asks of the API server where that is logged."""
        began = time.monotonic()
        with self.audit.counted() if self.audit else nullcontext(Counter[str]()) as counts:
            yield
            self.table.add(f"bridgehead {command}, the whole command, s", time.monotonic() - began)
        self.asked.setdefault(command, []).append(counts)

    def ours(self, nodes: int) -> None:
        """A run from its submission until its agents have joined; then looked at, and cancelled."""
        joined_row, pods_row, _ = rows(nodes)
        label = "app.kubernetes.io/managed-by=bridgehead"
        with Pods(self.api, label) as pods:
            began = time.time()
            with self.timed("submit"):
                out = self.user.check("submit", *ON, "--nodes", nodes, PIPELINE)
            run = Submitted(self.user, out.strip())
            self.table.add(pods_row, pods.wait_running(nodes) - began)
            assert all(asked(pod) == ASKED for pod in pods.seen.values()), "the bare pods ask for the same"
            self.table.add(joined_row, self.all_joined(run, nodes) - began)
            for _ in range(LOOKS):
                with self.timed("status of a running run"):
                    self.user.check("status", run.id)
            with self.timed("cancel"):
                self.user.check("cancel", run.id)
            pods.wait_gone()

    def all_joined(self, run: Submitted, nodes: int) -> float:
        """When the last agent joined, by the journal, which is asked for rarely: whoever asks takes a core from the pods."""

        def joined() -> list[float]:
            self.user.check("status", run.id)  # Brings the journal.
            times = [when / 1e9 for when, name, _, _, _ in run.events() if name == "agent-joined"]
            return times if len(times) >= nodes else []

        return max(wait_until(joined, f"{nodes} agents of {run.id} have joined", 120, every=1, state=run.events))

    def bare(self, nodes: int, number: int) -> None:
        """A job of the same pods that does nothing, from its POST until all of them run."""
        name = f"bare-{os.getpid()}-{nodes}-{number}"
        with Pods(self.api, f"volcano.sh/job-name={name}") as pods:
            began = time.time()
            self.api.ask("POST", self.api.jobs(), job(name, nodes))
            self.table.add(rows(nodes)[2], pods.wait_running(nodes) - began)
            self.api.ask("DELETE", f"{self.api.jobs()}/{name}", {"propagationPolicy": "Background"})
            pods.wait_gone()

    def words_of_calls(self) -> None:
        """How much each command asks of the API server, the most of all rounds."""
        for command, all_counts in self.asked.items():
            counts = max(all_counts, key=Counter.total)
            if counts:
                parts = ", ".join(f"{n} {what}" for what, n in counts.most_common())
                self.table.lines.append(f"- requests of `{command}`: {counts.total()} at most ({parts})")


def asked(pod: object) -> object:
    """What the container of a pod asks for."""
    return pod["spec"]["containers"][0]["resources"]["requests"]  # type: ignore[index]


def job(name: str, nodes: int) -> dict[str, object]:
    """A Volcano job of pods that sleep."""
    container = {
        "name": "main",
        "image": IMAGE,
        "command": ["sleep", "600"],
        "resources": {"requests": ASKED, "limits": ASKED},
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": [container],
    }
    task = {"name": "rank", "replicas": nodes, "minAvailable": nodes, "template": {"spec": pod}}
    spec = {"schedulerName": "volcano", "queue": "default", "minAvailable": nodes, "maxRetry": 1, "tasks": [task]}
    return {"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/kubernetes", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each size")
    parser.add_argument("--quick", action="store_true", help="one round, and no file written: that all of it runs")
    parser.add_argument("--out", type=Path, default=HERE.parent / "results/kubernetes.md", help="where the table goes")
    parsed = parser.parse_args()
    cluster = Cluster(Path(os.environ["TESTKUBE_STATE"]))
    wait_until(cluster.ready, "every node is ready")
    table = Table()
    with tempfile.TemporaryDirectory(prefix="bench-kubernetes.") as folder:
        (home := Path(folder, "home")).mkdir()
        load_image(cluster, Path(folder, "image"))
        give_roles(cluster, (NAMESPACE,), ("submitter",))
        user = User(cluster, home, cluster.state / "user.kubeconfig")
        Bench(Table(), user).ours(3)  # Not counted: each node reads the image from disk for the first time.
        bench = Bench(table, user)
        for number in range(1 if parsed.quick else parsed.rounds):
            for nodes in (1, 3):
                bench.bare(nodes, number)
                bench.ours(nodes)
    for nodes in (1, 3):
        joined, pods, bare = rows(nodes)
        many = f"{nodes} node{'s' * (nodes > 1)}"
        table.ratio(f"until all agents have joined against a bare job's pods, {many}", joined, bare)
        table.ratio(f"until all pods run against a bare job's pods, {many}", pods, bare)
    bench.words_of_calls()
    print(table.text(), end="")
    if not parsed.quick:
        parsed.out.write_text(table.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
