"""Laws of pipelines and their runs."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bridgehead as bh
import pytest
from conftest import processes_of, wait_until


@bh.task
def double(x: int) -> int:
    print("doubling", x)
    return 2 * x


@bh.task
def add_up(*values: Any) -> int:
    flat = [v for value in values for v in (value if isinstance(value, list) else [value])]
    return sum(flat)


@bh.task
def fail(text: str) -> None:
    raise LookupError(text)


@bh.task
def name_of_this() -> tuple[str, int, int]:
    here = bh.current()
    return here.name, here.task, here.attempt


@bh.task
def spread(n: int) -> int:
    return sum(future.result() for future in [bh.submit(double, i) for i in range(n)])


@dataclasses.dataclass
class Config:
    values: dict[str, Any]


@bh.task
def total_of(config: Config) -> int:
    return sum(config.values["all"])


def check(pipeline: bh.Pipeline, **expected: Any) -> bh.Run:
    """A pipeline ends well with these results."""
    run = pipeline.run()
    assert run.phase == "finished", run.status()
    assert {name.rpartition(".")[2]: value for name, value in run.results().items()} == expected
    run.close()
    wait_until(lambda: not processes_of(run.id))
    return run


def test_a_plain_call_runs_here_and_now() -> None:
    assert double(21) == 42
    assert bh.program("echo {x}")(x="a b").stdout == "a b\n"


def test_values_flow_between_nodes_wherever_they_stand() -> None:
    p = bh.Pipeline("flow")
    doubled = p.map(double, range(4))
    config = p.add(total_of, Config({"all": doubled}))
    p.add(add_up, doubled, doubled[3], config)
    check(p, add_up=12 + 6 + 12)


def test_after_orders_without_passing_a_value(tmp_path: Path) -> None:
    p = bh.Pipeline("after")
    touch = p.add(bh.program("touch {file}"), file=tmp_path / "there")
    p.add(bh.program("cat {file}"), file=tmp_path / "there").after(touch)
    run = p.run()
    assert run.phase == "finished"
    run.close()


def test_a_task_can_add_tasks_on_one_core() -> None:
    p = bh.Pipeline("spread")
    p.add(spread, 5)
    run = p.run(cpus=1)
    assert run[p.nodes[0]].result(60) == 20
    run.close()


def test_two_agents_give_the_same_results() -> None:
    p = bh.Pipeline("two")
    p.add(add_up, p.map(double, range(10)))
    try:
        run = p.run(agents=2, cpus=2)
    except bh.HeadLost as error:
        pytest.skip(f"this build has no second agent yet: {error}")
    assert run.results() != {}
    run.close()


def test_a_failure_carries_the_traceback_and_fails_its_dependents() -> None:
    p = bh.Pipeline("fails")
    bad = p.add(fail, "no such thing")
    dependent = p.add(add_up, bad)
    fine = p.add(double, 1)
    run = p.run()
    assert run.phase == "failed"
    with pytest.raises(bh.TaskError, match="no such thing") as caught:
        run[bad].result(60)
    assert isinstance(caught.value.__cause__, LookupError)
    assert "raise LookupError(text)" in caught.value.remote_traceback
    with pytest.raises(bh.UpstreamFailed, match="fail"):
        run[dependent].result(60)
    assert run[fine].result(60) == 2
    run.close()


def test_retries_of_the_user_are_counted() -> None:
    p = bh.Pipeline("retries")
    flaky = bh.task(retries=2)(_flaky)
    node = p.add(flaky)
    run = p.run()
    assert run[node].result(60) == 3
    assert [e["event"] for e in run.events()].count("task-retried") == 2
    run.close()


def _flaky() -> int:
    attempt = bh.current().attempt
    if attempt < 3:
        raise OSError("not yet")
    return attempt


def test_a_time_limit_ends_a_task() -> None:
    p = bh.Pipeline("limit")
    node = p.add(bh.task(timeout=0.05)(_for_ever))
    run = p.run()
    with pytest.raises(bh.TaskTimeout, match="limit"):
        run[node].result(60)
    run.close()


def _for_ever() -> None:
    import threading

    threading.Event().wait()


def _noisy() -> None:
    print("to stdout")
    print("to stderr", file=sys.stderr)
    logging.getLogger("some").warning("logged")
    sys.stdout.buffer.write(b"bytes\n")


def test_what_a_task_prints_and_logs_is_kept_for_it() -> None:
    p = bh.Pipeline("logs")
    node, other = p.add(bh.task(_noisy)), p.add(double, 7)
    run = p.run()
    run.close()
    wait_until(lambda: not processes_of(run.id))
    text = run.logs(node)
    for part in ("to stdout\n", "to stderr\n", "logged\n", "bytes\n"):
        assert part in text
    assert run.logs(other) == "doubling 7\n"


def test_current_tells_where_a_task_runs() -> None:
    p = bh.Pipeline("where")
    node = p.add(name_of_this)
    run = p.run()
    name, task, attempt = run[node].result(60)
    assert name.endswith("name_of_this") and (task, attempt) == (node.id, 1)
    run.close()
    with pytest.raises(RuntimeError, match="no task runs here"):
        bh.current()


def test_a_program_gives_its_output_files(tmp_path: Path) -> None:
    copy = bh.program("cp {source} {target}", outputs={"copy": "{target}"}, cwd=str(tmp_path))
    (tmp_path / "a").write_text("content")
    p = bh.Pipeline("program")
    node = p.add(copy, source="a", target="b c")
    result = p.run()[node].result(60)
    assert (result.exit_code, result.outputs["copy"].read_text()) == (0, "content")


def test_a_program_takes_values_of_nodes() -> None:
    p = bh.Pipeline("words")
    node = p.add(bh.program("echo {n}"), n=p.add(double, 4))
    assert p.run()[node].result(60).stdout == "8\n"


def test_a_program_that_fails_says_its_last_words() -> None:
    p = bh.Pipeline("exit")
    node = p.add(bh.program("sh -c 'echo oh no >&2; exit 3'"))
    with pytest.raises(bh.TaskError, match="oh no") as caught:
        p.run()[node].result(60)
    assert caught.value.exit_code == 3


def test_a_finished_run_can_be_read_without_its_head() -> None:
    p = bh.Pipeline("past")
    good, bad = p.add(double, 5), p.add(fail, "x")
    run = p.run()
    run.close()
    wait_until(lambda: not processes_of(run.id))
    past = bh.connect(run.id)
    assert past.phase == "failed"
    assert past[good].result(0) == 10
    with pytest.raises(bh.TaskError, match="x"):
        past[bad].result(0)


def test_a_submitted_run_goes_on_and_can_be_found() -> None:
    p = bh.Pipeline("detached")
    node = p.add(double, 8)
    submitted = p.submit()
    submitted.close()
    found = bh.connect(submitted.id)
    assert found.wait(60) == "finished" or found.phase == "finished"
    assert bh.connect(submitted.id)[node].result(60) == 16
    wait_until(lambda: not processes_of(submitted.id))


def test_cancel_ends_a_run() -> None:
    p = bh.Pipeline("cancel")
    node = p.add(bh.task(_for_ever))
    run = p.run(wait=False)
    run.cancel("enough")
    assert run.wait(60) == "cancelled"
    assert run[node].cancelled()
    run.close()


def test_a_run_left_by_its_client_is_cancelled() -> None:
    p = bh.Pipeline("left")
    p.add(bh.task(_for_ever))
    with p.run(wait=False) as run:
        pass
    wait_until(lambda: not processes_of(run.id))


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"cpu": 2}, TypeError, "unknown option 'cpu'; the options are cpus, gpus, memory"),
        ({"cpus": -1}, bh.PlanError, "cpus=-1"),
        ({"memory": "8 elephants"}, bh.PlanError, "8GiB"),
        ({"timeout": 0}, bh.PlanError, "timeout=0"),
    ],
)
def test_a_wrong_option_is_refused(changes: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        double.options(**changes)


def test_a_task_that_fits_nowhere_is_refused_at_plan_time() -> None:
    p = bh.Pipeline("big")
    p.add(double.options(cpus=1000), 1)
    for ask in (p.plan, p.run):
        with pytest.raises(bh.PlanError, match="1000"):
            ask(cpus=2)


def test_a_cycle_is_refused_by_name() -> None:
    p = bh.Pipeline("cycle")
    first = p.add(double, 1)
    first.after(p.add(add_up, first))
    with pytest.raises(bh.PlanError, match="double.*add_up|add_up.*double"):
        p.run()


def test_a_node_of_another_pipeline_is_refused() -> None:
    other = bh.Pipeline("other").add(double, 1)
    with pytest.raises(bh.PlanError, match="same pipeline"):
        bh.Pipeline("p").add(add_up, [other])


def plain(a: int, b: int = 0) -> None: ...
def keyword_only(a: int, *, b: int) -> None: ...
def optional_keyword(a: int, *, b: int = 0) -> None: ...
def many(a: int, *rest: int, **named: int) -> None: ...


@pytest.mark.parametrize("function", [plain, keyword_only, optional_keyword, many, print], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kwargs", [{}, {"b": 1}, {"c": 1}], ids=repr)
@pytest.mark.parametrize("count", range(4))
def test_a_node_takes_the_arguments_that_a_call_takes(
    function: Callable[..., None], count: int, kwargs: dict[str, int]
) -> None:
    add = functools.partial(bh.Pipeline("p").add, bh.task(function), *range(count), **kwargs)
    try:
        inspect.signature(function).bind(*range(count), **kwargs)
    except TypeError:
        with pytest.raises(TypeError, match=function.__name__):
            add()
    else:
        add()


def test_a_pipeline_is_written_as_it_was_built() -> None:
    p = bh.Pipeline('quoted "name" \\ ü')
    first = p.add(bh.task(name='a "b" {c}', memory="1GiB")(plain), 1)
    second = p.group("g", nodes=1).add(bh.task(many), first, b=2).after(first)
    third = p.add(bh.program('echo "a b" {word}'), word='"{}')
    document = json.loads(p.to_json())
    assert document["name"] == p.name
    tasks = document["tasks"]
    assert [task["name"] for task in tasks] == [first.name, second.name, third.name]
    assert tasks[0]["resources"]["memory"] == 1 << 30
    assert (tasks[1]["inputs"], tasks[1]["after"], tasks[1]["group"]) == ([0], [0], "g")
    assert tasks[2]["call"]["program"]["argv"] == ["echo", "a b", '"{}']
    assert document["keep"] == [1, 2]


def run_script(folder: Path, **env: str) -> subprocess.Popen[str]:
    script = folder / "script.py"
    script.write_text(
        "import bridgehead as bh, threading\n"
        "@bh.task\ndef wait(x): threading.Event().wait()\n"
        "@bh.task\ndef fine(x): return x\n"
        "p = bh.Pipeline('script')\n"
        "import os\nn = p.add(wait if os.environ.get('HANG') else fine, 1)\n"
        "if __name__ == '__main__':\n    run = p.run()\n    print('value', run[n].result())\n"
    )
    environment = {**os.environ, **env}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, script], env=environment, stdout=pipe, stderr=pipe, text=True)


def test_a_script_can_be_told_to_plan(tmp_path: Path, home: Path) -> None:
    out, err = run_script(tmp_path, BRIDGEHEAD_DO="plan", BRIDGEHEAD_CPUS="2").communicate(timeout=60)
    assert "one gang" in out and "value" not in out and err == ""


def test_a_script_can_be_told_to_submit(tmp_path: Path, home: Path) -> None:
    out, _ = run_script(tmp_path, BRIDGEHEAD_DO="submit").communicate(timeout=60)
    run = bh.connect(out.strip())
    wait_until(lambda: run.phase == "finished")
    run.close()


def test_an_interrupt_cancels_the_run_and_says_how_to_go_on(tmp_path: Path, home: Path) -> None:
    before = set((home / "runs").iterdir())
    process = run_script(tmp_path, HANG="1")
    started: list[Path] = []

    def running() -> bool:
        started[:] = [f for f in (home / "runs").iterdir() if f not in before and f.name.startswith("script-")]
        statuses = [f / "status.json" for f in started]
        return any(s.exists() and json.loads(s.read_text())["tasks"]["running"] for s in statuses)

    wait_until(running)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert "bridgehead resume script-" in err
    assert process.returncode != 0
    wait_until(lambda: not processes_of(started[0].name))


def test_the_import_is_light() -> None:
    code = (
        "import sys, bridgehead; print(*[m for m in ('numpy', 'cloudpickle', 'joblib', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "\n"
