"""Laws of what tasks print: kept for the task that printed it, whatever way it went and however much it is."""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import bridgehead as bh
import pytest
from support import wait_gone


def say(text: str) -> None:
    print(text)


def log_it() -> None:
    logging.getLogger("a.b").warning("a warning")


def from_a_thread() -> None:
    thread = threading.Thread(target=print, args=("from a thread",))
    thread.start()
    thread.join()


def from_c() -> None:
    libc = ctypes.CDLL(None)
    libc.write(1, b"to one\n", 7)
    libc.write(2, b"to two\n", 7)
    libc.puts(b"buffered by C")
    libc.fflush(None)


def from_a_child() -> None:
    subprocess.run(["sh", "-c", "echo out of a shell; echo and its errors >&2"], check=True)
    child = os.fork()
    if child == 0:
        print("from a fork", flush=True)
        os._exit(0)
    os.waitpid(child, 0)


def binary() -> None:
    sys.stdout.buffer.write(bytes(range(256)))
    os.write(1, b"\xff\xfe\0raw")
    print("surrogate \udc80, bell \a, line\u2028separator")


def then_die() -> None:
    print("last words")
    os.write(1, b"last raw words\n")
    sys.stdout.flush()
    os._exit(1)


def check(function: Any, *args: Any, expected: tuple[str, ...]) -> str:
    """Everything that the task printed is in its log, and nothing of it in the log of another task."""
    p = bh.Pipeline("output")
    before, node, after = p.add(bh.task(say), "before"), p.add(bh.task(function), *args), p.add(bh.task(say), "after")
    node.after(before)
    after.after(node)
    with p.run(cpus=1) as run:
        run[node].exception(60)
    wait_gone(run.folder)
    text = run.logs(node)
    for part in expected:
        assert part in text, text[:500]
    assert run.logs(before) == "before\n"
    if run[after].exception(60) is None:
        assert run.logs(after) == "after\n"
    return text


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (log_it, ("a warning\n",)),
        (from_a_thread, ("from a thread\n",)),
        (from_c, ("to one\n", "to two\n", "buffered by C\n")),
        (from_a_child, ("out of a shell\n", "and its errors\n", "from a fork\n")),
        (binary, ("raw", "surrogate \\udc80, bell \a, line\u2028separator\n")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_printed_is_kept_for_its_task(function: Any, expected: tuple[str, ...]) -> None:
    check(function, expected=expected)


def much(way: str) -> None:
    line = b"x" * 99 + b"\n"
    if way == "print":
        for _ in range(300_000):
            print(line.decode(), end="")
    elif way == "one print":
        print("é" * 20_000_000)
    else:
        for _ in range(300):
            os.write(1, line * 1000)


@pytest.mark.parametrize("way", ["print", "one print", "raw"])
def test_thirty_megabytes_are_cut_and_say_so(way: str) -> None:
    text = check(much, way, expected=("the rest is not logged",) if way != "raw" else ())
    assert 8_000_000 <= len(text.encode()) < 9_000_000


def test_last_words_of_a_worker_are_in_its_failure() -> None:
    p = bh.Pipeline("dies")
    node = p.add(bh.task(then_die))
    with p.run() as run:
        error = run[node].exception(60)
    assert isinstance(error, bh.WorkerDied) and "last raw words" in str(error)


def test_a_program_that_prints_much_is_cut_and_counted() -> None:
    p = bh.Pipeline("program")
    node = p.add(bh.program("head -c 30000000 /dev/zero"))
    with p.run() as run:
        result = run[node].result(60)
    assert result.dropped > 28_000_000 and len(result.stdout_bytes) < 2_000_000


def test_the_command_prints_the_log_of_a_task_whatever_is_in_it(tmp_path: Path) -> None:
    from support import bridgehead

    p = bh.Pipeline("shown")
    p.add(bh.task(binary))
    with p.run() as run:
        pass
    wait_gone(run.folder)
    done = bridgehead("logs", run.folder, "0")
    assert done.returncode == 0 and "surrogate" in done.stdout
