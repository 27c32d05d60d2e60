"""What the tests on Kubernetes share: the program as a user types it on a laptop with a kubeconfig, and what a run did by its
journal and by what it left in the cluster. The cluster and its faults are `cluster.py`."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster import Cluster
from handed import BIN, ENDED, HandedOver, Typist, check_finished_once, wait_until

SCRIPT = Path(__file__).with_name("pipelines.py")
"""The pipelines that are submitted."""
IMAGE = "localhost/bridgehead:test"


class User(Typist):
    """A user with a home for runs and a kubeconfig."""

    def __init__(self, cluster: Cluster, home: Path, kubeconfig: Path, namespace: str = "hpc") -> None:
        self.cluster, self.home, self.namespace = cluster, home / "bridgehead", namespace
        self.env = {
            "PATH": f"{BIN}:/usr/bin:/bin",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "KUBECONFIG": str(kubeconfig),
            "BRIDGEHEAD_HOME": str(self.home),
            "BRIDGEHEAD_IMAGE": IMAGE,
        }

    def start(self, *words: object, **env: str) -> subprocess.Popen[str]:
        """Starts a command and does not wait for it."""
        pipe = subprocess.PIPE
        return subprocess.Popen(
            list(map(str, words)),
            env={**self.env, **env},
            cwd=SCRIPT.parent,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )

    def submit(self, kind: str, *arguments: object, on: Sequence[object] = (), **env: str) -> Submitted:
        """A run of this kind of the test's pipelines, handed to Kubernetes with these options."""
        out = self.check("submit", "--on", "kubernetes", *on, SCRIPT, kind, *arguments, **env)
        return Submitted(self, out.strip())


class Submitted(HandedOver):
    """A run that a user submitted."""

    def __init__(self, user: User, id: str) -> None:
        super().__init__(user, id)
        self.user, self.cluster = user, user.cluster

    def why(self, *task: object) -> str:
        return self.user.check("why", self.id, *task)

    def wait_finished(self, count: int, limit: float = 120.0) -> None:
        """Waits until so many tasks have finished."""
        wait_until(
            lambda: self.status()["tasks"].get("finished", 0) >= count,
            f"{count} tasks of {self.id} have finished",
            limit,
            state=lambda: self.told("?"),
        )

    def told(self, phase: str) -> str:
        """What is known of the run, for a test that failed."""
        logs = [
            f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in self.folder.glob("logs/*.log")
        ]
        pods = self.cluster.kubectl("get", "pods", "-n", self.user.namespace, "-o", "wide", ok=False)
        why = self.user.run("bridgehead", "why", self.id)
        objects = self.cluster.objects(self.id, self.user.namespace)
        return f"{phase}\n{objects}\n{pods}\n{why.out}{why.err}\n" + "\n".join(logs)

    def pods(self) -> list[dict[str, Any]]:
        return self.cluster.pods(self.id, self.user.namespace)


def check(run: Submitted, phase: str = "finished", limit: float = 150.0) -> dict[str, Any]:
    """The run comes to this end, and by its journal no task that finished was given out again, unless its value was lost.
    Its last status."""
    assert run.wait_phase(*ENDED, "lost", limit=limit) == phase, run.told(phase)
    run.user.check("results", run.id)
    check_finished_once(run.events())
    return run.status()


def gone(run: Submitted, limit: float = 60.0) -> None:
    """Nothing of the run is left in the cluster."""
    left = lambda: run.cluster.objects(run.id, run.user.namespace)  # noqa: E731
    wait_until(lambda: not left(), f"no object of {run.id} is left", limit, state=left)
