"""Laws of cancelling in every phase: the run ends as cancelled, says why, leaves nothing, and can be resumed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import bridgehead as bh
import pytest
from support import bridgehead, journal, wait_gone, wait_until


def hold(folder: str, name: str) -> str:
    """Runs until the folder says that it may end."""
    import time

    Path(folder, f"begun-{name}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.005)
    return name


def spawn(folder: str) -> str:
    return bh.submit(bh.task(hold), folder, "inner").result()


@pytest.fixture
def pipeline(tmp_path: Path) -> bh.Pipeline:
    p = bh.Pipeline("cancel")
    first = p.add(bh.task(hold), str(tmp_path), "first")
    p.add(bh.task(spawn), str(tmp_path)).after(first)
    shell = "sh -c 'touch {folder}/begun-program; while [ ! -e {folder}/go ]; do sleep 0.01; done'"
    p.add(bh.program(shell), folder=tmp_path)
    for i in range(20):
        p.add(bh.task(hold), str(tmp_path), f"behind-{i}").after(first)
    return p


def check_cancelled(run: bh.Run, tmp_path: Path) -> None:
    """It has ended as cancelled, with a reason, and a resume finishes it."""
    assert run.wait(60) == "cancelled"
    assert run.status()["phase"] == "cancelled"
    run.close()
    wait_gone(run.folder)
    assert journal(run.folder)[-1][1] == "run-ended"
    (tmp_path / "go").touch()
    done = bridgehead("resume", run.folder)
    assert done.returncode == 0, done
    wait_gone(run.folder)


def begun(name: str) -> Callable[[Path], bool]:
    return lambda folder: (folder / f"begun-{name}").exists()


@pytest.mark.parametrize(
    "moment",
    [lambda folder: True, begun("first"), begun("program")],
    ids=["at once", "in a task", "in a program"],
)
@pytest.mark.parametrize("agents", [1, 2])
def test_a_run_is_cancelled_by_its_client(
    pipeline: bh.Pipeline, tmp_path: Path, moment: Callable[[Path], bool], agents: int
) -> None:
    run = pipeline.run(cpus=2, agents=agents, wait=False)
    wait_until(lambda: moment(tmp_path), "the moment comes")
    run.cancel("enough")
    check_cancelled(run, tmp_path)


def test_a_run_is_cancelled_while_an_added_task_runs(tmp_path: Path) -> None:
    p = bh.Pipeline("inner")
    p.add(bh.task(spawn), str(tmp_path))
    run = p.run(cpus=1, wait=False)
    wait_until(lambda: begun("inner")(tmp_path), "the added task has begun")
    run.cancel()
    check_cancelled(run, tmp_path)


def test_a_run_is_cancelled_by_the_command_and_twice_is_no_harm(pipeline: bh.Pipeline, tmp_path: Path) -> None:
    run = pipeline.submit(cpus=2)
    wait_until(lambda: begun("first")(tmp_path), "a task has begun")
    for _ in range(2):
        assert bridgehead("cancel", run.folder, "--reason", "by hand").returncode in (0, 4)
    check_cancelled(run, tmp_path)
    assert bridgehead("cancel", run.folder).returncode == 4


def test_a_request_in_the_mailbox_cancels(pipeline: bh.Pipeline, tmp_path: Path) -> None:
    run = pipeline.submit(cpus=2)
    (run.folder / "mailbox/1.json").write_text('{"kind":"cancel","reason":"by mail"}')
    check_cancelled(run, tmp_path)


def test_futures_are_cancelled_waiting_running_and_done(tmp_path: Path) -> None:
    with bh.Executor(1) as executor:
        running = executor.submit(hold, str(tmp_path), "running")
        behind = [executor.submit(hold, str(tmp_path), f"behind-{i}") for i in range(50)]
        wait_until(lambda: begun("running")(tmp_path), "the first one runs")
        assert all(future.cancel() for future in behind)
        assert running.cancel() and running.cancelled()
        done = executor.submit(abs, -1)
        assert done.result(60) == 1 and not done.cancel()
    assert [path.name for path in tmp_path.glob("begun-*")] == ["begun-running"]


def test_an_executor_is_shut_down_in_the_middle(tmp_path: Path) -> None:
    executor = bh.Executor(1)
    futures = [executor.submit(hold, str(tmp_path), str(i)) for i in range(20)]
    wait_until(lambda: begun("0")(tmp_path), "the first one runs")
    closer = threading.Thread(target=executor.shutdown, kwargs={"cancel_futures": True})
    closer.start()
    closer.join(60)
    assert not closer.is_alive() and all(future.cancelled() for future in futures)
