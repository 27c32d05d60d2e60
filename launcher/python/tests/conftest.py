"""Every test gets a home for runs of its own, and must leave no process behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.pop("BRIDGEHEAD_DO", None)


def marked(home: Path) -> list[int]:
    """Processes that work for a run under ``home``."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:
            continue
        if os.fsencode(home) in words and b"bridgehead" in words:
            found.append(int(entry.name))
    return found


def until_none(home: Path) -> list[int]:
    """Waits, bounded, until no process works for a run under ``home``; those that stay."""
    end = time.monotonic() + 20
    while (left := marked(home)) and time.monotonic() < end:
        os.sched_yield()
    return left


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("BRIDGEHEAD_HOME", str(tmp_path))
    yield tmp_path
    from bridgehead._session import close_all

    close_all()
    left = until_none(tmp_path)
    assert not left, f"processes were left behind: {left}"
