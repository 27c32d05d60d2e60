"""What the tests on a Slurm cluster share: the program as a user types it on the login node, and what a run did by its journal,
by its tasks' own notes and by what it left on the nodes. The cluster and its faults are `cluster.py`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgehead import _bridgehead
from cluster import ROOT, Cluster, wait_until

BIN = Path(sys.prefix, "bin")
SCRIPT = Path(__file__).with_name("pipelines.py")
"""The pipelines that are submitted."""
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
    """A user on the login node, with a home for runs on the shared file system."""

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

    def start(self, *words: object, host: str = "ctl", **env: str) -> subprocess.Popen[str]:
        """Starts a command and does not wait for it."""
        return self.cluster.start_on(host, self.name, {**self.env, **env}, *words)

    def run(self, *words: object, host: str = "ctl", limit: float = 110, **env: str) -> Done:
        """Runs a command to its end."""
        with self.start(*words, host=host, **env) as process:
            try:
                out, err = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Done(process.returncode, out, err)

    def check(
        self, *words: object, code: int = 0, out: str | None = None, err: Sequence[str] = (), **options: Any
    ) -> str:
        """`bridgehead` ends with this documented code and says these words, on standard error in one message where it
        fails. What it printed."""
        done = self.run("bridgehead", *words, **options)
        assert done.code == code, (words, done)
        assert code in DOCUMENTED
        if code != 0 and err:
            assert done.err.startswith("bridgehead: ") and done.err.count("\nbridgehead: ") == 0, done
        for word in err:
            assert word in done.err, (word, done)
        if out is not None:
            assert out in done.out, (out, done)
        return done.out

    def json(self, *words: object, **options: Any) -> Any:
        """The document that a command prints with --json."""
        return json.loads(self.check(*words, "--json", **options))

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

    def runs(self) -> set[str]:
        folder = self.home / "runs"
        return set(os.listdir(folder)) if folder.exists() else set()


class Submitted:
    """A run that a user submitted."""

    def __init__(self, user: User, id: str, notes: Path) -> None:
        assert re.fullmatch(r"[\w-]+", id), id
        self.user, self.id, self.notes, self.cluster = user, id, notes, user.cluster
        self.folder = user.home / "runs" / id

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.user.json("status", self.id)
        return status

    def phase(self) -> str:
        return str(self.status()["phase"])

    def wait_phase(self, *phases: str, limit: float = 120.0) -> str:
        """Waits until the run is in one of these phases."""
        last = ""

        def there() -> bool:
            nonlocal last
            last = self.phase()
            return last in phases

        wait_until(there, f"{self.id} is {' or '.join(phases)}", limit, every=0.3, state=lambda: self.told(last))
        return last

    def told(self, phase: str) -> str:
        """What is known of the run, for a test that failed."""
        logs = [*(self.folder / "logs").glob("*.log"), *self.folder.glob("*.out"), *self.folder.glob("slurm*")]
        tails = [f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in logs if path.is_file()]
        jobs = [(job["JobId"], job["JobState"], job["Reason"], job["NodeList"]) for job in self.cluster.jobs(self.id)]
        events = [event[1:] for event in self.events()][-12:]
        why = self.user.run("bridgehead", "why", self.id)
        return f"{phase}\n{jobs}\n{events}\n{why.out}{why.err}\n" + "\n".join(tails)

    def events(self) -> list[tuple[int, str, int | None, int, str]]:
        """The journal: (time, event, task, attempt or agent, text)."""
        return list(_bridgehead.read_journal(str(self.folder))) if (self.folder / "journal").exists() else []

    def story(self) -> str:
        """What happened besides tasks that ran and ended well, for people who read of a test that failed."""
        usual = ("task-assigned", "task-finished", "task-persisted", "task-added")
        told = [event for event in self.events() if event[1] not in usual]
        return "\n".join(f"{time / 1e9:.1f} {name} {task} {number} {text}" for time, name, task, number, text in told)

    def count(self, event: str) -> int:
        return sum(name == event for _, name, _, _, _ in self.events())

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
    _check_finished_once(events)
    assert [name for name in run.cluster.memory_left() if "bridgehead" in name] == []
    status = run.status()
    assert status["phase"] == phase
    return status


def _check_finished_once(events: Sequence[tuple[int, str, int | None, int, str]]) -> None:
    """No task is given out after it finished, but for a reset in between."""
    finished: set[int | None] = set()
    for _, name, task, _, _ in events:
        if name == "task-assigned":
            assert task not in finished, f"task {task} was given out although it had finished"
        elif name == "task-finished":
            finished.add(task)
        elif name == "task-reset":
            finished.discard(task)
