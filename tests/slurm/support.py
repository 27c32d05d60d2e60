"""What the tests on a Slurm cluster share: the program as a user types it on the login node, and what a run did by its journal,
by its tasks' own notes and by what it left on the nodes. The cluster and its faults are `cluster.py`."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from subprocess import Popen
from typing import Any

from cluster import Cluster, wait_until
from handed import BIN, ENDED, HandedOver, Typist, check_finished_once

SCRIPT = Path(__file__).with_name("pipelines.py")
"""The pipelines that are submitted."""


class User(Typist):
    """A user on the login node, with a home for runs on the shared file system."""

    one_message = True

    def __init__(self, cluster: Cluster, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.home = cluster.shared / name / "bridgehead"
        self.token = cluster.state / "token" / name
        self.env = {
            "PATH": f"{BIN}:/usr/bin:/bin",
            "HOME": str(cluster.state / "home" / name),
            "USER": name,
            "LOGNAME": name,
            "LANG": "C.UTF-8",
            "SLURM_CONF": str(cluster.state / "etc/slurm.conf"),
            "BRIDGEHEAD_HOME": str(self.home),
        }

    def start(self, *words: object, host: str = "ctl", **env: str) -> Popen[str]:
        """Starts a command and does not wait for it."""
        return self.cluster.start_on(host, self.name, {**self.env, **env}, *words)

    def submit(self, kind: str, *arguments: object, on: Sequence[object] = (), **env: str) -> Submitted:
        """A run of this kind of the test's pipelines, handed to Slurm with these options."""
        notes = self.new_notes()
        out = self.check("submit", "--on", "slurm", *on, SCRIPT, kind, notes, *arguments, **env)
        return Submitted(self, out.strip(), notes)

    def new_notes(self) -> Path:
        """A new folder for what tasks write down."""
        folder = Path(tempfile.mkdtemp(dir=self.home.parent, prefix="notes-"))
        folder.chmod(0o777)
        return folder


class Submitted(HandedOver):
    """A run that a user submitted."""

    def __init__(self, user: User, id: str, notes: Path) -> None:
        super().__init__(user, id)
        self.user, self.notes, self.cluster = user, notes, user.cluster

    def told(self, phase: str) -> str:
        """What is known of the run, for a test that failed."""
        logs = [*(self.folder / "logs").glob("*.log"), *self.folder.glob("*.out"), *self.folder.glob("slurm*")]
        tails = [f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs if path.is_file()]
        jobs = [(job["JobId"], job["JobState"], job["Reason"], job["NodeList"]) for job in self.cluster.jobs(self.id)]
        events = [event[1:] for event in self.events()][-12:]
        why = self.user.run("bridgehead", "why", self.id)
        return f"{phase}\n{jobs}\n{events}\n{why.out}{why.err}\n" + "\n".join(tails)

    def story(self) -> str:
        """What happened besides tasks that ran and ended well, for people who read of a test that failed."""
        usual = ("task-assigned", "task-finished", "task-persisted", "task-added")
        told = [event for event in self.events() if event[1] not in usual]
        return "\n".join(f"{time / 1e9:.1f} {name} {task} {number} {text}" for time, name, task, number, text in told)

    def noted(self) -> list[tuple[str, int, str]]:
        """What tasks wrote down: (begin or end, task, host)."""
        log = self.notes / "log"
        lines = log.read_text().splitlines() if log.exists() else []
        return [(what, int(task), host) for what, task, host in map(str.split, lines)]

    def hosts(self) -> set[str]:
        """Nodes on which tasks ended."""
        return {host for what, _, host in self.noted() if what == "end"}

    def open_gate(self) -> None:
        """Lets tasks pass that wait at the gate."""
        (self.notes / "open").touch()

    def wait_noted(self, what: str, number: int = 1, limit: float = 120.0) -> None:
        """Waits until so many tasks have begun, or ended."""
        wait_until(
            lambda: sum(noted == what for noted, _, _ in self.noted()) >= number,
            f"{number} tasks of {self.id} have noted {what}",
            limit,
            state=lambda: self.told("?"),
        )

    def nodes(self) -> list[str]:
        """The nodes of the run's first running job; the head is on the first."""
        jobs = [job for job in self.cluster.jobs(self.id) if job["JobState"] == "RUNNING"]
        return self.cluster.slurm("scontrol", "show", "hostnames", jobs[0]["NodeList"]).split()


def check(run: Submitted, phase: str = "finished", *, again: bool = False, limit: float = 150.0) -> dict[str, Any]:
    """The run comes to this end; by its journal and by its tasks' notes no task ran more often than it was given out, and
    none that finished ran again unless the journal says that its value was lost; no job of it is left in the queue, and
    no process, socket or shared memory on any node. Without `again` no task was given out twice. Its last status."""
    assert run.wait_phase(*ENDED, "lost", limit=limit) == phase, run.told(phase)
    wait_until(lambda: not run.cluster.queue(run.id), f"no job of {run.id} is in the queue", state=lambda: run.told(""))
    wait_until(
        lambda: not run.cluster.processes(run.id), "no process is left", state=lambda: run.cluster.processes(run.id)
    )
    events = run.events()
    given = Counter(task for _, name, task, _, _ in events if name == "task-assigned")
    begun = Counter(task for what, task, _ in run.noted() if what == "begin")
    assert not begun - given, f"began more often than it was given out: {begun - given}"
    if not again:
        assert all(n == 1 for n in given.values()), [task for task, n in given.items() if n > 1]
    check_finished_once(events)
    assert [name for name in run.cluster.memory_left() if "bridgehead" in name] == []
    status = run.status()
    assert status["phase"] == phase
    return status
