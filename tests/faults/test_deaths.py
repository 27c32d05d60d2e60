"""Laws of workers that die in the middle of a task: the failure names how, the others go on, retries count by cause."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bridgehead as bh
import pytest
from support import check_still_works, failure_of


@pytest.fixture(scope="module")
def pool() -> Iterator[bh.Executor]:
    with bh.Executor(2) as executor:
        yield executor


def leave(code: int) -> None:
    os._exit(code)


def segfault() -> None:
    ctypes.string_at(0)


def die_of(number: int) -> None:
    os.kill(os.getpid(), number)


def abort() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.abort()


@pytest.mark.parametrize(
    ("function", "args", "words", "code", "number"),
    [
        (leave, (7,), ("exit code 7",), 7, None),
        (leave, (0,), ("exit code 0",), 0, None),
        (segfault, (), ("signal 11", "SIGSEGV"), None, signal.SIGSEGV),
        (abort, (), ("signal 6", "SIGABRT"), None, signal.SIGABRT),
        (die_of, (signal.SIGTERM,), ("signal 15", "SIGTERM"), None, signal.SIGTERM),
    ],
)
def test_a_death_names_its_signal_or_code_and_others_go_on(
    pool: bh.Executor,
    function: Any,
    args: tuple[int, ...],
    words: tuple[str, ...],
    code: int | None,
    number: int | None,
) -> None:
    beside = pool.submit(sum, range(1000))
    error = failure_of(pool.submit(function, *args), bh.WorkerDied, *words)
    assert isinstance(error, bh.WorkerDied)
    assert (error.exit_code, error.signal) == (code, number)
    assert beside.result(60) == 499500
    check_still_works(pool)


def test_calls_that_wait_in_a_dying_worker_are_not_lost(pool: bh.Executor) -> None:
    futures = [pool.submit(leave, 3) if i % 10 == 5 else pool.submit(abs, -i) for i in range(60)]
    for i, future in enumerate(futures):
        if i % 10 == 5:
            failure_of(future, bh.WorkerDied, "exit code 3")
        else:
            assert future.result(60) == i


def _count(file: Path) -> int:
    with file.open("a") as out:
        out.write("x")
    return file.stat().st_size


def _die_until(file: Path, number: int, times: int) -> int:
    if (count := _count(file)) <= times:
        die_of(number)
    return count


def _raise_until(file: Path, times: int) -> int:
    if (count := _count(file)) <= times:
        raise OSError(f"attempt {count}")
    return count


def check_retries(folder: Path, work: Any, retries: bh.Retries | int, times: int, allowed: bool, *args: Any) -> None:
    """A task that fails `times` times succeeds at the next attempt exactly if that is `allowed`."""
    p = bh.Pipeline("retries")
    node = p.add(bh.task(retries=retries)(work), folder / "count", *args, times)
    run = p.run(cpus=1)
    if allowed:
        assert run[node].result(60) == times + 1
    else:
        assert isinstance(run[node].exception(60), bh.TaskError)
        assert (folder / "count").stat().st_size == times
    run.close()


KILL = signal.SIGKILL


@pytest.mark.parametrize(("retries", "allowed"), [(bh.Retries(lost_node=2), True), (bh.Retries(lost_node=1), False)])
def test_a_kill_from_outside_counts_as_a_lost_node(tmp_path: Path, retries: bh.Retries, allowed: bool) -> None:
    check_retries(tmp_path, _die_until, retries, 2, allowed, KILL)


def test_the_users_retries_are_not_spent_on_kills(tmp_path: Path) -> None:
    check_retries(tmp_path, _die_until, bh.Retries(user=9, lost_node=0), 1, False, KILL)


def test_retries_for_kills_are_not_spent_on_the_users_errors(tmp_path: Path) -> None:
    check_retries(tmp_path, _raise_until, bh.Retries(user=0, lost_node=9), 1, False)


def test_a_crash_is_the_users_error(tmp_path: Path) -> None:
    check_retries(tmp_path, _die_until, 1, 1, True, signal.SIGSEGV)


def test_more_retries_than_a_byte_holds_come_to_an_end(tmp_path: Path) -> None:
    check_retries(tmp_path, _raise_until, 300, 301, False)


@pytest.fixture
def little_memory() -> Iterator[Path]:
    """A control group with 300 MiB, version 1 or 2."""
    for top in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")):
        group = top / f"bridgehead-faults-{os.getpid()}"
        with contextlib.suppress(OSError):
            group.mkdir()
            limit = next((group / n for n in ("memory.limit_in_bytes", "memory.max") if (group / n).exists()), None)
            if limit is not None:
                limit.write_text(str(300 << 20))
                yield group
                group.rmdir()
                return
            group.rmdir()
    pytest.skip("no control group with a memory limit can be made here: it takes root and a memory controller")


def enter_and_fill(group: str) -> int:
    Path(group, "cgroup.procs").write_text(str(os.getpid()))
    blocks = []
    while True:
        blocks.append(b"\1" * (16 << 20))


def test_a_kill_for_want_of_memory_says_so(little_memory: Path, pool: bh.Executor) -> None:
    task = bh.task(retries=bh.Retries(oom=0, lost_node=0))(enter_and_fill)
    error = failure_of(pool.submit(task, str(little_memory)), bh.WorkerDied, "SIGKILL", "memory")
    assert isinstance(error, bh.WorkerDied) and error.kind == "out-of-memory"
    check_still_works(pool)


def test_kills_for_want_of_memory_have_retries_of_their_own(little_memory: Path) -> None:
    p = bh.Pipeline("oom")
    node = p.add(bh.task(retries=bh.Retries(oom=1, lost_node=0))(enter_and_fill), str(little_memory))
    run = p.run(cpus=1)
    assert isinstance(run[node].exception(60), bh.WorkerDied)
    assert [event["event"] for event in run.events()].count("task-assigned") == 2
    run.close()


def endless(depth: int) -> int:
    return endless(depth + 1) + 1


def test_recursion_is_an_exception_with_a_short_traceback(pool: bh.Executor) -> None:
    error = failure_of(pool.submit(endless, 0), RecursionError)
    assert isinstance(error.__cause__, bh.TaskError)
    assert len(error.__cause__.remote_traceback) < 20_000


def test_memory_that_python_cannot_have_is_named(pool: bh.Executor) -> None:
    failure_of(pool.submit(bytearray, 1 << 60), MemoryError)
    check_still_works(pool)
