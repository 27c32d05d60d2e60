"""What the tests of the command line share: the installed program in a home of its own, scripts, waiting, and a look for what
a run left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BINARY = Path(sys.prefix, "bin", "bridgehead")
DOCUMENTED = {
    int(code)
    for code in re.findall(
        r"^\| (\d+) \|", (Path(__file__).parents[2] / "docs/guide/exit-codes.md").read_text(), re.MULTILINE
    )
}
"""The codes that the page for people has."""

SCRIPT = '''
"""Pipelines of several kinds; the first argument says which."""
import sys
import bridgehead as bh

@bh.task
def speak(n):
    print("speaking", n)
    return n

@bh.task
def gate(path, *before):
    print("at the gate")
    return len(open(path).read())

@bh.task
def fail(text):
    raise LookupError(text)

@bh.task
def shout(lines):
    print("x\\n" * lines)

@bh.task
def add(*values):
    return sum(values)

kind, arguments = sys.argv[1], sys.argv[2:]
p = bh.Pipeline(kind)
if kind == "quick":
    last = p.add(add, *p.map(speak, range(3)))
elif kind == "hang":
    last = p.add(add, p.add(gate, arguments[0], p.add(speak, 7)))
elif kind == "fail":
    last = p.add(add, p.add(fail, "nothing there"))
elif kind == "shout":
    last = p.add(shout, 50_000)
elif kind == "greedy":
    last = p.add(add.options(cpus=100_000))

if __name__ == "__main__":
    run = p.run()
    if "look" in arguments:
        print("value", run[last].result())
    if "exit" in arguments:
        sys.exit(17)
'''


class Cli:
    """The program, with a home for runs and a folder for sockets."""

    def __init__(self, home: Path, sockets: Path, scripts: Path) -> None:
        self.home, self.sockets, self.scripts = home, sockets, scripts
        self.script = scripts / "script.py"
        self.script.write_text(SCRIPT)
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("BRIDGEHEAD_")},
            "BRIDGEHEAD_HOME": str(home),
            "XDG_RUNTIME_DIR": str(sockets),
            "BRIDGEHEAD_CPUS": "2",
            "TERM": "xterm",  # Without one no terminal is drawn on.
        }

    def start(self, *words: object, **options: Any) -> subprocess.Popen[str]:
        """Starts a command and does not wait for it."""
        pipe = subprocess.PIPE
        settings = {"env": self.env, "stdin": subprocess.DEVNULL, "stdout": pipe, "stderr": pipe, "text": True}
        return subprocess.Popen([BINARY, *map(str, words)], **{**settings, **options})

    def run(self, *words: object, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        with self.start(*words, **options) as process:
            out, err = process.communicate(timeout=100)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def check(
        self, *words: object, code: int = 0, out: str | None = None, err: str | None = None, **options: Any
    ) -> str:
        """A command ends with a documented code and says these words; where it fails it says so in one line on standard
        error, and where it succeeds it says nothing there. What it printed."""
        done = self.run(*words, **options)
        assert done.returncode == code, done
        assert code in DOCUMENTED
        if err is not None:
            assert err in done.stderr and done.stderr.startswith("bridgehead: "), done.stderr
        elif code == 0:
            assert done.stderr == ""
        if out is not None:
            assert out in done.stdout, done.stdout
        return done.stdout

    def json(self, *words: object, code: int = 0) -> Any:
        """The document that a command prints with --json."""
        return json.loads(self.check(*words, "--json", code=code))

    def submit(self, kind: str, *arguments: object) -> str:
        """The id of a run that was submitted."""
        return self.check("submit", self.script, kind, *arguments).strip()

    def finished(self, kind: str, *arguments: object, phase: str = "finished") -> str:
        """The id of a run that was submitted and has ended."""
        run = self.submit(kind, *arguments)
        self.check("watch", run, code=0 if phase == "finished" else 1, out=phase)
        wait_until(lambda: not processes_of(run))
        return run

    def folder(self, run: str) -> Path:
        return self.home / "runs" / run

    def status(self, run: str) -> dict[str, Any]:
        path = self.folder(run) / "status.json"
        return json.loads(path.read_text()) if path.exists() else {"tasks": {"running": 0}, "phase": "starting"}

    def at_the_gate(self, run: str) -> None:
        """Waits until a run of kind `hang` hangs."""
        wait_until(lambda: any("at the gate" in f.read_text() for f in self.folder(run).glob("logs/tasks-*.jsonl")))

    def runs(self) -> set[str]:
        folder = self.home / "runs"
        return set(os.listdir(folder)) if folder.exists() else set()


def wait_until(condition: Callable[[], object], limit: float = 60.0) -> None:
    """Waits for a condition, with a limit; the pause only bounds how often it is looked at."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.005)


def _processes() -> Iterator[tuple[int, bytes]]:
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                words = (
                    Path("/proc", entry, "cmdline").read_bytes() + b"\0" + Path("/proc", entry, "environ").read_bytes()
                )
            except OSError:
                continue  # It is gone, or somebody else's.
            yield int(entry), words


def processes_of(text: str) -> list[int]:
    """Processes that have this text in their command line or environment."""
    return [pid for pid, words in _processes() if text.encode() in words]


def open_gate(path: Path) -> None:
    """Lets those pass that wait at a gate; waits until there is one."""
    path.write_text("open")
