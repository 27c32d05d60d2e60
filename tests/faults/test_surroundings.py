"""Laws of tasks that treat their process badly: the product still works, and nothing of theirs outlives the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import bridgehead as bh
import pytest
from support import check_still_works, failure_of, kill, processes_of, processes_with, wait_gone, wait_until


@pytest.fixture
def one() -> Iterator[bh.Executor]:
    """An Executor with one worker, so that the next call meets what the last one left."""
    with bh.Executor(1) as executor:
        yield executor


def leave_folder(folder: str) -> str:
    os.makedirs(folder)
    os.chdir(folder)
    os.rmdir(folder)
    return folder


def lose_environment() -> int:
    os.environ.clear()
    return len(os.environ)


def close_standard_streams() -> None:
    for fd in range(3):
        os.close(fd)


def replace_standard_streams() -> None:
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - it must stay open


def close_everything() -> None:
    os.closerange(0, 1024)


def change_signals() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)


def add_in_a_task(n: int) -> int:
    return bh.submit(bh.task(abs), -n).result()


def square(x: int) -> int:
    return x * x


def test_a_task_may_leave_and_remove_its_folder(one: bh.Executor, tmp_path: Path) -> None:
    one.submit(leave_folder, str(tmp_path / "gone")).result(60)
    check_still_works(one)
    assert one.submit(square, 4).result(60) == 16
    assert one.submit(add_in_a_task, 3).result(60) == 3


@pytest.mark.parametrize(
    "harm",
    [lose_environment, close_standard_streams, replace_standard_streams, change_signals],
    ids=lambda f: f.__name__,
)
def test_a_task_may_harm_its_process(one: bh.Executor, harm: object) -> None:
    one.submit(harm).result(60)  # type: ignore[arg-type]
    check_still_works(one)
    assert one.submit(add_in_a_task, 3).result(60) == 3
    assert one.submit(subprocess.check_output, ["/bin/echo", "hi"]).result(60) == b"hi\n"


def test_a_task_that_closes_everything_fails_and_the_others_go_on(one: bh.Executor) -> None:
    failure_of(one.submit(close_everything), bh.WorkerDied)
    check_still_works(one)


def fork_and_return() -> int:
    """Parent and child both come back, as from a careless os.fork."""
    child = os.fork()
    if child == 0:
        print("printed by the child")
        return -1
    os.waitpid(child, 0)
    return os.getpid()


def fork_and_raise() -> str:
    if os.fork() == 0:
        raise ValueError("in the child")
    os.wait()
    return "parent"


def fork_and_submit() -> int:
    """The status of a child that tries to speak for its parent."""
    child = os.fork()
    if child == 0:
        try:
            bh.submit(bh.task(abs), -1).result(5)
        finally:
            os._exit(5)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def use_multiprocessing() -> list[int]:
    import multiprocessing

    with multiprocessing.get_context("fork").Pool(2) as pool:
        return pool.map(abs, [-1, -2, -3])


def test_a_forked_child_does_not_answer_for_its_parent(one: bh.Executor) -> None:
    assert one.submit(fork_and_return).result(60) > 0
    assert one.submit(fork_and_raise).result(60) == "parent"
    assert one.submit(fork_and_submit).result(60) == 5
    assert one.submit(use_multiprocessing).result(60) == [1, 2, 3]
    check_still_works(one)


def start_daemon(mark: str, keep_environment: bool) -> None:
    env = {**os.environ, "DAEMON": mark} if keep_environment else {"DAEMON": mark}
    subprocess.Popen(
        ["/bin/sh", "-c", "setsid sleep 1000 & setsid sleep 1000 &"], env=env, start_new_session=True
    ).wait()


@pytest.mark.parametrize("keep", [True, False], ids=["marked", "without its environment"])
def test_a_daemon_does_not_outlive_its_run(tmp_path: Path, keep: bool) -> None:
    p = bh.Pipeline("daemon")
    mark = tmp_path.name + str(keep)
    node = p.add(bh.task(start_daemon), mark, keep)
    run = p.run()
    assert run[node].exception(60) is None
    wait_until(lambda: len(processes_with("DAEMON", mark)) == 2, "both daemons run")
    run.close()
    wait_gone(run.folder)
    wait_until(lambda: not processes_with("DAEMON", mark), "the daemons end")


def test_a_daemon_does_not_outlive_a_head_that_is_killed(tmp_path: Path) -> None:
    p = bh.Pipeline("daemon")
    node = p.add(bh.task(start_daemon), tmp_path.name, True)
    run = p.run()
    assert run[node].exception(60) is None
    kill(processes_of(run.folder, "head")[0])
    wait_until(lambda: not processes_with("DAEMON", tmp_path.name), "the daemons end")
    run.close()
    wait_gone(run.folder)


def heard_by_reaper(run: str) -> int:
    """Bytes that the reaper of a run's head has read so far."""
    head = processes_of(Path(os.environ["BRIDGEHEAD_HOME"], "runs", run), "head")[0]
    reaper = next(pid for pid in children(head) if b"reaper" in Path("/proc", str(pid), "cmdline").read_bytes())
    return int(Path("/proc", str(reaper), "io").read_text().split()[1])


def children(parent: int) -> list[int]:
    lists = [file.read_text().split() for file in Path("/proc", str(parent), "task").glob("*/children")]
    return [int(pid) for pids in lists for pid in pids]


def test_a_daemon_without_its_environment_does_not_outlive_a_head_that_is_killed(tmp_path: Path) -> None:
    executor = bh.Executor(1)
    assert executor.submit(abs, -1).result(60) == 1
    before = heard_by_reaper(executor.run)
    executor.submit(start_daemon, tmp_path.name, False).result(60)
    wait_until(lambda: heard_by_reaper(executor.run) > before, "the reaper is told")
    kill(processes_of(Path(executor.folder), "head")[0])
    wait_until(lambda: not processes_with("DAEMON", tmp_path.name), "the daemons end")
    executor.shutdown()


def quit_in_background() -> None:
    subprocess.Popen(["/bin/sh", "-c", "setsid true & setsid true &"], start_new_session=True).wait()


def state(pid: int) -> str:
    """The letter of a process's state; empty for one that goes while it is looked at."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return ""


def test_detached_processes_that_end_leave_no_zombie(one: bh.Executor) -> None:
    for _ in range(5):
        one.submit(quit_in_background).result(60)
    head = processes_of(Path(one.folder), "head")[0]

    def zombies() -> list[int]:
        return [pid for pid in children(head) if state(pid) == "Z"]

    wait_until(lambda: not zombies(), "their ends are taken note of")


def ignore_and_hang(file: str) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Path(file).touch()
    while True:
        time.sleep(1000)


def hang_in_c(file: str) -> None:
    import ctypes

    Path(file).touch()
    ctypes.PyDLL(None).pause()  # Holds the interpreter's lock for ever.


@pytest.mark.parametrize("work", [ignore_and_hang, hang_in_c], ids=lambda f: f.__name__)
def test_a_cancel_ends_what_ignores_it(one: bh.Executor, tmp_path: Path, work: object) -> None:
    file = tmp_path / "begun"
    future = one.submit(work, str(file))  # type: ignore[arg-type]
    wait_until(file.exists, "the task has begun")
    assert future.cancel()
    check_still_works(one)


def test_a_time_limit_ends_what_is_stuck_in_c(one: bh.Executor, tmp_path: Path) -> None:
    task = bh.task(timeout=0.3)(hang_in_c)
    failure_of(one.submit(task, str(tmp_path / "begun")), bh.TaskTimeout, "300ms")
    check_still_works(one)
