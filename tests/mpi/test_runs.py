"""Laws of runs with gangs: cancel, Ctrl-C and a killed head end every rank; a resumed run goes on, and does not run again what has
finished."""

from __future__ import annotations

import signal
from concurrent.futures import CancelledError
from pathlib import Path

import bridgehead as bh
import pytest
from support import bridgehead, journal, kill, of_run, only_run, processes, script, started, wait_until

SCRIPT = """
import sys
import bridgehead as bh

@bh.mpi(ranks=2)
def first(comm, notes):
    if comm.rank == 0:
        with open(notes + "/ran", "a") as ran:
            ran.write("x")
    return comm.allreduce(comm.rank)

@bh.task
def last(one, result):
    return one, result.stdout.split()[1]

p = bh.Pipeline("gated")
one = p.add(first, sys.argv[2])
gate = p.add(bh.program(f"{sys.argv[1]} gate {sys.argv[2]}", ranks=3, name="gate")).after(one)
p.add(last, one, gate)

if __name__ == "__main__":
    p.run(agents=2, cpus=6)
"""


def test_a_gang_that_runs_is_cancelled_at_once(program: Path, tmp_path: Path) -> None:
    p = bh.Pipeline("cancelled")
    node = p.add(bh.program(f"{program} hang {tmp_path}", ranks=4, ranks_per_node=2))
    with p.run(agents=2, cpus=4, wait=False) as run:
        ranks = started(tmp_path, 4)
        assert bridgehead("cancel", run.id).returncode == 0
        with pytest.raises(CancelledError):
            run[node].result(30)
        assert not set(ranks) & set(processes()), "its ranks have ended"


def test_a_future_of_a_gang_that_runs_cannot_be_cancelled_but_one_that_waits_can(tmp_path: Path, program: Path) -> None:
    with bh.Executor(2) as pool:
        running = pool.submit(waiting_for, str(tmp_path / "open"), str(tmp_path / "runs"))
        wait_until((tmp_path / "runs").exists, "it runs")
        queued = pool.submit(waiting_for, str(tmp_path / "open"), str(tmp_path / "second"))
        assert queued.cancel()
        (tmp_path / "open").touch()
        assert running.result(60) == 2 and not (tmp_path / "second").exists()


@bh.mpi(ranks=2)
def waiting_for(comm, gate: str, runs: str) -> int:  # type: ignore[no-untyped-def]
    import time

    Path(runs).touch()
    while not Path(gate).exists():
        time.sleep(0.02)
    return int(comm.allreduce(1))


@pytest.mark.timeout(180)
def test_an_interrupted_script_ends_its_gangs_and_can_be_resumed(home: Path, program: Path, tmp_path: Path) -> None:
    before = {path.parent for path in home.glob("runs/*/run.json")}
    process = script(tmp_path, SCRIPT, str(program), str(tmp_path))
    ranks = started(tmp_path, 3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0 and "resume" in err, (out, err)
    wait_until(lambda: not processes(), "everything ends", state=processes)
    assert not set(ranks) & set(processes())
    check_resumed(only_run(home, before), tmp_path)


@pytest.mark.timeout(180)
def test_a_killed_head_takes_the_ranks_with_it_and_the_run_is_resumed(
    home: Path, program: Path, tmp_path: Path
) -> None:
    before = {path.parent for path in home.glob("runs/*/run.json")}
    process = script(tmp_path, SCRIPT, str(program), str(tmp_path))
    started(tmp_path, 3)
    folder = only_run(home, before)
    assert folder is not None
    kill(of_run(folder, "head")[0])
    process.communicate(timeout=60)
    wait_until(lambda: not processes(), "all ranks and agents end", state=processes)
    check_resumed(folder, tmp_path)


def check_resumed(folder: Path | None, notes: Path) -> None:
    """The run goes on to its end; the gang that had finished did not run again."""
    assert folder is not None
    (notes / "open").touch()
    done = bridgehead("resume", folder)
    assert done.returncode == 0, (done, (folder / "logs/head.log").read_text()[-2000:])
    assert bh.connect(str(folder)).results() == {"last": (1, "3")}
    assert (notes / "ran").read_text() == "x", "what had finished ran again"
    shown = bridgehead("results", folder)
    assert shown.returncode == 0 and "last" in shown.stdout, shown
    begun = [event for event in journal(folder) if event[1] == "gang-started"]
    assert {event[2] for event in begun} == {0, 1}
