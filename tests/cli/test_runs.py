"""Laws of the commands that look at runs and act on them: `ps status watch logs why cancel resume results gc`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import Cli, open_gate, processes_of, wait_until

LOOKING = ["status", "watch", "logs", "why", "results"]


@pytest.fixture(scope="module")
def quick(cli: Cli) -> str:
    """A run that has finished."""
    return cli.finished("quick")


@pytest.fixture(scope="module")
def failed(cli: Cli) -> str:
    """A run that has failed."""
    return cli.finished("fail", phase="failed")


@pytest.fixture
def hanging(cli: Cli, gate: Path) -> Iterator[str]:
    """A run at work, which ends when its gate is opened."""
    run = cli.submit("hang", gate)
    cli.at_the_gate(run)
    yield run
    if cli.json("status", run)["phase"] in ("running", "cancelling"):
        cli.run("cancel", run)
    wait_until(lambda: not processes_of(run))


def test_a_finished_run_is_told_alike_by_all_that_look_at_it(cli: Cli, quick: str) -> None:
    assert cli.json("status", quick)["tasks"]["finished"] == 4
    assert cli.json("watch", quick) == {"phase": "finished", "message": ""}
    rows = cli.json("results", quick)
    assert [row["task"] for row in rows] == [0, 1, 2, 3] and all(row["kept"] == "journal" for row in rows)
    assert cli.json("why", quick)["because"] == ["The run has finished: 4 task(s)."]
    cli.check("status", quick, out="4 finished")
    cli.check("results", quick, out="t3 add")


def test_ps_lists_open_runs_and_on_request_all(cli: Cli, quick: str, hanging: str) -> None:
    listed = {row["run"]: row["phase"] for row in cli.json("ps")}
    assert listed[hanging] == "running" and quick not in listed
    listed = {row["run"]: row["phase"] for row in cli.json("ps", "--all")}
    assert (listed[hanging], listed[quick]) == ("running", "finished")
    cli.check("ps", out=hanging)


def test_a_run_is_named_by_id_prefix_or_folder(cli: Cli, quick: str) -> None:
    for name in (quick, quick[:-1], cli.folder(quick)):
        assert cli.json("status", name)["run"] == quick


@pytest.mark.parametrize("command", [*LOOKING, "cancel", "resume"])
def test_a_run_that_is_not_there_is_an_error(cli: Cli, command: str) -> None:
    cli.check(command, "no-such-run", code=3, err='no run "no-such-run"')


@pytest.mark.parametrize("command", [*LOOKING, "cancel", "resume"])
def test_a_prefix_of_several_runs_is_an_error_that_names_them(cli: Cli, quick: str, failed: str, command: str) -> None:
    cli.check(command, "", code=3, err=quick)


def test_logs_are_those_of_the_tasks_asked_for(cli: Cli, quick: str) -> None:
    everything = "speaking 0\nspeaking 1\nspeaking 2\n"
    assert sorted(cli.check("logs", quick).splitlines()) == everything.splitlines()
    assert cli.check("logs", quick, "t1") == cli.check("logs", quick, "1") == "speaking 1\n"
    assert sorted(cli.check("logs", quick, "speak").splitlines()) == everything.splitlines()
    assert cli.check("logs", quick, "add") == ""
    entries = [json.loads(line) for line in cli.check("logs", quick, "--json").splitlines()]
    assert {(entry["task"], entry["stream"]) for entry in entries} == {(0, "stdout"), (1, "stdout"), (2, "stdout")}


@pytest.mark.parametrize("command", ["logs", "why"])
def test_a_task_that_is_not_there_is_an_error_that_names_those_that_are(cli: Cli, quick: str, command: str) -> None:
    cli.check(command, quick, "t4", code=3, err="t0) to add (t3)")
    cli.check(command, quick, "shout", code=3, err='no task is named "shout"')


def test_logs_follow_a_task_until_the_run_ends(cli: Cli, hanging: str, gate: Path) -> None:
    with cli.start("logs", hanging, "gate", "--follow") as follower:
        assert follower.stdout is not None
        assert follower.stdout.readline() == "at the gate\n"
        open_gate(gate)
        out, err = follower.communicate(timeout=60)
    assert (out, err, follower.returncode) == ("", "", 0)


def test_a_reader_that_leaves_early_is_no_error(cli: Cli) -> None:
    run = cli.finished("shout")
    with cli.start("logs", run) as writer:
        assert writer.stdout is not None and writer.stderr is not None
        assert writer.stdout.readline() == "x\n"
        writer.stdout.close()
        assert writer.stderr.read() == ""
        assert writer.wait(60) == 0


def test_a_full_disk_behind_standard_output_is_an_error(cli: Cli, quick: str) -> None:
    with open("/dev/full", "w") as full:
        cli.check("status", quick, code=5, err="No space left", stdout=full)


def test_why_tells_what_failed_and_what_it_held_up(cli: Cli, failed: str) -> None:
    text = cli.check("why", failed, out="fail (t0) failed: LookupError: nothing there (File ")
    assert "1 task(s) could not start" in text and f"bridgehead resume {failed}" in text
    cli.check("why", failed, "add", out="add (t1) could not start: fail (t0), which it needs, has no value.")
    cli.check("status", failed, out="failed   fail (t0): LookupError: nothing there")


def test_why_tells_what_is_waited_for(cli: Cli, hanging: str) -> None:
    cli.check("why", hanging, "add", out="add (t2) waits for gate (t1) (running).")
    cli.check("why", hanging, "gate", out="gate (t1) runs on agent 0, attempt 1.")
    cli.check("why", hanging, "speak", out="its value (")
    cli.check("why", hanging, out="1 task(s) run and 1 wait")


def test_watch_follows_to_the_end_and_its_code_says_how(cli: Cli, hanging: str, gate: Path, failed: str) -> None:
    with cli.start("watch", hanging, "--json") as watcher:
        assert watcher.stdout is not None
        assert json.loads(watcher.stdout.readline())["tasks"]["running"] == 1
        open_gate(gate)
        out, err = watcher.communicate(timeout=60)
    assert json.loads(out.splitlines()[-1])["phase"] == "finished"
    assert (err, watcher.returncode) == ("", 0)
    cli.check("watch", failed, code=1, out="failed: 2 of 2 tasks failed")


def test_a_cancelled_run_can_be_resumed_and_runs_only_what_is_left(cli: Cli, hanging: str, gate: Path) -> None:
    cli.check("resume", hanging, code=4, err="is at work")
    assert cli.json("cancel", hanging, "--reason", "lunch") == {"run": hanging, "request": "delivered"}
    cli.check("watch", hanging, code=1, out="cancelled: lunch")
    wait_until(lambda: not processes_of(hanging))
    cli.check("cancel", hanging, code=4, err="nothing to cancel: the run is cancelled")
    cli.check("why", hanging, "gate", out="was cancelled: lunch.")

    opener = threading.Thread(target=open_gate, args=(gate,))  # Opening waits for the task that reads.
    opener.start()
    cli.check("resume", hanging, out="finished")
    opener.join(60)
    wait_until(lambda: not processes_of(hanging))
    assert cli.json("status", hanging)["attempt"] == 2
    assert cli.check("logs", hanging, "speak") == "speaking 7\n"
    cli.check("resume", hanging, out="nothing is left to do")


def test_a_run_outlives_the_terminal_that_it_was_started_from(cli: Cli, hanging: str, gate: Path) -> None:
    os.kill(cli.status(hanging)["pid"], signal.SIGHUP)
    open_gate(gate)
    cli.check("watch", hanging, out="finished")


def test_a_run_whose_head_was_killed_is_lost_until_it_is_resumed(cli: Cli, hanging: str, gate: Path) -> None:
    with cli.start("watch", hanging) as watcher:
        head = json.loads((cli.folder(hanging) / "head.json").read_text())["pid"]
        os.kill(head, signal.SIGKILL)
        _, err = watcher.communicate(timeout=60)
    assert watcher.returncode == 4 and f"`bridgehead resume {hanging}` goes on" in err
    wait_until(lambda: not processes_of(hanging))
    assert cli.json("status", hanging)["phase"] == "lost"
    assert hanging in {row["run"] for row in cli.json("ps")}
    cli.check("why", hanging, out="The head is gone without having ended the run")
    cli.check("cancel", hanging, code=4, err="the run is lost")
    os.utime(cli.folder(hanging) / "status.json", (0, 0))
    assert hanging not in cli.json("gc", "--older-than", 1)["runs"]
    assert hanging in cli.json("gc", "--older-than", 1, "--lost", "--dry-run")["runs"]

    opener = threading.Thread(target=open_gate, args=(gate,))
    opener.start()
    cli.check("resume", hanging, "--detach", out="as attempt 2")
    cli.check("watch", hanging, out="finished")
    opener.join(60)


@pytest.fixture
def copy(cli: Cli, quick: str) -> Iterator[str]:
    """A run folder to be damaged."""
    run = "copy-of-a-run"
    shutil.copytree(cli.folder(quick), cli.folder(run))
    yield run
    shutil.rmtree(cli.folder(run))


@pytest.mark.parametrize(
    ("file", "commands"),
    [
        ("status.json", ["status", "cancel"]),
        ("run.json", ["why", "resume"]),
        ("spec.json", ["why", "results"]),
        ("journal/000001.bhj", ["why", "results", "resume"]),
    ],
)
def test_a_damaged_run_folder_is_told_with_the_file(cli: Cli, copy: str, file: str, commands: list[str]) -> None:
    path = cli.folder(copy) / file
    path.write_bytes(b"this is not what you are looking for")
    for command in commands:
        cli.check(command, copy, code=6, err=str(path))
    assert path.read_bytes() == b"this is not what you are looking for"
    listed = {row["run"]: row["phase"] for row in cli.json("ps", "--all")}
    assert listed[copy] == ("damaged" if file == "status.json" else "finished")


def test_what_is_missing_from_a_run_folder_is_told(cli: Cli, copy: str) -> None:
    (cli.folder(copy) / "run.json").unlink()
    cli.check("resume", copy, code=6, err="run.json")
    (cli.folder(copy) / "status.json").unlink()
    cli.check("status", copy, code=6, err="head.log")
    shutil.rmtree(cli.folder(copy) / "logs")
    cli.check("logs", copy, code=6, err="logs")


def test_a_journal_of_a_newer_version_is_refused_and_left(cli: Cli, copy: str) -> None:
    path = cli.folder(copy) / "journal/000001.bhj"
    journal = bytearray(path.read_bytes())
    journal[8:10] = (99).to_bytes(2, "little")
    path.write_bytes(journal)
    cli.check("resume", copy, code=6, err="version 99")
    cli.check("why", copy, code=6, err="version 99")
    assert path.read_bytes() == journal


def test_a_torn_journal_is_read_as_far_as_it_goes(cli: Cli, copy: str) -> None:
    path = cli.folder(copy) / "journal/000001.bhj"
    path.write_bytes(path.read_bytes()[:-5])
    done = cli.run("results", copy, "--json")
    assert done.returncode == 0 and len(json.loads(done.stdout)) == 4
    assert "the journal of attempt 1 is damaged: its last" in done.stderr


def test_gc_removes_what_it_says_and_nothing_else(cli: Cli, quick: str, hanging: str) -> None:
    old, young = "gc-old", "gc-young"
    for run in (old, young):
        shutil.copytree(cli.folder(quick), cli.folder(run))
    os.utime(cli.folder(old) / "status.json", (0, 0))
    stale, fresh = (
        cli.sockets / f"bridgehead-{os.geteuid()}" / name for name in ("0123456789abcdef", "fedcba9876543210")
    )
    stale.mkdir(0o700)
    fresh.mkdir(0o700)
    os.utime(stale, (0, 0))
    told = cli.json("gc", "--older-than", 3, "--dry-run")
    assert told == {"runs": [old], "sockets": [str(stale)], "objects": [], "removed": False}
    assert cli.folder(old).exists() and stale.exists()
    assert cli.json("gc", "--older-than", 3) == {**told, "removed": True}
    assert not cli.folder(old).exists() and not stale.exists()
    assert cli.folder(young).exists() and fresh.exists()
    cli.check("gc", "--older-than", 3, out="removed 0 run(s) and 0 folder(s) of sockets")
    os.utime(cli.folder(hanging) / "status.json", (0, 0))
    assert hanging not in cli.json("gc", "--older-than", 1)["runs"]
    assert cli.json("status", hanging)["phase"] == "running"
    shutil.rmtree(cli.folder(young))
    fresh.rmdir()
