"""Laws of wrong requests: refused before anything starts, with the name of what is wrong and of what would be right."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import bridgehead as bh
import pytest
from support import failure_of


@bh.task
def double(x: int) -> int:
    return 2 * x


def pipeline() -> bh.Pipeline:
    p = bh.Pipeline("wrong")
    p.add(double, 1)
    return p


OPTIONS = "cpus, gpus, memory, retries, timeout, priority, resources, persist, name"


@pytest.mark.parametrize(
    ("ask", "valid"),
    [
        (lambda: bh.task(cpu=1), OPTIONS),  # type: ignore[call-overload]
        (lambda: double.options(mem=1), OPTIONS),
        (lambda: bh.program("true", core=1), OPTIONS),
        (lambda: bh.program("true").options(core=1), OPTIONS),
        (lambda: bh.Retries(node=1), "lost_node, preempted, walltime, oom, user"),  # type: ignore[call-arg]
        (lambda: bh.Pipeline("p", colour=1), "none"),  # type: ignore[call-arg]
        (lambda: pipeline().run(cpu=1), "on, agents, cpus, wait, trace, resources"),  # type: ignore[call-arg]
        (lambda: pipeline().submit(cpu=1), "on, agents, cpus, trace, resources"),  # type: ignore[call-arg]
        (lambda: pipeline().plan(cpu=1), "on, agents, cpus, resources"),  # type: ignore[call-arg]
        (lambda: pipeline().group("g", node=1), "nodes, gpus, partition"),  # type: ignore[call-arg]
        (lambda: bh.Executor(workers=1), "max_workers, agents, resources"),  # type: ignore[call-arg]
    ],
)
def test_an_unknown_option_names_the_valid_ones(ask: Callable[[], Any], valid: str) -> None:
    with pytest.raises(TypeError, match=f"unknown option '.*'; the options are {valid}"):
        ask()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cpus": 3}, "3"),
        ({"memory": "100TiB"}, "memory"),
        ({"gpus": 99}, "gpu"),
        ({"resources": {"licence": 2}}, "licence"),
    ],
)
def test_a_task_that_no_agent_can_hold_is_said_at_plan_time(options: dict[str, Any], words: str) -> None:
    p = pipeline()
    p.add(double.options(**options), 2)
    for ask in (p.plan, p.run, p.submit):
        with pytest.raises(bh.PlanError, match=words) as caught:
            ask(cpus=2, resources={"licence": 1})
        assert "double" in str(caught.value)


def test_a_call_that_no_agent_can_hold_fails_at_once_and_others_go_on() -> None:
    with bh.Executor(1) as executor:
        failure_of(executor.submit(double.options(cpus=2), 1), bh.TaskError, "cpu", "larger agents")
        assert executor.submit(double, 2).result(60) == 4


def test_a_cycle_is_refused_with_its_members() -> None:
    p = bh.Pipeline("cycle")
    nodes = [p.add(double.options(name=f"n{i}"), i) for i in range(50)]
    for before, after in zip(nodes, [*nodes[1:], nodes[0]], strict=True):
        after.after(before)
    with pytest.raises(bh.PlanError, match="n0.*n1"):
        p.plan()


def test_a_node_cannot_wait_for_itself() -> None:
    p = bh.Pipeline("self")
    node = p.add(double.options(name="lonely"), 1)
    node.after(node)
    with pytest.raises(bh.PlanError, match="lonely"):
        p.run()


def test_a_program_names_what_it_lacks_and_what_is_too_much() -> None:
    p = bh.Pipeline("program")
    for values, words in (({}, "needs a value for {x}"), ({"x": 1, "y": 2}, "has no place for y")):
        with pytest.raises(TypeError, match=words):
            p.add(bh.program("echo {x}"), **values)


@pytest.mark.parametrize("name", ["größe-测试-🚀", "a b", "x" * 250, "ß" * 120, "../../etc"])
def test_names_may_be_any_text(name: str) -> None:
    p = bh.Pipeline(name)
    node = p.add(double.options(name=name), 4)
    run = p.run()
    assert run[node].result(60) == 8 and list(run.results()) == [name]
    assert "/" not in run.id and run.folder.name == run.id
    run.close()


@pytest.mark.parametrize("name", ["", "line\nbreak", "nul\0", "x" * 10_000])
def test_names_that_no_document_can_hold_are_refused(name: str) -> None:
    with pytest.raises(bh.PlanError, match="name"):
        p = bh.Pipeline(name)
        p.add(double.options(name=name or None), 4)
        p.run()


def größe(ä: int) -> int:
    return ä + 1


def test_functions_may_have_names_in_any_script() -> None:
    p = bh.Pipeline("names")
    function = größe
    function.__qualname__ = "größe_" + "長" * 200
    node = p.add(bh.task(function), 1)
    with p.run() as run:
        assert run[node].result(60) == 2
