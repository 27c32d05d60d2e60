"""Laws of named values under faults: what was put stays or is lost by name, nothing that dies holds anything up."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest
from support import journal, kill, processes_of, wait_until, workers_of
from test_large_values import MIB, SLACK, block, check, joined, used


@pytest.mark.timeout(120)
def test_a_writer_killed_in_the_middle_of_a_put_leaves_whole_versions_and_no_memory_taken(seed: int) -> None:
    rng = random.Random(seed)
    with bh.Executor(1, store="512MiB") as pool:
        for _ in range(4):
            name = f"steps-{rng.random()}"
            made = pool.submit(bh.task(put_for_ever, retries=bh.Retries(lost_node=0)), name, 24 * MIB)
            bh.store().wait(name, 2, timeout=30)
            time.sleep(rng.uniform(0.0, 0.1))  # The random moment; nothing is waited for.
            for pid in workers_of(pool.folder.name):
                kill(pid)
            with pytest.raises(bh.WorkerDied):
                made.result(30)
            for version in bh.store().versions(name):
                check(bh.store().get(name, version), block(version, 24 * MIB))
            bh.store().delete(name)
        wait_until(lambda: used(pool.folder) <= 3 * SLACK, f"memory comes back, of {used(pool.folder)} bytes", 20)


def put_for_ever(name: str, size: int) -> None:
    stream = bh.store().stream(name, keep=3)
    for step in range(1, 1_000_000):
        stream.put(block(step, size))


def hold_a_view(name: str, marker: str) -> None:
    for version, value in bh.store().watch(name, timeout=30):
        assert len(value) > 0
        Path(marker + ".new").write_text(f"{os.getpid()} {version}")
        os.rename(marker + ".new", marker)
        time.sleep(600)


@pytest.mark.timeout(120)
def test_a_reader_killed_while_it_holds_a_view_frees_it_and_holds_no_writer_up(tmp_path: Path) -> None:
    marker = tmp_path / "reader"
    with bh.Executor(1, store="64MiB") as pool:
        stream = bh.store().stream("held", keep=1, block=True)
        stream.put(block(1, 24 * MIB))
        once = bh.task(hold_a_view, retries=bh.Retries(lost_node=0))
        reader = pool.submit(once, "held", str(marker))
        wait_until(marker.exists, "the reader has its view")
        with pytest.raises(TimeoutError, match="nobody took"):
            stream.put(block(2, 24 * MIB), timeout=0.2)
        kill(int(marker.read_text().split()[0]))
        with pytest.raises(bh.WorkerDied):
            reader.result(30)
        assert stream.put(block(2, 24 * MIB), timeout=30) == 2
        check(bh.store()["held"], block(2, 24 * MIB))
        bh.store().delete("held")
        wait_until(lambda: used(pool.folder) <= 3 * SLACK, f"memory comes back, of {used(pool.folder)} bytes", 20)


def put_there(name: str, size: int, marker: str) -> int:
    """Puts from whichever node this is once both tasks run, so that they are on two nodes; the node."""
    Path(marker, str(bh.current().node)).touch()
    while len(os.listdir(marker)) < 2:
        time.sleep(0.01)
    for step in range(1, 4):
        bh.store().put(f"{name}-{bh.current().node}", block(step, size))
    return bh.current().node


@pytest.mark.timeout(120)
def test_the_versions_of_a_killed_agent_are_lost_by_name_and_others_stay(tmp_path: Path) -> None:
    with bh.Executor(2, agents=2) as pool:
        both = [pool.submit(put_there, "field", MIB, str(tmp_path)) for _ in range(2)]
        assert {future.result(30) for future in both} == {0, 1}
        assert joined(pool.folder)
        store = bh.store()
        check(store.get("field-1", 2), block(2, MIB))  # From here on this node has a copy of it.
        for pid in processes_of(pool.folder, "agent"):
            kill(pid)
        wait_until(lambda: any(e[1] == "agent-lost" for e in journal(pool.folder)), "the head knows of it")
        check(store.get("field-1", 2), block(2, MIB))
        with pytest.raises(bh.ResultLost, match='version 3 of "field-1"'):
            store.get("field-1")
        with pytest.raises(bh.ResultLost, match='version 1 of "field-1"'):
            next(store.watch("field-1"))
        for version, value in store.watch("field-0"):
            check(value, block(version, MIB))
            if version == 3:
                break


@pytest.mark.timeout(120)
def test_a_reader_on_a_killed_agent_runs_again_and_sees_all_that_is_kept(tmp_path: Path) -> None:
    with bh.Executor(2, agents=2) as pool:
        total: Any = pool.submit(bh.task(sum_of, retries=bh.Retries(lost_node=3)), "steps", str(tmp_path))
        for step in range(1, 6):
            bh.store().put("steps", np.full(MIB, float(step)))
        wait_until(lambda: (tmp_path / "begun").exists(), "the reader has begun")
        for pid in processes_of(pool.folder, "agent"):
            kill(pid)
        bh.store().close("steps")
        assert total.result(60) == 15 * MIB


def sum_of(name: str, folder: str) -> float:
    total = 0.0
    for _, value in bh.store().watch(name):
        Path(folder, "begun").touch()
        total += float(value.sum())
    return total
