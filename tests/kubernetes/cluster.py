"""The virtual cluster as its administrator sees it: objects, pods and their nodes, faults that are mended whatever happens.
`tests/clusters/kubernetes` makes the cluster."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from handed import ROOT, wait_until

TOOLS = ROOT / "tests/clusters/kubernetes"
_OPPOSITE = {"kill": "start", "freeze": "thaw", "cut": "join", "stop-kubelet": "start-kubelet"}
KINDS = "jobs.batch.volcano.sh,jobsets.jobset.x-k8s.io,appwrappers.workload.codeflare.dev,jobs.batch,pods,services,secrets,podgroups.scheduling.volcano.sh"
"""Kinds of objects that a run may have."""


class Cluster:
    """The running cluster."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.nodes = ["n1", "n2", "n3"]
        self.shared = state / "shared"
        lines = [line.removeprefix("export ") for line in (state / "env.sh").read_text().splitlines()]
        told = dict(line.split("=", 1) for line in lines)
        commands = told["PATH"].split(":")[0]
        self.env = {**os.environ, "PATH": f"{commands}:{os.environ['PATH']}", "KUBECONFIG": told["KUBECONFIG"]}
        self.env["TESTKUBE_STATE"] = str(state)

    def tool(self, *words: object) -> str:
        """One of the cluster's own tools."""
        name, *rest = map(str, words)
        done = subprocess.run(
            [TOOLS / name, *rest], env=self.env, capture_output=True, text=True, timeout=180, check=False
        )
        assert done.returncode == 0, done
        return done.stdout

    def kubectl(self, *words: object, text: str | None = None, ok: bool = True) -> str:
        """What `kubectl` prints for the administrator."""
        done = self._kubectl(words, text)
        assert done.returncode == 0 or not ok, (words, done)
        return done.stdout

    def refused(self, *words: object, text: str | None = None) -> str:
        """Why the cluster refuses this to the administrator; empty where it does not."""
        done = self._kubectl(words, text)
        return done.stderr if done.returncode else ""

    def _kubectl(self, words: tuple[object, ...], text: str | None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["kubectl", *map(str, words)],
            env=self.env,
            input=text,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def get(self, kind: str, *words: object) -> list[dict[str, Any]]:
        """Objects of some kinds."""
        items: list[dict[str, Any]] = json.loads(self.kubectl("get", kind, "-o", "json", *words))["items"]
        return items

    def apply(self, *documents: dict[str, Any]) -> None:
        text = "\n---\n".join(map(json.dumps, documents))
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", text=text)

    def pods(self, run: str, namespace: str = "hpc") -> list[dict[str, Any]]:
        return self.get("pods", "-n", namespace, "-l", f"bridgehead.dev/run={run}")

    def objects(self, run: str, namespace: str = "hpc") -> list[str]:
        """All objects of a run, as KIND/NAME."""
        found = self.get(KINDS, "-n", namespace, "-l", f"bridgehead.dev/run={run}")
        return [f"{item['kind']}/{item['metadata']['name']}" for item in found]

    def volume(self, name: str, namespace: str = "hpc") -> Path:
        """A claim that pods of every node can write, as on a shared file system; the folder behind it."""
        folder = self.shared / f"{namespace}-{name}"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o777)
        spec = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": f"{namespace}-{name}"}
        size = {"storage": "1Gi"}
        claim = {"namespace": namespace, "name": name}
        self.apply(
            {
                "apiVersion": "v1",
                "kind": "PersistentVolume",
                "metadata": {"name": f"{namespace}-{name}"},
                "spec": {
                    "capacity": size,
                    "accessModes": ["ReadWriteMany"],
                    "hostPath": {"path": str(folder)},
                    "claimRef": claim,
                },
            },
            {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": claim,
                "spec": {**spec, "resources": {"requests": size}},
            },
        )
        return folder

    @contextlib.contextmanager
    def fault(self, what: str, node: str) -> Iterator[None]:
        """A node is broken within, and mended after it whatever happens."""
        self.tool("node", what, node)
        try:
            yield
        finally:
            self.tool("node", _OPPOSITE[what], node)
            wait_until(self.ready, f"every node is ready again after {what} {node}")

    @contextlib.contextmanager
    def without(self, component: str) -> Iterator[None]:
        """A component of the control plane is stopped within."""
        self.tool("component", "stop", component)
        try:
            yield
        finally:
            self.tool("component", "start", component)
            wait_until(lambda: self.kubectl("get", "--raw", "/readyz", ok=False) == "ok", "the API server answers")

    def ready(self) -> bool:
        """Whether every node takes pods."""
        found = json.loads(self.kubectl("get", "nodes", "-o", "json", ok=False) or '{"items": []}')["items"]
        states = [
            condition["status"]
            for node in found
            for condition in node["status"]["conditions"]
            if condition["type"] == "Ready"
        ]
        return len(states) >= len(self.nodes) and set(states) == {"True"}
