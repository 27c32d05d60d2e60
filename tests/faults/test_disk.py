"""Laws of a full disk: a clear error, and nothing of what was finished is lost."""

from __future__ import annotations

import os
from pathlib import Path

import bridgehead as bh
import pytest
from support import bridgehead, journal, wait_gone


def once(folder: str, x: int, *needs: int) -> int:
    with open(os.path.join(folder, str(x)), "a") as out:
        out.write("x")
    return x


def fill(folder: str, *needs: int) -> str:
    """Leaves no byte on the run's disk, once."""
    path = os.path.join(folder, "filler")
    if os.path.exists(path + ".was"):
        return path
    open(path + ".was", "w").close()
    with open(path, "wb") as out:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    os.write(out.fileno(), bytes(size))
            except OSError:
                pass
    return path


def result(x: int, *needs: int) -> bytes:
    return bytes([x]) * 10_000


def test_a_full_disk_loses_nothing_that_was_finished(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGEHEAD_HOME", str(small_disk))
    ran = tmp_path / "ran"
    ran.mkdir()
    p = bh.Pipeline("full")
    # What has finished before the disk is full must not run again.
    first = [p.add(bh.task(once), str(ran), x) for x in range(10)]
    filler = p.add(bh.task(fill), str(small_disk), *first)
    later = [p.add(bh.task(result), x, first[x]).after(filler) for x in range(10)]
    run = p.run(cpus=2, wait=False)
    with pytest.raises(bh.HeadLost, match=r"No space left on device.*bridgehead resume"):
        run.wait(60)
    with pytest.raises(bh.HeadLost, match="No space left"):
        run[later[9]].result(60)
    run.close()
    wait_gone(run.folder)
    kept = [task for _, event, task, _, _ in journal(run.folder) if event == "task-finished"]
    assert set(kept) >= set(range(10))
    (small_disk / "filler").unlink()
    done = bridgehead("resume", run.folder)
    assert done.returncode == 0, done
    wait_gone(run.folder)
    assert [(ran / str(x)).read_text() for x in range(10)] == ["x"] * 10
    past = bh.connect(str(run.folder))
    assert [past[node].result(0) for node in later] == [result(x) for x in range(10)]


def test_a_run_that_cannot_be_made_says_where_and_why(
    small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BRIDGEHEAD_HOME", str(small_disk))
    fill(str(small_disk))
    with pytest.raises((OSError, bh.BridgeheadError), match="No space left"):
        bh.Executor(1)
    p = bh.Pipeline("full")
    p.add(bh.task(once), str(tmp_path), 1)
    with pytest.raises((OSError, bh.BridgeheadError), match="No space left"):
        p.run()
