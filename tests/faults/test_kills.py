"""Laws of SIGKILL at random moments: no finished result is lost, results are right, nothing is left behind."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import bridgehead as bh
import pytest
import support
from support import PROGRAM, bridgehead, everything_of, journal, kill, processes_of, wait_until, workers_of

KILLS = 8
"""Kills for each seed: 7 seeds give 56."""

VICTIMS = ("worker", "worker", "agent", "head", "client")

SCRIPT = '''
import os, time
import bridgehead as bh

def note(name):
    """A side effect: one line for each time that a task was begun."""
    fd = os.open(os.path.join(os.environ["RAN"], name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, b"begun\\n")
    os.close(fd)

@bh.task
def square(x):
    note(f"square-{x}")
    time.sleep(0.03)
    return x * x

@bh.task
def plus(x, *others):
    note(f"plus-{x}")
    time.sleep(0.03)
    return x + sum(others)

@bh.task
def spread(n, base):
    note("spread")
    return base + sum(f.result() for f in [bh.submit(square, 100 + i) for i in range(n)])

p = bh.Pipeline("kills")
first = p.map(square, range(12))
second = [p.add(plus, i, first[i], first[(i + 1) % 12]) for i in range(12)]
third = p.add(spread, 3, second[0])
listed = p.add(bh.program("sh -c 'echo ls >> {file}; sleep 0.05'"), file=os.path.join(os.environ["RAN"], "program"))
p.add(plus, 1000, third, *second).after(listed)

if __name__ == "__main__":
    p.run(agents=2, cpus=2)
'''

SQUARES = [x * x for x in range(12)]
SECOND = [i + SQUARES[i] + SQUARES[(i + 1) % 12] for i in range(12)]
ANSWER = 1000 + SECOND[0] + sum((100 + i) ** 2 for i in range(3)) + sum(SECOND)


class Round:
    """One run that is killed about, and resumed until it has finished."""

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.rng = rng
        self.ran = folder / "ran"
        self.ran.mkdir(parents=True)
        (folder / "script.py").write_text(SCRIPT)
        self.home = folder / "home"
        self.env = {**os.environ, "RAN": str(self.ran), "BRIDGEHEAD_HOME": str(self.home)}
        self.kept: dict[str, int] = {}
        self.client = self._start([sys.executable, str(folder / "script.py")])
        self.folder: Path = wait_until(self._run_folder, "the run has a head")
        self.log: list[str] = []

    def _start(self, words: list[str]) -> subprocess.Popen[bytes]:
        nothing = subprocess.DEVNULL
        return subprocess.Popen(words, env=self.env, stdin=nothing, stdout=nothing, stderr=nothing)

    def _run_folder(self) -> Path | None:
        found = list(self.home.glob("runs/*/run.json"))
        return found[0].parent if found and processes_of(found[0].parent, "head") else None

    def phase(self) -> str | None:
        """The phase that the present attempt ended with."""
        events = [event for event in journal(self.folder) if event[1] in ("run-started", "run-ended")]
        return events[-1][4] if events and events[-1][1] == "run-ended" else None

    def victims(self, role: str) -> list[int]:
        match role:
            case "worker":
                return workers_of(self.folder.name)
            case "client":
                return [self.client.pid] if self.client.poll() is None else []
            case "agent":
                # One that is killed before it joins leaves a gang that never is whole, which is a test of its own.
                return processes_of(self.folder, role) if self._joined() else []
        return processes_of(self.folder, role)

    def _joined(self) -> bool:
        joined = False
        for _, event, _, number, _ in journal(self.folder):
            joined = event != "run-started" and (joined or (event == "agent-joined" and number == 1))
        return joined

    def strike(self) -> bool:
        """Kills one process at a random moment; `False` when the run was over before."""
        role = self.rng.choice(VICTIMS)
        pause = self.rng.uniform(0.0, 0.35)
        time.sleep(pause)  # The random moment; nothing is waited for.
        if not processes_of(self.folder, "head"):
            return False
        victims = self.victims(role) or self.victims("head")
        if not victims:
            return False
        self.log.append(f"{role} after {pause:.3f}")
        kill(self.rng.choice(victims))
        if role == "client":
            self.client.wait()
        return True

    def over(self) -> bool:
        """Whether no head is at work; if so, what has finished is noted: it must not run again."""
        if processes_of(self.folder, "head"):
            return False
        wait_until(lambda: not everything_of(self.folder), f"no orphan is left after {self.log}")
        self.client.wait(60)
        self._check_finished_stayed()
        names = {e[2]: e[1] for e in journal(self.folder) if e[1] == "task-finished"}
        self.kept = {name: self.times(name) for task in names if (name := self.name(task)) is not None}
        return True

    def name(self, task: int | None) -> str | None:
        """The file of a task's side effects, for the tasks of the pipeline."""
        assert task is not None
        if task < 24:
            return f"square-{task}" if task < 12 else f"plus-{task - 12}"
        return {24: "spread", 25: "program", 26: "plus-1000"}.get(task)

    def times(self, name: str) -> int:
        file = self.ran / name
        return len(file.read_text().splitlines()) if file.exists() else 0

    def _check_finished_stayed(self) -> None:
        again = {name: (before, self.times(name)) for name, before in self.kept.items() if self.times(name) != before}
        assert not again, f"finished tasks ran again (times before, now): {again} after {self.log}"
        finished: set[int | None] = set()
        for _, event, task, _, _ in journal(self.folder):
            if event == "task-finished":
                assert task not in finished, f"task {task} finished twice after {self.log}"
                finished.add(task)
            elif event in ("task-assigned", "task-reset"):
                assert task not in finished, f"{event} of finished task {task} after {self.log}"

    def resume(self) -> None:
        self.client = self._start([str(PROGRAM), "resume", str(self.folder)])
        wait_until(lambda: processes_of(self.folder, "head") or self.client.poll() is not None, "a head comes up")

    def finish(self) -> None:
        """Resumes until the run has finished, and checks everything."""
        wait_until(self.over, f"the attempt ends after {self.log}")
        for _ in range(3):
            if self.phase() == "finished":
                break
            self.resume()
            wait_until(self.over, f"the resumed attempt ends after {self.log}")
        log = (self.folder / "logs/head.log").read_text()[-2000:]
        assert self.phase() == "finished", f"{self.phase()} after {self.log}: {log}"
        past = bh.connect(str(self.folder))
        assert past.results()["plus"] == ANSWER
        support.check_nothing_left(self.home)
        print(f"  {self.folder.name}: {', '.join(self.log)}", file=sys.__stdout__)


@pytest.mark.timeout(300)
def test_no_kill_loses_a_finished_result_or_leaves_something_behind(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    print(f"\nseed {seed} (run it alone with --seed {seed})", file=sys.__stdout__)
    kills = rounds = 0
    while kills < KILLS:
        rounds += 1
        now = Round(tmp_path / str(rounds), rng)
        while kills < KILLS:
            if now.strike():
                kills += 1
            if now.over():
                if now.phase() == "finished":
                    break
                now.resume()
        now.finish()
    assert kills == KILLS


def test_an_agent_does_not_wait_for_a_head_that_is_gone(tmp_path: Path) -> None:
    p = bh.Pipeline("gone")
    p.add(bh.task(abs), -1)
    with p.run(agents=2, cpus=2) as run:
        pass
    wait_until(lambda: not everything_of(run.folder), "the run's processes end")
    (run.folder / "tls/agent-1.json").unlink()
    gone = subprocess.Popen(["true"])
    gone.wait()
    words = [str(PROGRAM), "agent", "--run-dir", str(run.folder), "--rank", "1"]
    env = {**os.environ, "BRIDGEHEAD_HEAD_PROCESS": f"{gone.pid}@1"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, timeout=50, check=False)
    assert done.returncode == 70 and "the head is gone" in done.stderr


def test_a_gang_that_never_is_whole_ends_and_names_who_is_missing(tmp_path: Path) -> None:
    p = bh.Pipeline("no-show")
    p.add(bh.task(abs), -1)
    with p.run(agents=2, cpus=2) as run:
        pass
    wait_until(lambda: not everything_of(run.folder), "the run's processes end")
    (run.folder / "journal/000001.bhj").unlink()
    config = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**config, "attached": False, "join_timeout_ms": 300}))
    done = bridgehead("head", "--run-dir", run.folder)
    assert done.returncode == 1 and "agent 1 did not join" in done.stderr, done
    assert bridgehead("resume", run.folder).returncode == 0
