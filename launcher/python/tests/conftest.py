"""What the tests share: a home of their own, and a look for what a run left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import bridgehead as bh
import pytest


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    os.environ["BRIDGEHEAD_HOME"] = str(folder)
    return folder


@pytest.fixture(scope="session")
def pool(home: Path) -> Iterator[bh.Executor]:
    with bh.Executor(2) as executor:
        yield executor


def wait_until(condition: object, limit: float = 20.0) -> None:
    """Waits for a condition, with a limit; the pause only bounds how often it is looked at."""
    end = time.monotonic() + limit
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.005)


def processes_of(run: str) -> list[int]:
    """Processes that carry a run's id in their environment or command line."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        try:
            environment = Path("/proc", entry, "environ").read_bytes()
            command = Path("/proc", entry, "cmdline").read_bytes()
        except OSError:
            continue
        if f"BRIDGEHEAD_RUN={run}\0".encode() in environment + b"\0" or run.encode() in command:
            found.append(int(entry))
    return found
