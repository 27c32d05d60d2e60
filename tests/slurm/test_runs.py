"""Laws of a run on several nodes: all of them work at it, arrays move between them, its client may go, and everything that is
asked about it later is answered from the run folder."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterable
from pathlib import Path

import bridgehead as bh
import pytest
from cluster import ROOT, Cluster, wait_until
from support import Submitted, User, check

GANG = ["--nodes", 3, "--cpus", 2, "--partition", "main", "--time", "10m"]


def spans(path: Path, name: str) -> Iterable[dict[str, object]]:
    return [event for event in json.loads(path.read_text())["traceEvents"] if event.get("cat") == name]


def test_the_surrogate_example_runs_on_three_nodes_and_moves_arrays(user: User) -> None:
    trace = user.new_notes() / "trace.json"
    out = user.check("submit", "--on", "slurm", *GANG, "--trace", trace, ROOT / "examples/surrogate.py")
    run = Submitted(user, out.strip(), trace.parent)
    status = check(run)
    assert status["tasks"]["finished"] == 129
    joined = {host for _, name, _, _, host in run.events() if name == "agent-joined"}
    assert len(joined) == 3
    assert {event["pid"] for event in spans(trace, "task")} == {0, 1, 2}, "tasks ran on all three"
    assert len(list(spans(trace, "transfer"))) > 0
    (model,) = bh.connect(str(run.folder)).results().values()
    assert model["score"] > 0.9


def test_values_made_on_other_nodes_are_right(user: User) -> None:
    run = user.submit("moved", 24, 0.2, on=GANG)
    check(run)
    assert len(run.hosts()) == 3
    halves = sum(n + 1000 * ((n + 12) % 24) for n in range(24))
    assert bh.connect(str(run.folder)).results() == {"total": halves}


@pytest.fixture
def gates(user: User) -> Submitted:
    """A run whose two tasks wait on two nodes."""
    run = user.submit("gates", 2, on=["--nodes", 2, "--cpus", 1, "--time", "10m"])
    run.wait_noted("begin", 2)
    return run


def test_a_run_is_asked_about_from_any_shell_while_it_runs_and_after(gates: Submitted, user: User) -> None:
    run = gates
    assert run.phase() == "running"
    assert {agent["host"] for agent in run.status()["agents"]} == set(run.nodes())
    assert run.id in user.check("ps")
    assert user.check("why", run.id).strip()
    assert user.json("results", run.id) == []
    watcher = user.start("bridgehead", "watch", run.id)
    run.open_gate()
    watcher.communicate(timeout=100)
    assert watcher.returncode == 0
    check(run)
    assert len(user.json("results", run.id)) == 2
    assert sorted(bh.connect(str(run.folder)).results().values()) == sorted(run.hosts())
    # A second look, from a node this time: the folder is enough.
    assert user.json("status", run.id, host="n4")["phase"] == "finished"


def test_nothing_of_a_run_is_on_the_login_node_and_no_secret_is_in_sight(gates: Submitted, cluster: Cluster) -> None:
    run = gates
    found = cluster.processes(str(run.user.home))
    assert found and not [line for line in found if line.startswith("ctl:")]
    secrets = [path.read_bytes().strip() for path in (run.folder / "tls").iterdir() if path.is_file()]
    secrets.append(run.user.token.read_bytes().strip())
    for secret in secrets:
        assert cluster.processes(secret.decode(errors="replace")[:60]) == []
    assert run.folder.stat().st_mode & 0o077 == 0
    assert all(path.stat().st_mode & 0o077 == 0 for path in (run.folder / "tls").iterdir())
    run.open_gate()
    check(run)


def test_a_client_that_is_killed_after_the_submission_is_not_missed(user: User, cluster: Cluster) -> None:
    notes = user.new_notes()
    words = ["submit", "--on", "slurm", "--nodes", 2, "--cpus", 1, "--time", "10m"]
    pipelines = Path(__file__).with_name("pipelines.py")
    client = user.start("bridgehead", *words, pipelines, "sweep", notes, 8, 0.5)
    assert client.stdout is not None
    run = Submitted(user, client.stdout.readline().strip(), notes)
    os.kill(client.pid, signal.SIGKILL)
    client.communicate()
    wait_until(
        lambda: not [line for line in cluster.processes(str(user.home)) if line.startswith("ctl:")], "it is gone"
    )
    check(run)
    assert bh.connect(str(run.folder)).results() == {"total": sum(n * n for n in range(8))}


PYTHON = """
import bridgehead as bh
from pathlib import Path

@bh.task
def double(x: int) -> int:
    return 2 * x

p = bh.Pipeline("python")
node = p.add(double, 21)
if __name__ == "__main__":
    run = p.submit(on=bh.Slurm(nodes=2, cpus=1, partition="main", time="10m"))
    again = bh.connect(run.id)
    assert again.wait(100) == "finished"
    print(again.id, list(again.results().values()), run[node].result(100))
"""


def test_python_submits_waits_and_reads_results_on_the_login_node(user: User) -> None:
    script = user.new_notes() / "script.py"
    script.write_text(PYTHON)
    done = user.run("python", script)
    assert done.code == 0, done
    run, *results = done.out.split()
    assert results == ["[42]", "42"]
    check(Submitted(user, run, script.parent))


def test_tasks_see_their_time_limit_and_their_own_gpus(user: User) -> None:
    left = user.submit("left", on=["--nodes", 1, "--cpus", 1, "--time", "5m"])
    devices = user.submit("devices", 4, on=["--nodes", 2, "--cpus", 2, "--gpus", 2, "--time", "5m"])
    check(left)
    check(devices)
    (seconds,) = bh.connect(str(left.folder)).results().values()
    assert 0 < seconds < 300
    for host, numbers, shown in bh.connect(str(devices.folder)).results().values():
        assert host in devices.hosts() and len(numbers) == 1 and shown in ("0", "1")
