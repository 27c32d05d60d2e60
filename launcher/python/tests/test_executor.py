"""Laws of the Executor: it is a `concurrent.futures.Executor`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import operator
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bridgehead as bh
import joblib
import numpy as np
import pytest
from conftest import processes_of, wait_until


def check(pool: bh.Executor, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A call in a worker gives what the call gives here."""
    result = pool.submit(function, *args, **kwargs).result(60)
    assert result == function(*args, **kwargs)
    return result


class Adder:
    def __init__(self, n: int) -> None:
        self.n = n

    def add(self, m: int) -> int:
        return self.n + m

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Adder) and other.n == self.n

    __hash__ = None  # type: ignore[assignment]


def make(n: int) -> Adder:
    return Adder(n)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (operator.add, (1, 2)),
        (functools.partial(pow, 2), (5,)),
        (Adder(3).add, (4,)),
        (make, (5,)),
        (len, ([1, None, {"a": b"x" * 100_000}],)),
        (lambda x: x * 2, ("ab",)),
        (str, ()),
    ],
    ids=["builtin", "partial", "method", "own class as result", "large argument", "lambda", "type"],
)
def test_a_call_gives_what_it_gives_here(pool: bh.Executor, function: Callable[..., Any], args: Any) -> None:
    check(pool, function, *args)


@pytest.mark.parametrize("value", [None, True, False, 0, -1, 2**70, 0.0, float("inf"), -0.0, "ab", b"ab"], ids=repr)
def test_a_scalar_is_the_same_on_both_sides(pool: bh.Executor, value: object) -> None:
    back = pool.submit(make_pair, value).result(60)
    assert back == (value, repr(value), type(value).__name__)


def make_pair(value: object) -> tuple[object, str, str]:
    return value, repr(value), type(value).__name__


def test_a_result_is_one_object_for_all_threads(pool: bh.Executor) -> None:
    futures = [pool.submit(make, i) for i in range(50)]
    concurrent.futures.wait(futures, 60)
    start = threading.Barrier(4)

    def look(found: list[Adder]) -> None:
        start.wait(60)
        found.extend(future.result(60) for future in futures)

    seen: list[list[Adder]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=look, args=(found,)) for found in seen]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [a.n for a in seen[0]] == list(range(50))
    for same in zip(*seen, strict=True):
        assert all(one is same[0] for one in same)


def test_a_program_runs_as_one_with_its_options_and_its_values(pool: bh.Executor) -> None:
    ranks = bh.program("sh -c 'echo {word} $RANK of $WORLD_SIZE'", ranks=2, cpus=0.5, mpi="none")
    assert pool.submit(ranks, word="rank").result(60).stdout == "rank 0 of 2\n"
    assert isinstance(pool.submit(bh.program("false")).exception(60), bh.TaskError)
    for args, values in (("x",), {}), ((), {"word": pool.submit(abs, -1)}):
        with pytest.raises(TypeError, match="by name, and not as futures"):
            pool.submit(bh.program("echo {word}"), *args, **values)


def test_keyword_arguments_arrive(pool: bh.Executor) -> None:
    check(pool, int, "ff", base=16)


def test_a_class_of_the_project_is_the_same_on_both_sides(pool: bh.Executor) -> None:
    def is_adder(value: object) -> bool:
        return isinstance(value, Adder)

    assert pool.submit(is_adder, Adder(1)).result(60)
    assert type(pool.submit(make, 2).result(60)) is Adder


def test_a_closure_carries_its_present_values(pool: bh.Executor) -> None:
    n = 1

    def read() -> int:
        return n

    assert pool.submit(read).result(60) == 1
    n = 2
    assert pool.submit(read).result(60) == 2


def test_an_exception_is_the_one_that_was_raised(pool: bh.Executor) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        pool.submit(operator.truediv, 1, 0).result(60)
    cause = caught.value.__cause__
    assert isinstance(cause, bh.TaskError)
    assert "Traceback" in cause.remote_traceback or "ZeroDivisionError" in cause.remote_traceback


class Awkward(Exception):
    def __init__(self, a: int, b: int) -> None:
        super().__init__("awkward")


def raise_awkward() -> None:
    raise Awkward(1, 2)


def test_an_exception_that_cannot_travel_is_told_with_its_traceback(pool: bh.Executor) -> None:
    with pytest.raises(bh.TaskError, match="awkward") as caught:
        pool.submit(raise_awkward).result(60)
    assert caught.value.kind == "Awkward"
    assert "raise Awkward(1, 2)" in caught.value.remote_traceback


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_an_exit_inside_a_task_is_a_failure(pool: bh.Executor, error: type[BaseException]) -> None:
    def leave() -> None:
        raise error(3)

    with pytest.raises(error):
        pool.submit(leave).result(60)
    check(pool, abs, -1)


def test_a_dead_worker_fails_its_call_and_no_other(pool: bh.Executor) -> None:
    with pytest.raises(bh.WorkerDied, match="SIGSEGV") as caught:
        pool.submit(_segfault).result(60)
    assert caught.value.signal == signal.SIGSEGV
    check(pool, abs, -2)


def _segfault() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def test_futures_work_with_wait_and_as_completed(pool: bh.Executor) -> None:
    futures = [pool.submit(abs, -i) for i in range(50)]
    done, open_ = concurrent.futures.wait(futures, timeout=60)
    assert len(done) == 50 and not open_
    assert sorted(f.result() for f in concurrent.futures.as_completed(futures)) == list(range(50))


def test_wait_sees_the_first_exception(pool: bh.Executor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    slow = pool.submit(_wait_for, gate)
    bad = pool.submit(operator.truediv, 1, 0)
    done, open_ = concurrent.futures.wait([slow, bad], 60, concurrent.futures.FIRST_EXCEPTION)
    assert done == {bad} and open_ == {slow}
    gate.touch()
    assert slow.result(60) == "opened"


def _wait_for(gate: Path) -> str:
    import time

    while not gate.exists():
        time.sleep(0.002)
    return "opened"


def test_callbacks_run_once_whenever_they_are_added(pool: bh.Executor) -> None:
    called = threading.Semaphore(0)
    future = pool.submit(abs, -3)
    future.add_done_callback(lambda f: called.release())
    assert future.result(60) == 3
    assert called.acquire(timeout=60)
    future.add_done_callback(lambda f: called.release())
    assert called.acquire(timeout=60)
    assert not called.acquire(blocking=False)


def test_many_threads_may_wait_for_one_future_and_for_their_own(pool: bh.Executor, tmp_path: Path) -> None:
    gate, results = tmp_path / "gate", list[str]()
    shared = pool.submit(_wait_for, gate)

    def wait() -> None:
        assert pool.submit(abs, -1).result(60) == 1
        results.append(shared.result(60))

    threads = [threading.Thread(target=wait) for _ in range(6)]
    for thread in threads:
        thread.start()
    gate.touch()
    for thread in threads:
        thread.join(60)
    assert results == ["opened"] * 6


def test_a_timeout_leaves_the_call_alone(pool: bh.Executor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    future = pool.submit(_wait_for, gate)
    with pytest.raises(TimeoutError):
        future.result(0.01)
    gate.touch()
    assert future.result(60) == "opened"


def test_a_short_call_does_not_wait_behind_a_long_one(pool: bh.Executor, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    long = pool.submit(_wait_for, gate)
    for future in [pool.submit(abs, -i) for i in range(200)]:
        future.result(60)
    assert not long.done()
    gate.touch()
    assert long.result(60) == "opened"


def test_a_running_call_can_be_cancelled(pool: bh.Executor, tmp_path: Path) -> None:
    future = pool.submit(_wait_for, tmp_path / "never")
    assert future.cancel()
    assert future.cancelled()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result(60)
    check(pool, abs, -4)


def test_a_future_as_an_argument_arrives_as_its_value(pool: bh.Executor) -> None:
    first = pool.submit(abs, -20)
    assert pool.submit(sum, [first, first, 2]).result(60) == 42


@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map_keeps_the_order(pool: bh.Executor, chunksize: int) -> None:
    assert list(pool.map(pow, range(10), [2] * 10, chunksize=chunksize)) == [n * n for n in range(10)]


def test_asyncio_can_use_it(pool: bh.Executor) -> None:
    async def go() -> list[int]:
        loop = asyncio.get_running_loop()
        return list(await asyncio.gather(*[loop.run_in_executor(pool, abs, -i) for i in range(20)]))

    assert asyncio.run(go()) == list(range(20))


def test_standard_input_of_a_task_is_empty(pool: bh.Executor) -> None:
    def read() -> str:
        import sys

        return sys.stdin.read()

    assert pool.submit(read).result(60) == ""


def test_a_forked_child_does_not_end_the_connection(pool: bh.Executor) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    check(pool, abs, -5)


def test_after_shutdown_nothing_is_taken_and_nothing_is_left() -> None:
    executor = bh.Executor(1)
    future = executor.submit(abs, -1)
    executor.shutdown()
    assert future.result(0) == 1
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, -1)
    wait_until(lambda: not processes_of(executor.run))


def test_shutdown_can_cancel_what_waits(tmp_path: Path) -> None:
    executor = bh.Executor(1)
    futures = [executor.submit(_wait_for, tmp_path / "never") for _ in range(5)]
    executor.shutdown(cancel_futures=True)
    assert all(future.cancelled() for future in futures)
    wait_until(lambda: not processes_of(executor.run))


def test_a_killed_head_fails_what_waits(tmp_path: Path) -> None:
    import json

    executor = bh.Executor(1)
    future = executor.submit(_wait_for, tmp_path / "never")
    os.kill(json.loads(Path(executor.folder, "head.json").read_text())["pid"], signal.SIGKILL)
    with pytest.raises(bh.HeadLost):
        future.result(60)
    wait_until(lambda: not processes_of(executor.run))
    executor.shutdown()


def test_max_workers_must_make_sense() -> None:
    with pytest.raises(ValueError, match="max_workers=0"):
        bh.Executor(0)


def test_joblib_can_use_it(home: Path) -> None:
    bh.joblib.register()
    with joblib.parallel_config("bridgehead", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(abs)(-i) for i in range(30)) == list(range(30))


def test_scikit_learn_scores_the_same_through_it(home: Path) -> None:
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import cross_val_score

    rows = np.arange(200.0).reshape(100, 2)
    here = cross_val_score(Ridge(), rows, rows.sum(axis=1), cv=4)
    bh.joblib.register()
    with joblib.parallel_config("bridgehead", n_jobs=2):
        there = cross_val_score(Ridge(), rows, rows.sum(axis=1), cv=4)
    assert there.tolist() == here.tolist()
