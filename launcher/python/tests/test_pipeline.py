"""Laws of pipelines: the graph runs, what goes wrong says what and why, and a run outlives its head."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import bridgehead as bh
import pytest


@bh.task
def double(x: int) -> int:
    print(f"doubling {x}")
    return 2 * x


@bh.task
def total(numbers: list[int]) -> int:
    return sum(numbers)


@bh.task
def broken(x: int) -> int:
    raise ValueError(f"no {x}")


def check(p: bh.Pipeline, node: bh.Node[Any], expect: Any, **options: Any) -> None:
    with p.run(**options) as run:
        assert run.phase == "finished"
        assert run[node].result() == expect


def sweep() -> tuple[bh.Pipeline, list[bh.Node[int]], bh.Node[int]]:
    p = bh.Pipeline("sweep")
    doubled = p.map(double, range(20))
    return p, doubled, p.add(total, doubled)


def test_a_plain_call_is_a_plain_call() -> None:
    assert double(4) == 8


def test_nodes_arrive_as_their_values() -> None:
    p, _, node = sweep()
    check(p, node, 380)


def test_two_agents_give_the_same() -> None:
    p, _, node = sweep()
    check(p, node, 380, agents=2)


def test_after_orders_without_a_value() -> None:
    p = bh.Pipeline("order")
    first, second = p.add(bh.program("true")), p.add(double, 2)
    second.after(first)
    with p.run() as run:
        run.wait()
        starts = [e["task"] for e in run.events() if e["event"] == "task-assigned"]
    assert starts.index(first.id) < starts.index(second.id)


def test_a_program_takes_results_of_tasks() -> None:
    p = bh.Pipeline("program")
    node = p.add(bh.program("echo {n}"), n=p.add(double, 21))
    with p.run() as run:
        assert run[node].result().stdout == "42\n"


def test_what_a_task_prints_is_its_own() -> None:
    p, doubled, _ = sweep()
    with p.run() as run:
        run.close()
        assert run.logs(doubled[3]) == "doubling 3\n"


def test_a_failure_fails_what_needs_it_and_nothing_else() -> None:
    p = bh.Pipeline("failure")
    bad, good = p.add(broken, 1), p.add(double, 1)
    needs = p.add(double, bad)
    with p.run() as run:
        assert run.phase == "failed"
        assert run[good].result() == 2
        with pytest.raises(bh.TaskError, match="no 1"):
            run[bad].result()
        with pytest.raises(bh.UpstreamFailed, match="broken") as caught:
            run[needs].result()
        assert caught.value.task == bad.id


def test_errors_of_its_own_are_tried_again_as_often_as_asked(tmp_path: Path) -> None:
    marks = tmp_path / "marks"

    @bh.task(retries=2)
    def third_time() -> int:
        with marks.open("a") as file:
            file.write("x")
        if len(marks.read_text()) < 3:
            raise RuntimeError("not yet")
        return len(marks.read_text())

    p = bh.Pipeline("retries")
    check(p, p.add(third_time), 3)


def test_a_cycle_is_named() -> None:
    p = bh.Pipeline("cycle")
    a, b = p.add(double, 1), p.add(double, 2)
    a.after(b)
    b.after(a)
    with pytest.raises(bh.PlanError, match="(?s)double.*double"):
        p.run()


def test_a_task_that_fits_nowhere_is_refused_at_plan_time() -> None:
    p = bh.Pipeline("wide")
    p.add(double.options(cpus=10_000), 1)
    with pytest.raises(bh.PlanError, match="double"):
        p.run()


def test_an_unknown_option_names_the_valid_ones() -> None:
    with pytest.raises(TypeError, match="cpus, gpus, memory"):
        double.options(cpu=2)


def test_wrong_arguments_are_refused_when_the_node_is_added() -> None:
    with pytest.raises(TypeError, match="double"):
        bh.Pipeline("p").add(double, 1, 2, 3)


def test_the_plan_starts_nothing(home: Path) -> None:
    p, _, _ = sweep()
    assert "21 tasks" in p.plan()
    assert not (home / "runs").exists()


def test_a_detached_run_is_found_again() -> None:
    p, _, node = sweep()
    submitted = p.submit()
    run = bh.connect(submitted.id)
    try:
        run.wait(30)
    except bh.HeadLost:
        pass  # It had ended already.
    assert run[node].result() == 380
    assert run.phase == "finished"


def test_a_run_goes_on_after_its_head_was_killed(tmp_path: Path) -> None:
    import json
    import subprocess

    from bridgehead._session import binary

    count = tmp_path / "count"

    @bh.task
    def note(x: int) -> int:
        with count.open("a") as file:
            file.write(f"{x}\n")
        return x

    @bh.task
    def gate(xs: list[int]) -> int:
        if not (tmp_path / "open").exists():
            os.kill(json.loads(next(tmp_path.glob("runs/*/head.json")).read_text())["pid"], signal.SIGKILL)
            signal.pause()
        return sum(xs)

    p = bh.Pipeline("killed")
    node = p.add(gate, p.map(note, range(10)))
    run = p.run(wait=False)
    with pytest.raises(bh.HeadLost):
        run.wait(30)
    run.close()
    (tmp_path / "open").touch()
    done = subprocess.run([binary(), "resume", run.id], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    again = bh.connect(run.id)
    assert again[node].result() == 45
    assert sorted(map(int, count.read_text().split())) == list(range(10)), "a finished task was run again"
