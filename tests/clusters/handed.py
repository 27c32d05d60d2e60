"""What tests on a cluster share, whichever it is: a condition to wait for, a user who types commands, a run that was handed to a
scheduler. Where commands run and what a cluster knows of a run is `tests/slurm/support.py`'s and `tests/kubernetes/support.py`'s."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bridgehead import _bridgehead

ROOT = Path(__file__).parents[2]
BIN = Path(sys.prefix, "bin")
ENDED = ("finished", "failed", "cancelled")
DOCUMENTED = {
    int(code) for code in re.findall(r"^\| (\d+) \|", (ROOT / "docs/guide/exit-codes.md").read_text(), re.MULTILINE)
}
"""The exit codes that the page for people has."""

Event = tuple[int, str, int | None, int, str]
"""Of a journal: time, event, task, attempt or agent, text."""


def wait_until(
    condition: Callable[[], Any],
    what: str,
    limit: float = 90.0,
    *,
    every: float = 0.05,
    state: Callable[[], object] = str,
) -> Any:
    """Waits for a condition and gives what it gave; the pause only bounds how often it is looked at. `state` says more where
    the condition does not come true."""
    end = time.monotonic() + limit
    while not (found := condition()):
        assert time.monotonic() < end, f"did not come true in {limit} s: {what}\n{state()}"
        time.sleep(every)
    return found


@dataclass
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str


class Typist(ABC):
    """Somebody who types commands.

    Attributes:
        home: where the runs' folders are.
        one_message: a command that fails says one thing, and no note before it.
    """

    home: Path
    one_message = False

    @abstractmethod
    def start(self, *words: object, **env: str) -> subprocess.Popen[str]:
        """Starts a command and does not wait for it."""

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
        if self.one_message and code != 0 and err:
            assert done.err.startswith("bridgehead: ") and done.err.count("\nbridgehead: ") == 0, done
        for word in err:
            assert word in done.err, (word, done)
        if out is not None:
            assert out in done.out, (out, done)
        return done.out

    def json(self, *words: object, **options: Any) -> Any:
        """The document that a command prints with --json."""
        return json.loads(self.check(*words, "--json", **options))

    def runs(self) -> set[str]:
        folder = self.home / "runs"
        return set(os.listdir(folder)) if folder.exists() else set()


class HandedOver(ABC):
    """A run that a user handed to a scheduler."""

    def __init__(self, user: Typist, id: str) -> None:
        assert re.fullmatch(r"[\w-]+", id), id
        self.typist, self.id = user, id
        self.folder = user.home / "runs" / id

    @abstractmethod
    def told(self, phase: str) -> str:
        """What is known of the run, for a test that failed."""

    def status(self) -> dict[str, Any]:
        status: dict[str, Any] = self.typist.json("status", self.id)
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

    def events(self) -> list[Event]:
        """The journal."""
        return list(_bridgehead.read_journal(str(self.folder))) if (self.folder / "journal").exists() else []

    def count(self, event: str) -> int:
        return sum(name == event for _, name, _, _, _ in self.events())


def check_finished_once(events: Iterable[Event]) -> None:
    """No task is given out after it finished, but for a reset in between."""
    finished: set[int | None] = set()
    for _, name, task, _, _ in events:
        if name == "task-assigned":
            assert task not in finished, f"task {task} was given out although it had finished"
        elif name == "task-finished":
            finished.add(task)
        elif name == "task-reset":
            finished.discard(task)
