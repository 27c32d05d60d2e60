"""Laws of named values: what is put under a name is there for everybody in the run, waits are woken, streams are bounded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bridgehead as bh
import numpy as np
import pytest
from conftest import wait_until

LARGE = 100_000
"""Numbers of 8 bytes: far beyond what travels in a message."""
LIMIT = 30.0
"""Seconds within which what is waited for must come."""


def check(value: Any, step: int) -> None:
    """The field of a step arrived whole, as a view that nobody can write to."""
    assert np.array_equal(value, field(step))
    assert not value.flags.writeable
    assert not value.flags.owndata


def field(step: int) -> Any:
    return np.arange(step, step + LARGE, dtype=np.float64)


@pytest.fixture
def pool() -> Iterator[bh.Executor]:
    with bh.Executor(2, store="64MiB") as pool:
        yield pool


def produce(name: str, steps: int, keep: int | None, block: bool) -> None:
    with bh.store().stream(name, keep=keep, block=block) as stream:
        for step in range(1, steps + 1):
            assert stream.put(np.arange(step, step + LARGE, dtype=np.float64)) == step


def consume(name: str, start: int | None = None) -> list[tuple[int, float, bool, bool]]:
    steps = bh.store().watch(name, start, timeout=30)
    return [(step, float(a[0]), bool(a.flags.writeable), bool(a.flags.owndata)) for step, a in steps]


def test_a_name_is_a_mapping_to_its_newest_version(pool: bh.Executor) -> None:
    store = bh.store()
    assert store.put("a", 1) == 1
    assert store.put("a", [2]) == 2
    store["b"] = None
    assert store["a"] == [2] and store["b"] is None and store.get("a", 1) == 1
    assert list(store) == ["a", "b"] and len(store) == 2
    assert "a" in store and "c" not in store
    assert store.versions("a") == [1, 2]
    del store["a"]
    assert "a" not in store and store.put("a", "anew") == 1


def test_a_large_value_is_a_view_of_the_store_for_the_driver_and_for_tasks(pool: bh.Executor) -> None:
    store = bh.store()
    store["large"] = field(7)
    check(store["large"], 7)
    assert pool.submit(lambda: bh.store()["large"].flags.owndata).result() is False
    view = store["large"]
    store.delete("large")
    for step in range(200):  # More than the store holds: what is deleted is free again.
        store.put("other", field(step))
        store.delete("other")
    check(view, 7)


def test_what_cannot_be_a_view_arrives_whole(pool: bh.Executor) -> None:
    store = bh.store()
    values = [
        np.array(["text", None] * 20_000, dtype=object),
        np.arange(90_000.0).reshape(300, 300)[::2, ::3],
        np.zeros(0),
        {"nested": [field(1), "x"]},
    ]
    for value in values:
        store["value"] = value
        assert repr(store["value"]) == repr(value)


def test_an_unknown_name_is_told_with_those_that_there_are(pool: bh.Executor) -> None:
    store = bh.store(pool)
    store["known"] = 1
    for ask in (store.get, store.versions, store.delete, store.close):
        with pytest.raises(bh.UnknownName, match="it has: known"):
            ask("unknown")
    with pytest.raises(KeyError, match="newest one is 1"):
        store.get("known", 2)
    with pytest.raises(TimeoutError, match='no value named "unknown"'):
        store.get("unknown", timeout=0.05)
    with pytest.raises(TimeoutError, match="newest version is 1"):
        store.wait("known", 2, timeout=0.05)
    with pytest.raises(TimeoutError, match="after 1"):
        list(store.watch("known", 2, timeout=0.05))


@pytest.mark.parametrize(
    ("ask", "error", "words"),
    [
        (lambda s: s.put("", 1), ValueError, "empty"),
        (lambda s: s.put("x" * 300, 1), ValueError, "1 to 256 bytes"),
        (lambda s: s.put(3, 1), TypeError, "text"),
        (lambda s: s.get("x", 0), ValueError, "count from 1"),
        (lambda s: s.stream("x", keep=0), ValueError, "1 or more"),
        (lambda s: s.stream("x", block=True), ValueError, "give keep= too"),
        (lambda s: s.get("x", timeout=-1), ValueError, "0 or more"),
        (lambda s: s.put("x", threading.Lock()), bh.UnpicklableError, "lock"),
    ],
)
def test_bad_input_is_named(pool: bh.Executor, ask: Any, error: type[Exception], words: str) -> None:
    store = bh.store(pool)
    with pytest.raises(error, match=words):
        ask(store)
    assert list(store) == []


def test_without_a_run_there_are_no_names() -> None:
    code = "import bridgehead as bh; bh.store()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1 and "start an Executor" in ended.stderr


def test_a_version_that_a_stream_dropped_is_gone_by_name(pool: bh.Executor) -> None:
    stream = bh.store().stream("s", keep=2)
    for step in range(5):
        stream.put(step)
    assert bh.store().versions("s") == [4, 5]
    with pytest.raises(bh.VersionGone, match='version 1 of "s" is gone: it keeps 2 versions, which are 4, 5'):
        bh.store().get("s", 1)
    stream.close()
    assert list(stream.watch()) == [(4, 3), (5, 4)]
    with pytest.raises(bh.StreamClosed, match="delete it first"):
        stream.put(6)


def test_a_running_task_gives_its_steps_to_another(pool: bh.Executor) -> None:
    taken = pool.submit(consume, "steps")
    made = pool.submit(produce, "steps", 20, 2, True)
    assert taken.result(LIMIT) == [(step, float(step), False, False) for step in range(1, 21)]
    assert made.result(LIMIT) is None


def test_a_reader_that_waits_holds_no_core() -> None:
    with bh.Executor(1) as one:
        taken = [one.submit(consume, "steps"), one.submit(consume, "steps", 3)]
        one.submit(produce, "steps", 4, None, False).result(LIMIT)
        assert [step for step, *_ in taken[0].result(LIMIT)] == [1, 2, 3, 4]
        assert [step for step, *_ in taken[1].result(LIMIT)] == [3, 4]


def test_a_put_into_a_full_stream_that_nobody_reads_fails_in_time(pool: bh.Executor) -> None:
    stream = bh.store().stream("full", keep=1, block=True)
    stream.put(1)
    with pytest.raises(TimeoutError, match="nobody took the oldest version"):
        stream.put(2, timeout=0.05)
    assert bh.store().get("full") == 1
    assert stream.put(3, timeout=5) == 2, "what did not fit was not put, and what was taken makes room"


def test_steps_go_from_node_to_node() -> None:
    with bh.Executor(2, agents=2) as both:
        taken = both.submit(where_and_consume, "steps")
        made = both.submit(where_and_produce, "steps", 10)
        (there, steps), here = taken.result(LIMIT), made.result(LIMIT)
        assert there != here
        assert steps == [(step, float(step), False, False) for step in range(1, 11)]
        for step, value in bh.store().watch("steps"):
            check(value, step)


def where_and_consume(name: str) -> tuple[int, Any]:
    return bh.current().node, consume(name)


def where_and_produce(name: str, steps: int) -> int:
    produce(name, steps, None, False)
    return bh.current().node


def fail_after(name: str, steps: int) -> None:
    stream = bh.store().stream(name)
    for step in range(1, steps + 1):
        stream.put(step)
    raise ValueError("the solver diverged")


def test_a_watch_of_a_task_that_fails_ends_with_the_reason(pool: bh.Executor) -> None:
    pool.submit(fail_after, "broken", 2)
    steps = bh.store().watch("broken")
    assert [next(steps), next(steps)] == [(1, 1), (2, 2)]
    with pytest.raises(bh.StreamBroken, match=r"after version 2: .*fail_after.*the solver diverged"):
        next(steps)
    assert bh.store().get("broken") == 2, "what it had put stays"


def die_once(name: str, marker: str) -> None:
    stream = bh.store().stream(name, keep=4)
    for step in range(1, 7):
        stream.put(step, version=step)
        if step == 3 and not os.path.exists(marker):
            open(marker, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
    stream.close()


def test_a_writer_that_runs_again_goes_on_where_it_was(pool: bh.Executor, tmp_path: Path) -> None:
    made = pool.submit(die_once, "again", str(tmp_path / "died"))
    steps = [step for step, _ in bh.store().watch("again", timeout=LIMIT)]
    made.result(LIMIT)
    assert steps == sorted(set(steps)) and steps[-1] == 6


def test_a_watch_in_the_driver_ends_with_the_run() -> None:
    p = bh.Pipeline("short")
    p.add(bh.task(put_one), "left-open")
    seen: list[Any] = []
    with p.run(cpus=1) as run:
        seen.extend(bh.store(run).watch("left-open", timeout=LIMIT))
        assert run.wait(LIMIT) == "finished"
    assert seen == [(1, "value")]


def put_one(name: str) -> None:
    bh.store().put(name, "value")


def test_threads_of_a_driver_follow_at_once(pool: bh.Executor) -> None:
    sums: list[int] = []

    def follow() -> None:
        sums.append(sum(value for _, value in bh.store(pool).watch("many", timeout=LIMIT)))

    threads = [threading.Thread(target=follow) for _ in range(4)]
    for thread in threads:
        thread.start()
    for value in range(100):
        bh.store(pool).put("many", value)
    bh.store(pool).close("many")
    for thread in threads:
        thread.join(LIMIT)
    assert sums == [4950] * 4


def test_a_watch_that_is_left_holds_no_writer_up(pool: bh.Executor) -> None:
    stream = bh.store().stream("left", keep=1, block=True)
    stream.put(1)
    for step, _ in stream.watch():
        assert step == 1
        break
    wait_until(lambda: stream.put(2, timeout=5) == 2)
