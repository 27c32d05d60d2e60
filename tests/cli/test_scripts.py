"""Laws of `run`, `plan` and `submit`: what becomes of a user's script."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import termios
from pathlib import Path

import pytest
from cli_support import BINARY, Cli, open_gate, processes_of, wait_until


def test_a_script_in_a_pipe_prints_what_it_prints_and_nothing_else(cli: Cli) -> None:
    assert cli.check("run", cli.script, "quick", "look") == "value 3\n"


def test_agents_are_as_many_as_asked_for(cli: Cli) -> None:
    before = cli.runs()
    assert cli.check("run", "--agents", 2, "--cpus", 2, cli.script, "quick", "look") == "value 3\n"
    [run] = cli.runs() - before
    assert cli.status(run)["agents_expected"] == 2


def test_sums_of_objects_are_asked_for_by_an_option(cli: Cli) -> None:
    for options, asked in (((), False), (("--verify-objects",), True)):
        before = cli.runs()
        assert cli.check("run", *options, cli.script, "quick", "look") == "value 3\n"
        [run] = cli.runs() - before
        assert json.loads((cli.folder(run) / "run.json").read_text()).get("verify_objects", False) == asked


def test_the_exit_code_of_run_is_the_scripts_own(cli: Cli) -> None:
    assert cli.run("run", cli.script, "quick", "exit").returncode == 17


def test_a_failed_run_is_told_and_its_exception_is_the_scripts(cli: Cli) -> None:
    done = cli.run("run", cli.script, "fail")
    assert done.returncode == 0 and "is failed; `bridgehead why fail-" in done.stderr
    done = cli.run("run", cli.script, "fail", "look")
    assert done.returncode == 1 and "UpstreamFailed" in done.stderr


def on_a_terminal(cli: Cli, *words: object, gate: Path | None = None) -> tuple[bytes, int]:
    """What a command draws on a terminal that is its standard error, and its exit code. The gate is opened when it has
    drawn something."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))
    process = cli.start(*words, stderr=theirs)
    os.close(theirs)
    drawn = b""
    try:
        while block := os.read(ours, 4096):
            if gate is not None and not drawn:
                open_gate(gate)
            drawn += block
    except OSError:
        pass  # The last process that had the terminal has closed it.
    os.close(ours)
    process.communicate(timeout=60)
    return drawn, process.returncode


def test_a_bar_is_drawn_on_a_terminal(cli: Cli) -> None:
    """In a pipe nothing is: `Cli.check` has nothing on standard error."""
    drawn, code = on_a_terminal(cli, "run", cli.script, "quick")
    assert b"\r" in drawn and code == 0


def test_watch_draws_a_bar_on_a_terminal(cli: Cli, gate: Path) -> None:
    run = cli.submit("hang", gate)
    cli.at_the_gate(run)
    drawn, code = on_a_terminal(cli, "watch", run, gate=gate)
    assert b"1/3" in drawn and code == 0


def test_a_plan_says_why_and_starts_nothing(cli: Cli) -> None:
    before = cli.runs()
    text = cli.check("plan", cli.script, "quick", out="4 tasks")
    assert "why:" in text
    plan = json.loads(cli.check("plan", "--json", cli.script, "quick"))
    assert plan["version"] == 1 and plan["reasons"] and plan["gangs"][0]["tasks"] == 4
    assert cli.runs() == before


def test_a_reader_of_a_plan_that_leaves_is_no_error(cli: Cli) -> None:
    with cli.start("plan", cli.script, "quick") as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(60) == 0


def test_what_cannot_be_planned_is_refused_with_the_reason(cli: Cli) -> None:
    before = cli.runs()
    cli.check("plan", cli.script, "greedy", code=1, err="100000")
    cli.check("submit", cli.script, "greedy", code=1, err="100000")
    assert cli.runs() == before


def test_submit_prints_the_id_and_returns(cli: Cli, gate: Path) -> None:
    run = json.loads(cli.check("submit", "--json", cli.script, "hang", gate))
    assert Path(run["folder"]) == cli.folder(run["run"])
    open_gate(gate)
    cli.check("watch", run["run"], out="finished")


@pytest.mark.parametrize("what", ["plan", "submit"])
def test_a_script_without_a_pipeline_is_an_error(cli: Cli, what: str, tmp_path: Path) -> None:
    script = tmp_path / "plain.py"
    script.write_text("print('nothing to see')\n")
    cli.check(what, script, code=3, err="without a pipeline")
    script.write_text("import bridgehead as bh\nwith bh.Executor(1) as e:\n    print(e.submit(abs, 1).result())\n")
    cli.check(what, script, code=1, err="starts an Executor")
    script.write_text("raise SystemExit(17)\n")
    assert cli.run(what, script).returncode == 17


def test_a_missing_script_or_interpreter_is_named(cli: Cli, tmp_path: Path) -> None:
    cli.check("run", tmp_path / "none.py", code=3, err="none.py")
    cli.check("plan", tmp_path, code=3, err="there is no script")
    cli.check("run", "--python", "/nowhere/python", cli.script, code=3, err="/nowhere/python")
    cli.check("submit", "--python", "/nowhere/python", cli.script, code=3, err="/nowhere/python")
    cli.check("run", "--python", "/etc/passwd", cli.script, code=5, err="/etc/passwd")


def test_a_trace_has_every_task_in_the_form_that_viewers_read(cli: Cli, tmp_path: Path) -> None:
    trace = tmp_path / "trace.json"
    cli.check("run", "--trace", trace, cli.script, "quick")
    wait_until(trace.exists)
    events = json.loads(trace.read_text())["traceEvents"]
    spans = [event for event in events if event["ph"] == "X"]
    assert sorted(span["args"]["task"] for span in spans) == [0, 1, 2, 3]
    assert all(span["dur"] >= 0 and span["ts"] >= 0 and span["cat"] == "task" for span in spans)
    ends = [[event["id"] for event in events if event["ph"] == phase] for phase in "be"]
    assert sorted(ends[0]) == sorted(ends[1])  # A wait or transfer that begins also ends.
    lanes = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert lanes == {(span["pid"], span["tid"]) for span in spans}


def test_a_trace_that_cannot_be_written_is_refused_before_anything_runs(cli: Cli) -> None:
    before = cli.runs()
    done = cli.run("run", "--trace", "/nowhere/trace.json", cli.script, "quick")
    assert done.returncode == 1 and "/nowhere/trace.json" in done.stderr
    assert cli.runs() == before


@pytest.mark.parametrize("how", ["bridgehead", "python"])
def test_an_interrupt_cancels_and_leaves_nothing(cli: Cli, gate: Path, how: str) -> None:
    before = cli.runs()
    if how == "bridgehead":
        script = cli.start("run", cli.script, "hang", gate)
    else:
        python = BINARY.with_name("python")
        pipe = subprocess.PIPE
        script = subprocess.Popen([python, cli.script, "hang", gate], env=cli.env, stdout=pipe, stderr=pipe, text=True)
    wait_until(lambda: cli.runs() - before)
    [run] = cli.runs() - before
    cli.at_the_gate(run)
    script.send_signal(signal.SIGINT)
    _, err = script.communicate(timeout=60)
    assert f"bridgehead resume {run}" in err and "Traceback" not in err
    assert script.returncode == -signal.SIGINT
    wait_until(lambda: not processes_of(run))
    assert cli.json("status", run)["phase"] == "cancelled"


def test_a_second_interrupt_does_not_wait(cli: Cli, gate: Path) -> None:
    before = cli.runs()
    script = cli.start("run", cli.script, "hang", gate)
    wait_until(lambda: cli.runs() - before)
    [run] = cli.runs() - before
    cli.at_the_gate(run)
    head = cli.status(run)["pid"]
    os.kill(head, signal.SIGSTOP)  # A head that does not answer, so that the first interrupt has to wait.
    script.send_signal(signal.SIGINT)
    assert script.stderr is not None
    assert "cancelling" in script.stderr.readline()
    script.send_signal(signal.SIGINT)
    assert script.wait(60) == -signal.SIGINT
    os.kill(head, signal.SIGCONT)
    script.communicate(timeout=60)
    wait_until(lambda: not processes_of(run))
    assert cli.json("status", run)["phase"] == "cancelled"


def test_an_interrupted_executor_does_not_wait_for_what_it_was_given(cli: Cli, gate: Path, tmp_path: Path) -> None:
    script = tmp_path / "executor.py"
    script.write_text(
        "import sys, bridgehead as bh\n"
        "def gate(path):\n    print('at the gate')\n    open(path).read()\n"
        "with bh.Executor(1) as executor:\n"
        "    for future in [executor.submit(gate, sys.argv[1]) for _ in range(3)]:\n        future.result()\n"
    )
    before = cli.runs()
    process = cli.start("run", script, gate)
    wait_until(lambda: cli.runs() - before)
    [run] = cli.runs() - before
    cli.at_the_gate(run)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    wait_until(lambda: not processes_of(run))
