"""Laws of large and growing graphs: deep, wide, many inputs, tasks that add tasks."""

from __future__ import annotations

import bridgehead as bh
import pytest

DEEP, WIDE, INPUTS = 10_000, 20_000, 5_000


@bh.task
def plus_one(x: int) -> int:
    return x + 1


@bh.task
def total(*values: int) -> int:
    return sum(values)


@bh.task
def fail(text: str) -> int:
    raise LookupError(text)


def check(p: bh.Pipeline, node: bh.Node[int], expected: int) -> None:
    with p.run() as run:
        assert run.phase == "finished", run.status()
        assert run[node].result(60) == expected


def test_a_chain_of_ten_thousand() -> None:
    p = bh.Pipeline("deep")
    node = p.add(plus_one, 0)
    for _ in range(DEEP - 1):
        node = p.add(plus_one, node)
    check(p, node, DEEP)


def test_a_failure_at_the_root_of_a_long_chain_is_told_at_its_end_in_few_bytes() -> None:
    p = bh.Pipeline("deep-failure")
    node = p.add(fail, "no such thing")
    for _ in range(DEEP - 1):
        node = p.add(plus_one, node)
    with p.run() as run:
        assert run.phase == "failed"
        with pytest.raises(bh.UpstreamFailed, match=r"fail \(t0\), which it needs, failed: .*no such thing") as caught:
            run[node].result(60)
        assert caught.value.task == 0 and len(str(caught.value)) < 1000
    assert sum(file.stat().st_size for file in (run.folder / "journal").iterdir()) < 1000 * DEEP


def test_twenty_thousand_side_by_side() -> None:
    p = bh.Pipeline("wide")
    nodes = p.map(plus_one, range(WIDE))
    with p.run() as run:
        assert run.phase == "finished"
        assert sum(run[node].result(60) for node in nodes) == WIDE * (WIDE + 1) // 2


def test_a_task_with_five_thousand_inputs() -> None:
    p = bh.Pipeline("inputs")
    check(p, p.add(total, *p.map(plus_one, range(INPUTS))), INPUTS * (INPUTS + 1) // 2)


def test_an_input_that_is_named_many_times() -> None:
    p = bh.Pipeline("again")
    node = p.add(plus_one, 0)
    check(p, p.add(total, *[node] * 1000), 1000)


def test_an_empty_pipeline_finishes() -> None:
    p = bh.Pipeline("empty")
    with p.run() as run:
        assert run.phase == "finished" and run.results() == {}
    assert bh.Pipeline("empty").submit().id


@bh.task
def tree(depth: int, width: int) -> int:
    """Leaves of a tree of tasks, each added by the one above it."""
    if depth == 0:
        return 1
    return sum(future.result() for future in [bh.submit(tree, depth - 1, width) for _ in range(width)])


@pytest.mark.parametrize(("cpus", "agents"), [(1, 1), (2, 2)])
def test_tasks_that_add_tasks_that_add_tasks(cpus: int, agents: int) -> None:
    p = bh.Pipeline("tree")
    node = p.add(tree, 4, 2)
    with p.run(cpus=cpus, agents=agents) as run:
        assert run[node].result(60) == 16


@bh.task
def adds_one_that_fails() -> str:
    future = bh.submit(fail, "inner")
    try:
        future.result()
    except bh.TaskError as error:
        return str(error)
    return "no failure"


def test_a_failure_of_an_added_task_reaches_the_one_that_added_it() -> None:
    p = bh.Pipeline("inner")
    node = p.add(adds_one_that_fails)
    with p.run() as run:
        assert "LookupError: inner" in run[node].result(60)
