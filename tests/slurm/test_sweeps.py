"""Laws of sweeps: one submission however many members; a member that fails costs itself only; limits hold; what failed runs
again, and nothing else."""

from __future__ import annotations

from cluster import Cluster
from support import Submitted, User, check

GANG = ["--nodes", 3, "--cpus", 2, "--time", "10m", "--slurm", "exclude=n1"]


def most_at_once(run: Submitted) -> int:
    """Most tasks that were between their begin and their end."""
    now = most = 0
    for what, _, _ in run.noted():
        now += 1 if what == "begin" else -1
        most = max(most, now)
    return most


def test_two_thousand_members_with_twenty_poisoned(cluster: Cluster, user: User) -> None:
    run = user.submit("poison", 2000, 100, on=GANG)
    status = check(run, "failed")
    assert (status["tasks"]["finished"], status["tasks"]["failed"]) == (1980, 20)
    assert len(cluster.jobs(run.id)) == 1, "one submission"
    assert len(run.hosts()) == 3
    assert "poison in" in user.check("why", run.id)
    user.check("watch", run.id, code=1)
    # What failed is run again, and nothing else.
    user.check("resume", run.id, code=1)
    check(run, "failed", again=True)
    again = [task for _, name, task, _, _ in run.events() if name == "task-assigned"][2000:]
    assert len(again) == 20


def test_a_sweep_ends_when_too_many_fail(user: User) -> None:
    run = user.submit("poison", 2000, 10, on=[*GANG, "--max-fails", 5])
    status = check(run, "failed")
    assert status["tasks"]["finished"] < 1800
    assert "--max-fails" in user.check("why", run.id) or "5" in user.check("why", run.id)


def test_no_more_run_at_a_time_than_are_allowed(user: User) -> None:
    run = user.submit("sweep", 20, 0.2, on=[*GANG, "--max-running", 2])
    check(run)
    assert most_at_once(run) == 2


def test_the_elements_of_an_array_work_at_one_run(cluster: Cluster, user: User) -> None:
    run = user.submit("sweep", 40, 0.5, on=["--nodes", 1, "--cpus", 1, "--time", "10m", "--array", 3])
    check(run)
    assert len(run.hosts()) >= 1
    assert run.count("agent-joined") == 3
    ids = {job.get("ArrayJobId") for job in cluster.jobs(run.id)}
    assert len(ids) == 1, "one submission"
