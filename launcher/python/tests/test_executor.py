"""Laws of the executor: it is a `concurrent.futures.Executor`, and what goes wrong says what and why."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import signal
from collections.abc import Callable
from typing import Any

import bridgehead as bh
import pytest


def double(x: int) -> int:
    return 2 * x


def check(function: Callable[..., Any], *args: Any, expect: Any) -> None:
    with bh.Executor(2) as executor:
        assert executor.submit(function, *args).result(30) == expect


def fails(function: Callable[..., Any], *args: Any, kind: type[BaseException], says: str) -> BaseException:
    """Expects that the call fails with ``kind`` and ``says``, and that the executor works on."""
    with bh.Executor(2) as executor:
        with pytest.raises(kind, match=says) as caught:
            executor.submit(function, *args).result(30)
        assert executor.submit(double, 4).result(30) == 8
    return caught.value


def test_a_call_gives_its_value() -> None:
    check(double, 21, expect=42)


def test_a_lambda_travels_by_value() -> None:
    factor = 3
    check(lambda x: factor * x, 5, expect=15)


def test_keyword_arguments_arrive() -> None:
    with bh.Executor(1) as executor:
        assert executor.submit(dict, a=1, b=2).result(30) == {"a": 1, "b": 2}


def test_many_calls_come_back_each_with_its_own_value() -> None:
    with bh.Executor(2) as executor:
        futures = [executor.submit(double, i) for i in range(2000)]
        assert [f.result(60) for f in futures] == [2 * i for i in range(2000)]


def test_map_keeps_the_order_in_chunks_too() -> None:
    with bh.Executor(2) as executor:
        expected = [2 * i for i in range(100)]
        assert list(executor.map(double, range(100))) == expected
        assert list(executor.map(double, range(100), chunksize=7)) == expected


def test_wait_and_as_completed_take_its_futures() -> None:
    with bh.Executor(2) as executor:
        futures = [executor.submit(double, i) for i in range(20)]
        done, open_ = concurrent.futures.wait(futures, timeout=30)
        assert (len(done), len(open_)) == (20, 0)
        assert sorted(f.result() for f in concurrent.futures.as_completed(futures)) == [2 * i for i in range(20)]


def test_callbacks_run_without_anybody_waiting() -> None:
    import threading

    heard = threading.Event()
    with bh.Executor(1) as executor:
        executor.submit(double, 1).add_done_callback(lambda _: heard.set())
        assert heard.wait(30)


def test_asyncio_can_use_it() -> None:
    async def main() -> int:
        with bh.Executor(1) as executor:
            return await asyncio.get_running_loop().run_in_executor(executor, double, 4)

    assert asyncio.run(main()) == 8


def test_a_future_as_an_argument_arrives_as_its_value() -> None:
    with bh.Executor(2) as executor:
        first = executor.submit(double, 5)
        assert executor.submit(double, first).result(30) == 20  # type: ignore[arg-type]
        assert executor.submit(sum, [first, first]).result(30) == 20  # type: ignore[list-item]


def test_an_exception_comes_back_with_its_traceback() -> None:
    def broken() -> None:
        raise KeyError("missing")

    error = fails(broken, kind=bh.TaskError, says="KeyError")
    assert isinstance(error, bh.TaskError)
    assert isinstance(error.__cause__, KeyError)
    assert "in broken" in error.remote_traceback


def test_a_segfault_names_the_signal_and_the_others_go_on() -> None:
    def crash() -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    error = fails(crash, kind=bh.WorkerDied, says="SIGSEGV")
    assert isinstance(error, bh.WorkerDied)
    assert error.signal == signal.SIGSEGV


def test_leaving_the_process_names_the_exit_code() -> None:
    def leave() -> None:
        os._exit(3)

    error = fails(leave, kind=bh.WorkerDied, says="exit code 3")
    assert isinstance(error, bh.WorkerDied)
    assert error.exit_code == 3


def test_a_task_over_its_limit_is_ended() -> None:
    @bh.task(timeout=0.3)
    def forever() -> None:
        while True:
            pass

    fails(forever, kind=bh.TaskTimeout, says="limit")


def test_an_argument_that_cannot_be_sent_is_named_by_its_path() -> None:
    import threading

    with bh.Executor(1) as executor, pytest.raises(bh.UnpicklableError, match=r"\['deep'\]\[1\]"):
        executor.submit(double, {"fine": 1, "deep": [1, threading.Lock()]})  # type: ignore[arg-type]


def test_a_result_that_cannot_be_sent_fails_its_task() -> None:
    import threading

    fails(threading.Lock, kind=bh.UnpicklableError, says="cannot be sent")


def test_a_large_closure_is_refused_with_its_size_and_name() -> None:
    ballast = bytes(2 << 20)

    def heavy() -> int:
        return len(ballast)

    with bh.Executor(1) as executor, pytest.raises(bh.ClosureTooLarge, match=r"ballast \(2,097"):
        executor.submit(heavy)


def test_a_cancelled_call_is_cancelled() -> None:
    import time

    with bh.Executor(1) as executor:
        running = executor.submit(time.sleep, 60)
        waiting = executor.submit(double, 1)
        assert waiting.cancel() and running.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            waiting.result(30)


def test_nothing_is_taken_after_shutdown() -> None:
    executor = bh.Executor(1)
    executor.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(double, 1)


def test_a_program_gives_its_output_or_says_why_not() -> None:
    with bh.Executor(1) as executor:
        done = executor.submit(bh.program("echo {word}"), word="hello there").result(30)  # type: ignore[arg-type,call-arg]
        assert done.stdout == "hello there\n"
        for command, says in (("false", "exited with 1"), ("no-such-program", "cannot find no-such-program")):
            with pytest.raises(bh.TaskError, match=says):
                executor.submit(bh.program(command)).result(30)  # type: ignore[arg-type]


def test_large_arrays_come_back_whole() -> None:
    import numpy as np

    def make(n: int) -> Any:
        return np.arange(n, dtype=np.float64)

    with bh.Executor(2) as executor:
        array = executor.submit(make, 1 << 20).result(30)
        assert array.sum() == (1 << 20) * ((1 << 20) - 1) / 2
        assert not array.flags.writeable
        assert executor.submit(np.sum, array).result(30) == array.sum()
