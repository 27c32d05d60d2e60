"""A home for the runs of these tests, and the law that they leave nothing behind."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Cli, processes_of, wait_until


@pytest.fixture(scope="session")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    sockets = Path(tempfile.mkdtemp(prefix="bh-"))  # Names of sockets are short, so its path has to be.
    home = tmp_path_factory.mktemp("cli-home")
    cli = Cli(home, sockets, tmp_path_factory.mktemp("scripts"))
    try:
        yield cli
        wait_until(lambda: not processes_of(str(home)))
        left = [path for path in sockets.glob("*/*") if path.exists()]
        assert left == []
    finally:
        for pid in processes_of(str(home)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(sockets)


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A pipe at which a task waits until somebody writes into it."""
    path = tmp_path / "gate"
    os.mkfifo(path)
    return path
