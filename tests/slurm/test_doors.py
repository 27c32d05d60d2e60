"""Laws that hold through either door, slurmrestd and the commands: the same run, the same plan, the same words."""

from __future__ import annotations

import json

import bridgehead as bh
import pytest
from cluster import Cluster, wait_until
from support import SCRIPT, User, check

DOORS = ["rest", "socket", "cli"]


def way(user: User, door: str) -> list[object]:
    if door == "cli":
        return ["--slurm-door", "cli"]
    url = "http://ctl:6820" if door == "rest" else f"unix:{user.cluster.state}/rest/slurmrestd.sock"
    return ["--slurm-door", "rest", "--rest-url", url, "--token-file", user.token]


@pytest.mark.parametrize("door", DOORS)
def test_a_run_goes_through(user: User, cluster: Cluster, door: str) -> None:
    gpus = ["--nodes", 2, "--cpus", 2, "--gpus", 1, "--memory", "2GiB", "--time", "10m"]
    run = user.submit("moved", 8, 0.1, on=[*way(user, door), *gpus])
    check(run)
    assert bh.connect(str(run.folder)).results() == {"total": sum(n + 1000 * ((n + 4) % 8) for n in range(8))}
    (job,) = cluster.jobs(run.id)
    assert job["NumNodes"] == "2" and job["TimeLimit"] == "00:10:00" and job["MinMemoryNode"] == "2G", job
    assert job["Comment"] == f"bridgehead:{run.id}/1" or job["Comment"].startswith(f"bridgehead:{run.id}/"), job
    assert job["JobState"] == "COMPLETED"


@pytest.mark.parametrize("door", DOORS)
def test_a_plan_is_printed_and_nothing_is_submitted(user: User, cluster: Cluster, door: str) -> None:
    jobs, runs = len(cluster.jobs()), user.runs()
    words = ["plan", "--on", "slurm", *way(user, door), "--nodes", 2, "--cpus", 2, "--time", "10m"]
    text = user.check(*words, SCRIPT, "sweep", user.new_notes(), 4, 1)
    assert "srun" in text
    assert ("#SBATCH" in text) == (door == "cli")
    assert json.loads(user.check(*words[:1], "--json", *words[1:], SCRIPT, "sweep", user.new_notes(), 4, 1))
    assert user.runs() == runs
    assert len([job for job in cluster.jobs() if job["Partition"] != "short"]) <= jobs


@pytest.mark.parametrize("door", DOORS)
def test_a_waiting_run_is_explained_and_cancelled(user: User, cluster: Cluster, door: str, full: str) -> None:
    run = user.submit("gates", 1, on=[*way(user, door), "--nodes", 1, "--cpus", 1, "--slurm", f"nodelist={full}"])
    wait_until(lambda: cluster.jobs(run.id)[0]["Reason"] not in ("None", ""), "Slurm says why it waits")
    assert run.phase() == "queued"
    why = user.check("why", run.id)
    assert "queue" in why and "partition main" in why
    user.check("cancel", run.id)
    check(run, "cancelled")
