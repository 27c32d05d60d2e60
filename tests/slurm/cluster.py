"""The hosts of the virtual cluster as root of the machine sees them: Slurm's jobs and nodes, faults that are mended whatever
happens, and the processes and shared memory on every node. `tests/clusters/slurm` makes the cluster."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from handed import ROOT, wait_until

TOOLS = ROOT / "tests/clusters/slurm"
_OPPOSITE = {
    "kill": "start",
    "freeze": "thaw",
    "cut": "join",
    "stop-slurmd": "start-slurmd",
    "stop-slurmctld": "start-slurmctld",
}


class Cluster:
    """The running cluster, seen as root of the machine that it lives on."""

    def __init__(self, state: Path) -> None:
        self.state = state
        text = (state / "etc/cluster.env").read_text()
        self.settings = {name: value for word in shlex.split(text) for name, _, value in [word.partition("=")]}
        self.nodes = [f"{self.settings['PREFIX']}{n}" for n in range(1, int(self.settings["NODES"]) + 1)]
        self.shared = state / "shared"
        self.rest_url = "http://ctl:6820"
        self._env = {"PATH": os.environ["PATH"], "TESTSLURM_STATE": str(state)}

    def tool(self, name: str, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """One of the cluster's own commands: `node`, `enter`."""
        settings: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 120, "cwd": self.shared}
        return subprocess.run([TOOLS / name, *words], env=self._env, **{**settings, **options})

    def start_on(self, host: str, user: str, env: dict[str, str], *words: object) -> subprocess.Popen[str]:
        """A command of a user on a host, with this environment and no other."""
        given = [f"{name}={value}" for name, value in env.items()]
        command = [TOOLS / "enter", "--user", user, host, "env", "-i", *given, *map(str, words)]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env=self._env, cwd=self.shared, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True
        )

    def slurm(self, *words: str) -> str:
        """What one of Slurm's commands prints, asked by root on the machine."""
        done = subprocess.run(
            [self.state / "bin" / words[0], *words[1:]], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done
        return done.stdout

    def jobs(self, name: str = "") -> list[dict[str, str]]:
        """Jobs that Slurm remembers, ended ones too, as `scontrol` has them; all of a name, or all."""
        shown = self.slurm("scontrol", "-o", "show", "job").splitlines()
        rows = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown if line.startswith("JobId=")]
        return [row for row in rows if not name or row["JobName"] == name]

    def queue(self, name: str) -> list[str]:
        """Ids of the jobs of this name that have not ended."""
        return self.slurm("squeue", "-h", "-a", "-o", "%i", "-n", name).split()

    def node_states(self) -> dict[str, str]:
        lines = self.slurm("sinfo", "-h", "-N", "-p", "main", "-o", "%N %T").splitlines()
        return dict(line.split() for line in lines)

    def up(self) -> bool:
        """Whether every node can have jobs."""
        states = self.node_states()
        return all(states.get(node, "").rstrip("*") in ("idle", "mixed", "allocated") for node in self.nodes)

    @contextlib.contextmanager
    def fault(self, what: str, host: str) -> Iterator[None]:
        """A host is broken within, and mended after it whatever happens."""
        done = self.tool("node", what, host)
        assert done.returncode == 0, done
        try:
            yield
        finally:
            self.mend(what, host)

    def mend(self, what: str, host: str) -> None:
        done = self.tool("node", _OPPOSITE[what], host)
        assert done.returncode == 0, done
        wait_until(lambda: self.tool("enter", "ctl", "scontrol", "ping").returncode == 0, "slurmctld answers")

        def back() -> bool:
            for node, state in self.node_states().items():
                if state.rstrip("*") in ("down", "drained"):
                    self.tool("enter", "ctl", "scontrol", "update", f"nodename={node}", "state=resume")
            return self.up()

        wait_until(back, f"every node is up again after {what} {host}")

    def namespaces(self) -> dict[str, str]:
        """The process namespace of each host that runs."""
        found = {}
        for host in ["ctl", *self.nodes]:
            done = self.tool("node", "pid", host)
            if done.returncode == 0 and done.stdout:
                found[os.readlink(f"/proc/{done.stdout.strip()}/ns/pid")] = host
        return found

    def processes(self, mark: str) -> list[str]:
        """Processes on any host that have this text in their command or their environment."""
        hosts, found = self.namespaces(), []
        for entry in filter(str.isdigit, os.listdir("/proc")):
            try:
                host = hosts.get(os.readlink(f"/proc/{entry}/ns/pid"))
                words = Path("/proc", entry, "cmdline").read_bytes() if host else b""
                if host and mark.encode() in words + b"\0" + Path("/proc", entry, "environ").read_bytes():
                    found.append(f"{host}: {words.replace(bytes(1), b' ').decode(errors='replace')}")
            except OSError:
                continue  # It went while it was looked at.
        return found

    def memory_left(self) -> list[str]:
        """Names in the nodes' shared memory."""
        pids = [self.tool("node", "pid", node).stdout.strip() for node in self.nodes]
        return [f"{pid}: {name}" for pid in pids for name in os.listdir(f"/proc/{pid}/root/dev/shm")]
