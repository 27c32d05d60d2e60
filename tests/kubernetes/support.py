"""What the tests on Kubernetes share: the program as a user types it on a laptop with a kubeconfig, and what a run did by its
journal and by what it left in the cluster. The cluster and its faults are `cluster.py`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgehead import _bridgehead
from cluster import ROOT, Cluster, wait_until

BIN = Path(sys.prefix, "bin")
SCRIPT = Path(__file__).with_name("pipelines.py")
"""The pipelines that are submitted."""
IMAGE = "localhost/bridgehead:test"
ENDED = ("finished", "failed", "cancelled")
DOCUMENTED = {
    int(code) for code in re.findall(r"^\| (\d+) \|", (ROOT / "docs/guide/exit-codes.md").read_text(), re.MULTILINE)
}
"""The exit codes that the page for people has."""


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


class User:
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

    def run(self, *words: object, limit: float = 150, **env: str) -> Done:
        """Runs a command to its end."""
        with self.start(*words, **env) as process:
            try:
                out, err = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Done(process.returncode, out, err)

    def check(
        self, *words: object, code: int = 0, out: str | None = None, err: Sequence[str] = (), **options: Any
    ) -> str:
        """`bridgehead` ends with this documented code and says these words. What it printed."""
        done = self.run("bridgehead", *words, **options)
        assert done.code == code, (words, done)
        assert code in DOCUMENTED
        for word in err:
            assert word in done.err, (word, done)
        if out is not None:
            assert out in done.out, (out, done)
        return done.out

    def json(self, *words: object, **options: Any) -> Any:
        """The document that a command prints with --json."""
        return json.loads(self.check(*words, "--json", **options))

    def submit(self, kind: str, *arguments: object, on: Sequence[object] = (), **env: str) -> Submitted:
        """A run of this kind of the test's pipelines, handed to Kubernetes with these options."""
        out = self.check("submit", "--on", "kubernetes", *on, SCRIPT, kind, *arguments, **env)
        return Submitted(self, out.strip())

    def runs(self) -> set[str]:
        folder = self.home / "runs"
        return set(os.listdir(folder)) if folder.exists() else set()


class Submitted:
    """A run that a user submitted."""

    def __init__(self, user: User, id: str) -> None:
        assert re.fullmatch(r"[\w-]+", id), id
        self.user, self.id, self.cluster = user, id, user.cluster
        self.folder = user.home / "runs" / id

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.user.json("status", self.id)
        return status

    def phase(self) -> str:
        return str(self.status()["phase"])

    def why(self, *task: object) -> str:
        return self.user.check("why", self.id, *task)

    def wait_phase(self, *phases: str, limit: float = 150.0) -> str:
        """Waits until the run is in one of these phases."""
        last = ""

        def there() -> bool:
            nonlocal last
            last = self.phase()
            return last in phases

        wait_until(there, f"{self.id} is {' or '.join(phases)}", limit, state=lambda: self.told(last))
        return last

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

    def events(self) -> list[tuple[int, str, int | None, int, str]]:
        """The journal as it is here: (time, event, task, attempt or agent, text)."""
        return list(_bridgehead.read_journal(str(self.folder)))

    def count(self, event: str) -> int:
        return sum(name == event for _, name, _, _, _ in self.events())


def check(run: Submitted, phase: str = "finished", limit: float = 150.0) -> dict[str, Any]:
    """The run comes to this end, and by its journal no task that finished was given out again, unless its value was lost.
    Its last status."""
    assert run.wait_phase(*ENDED, "lost", limit=limit) == phase, run.told(phase)
    run.user.check("results", run.id)
    finished: set[int | None] = set()
    for _, name, task, _, _ in run.events():
        if name == "task-assigned":
            assert task not in finished, f"task {task} was given out although it had finished"
        elif name == "task-finished":
            finished.add(task)
        elif name == "task-reset":
            finished.discard(task)
    return run.status()


def gone(run: Submitted, limit: float = 60.0) -> None:
    """Nothing of the run is left in the cluster."""
    left = lambda: run.cluster.objects(run.id, run.user.namespace)  # noqa: E731
    wait_until(lambda: not left(), f"no object of {run.id} is left", limit, state=left)
